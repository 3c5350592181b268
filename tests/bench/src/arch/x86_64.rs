//! x86-64: a nested function, as a stub calls it.
//!
//! ```text
//!   edi  argument ─┐
//!   r10  chain ──► int ─┴─► eax  their sum
//! ```

use core::arch::naked_asm;

/// A nested function as GCC makes it: adds its argument to the `int` that the static chain points
/// to.
///
/// # Safety
///
/// The static chain register points to an `int`.
#[unsafe(naked)]
pub unsafe extern "C" fn nested(x: i32) -> i32 {
    naked_asm!("endbr64", "movl (%r10), %eax", "addl %edi, %eax", "ret", options(att_syntax))
}
