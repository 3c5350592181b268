//! System calls that fail at any point.

use std::collections::BTreeSet;
use std::fs::read_dir;

use trampfd_code::pool::{Error, Pool, Pools, Set};
use trampfd_code::vm::{Source, Write};

use super::support::alone::alone;
use super::support::faults::with_fault;
use super::support::policy::{cover, mount, own_mounts};
use super::{Module, check, modules, options, rows, rows_of, try_modules, writable};

/// What gives memory back.
const FREES: &[libc::c_long] = &[libc::SYS_fallocate, libc::SYS_madvise, libc::SYS_munmap];

/// All else that pools ask of the system, and munmap.
const CALLS: &[libc::c_long] = &[
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_pwrite64,
];

/// Filled sets, or why they are not.
type Filled = Vec<Result<(Set, Vec<Module>), Error>>;

/// Two pools, one finalised.
struct All {
    pools: Pools,
    one: Pool,
    other: Pool,
    sets: Filled,
    finalised: Result<(), Error>,
}

fn everything(write: Write) -> Result<All, Error> {
    let pools = Pools::with(options(write))?;
    let (one, other) = (pools.create(1)?, pools.create(2)?);
    let fill = |(pool, count)| try_modules(pool, count);
    let sets = [(&one, 10), (&other, 10), (&one, 300), (&other, 300)].map(fill).into();
    let finalised = one.finalise();
    Ok(All { pools, one, other, sets, finalised })
}

/// Views of files for code, writable ones included.
fn views() -> usize {
    rows().iter().filter(|row| row.rights.ends_with('s')).count()
}

fn open_files() -> usize {
    read_dir("/proc/self/fd").unwrap().count()
}

/// What is made once for the whole process.
fn warm_up() {
    with_fault(CALLS, usize::MAX, 0, || drop(Pools::new().unwrap()));
}

/// Whether there is a way to write what is in these sets, but for their variables.
fn can_be_written(sets: &[&(Set, Vec<Module>)]) -> bool {
    sets.iter().any(|(set, modules)| {
        let of = |module: &Module| [module.code, module.constants];
        let ends = [modules.first().unwrap(), modules.last().unwrap()];
        let mut sections = ends.into_iter().flat_map(of).map(|s| set.section(s).unwrap().address);
        sections.any(|address| !writable(address).is_empty())
    })
}

#[test]
fn any_system_call_may_fail_and_pools_go_on() {
    alone(|| {
        warm_up();
        let mut seen = BTreeSet::new();
        for write in [Write::Pwrite, Write::Alias] {
            for n in 0.. {
                let before = (views(), open_files());
                let (result, failed) = with_fault(CALLS, n, libc::ENOMEM, || everything(write));
                let Some(which) = failed else {
                    assert!(result.unwrap().sets.iter().all(Result::is_ok));
                    break;
                };
                seen.insert(which);
                match result {
                    Ok(all) => goes_on(all),
                    Err(Error::Memory(_)) => {}
                    Err(other) => panic!("call {n} ({which}): {other:?}"),
                }
                // A mapping that cannot be taken away stays.
                if which != libc::SYS_munmap {
                    assert_eq!((views(), open_files()), before, "call {n} ({which})");
                }
            }
        }
        let never: Vec<_> = CALLS.iter().filter(|call| !seen.contains(call)).collect();
        assert!(never.is_empty(), "never made: {never:?}");
    });
}

/// What there is, is as it should be, and more can be had.
fn goes_on(All { pools, one, other, sets, finalised }: All) {
    let is_memory = |error: &Error| matches!(error, Error::Memory(_));
    assert!(sets.iter().filter_map(|set| set.as_ref().err()).all(is_memory));
    let there = |parity: usize| -> Vec<&(Set, Vec<Module>)> {
        let mine = sets.iter().enumerate().filter(|(i, _)| i % 2 == parity);
        mine.filter_map(|(_, set)| set.as_ref().ok()).collect()
    };
    [there(0), there(1)].concat().into_iter().for_each(check);
    if finalised.is_err() {
        assert!(matches!(try_modules(&one, 1), Err(Error::Finalised(1))));
        one.finalise().unwrap();
    }
    assert!(!can_be_written(&there(0)), "{finalised:?}");
    let more = modules(&other, 50);
    let modules = sets.iter().flatten().map(|(_, modules)| modules.len()).sum::<usize>() + 50;
    assert_eq!(pools.stats().payload, modules * Module::PAYLOAD);
    pools.free(1).unwrap();
    check(&more);
    there(1).into_iter().for_each(check);
    drop((one, other));
    let stats = pools.stats();
    assert_eq!((stats.committed, stats.payload, stats.mappings), (0, 0, 3));
}

#[test]
fn a_pool_is_gone_though_its_memory_cannot_be_given_back() {
    alone(|| {
        warm_up();
        for write in [Write::Pwrite, Write::Alias] {
            for n in 0.. {
                let before = (views(), open_files());
                let pools = Pools::with(options(write)).unwrap();
                let (one, other) = (pools.create(1).unwrap(), pools.create(2).unwrap());
                let (_gone, stays) = (modules(&one, 300), modules(&other, 300));
                let (result, failed) = with_fault(FREES, n, libc::ENOMEM, || pools.free(1));
                check(&stays);
                assert!(matches!(pools.free(1), Err(Error::NoSuchPool(1))));
                assert_eq!(pools.stats().payload, 300 * Module::PAYLOAD);
                let again = pools.create(1).unwrap();
                let new = modules(&again, 300);
                check(&new);
                check(&stays);
                // Two aliases may be one row.
                assert!(views() - before.0 <= pools.stats().mappings);
                drop((one, other, again));
                assert_eq!((pools.stats().committed, pools.stats().mappings), (0, 3));
                drop(pools);
                assert_eq!((views(), open_files()), before, "call {n} ({failed:?})");
                match (result, failed) {
                    (Ok(()), None) => break,
                    (Err(Error::Memory(_)), Some(_)) => {}
                    other => panic!("call {n}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn a_pool_whose_alias_could_not_be_taken_away_can_be_finalised_again() {
    alone(|| {
        own_mounts(0);
        mount(c"/proc", c"/mnt", c"", libc::MS_BIND | libc::MS_REC, c"");
        let aliases = || {
            let rows = rows_of("/mnt/self/maps");
            rows.into_iter().filter(|row| row.rights == "rw-s").count()
        };
        for proc in [true, false] {
            if !proc {
                cover(c"/proc", 0);
            }
            for write in [Write::Any, Write::Alias] {
                let mut options = options(write);
                options.memory.sources = vec![Source::MemfdExec, Source::Memfd];
                let pools = Pools::with(options).unwrap();
                let pool = pools.create(1).unwrap();
                let sets = [modules(&pool, 10), modules(&pool, 300)];
                // Both ways to take an alias away.
                let calls = [libc::SYS_munmap, libc::SYS_mmap];
                let act = || pool.finalise();
                let (result, failed) = with_fault(&calls, 0, libc::ENOMEM, act);
                assert!(matches!(result, Err(Error::Memory(_))), "{result:?}");
                assert!(failed.is_some());
                assert!(aliases() <= 1, "the others could be taken away");
                pool.finalise().unwrap();
                assert_eq!(aliases(), 0, "{write:?}, /proc: {proc}");
                sets.iter().for_each(check);
            }
        }
    });
}
