//! System calls that fail at any point.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};

use trampfd_code::cache::{Cache, Error, Options};

use crate::machine::RENAME;
use crate::program::{Body, Folder, Program, call, events, instead, run};
use crate::support::alone::alone;
use crate::support::faults::with_fault;

/// All that a cache asks of the system, but for giving back.
const CALLS: &[libc::c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_getdents64,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    RENAME,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// What is nice to have: nobody is refused code because it fails.
const SPARE: &[libc::c_long] = &[
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[2]), (2, &[3]), (3, &[])]).with(9, Body::Long(50_000))
}

#[test]
fn one_call_is_not_made_and_all_others_are() {
    for n in 0..4 {
        let errno = libc::ENOTNAM;
        let folder = || {
            // SAFETY: a C string. Where nothing can be made the answer is another one.
            let ret = unsafe { libc::mkdirat(-1, c"".as_ptr(), 0o700) };
            assert_eq!(ret, -1);
            std::io::Error::last_os_error().raw_os_error() == Some(errno)
        };
        let calls = || [folder(), folder(), folder()];
        let (failed, which) = with_fault(&[libc::SYS_mkdirat], n, errno, calls);
        assert_eq!(failed, [0, 1, 2].map(|call| call == n));
        assert_eq!(which, (n < 3).then_some(libc::SYS_mkdirat));
    }
}

/// Does everything; the least limit evicts whatever is not the newest.
fn everything(folder: &Folder, limit: u64) -> Result<i32, Error> {
    let mut options = Options::default();
    (options.protect_got, options.sync, options.limit) = (true, true, Some(limit));
    let cache = Cache::open(&folder.0, program(), options)?;
    let first = cache.get(0)?;
    let value = call(first);
    cache.get(9)?;
    Ok(value)
}

#[test]
fn any_system_call_may_fail_and_the_cache_stays_usable() {
    alone(|| {
        let program = program();
        // The last method that is called is compiled by its call, which cannot return an error.
        let (right, failed) = (program.value(0), program.value(0) - program.value(3) + instead());
        let open_files = || read_dir("/proc/self/fd").unwrap().count();
        let mut seen = BTreeSet::new();
        let fresh = (1, false, [libc::ENOSPC, libc::EPERM]);
        let there = (1 << 20, true, [libc::EMFILE, libc::EINTR]);
        for (limit, prepared, errors) in [fresh, there] {
            for errno in errors {
                for n in 0.. {
                    let folder = Folder::new("failing");
                    if prepared {
                        let cache = folder.open(&program);
                        run(&cache, 0);
                        cache.get(9).unwrap();
                        folder.forget_uses();
                    }
                    let before = open_files();
                    let act = || everything(&folder, limit);
                    let (result, which) = with_fault(CALLS, n, errno, act);
                    let Some(which) = which else {
                        assert_eq!(result.unwrap(), right);
                        break;
                    };
                    seen.insert(which);
                    let spare = SPARE.contains(&which);
                    match result {
                        Ok(value) if value == right || (value == failed && !spare) => {}
                        Err(
                            Error::Folder { .. }
                            | Error::Publish { .. }
                            | Error::Memory(_)
                            | Error::NotExecutable(_),
                        ) if !spare => {}
                        other => panic!("call {n} ({which}), {errno}: {other:?}"),
                    }
                    let maps = read_to_string("/proc/self/maps").unwrap();
                    assert!(!maps.contains(folder.0.to_str().unwrap()), "{n}: mapped");
                    assert_eq!(open_files(), before, "{n}: a descriptor is left");
                    let cache = folder.open(&program);
                    assert!(folder.names().iter().all(|name| name.ends_with(".code")), "{n}");
                    assert_eq!(run(&cache, 0), right, "{n}");
                    cache.get(9).unwrap();
                    let events = events(&cache);
                    let fine = |event: &String| ["compiled", "loaded"].contains(&event.as_str());
                    assert!(events.iter().all(fine), "{n}: {events:?}");
                }
            }
        }
        let never: Vec<_> = CALLS.iter().filter(|call| !seen.contains(call)).collect();
        assert!(never.is_empty(), "never made: {never:?}");
    });
}
