//! x86-64: a nested function, as a stub calls it; the shortest function made at run time.
//!
//! ```text
//!   edi  argument ─┐
//!   r10  chain ──► int ─┴─► eax  their sum
//!
//!   b8 nn nn nn nn c3    mov eax, n; ret
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

/// Machine code of a function without arguments that returns `n`.
pub fn returns(n: u32) -> [u8; 6] {
    let n = n.to_le_bytes();
    [0xb8, n[0], n[1], n[2], n[3], 0xc3]
}
