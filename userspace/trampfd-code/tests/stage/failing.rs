//! Calls that fail, and limits.

use std::fs::read_dir;

use trampfd_code::stage::{Error, Kind, Stage, publish_in_place, unpublish_in_place};
use trampfd_code::vm::{self, Meter, Options, page_size};

use super::support::alone::alone;
use super::support::faults::with_fault;
use super::support::maps::rows;
use super::{access, anonymous, code_and_data, function, machine, stage_answer, status, write};

/// All that a stage asks of the system.
const CALLS: &[libc::c_long] = &[
    libc::SYS_ftruncate,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_pwrite64,
];

/// Views of code that can be executed, and descriptors.
fn in_use() -> (usize, usize) {
    let views = rows().iter().filter(|row| row.rights == "r-xs").count();
    (views, read_dir("/proc/self/fd").unwrap().count())
}

/// One set, finalised; another, which may need another reservation; both finalised again where
/// that failed.
fn two_sets() -> Result<(Stage, Vec<*mut u8>), Error> {
    let mut stage = Stage::with_room(Options::default(), 64 << 10)?;
    let mut all = Vec::new();
    for (value, len) in [(1, 100), (2, 100_000)] {
        let code = stage.allocate(Kind::Code, len, 16)?;
        write(code, &machine::answer(value));
        let data = stage.allocate(Kind::ReadOnly, len, 16)?;
        write(data, &[7; 100]);
        if stage.finalise().is_err() {
            stage.finalise()?;
        }
        all.push(code);
    }
    Ok((stage, all))
}

#[test]
fn any_system_call_may_fail_and_the_stage_goes_on() {
    alone(|| {
        drop(two_sets().unwrap());
        let mut failures = 0;
        for errno in [libc::ENOMEM, libc::EPERM] {
            for n in 0.. {
                let before = in_use();
                let act = || {
                    // Addresses are given to another thread as such.
                    two_sets().map(|(stage, all)| {
                        (stage, all.into_iter().map(|ptr| ptr as usize).collect::<Vec<_>>())
                    })
                };
                let (result, failed) = with_fault(CALLS, n, errno, act);
                match result {
                    Ok((mut stage, all)) => {
                        for (code, value) in all.iter().zip(1..) {
                            assert_eq!(access(*code as *mut u8), "r-xs", "call {n}");
                            assert_eq!(function(*code as *mut u8)(), value, "call {n}");
                        }
                        code_and_data(&mut stage);
                    }
                    Err(Error::Memory(_)) => failures += 1,
                    Err(other) => panic!("call {n} ({failed:?}): {other:?}"),
                }
                // A mapping that cannot be taken away stays.
                if failed != Some(libc::SYS_munmap) {
                    assert_eq!(in_use(), before, "call {n} ({failed:?})");
                }
                if failed.is_none() {
                    break;
                }
            }
        }
        assert!(failures > 5, "{failures}");
    });
}

#[test]
fn any_system_call_may_fail_and_memory_of_somebody_else_is_as_it_was() {
    alone(|| {
        let page = anonymous(page_size()) as usize;
        write(page as *mut u8, &machine::answer(3));
        let (options, meter) = (Options::default(), Meter::new());
        for n in 0.. {
            let before = in_use();
            let (at, len) = (page as *mut u8, page_size());
            // SAFETY: a page of ours.
            let act = || unsafe { publish_in_place(page as *mut u8, len, &options, &meter) };
            let (result, failed) = with_fault(CALLS, n, libc::ENOMEM, act);
            if result.is_err() {
                assert_eq!(access(at), "rw-p", "call {n}");
                // SAFETY: as above.
                unsafe { publish_in_place(at, len, &options, &meter) }.unwrap();
            }
            assert_eq!((access(at), function(at)()), ("r-xs".into(), 3), "call {n}");
            // SAFETY: as above; nothing runs there.
            let act = || unsafe { unpublish_in_place(page as *mut u8, len, &meter) };
            if let (Err(_), _) = with_fault(CALLS, 0, libc::ENOMEM, act) {
                assert_eq!(function(at)(), 3);
                // SAFETY: as above.
                unsafe { unpublish_in_place(at, len, &meter) }.unwrap();
            }
            assert_eq!(access(at), "rw-p", "call {n}");
            // A mapping that cannot be taken away stays.
            if failed != Some(libc::SYS_munmap) {
                assert_eq!(in_use(), before, "call {n}");
            }
            if failed.is_none() {
                break;
            }
        }
    });
}

#[test]
fn what_could_not_be_finalised_can_be_later() {
    alone(|| {
        let limit = |bytes| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a limit on what this process writes to files.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        };
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let mut stage = Stage::new(Options::default()).unwrap();
        let code = stage_answer(&mut stage, 11);
        limit(0);
        let error = stage.finalise().unwrap_err();
        assert!(matches!(error, Error::Memory(vm::Error::System { .. })), "{error}");
        assert_eq!(access(code), "rw-p");
        write(code, &machine::answer(12));
        limit(libc::RLIM_INFINITY);
        stage.finalise().unwrap();
        assert_eq!(function(code)(), 12);
    });
}

#[test]
fn what_is_not_asked_for_counts_nowhere() {
    alone(|| {
        let data = status("VmData");
        let limit = |bytes| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a limit on the private memory of this process.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) }, 0);
        };
        limit(data + (16 << 20));
        // Nothing is checked before the limit is gone: a report may need memory.
        let some = Stage::new(Options::default()).and_then(|mut stage| {
            stage.allocate(Kind::Code, 100, 16)?;
            let more = stage.allocate(Kind::Code, 24 << 20, 16);
            Ok((stage, more))
        });
        limit(libc::RLIM_INFINITY);
        let (mut stage, more) = some.unwrap();
        let error = more.unwrap_err();
        assert!(matches!(error, Error::Memory(vm::Error::System { .. })), "{error}");
        stage.allocate(Kind::Code, 24 << 20, 16).unwrap();
        code_and_data(&mut stage);
    });
}
