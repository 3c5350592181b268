//! A program may close fds that are not its own: a daemon closes all of them. The library finds
//! its fd gone, or another file in its place, and opens the device anew.

use trampfd::{Backend, Builder, Closure};
use trampfd_tests::{all_good, alone_cases_on, fork_well};

type One = unsafe extern "C" fn(usize) -> usize;
type Two = unsafe extern "C" fn(usize, usize) -> usize;

fn grow(builder: &Builder) {
    // More than a table, and a table of another register.
    let all: Vec<Closure<One>> =
        (0..17_000).map(|n| builder.closure(|a: usize, n: &usize| a + n, n).unwrap()).collect();
    let two: Closure<Two> = builder.closure(|a: usize, b: usize, n: &usize| a + b + n, 3).unwrap();
    // SAFETY: the closures live.
    unsafe {
        assert_eq!(all[16_999].as_ptr()(1), 17_000);
        assert_eq!(two.as_ptr()(1, 2), 6);
    }
}

/// Closes all fds above standard error and fills their numbers with this program's own file,
/// which could be mapped executable, or with a data file.
fn take_all_fds(case: &str) -> Vec<i32> {
    let data = format!("/tmp/trampfd-tests-data-{}", std::process::id());
    std::fs::write(&data, vec![0xc3; 3 << 20]).unwrap();
    let path = if case.contains("program") { "/proc/self/exe" } else { data.as_str() };
    let path = std::ffi::CString::new(path).unwrap();
    // SAFETY: plain calls; what else had these fds is not used again.
    let fds = unsafe {
        (3..256).for_each(|fd| {
            let _ = libc::close(fd);
        });
        match case {
            "closed" => Vec::new(),
            _ => (3..64).map(|_| libc::open(path.as_ptr(), libc::O_RDONLY)).collect(),
        }
    };
    std::fs::remove_file(&data).unwrap();
    fds
}

#[test]
fn growth_survives_the_loss_of_all_fds() {
    let cases = &["closed", "reused by a data file", "reused by a program"];
    all_good(&alone_cases_on(&[Backend::Kernel], cases, |builder, case| {
        let f: Closure<One> = builder.closure(|a: usize, n: &usize| a + n, 1usize).unwrap();
        let fds = take_all_fds(case);
        grow(builder);
        for fd in fds {
            // SAFETY: asks; the library may not have closed what is not its own.
            assert!(unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0, "fd {fd} was closed");
        }
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(1) }, 2);
    }));
}

#[test]
fn a_child_that_closed_all_fds_makes_closures() {
    let cases = &["closed", "reused by a data file"];
    all_good(&alone_cases_on(&[Backend::Kernel], cases, |builder, case| {
        let f: Closure<One> = builder.closure(|a: usize, n: &usize| a + n, 1usize).unwrap();
        fork_well(|| {
            take_all_fds(case);
            grow(builder);
            // SAFETY: the closure lives.
            assert_eq!(unsafe { f.as_ptr()(1) }, 2);
        });
        grow(builder);
    }));
}
