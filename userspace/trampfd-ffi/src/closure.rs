//! Closures: allocated, freed, prepared.
//!
//! A closure that `ffi_closure_alloc` gave is a block of `trampfd`, in which libffi's fields have
//! libffi's places; its code is the block's stub. What is prepared here:
//!
//! | closure | convention and types | how |
//! |---|---|---|
//! | of `ffi_closure_alloc` | native, known | `trampfd`'s entry, by a plan |
//! | the same | others | libffi's own entry, which libffi names; reached by our stub |
//! | memory of the caller | all | libffi's own `ffi_prep_closure_loc` |
//! | neither, but the code address lies in our stubs | all | `FFI_BAD_ABI`: code and closure do not belong together |

// What is called last is `extern "C"`, which cannot unwind: so its callers need no frame of their own.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

use trampfd::raw::{self, Block, Plan};
use trampfd::{Builder, Error};

use crate::arch;
use crate::ffi::{Cif, Closure, Fun, Status};
use crate::{real, signature};

/// Allocates a closure of at least `size` bytes and tells its code address in `code`. Null, and
/// errno, if that cannot be had:
///
/// | errno | why |
/// |---|---|
/// | ENOMEM | no memory, or the tables of stubs cannot grow; and every other reason |
/// | EDQUOT | the user's limit of the kernel service |
/// | EPERM | the process is sealed |
///
/// # Safety
///
/// `code` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_closure_alloc(size: usize, code: *mut *const c_void) -> *mut c_void {
    if code.is_null() {
        return null_mut();
    }
    // SAFETY: `code` by the contract.
    unsafe {
        match raw::recent(&Builder::new(), size) {
            Some(block) => give(block, code),
            None => alloc_slowly(size, code),
        }
    }
}

/// # Safety
///
/// A new block, and a place for its code address.
#[inline(always)]
unsafe fn give(block: NonNull<Block>, code: *mut *const c_void) -> *mut c_void {
    // SAFETY: by the contract.
    unsafe { code.write(raw::stub(block).cast()) };
    block.as_ptr().cast()
}

/// # Safety
///
/// `code` is a place for a pointer.
#[cold]
#[inline(never)]
unsafe extern "C" fn alloc_slowly(size: usize, code: *mut *const c_void) -> *mut c_void {
    match raw::alloc(&Builder::new(), size.max(size_of::<Closure>())) {
        // SAFETY: a new block; `code` by the contract.
        Ok(block) => unsafe { give(block, code) },
        Err(error) => failed(&error),
    }
}

#[cold]
fn failed(error: &Error) -> *mut c_void {
    let errno = match error {
        Error::Quota => libc::EDQUOT,
        Error::Sealed => libc::EPERM,
        _ => libc::ENOMEM,
    };
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = errno };
    null_mut()
}

/// Frees a closure. Its code address does as well, as some callers have only that. Null is
/// nothing to free.
///
/// # Safety
///
/// `closure` is null or came from `ffi_closure_alloc`, and neither it nor its code is used any
/// more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_closure_free(closure: *mut c_void) {
    // Callers that read the closure's address from behind its code address, as
    // gobject-introspection before 1.72, come with bytes of a stub, which are no address.
    if !closure.cast::<Closure>().is_aligned() {
        return;
    }
    // SAFETY: by the contract.
    unsafe {
        match block_at(closure) {
            Some(block) => raw::free(block),
            None => free_other(closure),
        }
    }
}

/// # Safety
///
/// As for `ffi_closure_free`; it is no block.
#[cold]
#[inline(never)]
unsafe extern "C" fn free_other(closure: *mut c_void) {
    if closure.is_null() {
        return;
    }
    // SAFETY: by the contract it can be read.
    unsafe {
        match raw::block_of(closure.cast()) {
            Some(block) => raw::free(block),
            None => real::closure_free(closure),
        }
    }
}

/// The block at this address, if it is one.
///
/// # Safety
///
/// `closure` is null, or a closure of whatever kind or code can be read there.
#[inline(always)]
unsafe fn block_at(closure: *mut c_void) -> Option<NonNull<Block>> {
    // SAFETY: by the contract.
    unsafe { raw::block_at(closure.cast()) }
}

