//! `support()` tells the different kinds of no from each other. Each process sees a /dev of its
//! own making.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::ptr::null;

use trampfd::{Backend, Builder, Closure, Error, Unavailable, support};
use trampfd_tests::{all_good, alone_cases_on, alone_on};

type One = unsafe extern "C" fn(i32) -> i32;

fn one(builder: &Builder) -> Result<Closure<One>, Error> {
    builder.closure(|a: i32, b: &i32| a + b, 2)
}

/// A root directory of this process's own with /dev/trampfd, of this device number and mode, on a
/// mount with these options.
fn own_dev(device: u64, mode: u32, options: u64) {
    let folder = CString::new(format!("/tmp/trampfd-tests-{}", std::process::id())).unwrap();
    // SAFETY: plain calls with C strings; they change what this process sees of the file system.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "root?");
        let private = libc::MS_REC | libc::MS_PRIVATE;
        assert_eq!(libc::mount(null(), c"/".as_ptr(), null(), private, null()), 0);
        assert_eq!(libc::mkdir(folder.as_ptr(), 0o755), 0);
        let tmpfs = c"tmpfs".as_ptr();
        assert_eq!(
            libc::mount(tmpfs, folder.as_ptr(), tmpfs, options, c"mode=755".as_ptr().cast()),
            0
        );
        assert_eq!(libc::chdir(folder.as_ptr()), 0);
        assert_eq!(libc::mkdir(c"dev".as_ptr(), 0o755), 0);
        libc::umask(0);
        assert_eq!(libc::mknod(c"dev/trampfd".as_ptr(), libc::S_IFCHR | mode, device), 0);
        assert_eq!(libc::chroot(c".".as_ptr()), 0);
    }
}

/// The device's number.
fn device() -> u64 {
    std::fs::metadata("/dev/trampfd").expect("the module is loaded").rdev()
}

/// The reason is said by `support` and by the error of a closure.
fn reason(builder: &Builder, is: impl Fn(&Unavailable) -> bool) {
    let supported = support();
    assert!(supported.kernel.as_ref().is_err_and(&is), "{supported:?}");
    let error = one(builder).unwrap_err();
    assert!(matches!(&error, Error::Unavailable { reason, .. } if is(reason)), "{error:?}");
    // Text works without wishes.
    assert_eq!(one(&Builder::new()).unwrap().backend(), Backend::Text);
}

#[test]
fn a_dev_of_ones_own_works() {
    alone_on(Backend::Kernel, |builder| {
        own_dev(device(), 0o444, 0);
        assert!(support().kernel.is_ok(), "{:?}", support());
        one(builder).unwrap();
    })
    .is_good();
}

#[test]
fn a_device_that_may_not_be_opened_is_not_permitted() {
    alone_on(Backend::Kernel, |builder| {
        own_dev(device(), 0o600, 0);
        // SAFETY: gives up rights.
        unsafe { assert_eq!(libc::setuid(65534), 0) };
        reason(builder, |why| {
            matches!(why, Unavailable::NotPermitted(e) if e.raw_os_error() == Some(libc::EACCES))
        });
    })
    .is_good();
}

#[test]
fn a_noexec_mount_is_said_to_be_one() {
    alone_on(Backend::Kernel, |builder| {
        own_dev(device(), 0o444, libc::MS_NOEXEC);
        reason(builder, |why| matches!(why, Unavailable::NoexecMount));
    })
    .is_good();
}

#[test]
fn a_node_without_a_service_is_switched_off() {
    alone_on(Backend::Kernel, |builder| {
        // A minor number that nobody has.
        own_dev(device() + 77, 0o444, 0);
        reason(builder, |why| matches!(why, Unavailable::SwitchedOff));
    })
    .is_good();
}

#[test]
fn a_service_whose_parameter_says_no_is_switched_off() {
    let enabled = "/sys/module/trampfd/parameters/enabled";
    let end = alone_on(Backend::Kernel, |builder| {
        let enabled = "/sys/module/trampfd/parameters/enabled";
        std::fs::write(enabled, "N").unwrap();
        reason(builder, |why| matches!(why, Unavailable::SwitchedOff));
    });
    std::fs::write(enabled, "Y").unwrap();
    end.is_good();
}

#[test]
fn a_filter_that_refuses_executable_mappings_is_named() {
    let cases = &["mmap", "ioctl"];
    all_good(&alone_cases_on(&[Backend::Kernel], cases, |builder, case| {
        match case {
            "mmap" => refuse(libc::SYS_mmap, 2, libc::PROT_EXEC as u32, libc::EACCES),
            _ => refuse(libc::SYS_ioctl, 1, trampfd_sys::TRAMPFD_INFO, libc::EACCES),
        }
        reason(builder, |why| matches!(why, Unavailable::Lsm(_)));
    }));
}

/// A seccomp filter: system call `nr` fails with `errno` if its argument has all of `bits`.
fn refuse(nr: libc::c_long, argument: u32, bits: u32, errno: i32) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(load, 0, 0, 0), // seccomp_data.nr
        step(equal, 0, 4, nr as u32),
        step(load, 0, 0, 16 + 8 * argument), // the lower half of the argument
        step(and, 0, 0, bits),
        step(equal, 0, 1, bits),
        step(ret, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a filter for this process.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// Set for the program that was started from a memfd.
const FROM_A_MEMFD: &str = "TRAMPFD_TEST_FROM_A_MEMFD";

#[test]
fn a_program_whose_file_can_be_written_gets_static_text() {
    if std::env::var_os(FROM_A_MEMFD).is_some() {
        let supported = support();
        assert!(matches!(supported.kernel, Err(Unavailable::OwnText)), "{supported:?}");
        let asked = Builder::new().require(Backend::Kernel);
        assert!(matches!(one(&asked), Err(Error::NotText { .. })));
        assert_eq!(one(&Builder::new()).unwrap().backend(), Backend::Text);
        return;
    }
    // SAFETY: plain calls; the fd is this test's, and its number is written nowhere else.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"program".as_ptr(), 0);
        assert!(fd >= 0);
        <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd)
    };
    let mut program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    std::io::copy(&mut program, &mut file).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let name = "reasons::a_program_whose_file_can_be_written_gets_static_text";
    let done = std::process::Command::new(path)
        .args(["--exact", name, "--nocapture"])
        .env(FROM_A_MEMFD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{done:?}");
}
