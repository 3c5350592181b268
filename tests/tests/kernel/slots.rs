//! Freed slots are cleared in batches, and one that is bound anew was cleared before.

use std::collections::HashMap;

use trampfd::{Backend, Builder, Closure};
use trampfd_tests::{alone_on, fork};

type One = unsafe extern "C" fn(usize) -> usize;

fn adder(builder: &Builder, n: usize) -> Closure<One> {
    builder.closure(|a: usize, n: &usize| a + n, n).unwrap()
}

#[test]
fn a_child_cannot_call_what_was_freed_before_fork() {
    let end = alone_on(Backend::Kernel, |builder| {
        let f = adder(builder, 1);
        let stale = f.as_ptr();
        drop(f);
        // SAFETY: it traps, which is what is tested.
        let end = fork(|| assert_ne!(unsafe { stale(1) }, 0));
        let signal = std::os::unix::process::ExitStatusExt::signal(&end);
        assert_eq!(signal, Some(libc::SIGILL), "{end}");
    });
    end.is_good();
}

#[test]
fn at_most_256_freed_slots_can_still_be_called() {
    let end = alone_on(Backend::Kernel, |builder| {
        let all: Vec<_> = (0..2000).map(|n| adder(builder, n)).collect();
        let mut empty = HashMap::new();
        let stubs: Vec<usize> = all.iter().map(|f| f.as_ptr() as usize).collect();
        for (n, f) in all.into_iter().enumerate() {
            drop(f);
            // The slot of an empty stub holds the stub's own address; the data view is readable.
            let is_empty = |stub: usize| {
                let slot = stub + trampfd_sys::TRAMPFD_TABLE_SIZE;
                // SAFETY: the data view of a stub that was handed out.
                unsafe { std::ptr::with_exposed_provenance::<usize>(slot).read_volatile() == stub }
            };
            let open = stubs[..=n].iter().filter(|&&stub| !is_empty(stub)).count();
            assert!(open <= 256, "{open} freed slots can be called");
            *empty.entry(open).or_insert(0) += 1;
        }
        // They are indeed cleared together.
        assert!(empty.len() > 200, "{} different counts", empty.len());
    });
    end.is_good();
}

#[test]
fn a_target_in_memory_of_the_program_is_refused_by_the_kernel_too() {
    // The text check is the library's; here nothing but the kernel looks.
    let end = alone_on(Backend::Kernel, |builder| {
        let before = adder(builder, 1);
        static DATA: [u64; 2] = [0xc3; 2];
        // SAFETY: it is never called.
        let handler = unsafe {
            std::mem::transmute::<usize, extern "C" fn(usize, &usize) -> usize>(
                DATA.as_ptr() as usize
            )
        };
        let made: Result<Closure<One>, _> = builder.closure(handler, 1usize);
        assert!(matches!(made, Err(trampfd::Error::NotText { .. })), "{made:?}");
        // SAFETY: the closure lives.
        assert_eq!(unsafe { before.as_ptr()(1) }, 2);
    });
    end.is_good();
}