/// # Safety
///
/// As for `ffi_prep_closure_loc`, with the closure as its own code address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_closure(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
) -> Status {
    // SAFETY: by the contract.
    unsafe { prep(closure, cif, fun, user_data, closure.cast()) }
}

/// Prepares a closure: from now on its code calls `fun(cif, result, arguments, user_data)`.
///
/// # Safety
///
/// `closure` is a closure of the caller, from `ffi_closure_alloc` or in memory of its own which
/// `codeloc` makes executable; `cif` was prepared, and lives until the closure is called for the
/// last time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_closure_loc(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract.
    unsafe { prep(closure, cif, fun, user_data, codeloc) }
}

/// # Safety
///
/// As for [`ffi_prep_closure_loc`].
#[inline(always)]
pub(crate) unsafe fn prep(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract.
    unsafe {
        let Some(block) = block_at(closure.cast()) else {
            return prep_other(closure, cif, fun, user_data, codeloc);
        };
        if (*cif).abi == arch::NATIVE_ABI
            && let Some(plan) = signature::recent(&*cif)
        {
            bind(block, plan, cif, fun, user_data);
            return Status::Ok;
        }
        prep_block(block, cif, fun, user_data)
    }
}

/// # Safety
///
/// As for [`ffi_prep_closure_loc`]; the closure is this block.
#[inline(never)]
unsafe extern "C" fn prep_block(
    block: NonNull<Block>,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
) -> Status {
    // SAFETY: by the contract.
    unsafe {
        let plan = if (*cif).abi == arch::NATIVE_ABI { signature::plan(&*cif) } else { Ok(None) };
        match plan {
            Ok(Some(plan)) => {
                bind(block, plan, cif, fun, user_data);
                Status::Ok
            }
            Ok(None) => prep_foreign(block, cif, fun, user_data),
            Err(status) => status,
        }
    }
}

/// # Safety
///
/// As for [`ffi_prep_closure_loc`]; the closure is this block, and `plan` is for `cif`.
#[inline(always)]
unsafe fn bind(
    block: NonNull<Block>,
    plan: &'static Plan,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
) {
    // SAFETY: by the contract. The fields are stored before the stub leads to them.
    unsafe {
        fill(block.as_ptr().cast(), cif, fun, user_data);
        raw::bind(block, plan);
    }
}

/// # Safety
///
/// `closure` is a closure of the caller.
#[inline(always)]
unsafe fn fill(closure: *mut Closure, cif: *const Cif, fun: Option<Fun>, user_data: *mut ()) {
    // SAFETY: by the contract.
    unsafe {
        (*closure).cif = cif;
        (*closure).fun = fun;
        (*closure).user_data = user_data;
    }
}

/// Lets the stub jump to libffi's entry, which libffi names when it prepares a closure in memory
/// of the caller.
///
/// # Safety
///
/// As for [`ffi_prep_closure_loc`]; the closure is this block.
#[cold]
unsafe fn prep_foreign(
    block: NonNull<Block>,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
) -> Status {
    let mut named = Closure { tramp: [0; 4], cif, fun, user_data };
    let at = &raw mut named;
    // SAFETY: by the contract; this closure is never called.
    let status = unsafe { real::prep_closure_loc(at, cif, fun, user_data, at.cast()) };
    if status != Status::Ok {
        return status;
    }
    let Some(entry) = arch::entry_of(&named.tramp) else {
        return Status::BadAbi;
    };
    // SAFETY: the entry wants what the stub loads.
    unsafe {
        fill(block.as_ptr().cast(), cif, fun, user_data);
        match raw::bind_foreign(block, core::ptr::with_exposed_provenance(entry)) {
            Ok(()) => Status::Ok,
            Err(_) => Status::BadAbi,
        }
    }
}

/// # Safety
///
/// As for [`ffi_prep_closure_loc`]; the closure is no block.
#[cold]
#[inline(never)]
unsafe extern "C" fn prep_other(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract.
    unsafe {
        if raw::in_block(codeloc.cast()) {
            return Status::BadAbi;
        }
        real::prep_closure_loc(closure, cif, fun, user_data, codeloc)
    }
}
