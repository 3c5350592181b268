//! Children of fork.

use trampfd_code::alloc::{Error, JitAllocator, Span};
use trampfd_code::vm::{self, Write};

use crate::arch::{TRAP, returns};
use crate::{allocator, bytes};

/// Runs `act` in a child: what it panics with is printed, and fails the test. Only this thread
/// is in the child.
fn in_child(act: impl FnOnce()) {
    // SAFETY: the child does what children may: glibc's malloc and stdout's lock are held by no
    // other thread at that moment, or made whole by glibc's handlers.
    match unsafe { libc::fork() } {
        -1 => panic!("fork"),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            // SAFETY: ends the child, and nothing else of it is run.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of this test's.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
        }
    }
}

fn is_other_process<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Memory(vm::Error::OtherProcess)))
}

/// Writes the number as code.
fn put(span: &mut Span<&JitAllocator>, number: u8) {
    span.write(0, &returns(number.into())).unwrap();
}

fn call(rx: *const u8) -> u32 {
    // SAFETY: `put` has written it.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> u32>(rx)() }
}

#[test]
fn a_child_never_changes_its_parents_code() {
    for write in [Write::Alias, Write::Pwrite] {
        let allocator = allocator(write, |options| options.fill = true);
        let mut spans: Vec<_> = (0..100).map(|_| allocator.alloc(64).unwrap()).collect();
        let mut large = allocator.alloc(100_000).unwrap();
        put(&mut large, 200);
        for (number, span) in (0..).zip(&mut spans) {
            put(span, number);
        }
        let all = allocator.statistics();
        let (allocator, children, child_large) = (&allocator, &mut spans, &mut large);
        in_child(move || {
            for (number, span) in (0..).zip(children.iter_mut()) {
                assert_eq!(call(span.rx()), number);
                assert!(is_other_process(span.write(0, &[TRAP])));
                assert!(is_other_process(span.shrink(1)));
                assert!(is_other_process(span.writer()) && is_other_process(span.rw()));
            }
            assert!(is_other_process(child_large.write(0, &[TRAP])));
            assert!(is_other_process(child_large.shrink(1)));
            for span in children.iter().chain([&*child_large]) {
                // SAFETY: in the child nobody else uses them; the second is refused.
                unsafe {
                    allocator.release(span.rx()).unwrap();
                    let again = allocator.release(span.rx());
                    assert!(matches!(again, Err(Error::AlreadyReleased(_))), "{again:?}");
                }
                assert!(allocator.query(span.rx()).is_none());
            }
            // Its own are elsewhere.
            for number in 0..200 {
                for len in [64, 1000, 100_000] {
                    let mut own = allocator.alloc(len).unwrap();
                    put(&mut own, number);
                    assert_eq!(call(own.rx()), number.into());
                }
            }
            assert_eq!(allocator.statistics().live, 0);
        });
        for (number, span) in (0..).zip(&mut spans) {
            assert_eq!(call(span.rx()), number.into());
            put(span, number + 1);
            assert_eq!(call(span.rx()), u32::from(number) + 1);
        }
        assert_eq!(bytes(large.rx(), 6), returns(200));
        assert_eq!(allocator.statistics().live, all.live);
    }
}

#[test]
fn children_of_children_too() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut first = allocator.alloc(64).unwrap();
    put(&mut first, 1);
    in_child(|| {
        let mut second = allocator.alloc(64).unwrap();
        put(&mut second, 2);
        in_child(|| {
            let mut third = allocator.alloc(64).unwrap();
            put(&mut third, 3);
            let runs = [call(first.rx()), call(second.rx()), call(third.rx())];
            assert_eq!(runs, [1, 2, 3]);
            assert!(is_other_process(second.write(0, &[TRAP])));
        });
        put(&mut second, 4);
        assert_eq!((call(first.rx()), call(second.rx())), (1, 4));
    });
    put(&mut first, 5);
    assert_eq!(call(first.rx()), 5);
}

#[test]
fn a_child_allocates_whatever_other_threads_were_doing() {
    let allocator = allocator(Write::Alias, |options| options.immediate_release = true);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let (send, receive) = std::sync::mpsc::sync_channel(4);
    std::thread::scope(|scope| {
        // Locks are taken all the time: mail, units, large blocks.
        scope.spawn(|| receive.into_iter().for_each(drop));
        scope.spawn(|| {
            while !stop.load(relaxed) {
                send.send(allocator.alloc(16_000).unwrap()).unwrap();
                drop(allocator.alloc(20_000).unwrap());
            }
            drop(send);
        });
        for _ in 0..50 {
            in_child(|| {
                for len in [64, 20_000] {
                    let mut own = allocator.alloc(len).unwrap();
                    put(&mut own, 7);
                    assert_eq!(call(own.rx()), 7);
                }
            });
        }
        stop.store(true, relaxed);
    });
}

#[test]
fn an_allocator_dropped_in_a_child_is_there_for_its_parent() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut span = std::mem::ManuallyDrop::new(allocator.alloc(64).unwrap());
    put(&mut span, 1);
    let rx = span.rx();
    // SAFETY: dropped in the child only, which ends then.
    let copy = unsafe { std::ptr::read(&allocator) };
    let copy = std::mem::ManuallyDrop::new(copy);
    in_child(move || drop(std::mem::ManuallyDrop::into_inner(copy)));
    assert_eq!(call(rx), 1);
    put(&mut span, 2);
    assert_eq!(call(rx), 2);
}
