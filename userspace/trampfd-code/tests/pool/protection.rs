//! What is never writable, and what a system may forbid.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use trampfd_code::pool::{Error, Kind, Pools};
use trampfd_code::vm::{self, Source, Write, page_size};

use super::support::alone::alone;
use super::support::policy::{cover, mount, own_mounts, refuse_exec_gain};
use super::{Module, answer, call, check, modules, options, request, row, rows, writable};

/// Ends a thread when it is dropped, by a panic, too.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that is done with pools, while another thread looks whether anything is writable
/// and executable.
fn everything(write: Write) {
    let pools = Pools::with(options(write)).unwrap();
    let (stop, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Fails if there is such a row.
                rows();
                looked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _ending = Ending(&stop);
        let mut round = 0;
        while round < 20 || looked.load(Ordering::Relaxed) < 20 && !watcher.is_finished() {
            let pool = pools.create(1).unwrap();
            let sets: Vec<_> = (0..10).map(|i| modules(&pool, i)).collect();
            let large = modules(&pool, 300);
            pool.finalise().unwrap();
            sets.iter().for_each(check);
            check(&large);
            pools.free(1).unwrap();
            round += 1;
        }
    });
}

#[test]
fn nothing_is_writable_and_executable_at_any_time() {
    for write in [Write::Pwrite, Write::Alias] {
        everything(write);
    }
}

#[test]
fn all_of_it_works_where_what_was_writable_may_not_execute() {
    alone(|| {
        refuse_exec_gain();
        everything(Write::Pwrite);
        everything(Write::Alias);
    });
}

#[test]
fn code_has_no_alias_unless_asked_for_and_nothing_has_one_after_finalise() {
    alone(|| {
        for write in [Write::Any, Write::Pwrite, Write::Alias] {
            let pools = Pools::with(options(write)).unwrap();
            let pool = pools.create(1).unwrap();
            let sets = [modules(&pool, 10), modules(&pool, 300), modules(&pool, 10)];
            let of = |pick: fn(&Module) -> trampfd_code::pool::Section| {
                let address = move |(set, all): &(trampfd_code::pool::Set, Vec<Module>)| {
                    set.section(pick(&all[0])).unwrap().address
                };
                sets.iter().map(address).collect::<Vec<usize>>()
            };
            let (code, constants) = (of(|module| module.code), of(|module| module.constants));
            let aliased = |of: &[usize]| of.iter().filter(|&&at| !writable(at).is_empty()).count();
            let expected = if write == Write::Alias { 3 } else { 0 };
            assert_eq!(aliased(&code), expected, "{write:?}");
            assert!(aliased(&constants) > 0, "the test sees no alias where there is one");
            pool.finalise().unwrap();
            assert_eq!((aliased(&code), aliased(&constants)), (0, 0), "{write:?}, finalised");
            for (at, rights) in [(code[0], "r-xs"), (constants[0], "r--s")] {
                assert_eq!(row(at).rights, rights);
                let page =
                    std::ptr::with_exposed_provenance_mut::<libc::c_void>(at & !(page_size() - 1));
                // SAFETY: pages of the test, of which this must be refused.
                let ret = unsafe {
                    libc::mprotect(page, page_size(), libc::PROT_READ | libc::PROT_WRITE)
                };
                assert_eq!(ret, -1, "{rights} can be made writable");
            }
            sets.iter().for_each(check);
        }
    });
}

/// Bytes that are free in the file system there.
fn free_in(place: &std::ffi::CStr) -> usize {
    // SAFETY: a C string, and room for the answer, which may be all zeros.
    unsafe {
        let mut answer: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(place.as_ptr(), &mut answer), 0);
        (answer.f_bfree * answer.f_bsize) as usize
    }
}

#[test]
fn what_is_full_is_an_error_and_not_a_signal() {
    const SIZE: usize = 256 << 10;
    alone(|| {
        own_mounts(0);
        let size = CString::new(format!("size={SIZE}")).unwrap();
        mount(c"tmpfs", c"/mnt", c"tmpfs", 0, &size);
        for write in [Write::Pwrite, Write::Alias] {
            let mut options = options(write);
            options.memory.sources = vec![Source::Folder("/mnt".into())];
            let pools = Pools::with(options).unwrap();
            let pool = pools.create(1).unwrap();
            let code = answer(&pool, 9);
            for kind in [Kind::Code, Kind::ReadOnly] {
                let mut full = false;
                for _ in 0..20 {
                    let mut set = pool.set();
                    set.request(request("large", kind, 40_000));
                    full |= match set.lay_out().unwrap().commit() {
                        Ok(_) => false,
                        Err(Error::Memory(vm::Error::System { .. })) => true,
                        Err(other) => panic!("{other:?}"),
                    };
                }
                assert!(full, "{kind:?} took more than there is");
            }
            assert_eq!(call(code), 9);
            assert!(free_in(c"/mnt") < 40_000, "{write:?}: there was room");
            drop(pool);
            assert_eq!(free_in(c"/mnt"), SIZE, "{write:?}: what failed was not given back");
            let pool = pools.create(2).unwrap();
            check(&modules(&pool, 20));
        }
    });
}

#[test]
fn without_proc_pools_work_and_keep_what_they_promise() {
    alone(|| {
        // An alias looks like this in /proc/self/maps, which is not to be seen afterwards.
        let maps = std::fs::File::open("/proc/self/maps").unwrap();
        let aliases = || {
            use std::os::unix::fs::FileExt;
            let mut text = Vec::new();
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = maps.read_at(&mut part, text.len() as u64) {
                text.extend_from_slice(&part[..n]);
            }
            String::from_utf8(text).unwrap().matches(" rw-s ").count()
        };
        own_mounts(0);
        cover(c"/proc", 0);
        let memfds = vec![Source::MemfdExec, Source::MemfdNoexecSeal, Source::Memfd];
        let mut strict = options(Write::Pwrite);
        strict.memory.sources = memfds.clone();
        let refused = Pools::with(strict);
        assert!(matches!(refused, Err(Error::Memory(vm::Error::NoReadOnlyDescriptor))));
        for write in [Write::Any, Write::Alias] {
            let mut options = options(write);
            options.memory.sources = memfds.clone();
            let pools = Pools::with(options).unwrap();
            assert_eq!(aliases(), 0, "without pools");
            let stats = pools.stats();
            for round in 0..3 {
                let (one, other) = (pools.create(1).unwrap(), pools.create(2).unwrap());
                let (first, second) = (modules(&one, 100), modules(&other, 100));
                let more = modules(&one, 100);
                assert!(aliases() > 0, "the test sees no alias where there is one");
                one.finalise().unwrap();
                // The other is still open.
                let late = modules(&other, 10);
                other.finalise().unwrap();
                assert_eq!(aliases(), 0, "round {round}");
                check(&late);
                check(&first);
                check(&more);
                pools.free(1).unwrap();
                check(&second);
            }
            let now = pools.stats();
            let taken = |stats: trampfd_code::pool::Stats| (stats.mappings, stats.reserved);
            assert_eq!(taken(now), taken(stats), "freed");
            assert_eq!(now.committed, 0);
        }
    });
}
