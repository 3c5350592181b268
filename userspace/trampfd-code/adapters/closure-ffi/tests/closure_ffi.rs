//! closure-ffi itself, on memory that was never writable where it is executable.

use std::sync::mpsc;
use std::{mem, thread};

use closure_ffi::{BareFn, BareFnSync, JitAlloc, cc};
use trampfd_code::alloc::{Error, Options};
use trampfd_code::vm::Source;
use trampfd_code_closure_ffi::CodeAlloc;

#[path = "../../../tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // main
#[path = "../examples/closure_ffi.rs"]
mod example;

use example::{client, use_closures};
use support::alone::alone;
use support::policy::refuse_exec_gain;

/// Made here, called and dropped in another thread.
fn many_in_two_threads(memory: &CodeAlloc) {
    let before = memory.allocator().statistics().live;
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for first in [0, 1] {
            let send = send.clone();
            scope.spawn(move || {
                for i in (first..20_000_u64).step_by(2) {
                    let closure = BareFnSync::new_c_in(move |x: u64| x + i, memory.clone());
                    if i % 3 == 0 {
                        send.send((i, closure)).unwrap();
                    } else {
                        // SAFETY: it is there.
                        assert_eq!(unsafe { closure.bare()(1000) }, 1000 + i);
                    }
                }
            });
        }
        drop(send);
        for (i, closure) in receive {
            // SAFETY: it is there.
            assert_eq!(unsafe { closure.bare()(7) }, 7 + i);
        }
    });
    assert_eq!(memory.allocator().statistics().live, before);
}

#[test]
fn closures_of_all_kinds_are_called() {
    use_closures(&CodeAlloc::new().unwrap());
    client::nothing_is_writable_and_executable().unwrap();
}

#[test]
fn closures_come_and_go_in_threads_and_leave_nothing() {
    many_in_two_threads(&CodeAlloc::new().unwrap());
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        let memory = CodeAlloc::new().unwrap();
        use_closures(&memory);
        many_in_two_threads(&memory);
    });
}

#[test]
fn what_is_leaked_stays_when_the_memory_has_no_other_owner() {
    let memory = CodeAlloc::new().unwrap();
    let ten = 10;
    let leaked = BareFn::new_c_in(move |x: i32| x + ten, memory).leak();
    let other = CodeAlloc::new().unwrap();
    use_closures(&other);
    // SAFETY: it is never dropped.
    assert_eq!(unsafe { leaked(1) }, 11);
}

#[test]
fn a_child_of_fork_calls_what_there_was_and_makes_its_own() {
    alone(|| {
        let memory = CodeAlloc::new().unwrap();
        let one = 1;
        let old = BareFn::new_c_in(move |x: i32| x + one, memory.clone());
        // SAFETY: the child calls what is below and ends; no other thread of this process
        // allocates.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let two = one + 1;
            let new = BareFn::new_c_in(move |x: i32| x + two, memory.clone());
            // SAFETY: both are there.
            let right = unsafe { old.bare()(40) == 41 && new.bare()(40) == 42 };
            drop((old, new));
            // SAFETY: ends the child.
            unsafe { libc::_exit(if right { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        // SAFETY: it is there.
        assert_eq!(unsafe { old.bare()(40) }, 41);
        assert_eq!(memory.allocator().statistics().live, 1);
    });
}

#[test]
fn what_cannot_be_had_is_an_error_that_says_why() {
    let mut options = Options::default();
    options.memory.sources = vec![Source::Folder("/proc".into())];
    assert!(matches!(CodeAlloc::with(&options), Err(Error::Memory(_))));

    let memory = CodeAlloc::new().unwrap();
    assert!(memory.take_error().is_none());
    let kept = 1;
    let first = BareFn::new_c_in(move |x: i32| x + kept, memory.clone());
    // SAFETY: no code is being written.
    unsafe { memory.allocator().withdraw_alias() }.unwrap();
    let size = mem::size_of_val(&kept);
    let second: Result<BareFn<unsafe extern "C" fn(i32) -> i32, _>, _> =
        BareFn::try_with_cc_in(cc::C, move |x: i32| x + size as i32, memory.clone());
    assert!(second.is_err());
    assert!(matches!(memory.take_error(), Some(Error::NoAlias)));
    // SAFETY: it is there.
    assert_eq!(unsafe { first.bare()(1) }, 2);

    // SAFETY: no block begins there, which is found out.
    unsafe { memory.release(&raw const size as *const u8) }.unwrap_err();
    assert!(matches!(memory.take_error(), Some(Error::NotOurs(_))));
}
