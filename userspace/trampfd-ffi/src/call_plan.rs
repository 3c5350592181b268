//! Call plans: of libffi 3.7.0 and 3.8.0, and so not in the libffi that is linked to. A plan here
//! is a `ffi_cif` that is called by `ffi_call`, as libffi's own are on most architectures.

use core::ffi::c_void;
use core::ptr::null_mut;

use crate::ffi::Cif;

unsafe extern "C-unwind" {
    fn ffi_call(
        cif: *const Cif,
        code: *const c_void,
        result: *mut c_void,
        args: *const *mut c_void,
    );
}

/// `ffi_call_plan`.
///
/// # Invariants
///
/// It came from `ffi_call_plan_alloc`, and `cif` is the prepared `ffi_cif` given there, which by
/// libffi's contract outlives the plan.
#[repr(C)]
#[derive(Debug)]
pub struct Plan {
    cif: *const Cif,
}

/// Makes a plan for calls of a signature; null where there is no memory.
///
/// # Safety
///
/// `cif` was prepared and outlives the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_call_plan_alloc(cif: *const Cif) -> *mut Plan {
    // SAFETY: any size.
    let plan = unsafe { libc::malloc(size_of::<Plan>()) }.cast::<Plan>();
    if plan.is_null() {
        return null_mut();
    }
    // SAFETY: new memory of that size, aligned for any type.
    unsafe { plan.write(Plan { cif }) };
    plan
}

/// Calls `code` as `ffi_call` does.
///
/// # Safety
///
/// `plan` is a plan; the rest is as for `ffi_call`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ffi_call_plan_invoke(
    plan: *const Plan,
    code: *const c_void,
    result: *mut c_void,
    args: *const *mut c_void,
) {
    // SAFETY: by the contract and the invariant of `Plan`.
    unsafe { ffi_call((*plan).cif, code, result, args) }
}

/// Frees a plan; null is nothing to free.
///
/// # Safety
///
/// `plan` is null, or a plan that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_call_plan_free(plan: *mut Plan) {
    // SAFETY: by the contract, from malloc or null.
    unsafe { libc::free(plan.cast()) };
}

/// Bytes that a plan takes; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn ffi_call_plan_size(plan: *const Plan) -> usize {
    if plan.is_null() { 0 } else { size_of::<Plan>() }
}
