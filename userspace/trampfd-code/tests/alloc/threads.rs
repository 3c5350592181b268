//! Several threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;

use trampfd_code::alloc::{Error, JitAllocator, Span};
use trampfd_code::vm::Write;

use crate::{Draw, allocator, bytes};

#[test]
fn threads_do_not_share_blocks() {
    for write in [Write::Alias, Write::Pwrite] {
        let allocator = allocator(write, |_| ());
        thread::scope(|scope| {
            for number in 1..=4u8 {
                let allocator = &allocator;
                scope.spawn(move || {
                    let mut draw = Draw(number.into());
                    let mut live = Vec::new();
                    for _ in 0..20_000 {
                        if live.len() < 200 && draw.below(2) == 0 {
                            let len = 1 + draw.below(700);
                            let mut span = allocator.alloc(len).unwrap();
                            span.write(0, &vec![number; len]).unwrap();
                            live.push(span);
                        } else if !live.is_empty() {
                            let span = live.swap_remove(draw.below(live.len()));
                            let there = bytes(span.rx(), span.len());
                            assert!(there.iter().all(|&byte| byte == number));
                        }
                    }
                });
            }
        });
        assert_eq!(allocator.statistics().live, 0);
    }
}

#[test]
fn what_another_thread_releases_comes_back() {
    let allocator = Arc::new(allocator(Write::Alias, |_| ()));
    let (send, receive) = mpsc::sync_channel::<Span<Arc<JitAllocator>>>(50);
    let other = thread::spawn(move || {
        for mut span in receive {
            assert_eq!(bytes(span.rx(), 1), [1]);
            span.shrink(100).unwrap();
            assert_eq!(span.len(), 100);
        }
    });
    for _ in 0..50_000 {
        let mut span = Span::new(allocator.clone(), 1000).unwrap();
        span.write(0, &[1]).unwrap();
        send.send(span).unwrap();
    }
    drop(send);
    other.join().unwrap();
    drop(allocator.alloc(1).unwrap());
    let all = allocator.statistics();
    assert_eq!(all.live, 0);
    assert!(all.reserved <= 1 << 20, "{all:?}");
}

#[test]
fn another_threads_release_is_seen_at_once() {
    let allocator = allocator(Write::Alias, |_| ());
    let block = |len| allocator.alloc_block(len).unwrap().expose_provenance();
    let (first, second) = (block(1000), block(1000));
    thread::scope(|scope| {
        scope.spawn(|| {
            let rx = std::ptr::with_exposed_provenance::<u8>(first);
            // SAFETY: blocks of this test; what is none is refused.
            unsafe {
                let inside = allocator.release(rx.wrapping_add(64));
                assert!(matches!(inside, Err(Error::Interior { .. })));
                allocator.release(rx).unwrap();
                assert!(matches!(allocator.release(rx), Err(Error::AlreadyReleased(_))));
            }
            assert!(allocator.query(rx).is_none());
        });
    });
    let rx = std::ptr::with_exposed_provenance::<u8>(first);
    // SAFETY: it is refused.
    let again = unsafe { allocator.release(rx) };
    assert!(matches!(again, Err(Error::AlreadyReleased(_))), "by its owner: {again:?}");
    assert_eq!(allocator.statistics().live, 1);
    // SAFETY: the block is this test's.
    unsafe { allocator.release(std::ptr::with_exposed_provenance(second)) }.unwrap();
    assert_eq!(allocator.statistics().free_runs, 1);
    let mut again = [block(1000), block(1000)];
    again.sort_unstable();
    assert_eq!(again, [first, second], "both can be had again");
}

#[test]
fn what_another_thread_shrinks_is_released_whole() {
    let allocator = allocator(Write::Alias, |_| ());
    // All but 2048 bytes of a piece of memory.
    let kept = [16 << 10, 16 << 10, 16 << 10, 14 << 10].map(|len| allocator.alloc(len).unwrap());
    let used = allocator.statistics().used;
    let mut span = allocator.alloc(1024).unwrap();
    let start = span.rx().addr();
    thread::scope(|scope| scope.spawn(|| span.shrink(64).unwrap()).join().unwrap());
    // Its thread has not heard of it yet.
    drop(span);
    let short = allocator.alloc(64).unwrap();
    let long = allocator.alloc(1024).unwrap();
    for span in [&short, &long] {
        let block = allocator.query(span.rx()).unwrap();
        assert_eq!((block.start, block.len), (span.rx(), span.len()));
    }
    assert!(
        short.rx().addr() + 64 <= long.rx().addr() || long.rx().addr() + 1024 <= short.rx().addr()
    );
    assert_eq!(allocator.statistics().used, used + 64 + 1024);
    drop((short, long));
    let again = allocator.alloc(2048).unwrap();
    let all = allocator.statistics();
    assert_eq!((again.rx().addr(), all.free(), all.live), (start, 0, kept.len() + 1));
}

