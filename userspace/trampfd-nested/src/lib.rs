//! The functions that compilers call where the address of a nested function is taken, without
//! memory that is writable and executable.
//!
//! | called by | function |
//! |---|---|
//! | GCC 14 and newer, `-ftrampoline-impl=heap` | `__gcc_nested_func_ptr_created`, `__gcc_nested_func_ptr_deleted` |
//! | flang, `-fsafe-trampoline` | `_FortranATrampolineInit`, `_FortranATrampolineAdjust`, `_FortranATrampolineFree` |
//!
//! A pointer to a nested function is the address of a stub that loads the static chain register
//! with the frame of the function around it, and jumps. Stubs are the program's own text and what
//! they load is ordinary memory, always: a system call of the kernel service for each entry of a
//! function would be absurd.
//!
//! ```text
//!   arch      the entries: adds where the caller's frame is, and this thread's record
//!     ▼
//!   frames    which pointers live: of each thread's stack in order, of other stacks by address
//!   flang     handles
//!     ▼
//!   pool      which slots are free: bits, without a lock
//!     ▼
//!   copies    further tables: copies of our own text
//! ```
//!
//! There is no result to say an error by. Where no stub can be had the reason is printed and the
//! process ends, as with libgcc: the function cannot run without its pointer.
//!
//! The crate needs no standard library and no allocator; the static object for C programs is made
//! of it (`trampfd-capi/link.sh`).

#![no_std]
#![warn(missing_debug_implementations)]

mod arch;
mod copies;
mod flang;
mod frames;
mod pool;

pub use arch::{__gcc_nested_func_ptr_created, __gcc_nested_func_ptr_deleted};
pub use flang::{_FortranATrampolineAdjust, _FortranATrampolineFree, _FortranATrampolineInit};

use trampfd_text::entry::Freed;

/// Prints `what` as one line and ends the process.
#[cold]
fn die(what: &str) -> ! {
    let part = |text: &[u8]| libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    let line = [part(b"trampfd: "), part(what.as_bytes()), part(b"\n")];
    // SAFETY: reads the line. If it cannot be written there is nobody to tell.
    unsafe {
        libc::writev(2, line.as_ptr(), line.len() as libc::c_int);
        libc::abort()
    }
}

/// Who speaks when the pointer of a frame that is gone is called.
struct Gone;

impl Freed for Gone {
    extern "C" fn freed(_stub: usize) {
        const LINE: &[u8] =
            b"trampfd: a nested function was called whose outer function had returned\n";
        // SAFETY: as in `die`.
        let _ = unsafe { libc::write(2, LINE.as_ptr().cast(), LINE.len()) };
    }
}

/// Nothing here panics; the static object has to say what would be done.
#[cfg(trampfd_object)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    die("a defect in the runtime of nested functions")
}
