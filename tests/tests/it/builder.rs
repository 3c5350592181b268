//! A builder gives what was asked for or says why not; nothing weaker.

use std::error::Error as _;

use trampfd::{Backend, Builder, Closure, Error, Unavailable, support};
use trampfd_tests::{alone_on, backends, each};

type One = unsafe extern "C" fn(i32) -> i32;

fn one(builder: &Builder) -> Result<Closure<One>, Error> {
    builder.closure(|a: i32, b: &i32| a + b, 2)
}

#[test]
fn a_required_backend_is_the_one_that_is_used() {
    for backend in backends() {
        let f = one(&Builder::new().require(backend)).unwrap();
        assert_eq!(f.backend(), backend);
        assert_eq!(Builder::new().require(backend).backend().unwrap(), backend);
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(40) }, 42);
    }
}

#[test]
fn both_backends_can_be_used_in_one_process() {
    // Text is always there.
    let text = one(&Builder::new().require(Backend::Text)).unwrap();
    each(|builder| {
        let other = one(builder).unwrap();
        // SAFETY: the closures live.
        assert_eq!(unsafe { text.as_ptr()(40) + other.as_ptr()(40) }, 84);
    });
    assert_eq!(text.backend(), Backend::Text);
}

#[test]
fn the_choice_agrees_with_what_is_supported() {
    let support = support();
    let expected = if support.kernel.is_ok() { Backend::Kernel } else { Backend::Text };
    assert_eq!(support.backend(), expected);
    assert_eq!(Builder::new().backend().unwrap(), expected);
    let f: Closure<One> = Closure::new(|a: i32, b: &i32| a + b, 2).unwrap();
    assert_eq!(f.backend(), expected);
    for backend in backends() {
        assert!(backend == Backend::Text || support.kernel.is_ok(), "{support:?}");
    }
}

#[test]
fn without_the_device_the_kernel_service_is_refused_with_the_reason() {
    let end = alone_on(Backend::Text, |text| {
        let folder = format!("/tmp/trampfd-tests-{}", std::process::id());
        std::fs::create_dir(&folder).unwrap();
        let path = std::ffi::CString::new(folder.clone()).unwrap();
        // SAFETY: changes what this process sees of the file system. Who is not root becomes so in
        // a name space of its own.
        unsafe {
            if libc::geteuid() != 0 {
                assert_eq!(libc::unshare(libc::CLONE_NEWUSER), 0, "a name space of users");
            }
            let here = libc::open(c".".as_ptr(), libc::O_RDONLY);
            let outside = libc::open(c"/".as_ptr(), libc::O_RDONLY);
            assert_eq!(libc::chroot(path.as_ptr()), 0);
            assert_eq!(libc::chdir(c"/".as_ptr()), 0);

            let kernel = Builder::new().require(Backend::Kernel);
            for error in [one(&kernel).unwrap_err(), kernel.seal().unwrap_err()] {
                assert!(
                    matches!(
                        error,
                        Error::Unavailable {
                            backend: Backend::Kernel,
                            reason: Unavailable::NotPresent
                        }
                    ),
                    "{error:?}"
                );
                assert!(error.to_string().contains("kernel service"), "{error}");
                let why = error.source().unwrap().to_string();
                assert!(why.contains("/dev/trampfd"), "{why}");
            }
            assert!(matches!(support().kernel, Err(Unavailable::NotPresent)));
            assert!(kernel.prewarm::<One, _, i32, _>(1, |a: i32, b: &i32| a + b).is_err());
            // Without wishes it is text, and text works.
            assert_eq!(one(&Builder::new()).unwrap().backend(), Backend::Text);
            assert_eq!(one(text).unwrap().as_ptr()(40), 42);

            // Something else of that name is not the device.
            std::fs::create_dir("/dev").unwrap();
            std::fs::write("/dev/trampfd", "").unwrap();
            assert!(matches!(support().kernel, Err(Unavailable::Failed(_))), "{:?}", support());
            std::fs::remove_dir_all("/dev").unwrap();

            assert_eq!(libc::fchdir(outside), 0);
            assert_eq!(libc::chroot(c".".as_ptr()), 0);
            assert_eq!(libc::fchdir(here), 0);
        }
        std::fs::remove_dir(&folder).unwrap();
    });
    end.is_good();
}

#[test]
fn text_cannot_be_sealed() {
    let error = Builder::new().require(Backend::Text).seal().unwrap_err();
    assert!(matches!(error, Error::Unsupported { backend: Backend::Text, .. }), "{error:?}");
    assert!(error.to_string().contains("cannot seal"), "{error}");
    assert!(one(&Builder::new().require(Backend::Text)).is_ok());
}

#[test]
fn a_closure_shows_its_stub_and_backend() {
    each(|builder| {
        let f = one(builder).unwrap();
        let text = format!("{f:?}");
        assert!(text.contains(&format!("{:#x}", f.as_ptr() as usize)), "{text}");
        assert!(text.contains(&format!("{:?}", f.backend())), "{text}");
    });
}

#[test]
fn a_closure_is_as_small_as_two_words() {
    assert_eq!(size_of::<Closure<One>>(), 2 * size_of::<usize>());
}