#[test]
fn of_many_releases_at_once_one_counts() {
    let allocator = allocator(Write::Alias, |_| ());
    let barrier = Barrier::new(2);
    for _ in 0..200 {
        let block = allocator.alloc_block(64).unwrap().expose_provenance();
        let release = || {
            barrier.wait();
            // SAFETY: a block of this test; the second one is refused.
            unsafe { allocator.release(std::ptr::with_exposed_provenance(block)) }.is_ok()
        };
        let done = thread::scope(|scope| {
            let threads = [scope.spawn(release), scope.spawn(release)];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_ne!(done[0], done[1]);
        assert_eq!(allocator.statistics().live, 0);
    }
}

#[test]
fn a_thread_that_begins_has_the_memory_of_one_that_ended() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut kept = Vec::new();
    for _ in 0..50 {
        let block = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let block = allocator.alloc_block(1000).unwrap();
                drop(allocator.alloc(10_000).unwrap());
                block.expose_provenance()
            });
            thread.join().unwrap()
        });
        kept.push(block);
    }
    assert_eq!((allocator.statistics().live, allocator.statistics().blocks), (50, 1));
    for block in kept {
        // SAFETY: blocks of this test, which nobody owns now.
        unsafe { allocator.release(std::ptr::with_exposed_provenance(block)) }.unwrap();
    }
    let all = allocator.statistics();
    assert_eq!((all.live, all.reserved), (0, 0), "nobody would give it back later");
}

#[test]
fn memory_is_given_back_by_whoever_releases_the_last_block() {
    let allocator = allocator(Write::Alias, |options| options.immediate_release = true);
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            for _ in 0..100 {
                send.send(allocator.alloc(1000).unwrap()).unwrap();
            }
            drop(send);
        });
        // The scope's end does not wait until the thread has left its memory.
        thread.join().unwrap();
    });
    assert_eq!(allocator.statistics().reserved, 128 << 10);
    drop(receive.into_iter().collect::<Vec<_>>());
    assert_eq!(allocator.statistics().reserved, 0);
}

#[test]
fn allocators_may_go_while_threads_stay() {
    for _ in 0..100 {
        let one = allocator(Write::Alias, |_| ());
        let two = allocator(Write::Alias, |_| ());
        for _ in 0..10 {
            let (first, second) = (one.alloc(64).unwrap(), two.alloc(64).unwrap());
            assert_ne!(first.rx(), second.rx());
        }
        assert_eq!((one.statistics().live, two.statistics().live), (0, 0));
    }
}

#[test]
fn spans_may_be_dropped_while_their_thread_ends() {
    thread_local! {
        static LATE: std::cell::RefCell<Vec<Span<Arc<JitAllocator>>>> = const {
            std::cell::RefCell::new(Vec::new())
        };
    }
    let allocator = Arc::new(allocator(Write::Alias, |_| ()));
    for _ in 0..20 {
        let allocator = allocator.clone();
        let thread = thread::spawn(move || {
            LATE.with_borrow_mut(|late| late.push(Span::new(allocator.clone(), 64).unwrap()));
        });
        thread.join().unwrap();
    }
    assert_eq!(allocator.statistics().live, 0);
}

#[test]
fn statistics_and_queries_are_taken_while_others_allocate() {
    let allocator = allocator(Write::Alias, |_| ());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut live = Vec::new();
            let mut draw = Draw(3);
            for _ in 0..300_000 {
                if live.len() < 300 && draw.below(2) == 0 {
                    live.push(allocator.alloc(1 + draw.below(900)).unwrap());
                } else if !live.is_empty() {
                    live.swap_remove(draw.below(live.len()));
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let mine = allocator.alloc(700).unwrap();
        while !stop.load(Ordering::Relaxed) {
            let info = allocator.query(mine.rx().wrapping_add(650)).unwrap();
            assert_eq!((info.start, info.len), (mine.rx(), 704));
            assert!(allocator.statistics().live >= 1);
        }
    });
}
