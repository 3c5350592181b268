//! Room for thread-local variables at one distance from the thread pointer in all threads.

use std::cell::UnsafeCell;
use std::sync::{Mutex, OnceLock};

/// Bytes in each thread.
const LEN: usize = 2048;
const ALIGN: usize = 64;

#[repr(align(64))]
struct Reserve(UnsafeCell<[u8; LEN]>);

thread_local! {
    /// Zeros, in the thread-local memory that the program starts with.
    static RESERVE: Reserve = const { Reserve(UnsafeCell::new([0; LEN])) };
}

/// Where it is in this thread, from the thread pointer.
fn here() -> isize {
    let address = RESERVE.with(|reserve| reserve.0.get() as isize);
    address.wrapping_sub(crate::arch::thread_pointer() as isize)
}

/// Where it is in all threads, if that is one distance.
fn everywhere() -> Option<isize> {
    static DISTANCE: OnceLock<Option<isize>> = OnceLock::new();
    *DISTANCE.get_or_init(|| {
        /// No program has more thread-local memory at its start.
        const FAR: isize = 1 << 30;
        let there = std::thread::Builder::new().spawn(here).ok()?.join().ok()?;
        Some(here()).filter(|&here| here == there && here.abs() < FAR)
    })
}

/// Takes `len` bytes for good: the distance of the first from the thread pointer.
pub(super) fn take(len: usize, align: usize) -> Result<isize, &'static str> {
    static USED: Mutex<usize> = Mutex::new(0);
    let distance = everywhere().ok_or(
        "this library was loaded after the program's start, or no thread can be made to ask",
    )?;
    if align > ALIGN {
        return Err("the variables' alignment is more than the room at a fixed distance has");
    }
    let mut used = USED.lock().unwrap_or_else(|e| e.into_inner());
    let start = used.next_multiple_of(align);
    match start.checked_add(len) {
        Some(end) if end <= LEN => {
            *used = end;
            Ok(distance + start as isize)
        }
        _ => Err("the room at a fixed distance from the thread pointer is used up"),
    }
}
