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

/// How much of it is given to sets.
static USED: Mutex<usize> = Mutex::new(0);

/// A piece of it. Given back when it is dropped, unless it is [kept](Piece::keep).
#[derive(Debug)]
pub(super) struct Piece {
    /// Of its first byte from the thread pointer.
    pub(super) distance: isize,
    before: usize,
    end: usize,
}

impl Piece {
    pub(super) fn take(len: usize, align: usize) -> Result<Piece, &'static str> {
        let distance = everywhere().ok_or(
            "this library was loaded after the program's start, or no thread can be made to ask",
        )?;
        if align > ALIGN {
            return Err("the variables' alignment is more than the room at a fixed distance has");
        }
        let mut used = USED.lock().unwrap_or_else(|e| e.into_inner());
        let (before, start) = (*used, used.next_multiple_of(align));
        match start.checked_add(len) {
            Some(end) if end <= LEN => {
                *used = end;
                Ok(Piece { distance: distance + start as isize, before, end })
            }
            _ => Err("the room at a fixed distance from the thread pointer is used up"),
        }
    }

    /// Code that writes there can run from now on: nobody else gets it.
    pub(super) fn keep(mut self) {
        self.before = self.end;
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut used = USED.lock().unwrap_or_else(|e| e.into_inner());
        if *used == self.end {
            *used = self.before;
        }
    }
}
