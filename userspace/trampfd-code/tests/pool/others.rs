//! What threads that run code notice while pools are filled and freed: nothing. And what children
//! of fork can do to it: nothing either.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use trampfd_code::pool::{Error, Kind, Pools};
use trampfd_code::vm::{self, Write};

use super::support::alone::{alone, child};
use super::{answer, call, check, modules, options, request, try_modules};

/// Calls what `act` publishes, and sees that it returns the same as at first, until `act` ends.
fn while_running(first: usize, act: impl FnOnce(&AtomicUsize)) {
    let code = AtomicUsize::new(first);
    let (stop, ran) = (AtomicBool::new(false), AtomicU64::new(0));
    let value = call(first);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(call(code.load(Ordering::Acquire)), value);
                ran.fetch_add(1, Ordering::Relaxed);
            }
        });
        while ran.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        act(&code);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(ran.load(Ordering::Relaxed) > 100, "the other thread hardly ran");
}

fn installs(write: Write) {
    let pools = Pools::with(options(write)).unwrap();
    let pool = pools.create(1).unwrap();
    while_running(answer(&pool, 42), |code| {
        for _ in 0..20_000 {
            code.store(answer(&pool, 42), Ordering::Release);
        }
    });
}

#[test]
fn code_comes_into_a_page_that_another_thread_executes() {
    installs(Write::Pwrite);
    installs(Write::Alias);
}

#[test]
fn code_runs_while_pools_beside_it_are_freed() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1000).unwrap();
    let early = pools.create(1001).unwrap();
    let code = answer(&pool, 7);
    pools.free(1001).unwrap();
    drop(early);
    while_running(code, |_| {
        for id in 0..300 {
            let other = pools.create(id).unwrap();
            check(&modules(&other, 20));
            other.finalise().unwrap();
            if id % 3 != 0 {
                pools.free(id).unwrap();
            } else {
                other.leak();
            }
        }
        for id in (0..300).step_by(3) {
            pools.free(id).unwrap();
        }
    });
}

#[test]
fn pools_may_be_used_by_all_threads() {
    let pools = Pools::new().unwrap();
    let shared = pools.create(u64::MAX).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (pools, shared) = (pools.clone(), &shared);
            scope.spawn(move || {
                for i in 0..50 {
                    let pool = pools.create(thread * 1000 + i).unwrap();
                    let own = modules(&pool, 10);
                    let common = modules(shared, 2);
                    check(&own);
                    check(&common);
                }
            });
        }
    });
    let stats = pools.stats();
    assert_eq!(stats.payload, 4 * 50 * 2 * super::Module::PAYLOAD);
}

/// Each set is there, or is refused because its pool was finalised or freed meanwhile.
#[test]
fn a_pool_may_be_finalised_and_freed_while_others_fill_it() {
    for write in [Write::Pwrite, Write::Alias] {
        let pools = Pools::with(options(write)).unwrap();
        let stays = pools.create(u64::MAX).unwrap();
        let kept = modules(&stays, 100);
        for id in 0..100 {
            let pool = pools.create(id).unwrap();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        loop {
                            match try_modules(&pool, 5) {
                                Ok(_) => {}
                                Err(Error::Finalised(_)) if id % 2 == 0 => break,
                                Err(Error::NoSuchPool(_)) if id % 2 == 1 => break,
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    });
                }
                thread::yield_now();
                if id % 2 == 0 {
                    pool.finalise().unwrap();
                } else {
                    pools.free(id).unwrap();
                }
            });
        }
        check(&kept);
        let (stats, pages) = (pools.stats(), [100 * 1000, 100 * 300, 100 * 200]);
        assert_eq!(stats.payload, 100 * super::Module::PAYLOAD);
        let pages = pages.map(|len| vm::round_to_pages(len).unwrap() + vm::page_size());
        assert!(stats.committed <= pages.iter().sum(), "{stats:?}");
    }
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Memory(vm::Error::OtherProcess)))
}

#[test]
fn a_child_of_fork_changes_nothing_and_can_have_pools_of_its_own() {
    alone(|| {
        for write in [Write::Pwrite, Write::Alias] {
            let pools = Pools::with(options(write)).unwrap();
            let (pool, dropped) = (pools.create(1).unwrap(), pools.create(2).unwrap());
            let (set, freed) = (modules(&pool, 100), modules(&dropped, 10));
            let mut next = pool.set();
            next.request(request("next", Kind::Code, 100));
            let next = next.lay_out().unwrap();
            let variable = set.0.section(set.1[99].variables).unwrap().address;
            let ok = child(|| {
                check(&set);
                assert!(is_refused(pools.create(3)));
                assert!(is_refused(pools.free(1)));
                assert!(is_refused(pool.finalise()));
                assert!(is_refused(next.commit()));
                let mut more = pool.set();
                more.request(request("more", Kind::Code, 100));
                assert!(is_refused(more.lay_out()));
                drop(dropped);
                check(&freed);
                // SAFETY: the child's own copy.
                unsafe { std::ptr::with_exposed_provenance_mut::<u8>(variable).write(0) };
                let own = Pools::with(options(write)).unwrap();
                let pool = own.create(1).unwrap();
                let mine = modules(&pool, 100);
                pool.finalise().unwrap();
                check(&mine);
                drop(pools);
                check(&mine);
            });
            assert!(ok);
            check(&set);
        }
    });
}

#[test]
fn a_child_of_fork_waits_for_no_thread_that_it_does_not_have() {
    alone(|| {
        let pools = Pools::new().unwrap();
        let pool = pools.create(u64::MAX).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0.. {
                    let other = pools.create(id).unwrap();
                    answer(&pool, 1);
                    answer(&other, 2);
                    pools.free(id).unwrap();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            // It has the pools locked for much of the time.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(matches!(pools.free(u64::MAX - 1), Err(Error::NoSuchPool(_))));
                }
            });
            let ok = (0..200).all(|_| {
                let spare = pools.create(u64::MAX - 2).unwrap();
                let (pools, pool) = (&pools, &pool);
                child(move || {
                    drop(spare);
                    assert!(is_refused(pools.create(5)));
                    assert!(is_refused(pools.free(5)));
                    assert!(is_refused(pool.finalise()));
                    assert!(pools.stats().system_calls > 0);
                })
            });
            stop.store(true, Ordering::Relaxed);
            assert!(ok);
        });
    });
}
