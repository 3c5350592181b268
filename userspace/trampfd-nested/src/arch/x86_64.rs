//! x86-64: how GCC's calls arrive.
//!
//! ```text
//!   created(rdi chain, rsi function, rdx dst)     deleted()
//!     rcx <- rsp + 8                                rdi <- rsp + 8    the caller's stack pointer
//!     r8  <- %fs:0 + offset of the record           rsi <- the same   this thread's record
//!     jmp frames::created                           jmp frames::deleted
//! ```
//!
//! The record is reached as in `trampfd_text::arch::thread_word`, without a call: 64 bytes of the
//! loader's room for libraries that are loaded later.

use core::arch::{asm, global_asm, naked_asm};

use crate::frames::{self, Thread};

/// The record's name: each version of this crate in a program has its own.
macro_rules! record {
    () => {
        concat!("trampfd_nested_thread_", env!("CARGO_PKG_VERSION"))
    };
}

global_asm!(
    concat!(".pushsection .tbss.", record!(), ",\"awT\",@nobits"),
    concat!(".globl ", record!()),
    concat!(".hidden ", record!()),
    concat!(".type ", record!(), ",@object"),
    concat!(".size ", record!(), ",{size}"),
    ".p2align 3",
    concat!(record!(), ":"),
    ".zero {size}",
    ".popsection",
    size = const size_of::<Thread>(),
    options(att_syntax)
);

/// GCC: a function is entered whose nested function's address is taken. Makes a pointer to
/// `function` with the static chain `chain`, and writes it to `dst`.
///
/// # Safety
///
/// Called by code that GCC made.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __gcc_nested_func_ptr_created(
    chain: *mut (),
    function: *const (),
    dst: *mut *const (),
) {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "lea 8(%rsp), %rcx",
        concat!("mov ", record!(), "@gottpoff(%rip), %r8"),
        "add %fs:0, %r8",
        "jmp {created}",
        ".cfi_endproc",
        created = sym frames::created,
        options(att_syntax)
    )
}

/// GCC: such a function is left. Drops the pointer that it made last.
///
/// # Safety
///
/// Called by code that GCC made.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __gcc_nested_func_ptr_deleted() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "lea 8(%rsp), %rdi",
        concat!("mov ", record!(), "@gottpoff(%rip), %rsi"),
        "add %fs:0, %rsi",
        "jmp {deleted}",
        ".cfi_endproc",
        deleted = sym frames::deleted,
        options(att_syntax)
    )
}

/// This thread's record.
#[inline(always)]
pub(crate) fn thread() -> *const Thread {
    let record: usize;
    // SAFETY: computes an address.
    unsafe {
        asm!(
            concat!("mov ", record!(), "@gottpoff(%rip), {record}"),
            "add %fs:0, {record}",
            record = out(reg) record,
            options(att_syntax, pure, readonly, nostack)
        );
    }
    core::ptr::with_exposed_provenance(record)
}
