//! After fork parent and child each have their own closures: whatever one of them makes, drops or
//! calls, the other does not notice.

use std::io::{Read, Write, pipe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use trampfd::{Builder, Closure};
use trampfd_tests::{each, fork_well, some};

type One = unsafe extern "C" fn(usize) -> usize;

fn adder(builder: &Builder, n: usize) -> Closure<One> {
    builder.closure(|a: usize, n: &usize| a + n, n).unwrap()
}

fn adders(builder: &Builder, from: usize, count: usize) -> Vec<Closure<One>> {
    (from..from + count).map(|n| adder(builder, n)).collect()
}

/// Each answers with its number.
fn answer(all: &[Closure<One>], from: usize) {
    for (n, f) in some(all) {
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(1000) }, 1000 + from + n);
    }
}

#[test]
fn a_child_has_its_parents_closures() {
    each(|builder| {
        let all = adders(builder, 5, 3000);
        fork_well(|| answer(&all, 5));
        answer(&all, 5);
    });
}

#[test]
fn what_a_child_drops_and_makes_is_its_own() {
    each(|builder| {
        let mut all = adders(builder, 5, 1000);
        fork_well(|| {
            all.drain(..900);
            answer(&all, 905);
            // In the slots that were just given back, among others.
            let more = adders(builder, 7000, 2000);
            answer(&more, 7000);
            answer(&all, 905);
            drop(more);
            drop(std::mem::take(&mut all));
        });
        answer(&all, 5);
        let more = adders(builder, 9000, 1000);
        answer(&more, 9000);
        answer(&all, 5);
    });
}

#[test]
fn what_a_parent_drops_and_makes_is_its_own() {
    each(|builder| {
        let mut all = adders(builder, 5, 1000);
        // In the child the closures live on, whatever becomes of the parent's.
        let childs: Vec<One> = all.iter().map(Closure::as_ptr).collect();
        let (mut wait, mut go) = pipe().unwrap();
        let (mut started, mut start) = pipe().unwrap();
        std::thread::scope(|scope| {
            let builder_there = *builder;
            let child = scope.spawn(move || {
                fork_well(|| {
                    start.write_all(&[1]).unwrap();
                    wait.read_exact(&mut [0]).unwrap();
                    for (n, f) in childs.iter().enumerate() {
                        // SAFETY: the child's copy of the closure lives.
                        assert_eq!(unsafe { f(1000) }, 1005 + n);
                    }
                    answer(&adders(&builder_there, 50_000, 1500), 50_000);
                });
            });
            started.read_exact(&mut [0]).unwrap();
            all.clear();
            let more = adders(builder, 70_000, 2000);
            answer(&more, 70_000);
            go.write_all(&[1]).unwrap();
            child.join().unwrap();
            answer(&more, 70_000);
        });
    });
}

#[test]
fn a_grandchild_has_its_own_too() {
    each(|builder| {
        let mut all = adders(builder, 5, 500);
        fork_well(|| {
            all.drain(..100);
            let mine = adders(builder, 1000, 500);
            fork_well(|| {
                answer(&all, 105);
                answer(&mine, 1000);
                all.clear();
                answer(&adders(builder, 3000, 1000), 3000);
                answer(&mine, 1000);
            });
            answer(&all, 105);
            answer(&mine, 1000);
            answer(&adders(builder, 3000, 600), 3000);
        });
        answer(&all, 5);
    });
}

#[test]
fn a_child_may_drop_closures_of_threads_that_it_does_not_have() {
    each(|builder| {
        let (give, take) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let builder_there = *builder;
        let thread = std::thread::spawn(move || {
            give.send(adders(&builder_there, 5, 700)).unwrap();
            // Lives on, and keeps its free slots, until the child has ended.
            let _ = ended.recv();
        });
        let mut all = take.recv().unwrap();
        fork_well(|| {
            answer(&all, 5);
            all.clear();
            answer(&adders(builder, 100, 1500), 100);
        });
        answer(&all, 5);
        drop(end);
        thread.join().unwrap();
        answer(&all, 5);
    });
}

#[test]
fn fork_does_not_wait_for_threads_that_make_closures() {
    trampfd_tests::alone_well(|builder| {
        let stop = AtomicBool::new(false);
        let made = AtomicUsize::new(0);
        let mine = adders(builder, 40, 100);
        // A thread that starts or ends holds a lock of Rust's standard library, without which a
        // child of fork could never start one: both run from the first fork to the last.
        let running = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                running.wait();
                while !stop.load(Ordering::Relaxed) {
                    answer(&adders(builder, 1, 300), 1);
                    made.fetch_add(300, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                running.wait();
                // To prepare closures is to hold the lock for long; so far that memory allows.
                let handler = |a: usize, n: &usize| a + n;
                for _ in 0..1500 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    builder.prewarm::<One, _, usize, _>(256, handler).unwrap();
                    made.fetch_add(256, Ordering::Relaxed);
                }
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
            running.wait();
            for _ in 0..40 {
                let before = made.load(Ordering::Relaxed);
                fork_well(|| {
                    answer(&mine, 40);
                    answer(&adders(builder, 500, 500), 500);
                    std::thread::scope(|scope| {
                        scope.spawn(|| answer(&adders(builder, 600, 300), 600));
                    });
                });
                // The others must have come to something, or nothing was tried.
                while made.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        answer(&mine, 40);
    });
}

#[test]
fn the_first_closure_may_be_the_childs() {
    trampfd_tests::alone_well(|builder| {
        fork_well(|| answer(&adders(builder, 1, 100), 1));
        answer(&adders(builder, 2, 100), 2);
    });
}
