//! flang's entries (`-fsafe-trampoline`). A handle is the stub itself; there is no limit to their
//! number, and any thread may free them.

use crate::{die, pool};

/// A handle for a pointer to `callee` with the static chain `chain`. `scratch` is not used.
///
/// # Safety
///
/// Called by code that flang made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _FortranATrampolineInit(
    _scratch: *mut (),
    callee: *const (),
    chain: *const (),
) -> *mut () {
    let mut handle = 0;
    let taken = pool::take(1, |slot| {
        // SAFETY: just taken.
        unsafe { pool::arm(slot, chain.expose_provenance(), callee.expose_provenance()) };
        handle = pool::stub(slot);
    });
    match taken {
        Ok(()) => core::ptr::with_exposed_provenance_mut(handle),
        Err(why) => die(why),
    }
}

/// The pointer to the nested function of a handle.
///
/// # Safety
///
/// Called by code that flang made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _FortranATrampolineAdjust(handle: *mut ()) -> *mut () {
    handle
}

/// Gives a handle back. What is none, or was given back before, ends the process, as in free(3).
///
/// # Safety
///
/// Called by code that flang made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _FortranATrampolineFree(handle: *mut ()) {
    if handle.is_null() {
        return;
    }
    match pool::taken(handle.addr()) {
        // SAFETY: taken, and the handle's owner gives it back.
        Some(slot) => unsafe {
            pool::disarm(slot);
            pool::put(slot);
        },
        None => die("_FortranATrampolineFree of what is no handle, or was freed before"),
    }
}
