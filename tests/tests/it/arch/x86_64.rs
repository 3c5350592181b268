//! x86-64: single steps by the trap flag.
//!
//! ```text
//!            │ return address of the caller │
//!    rsp ──► │ rbx                          │ during the call: 16-byte aligned
//!            └──────────────────────────────┘
//! ```

use core::arch::naked_asm;

/// Calls `f(arg)` and returns its result. From the call on, and until `f` is back, the thread
/// gets SIGTRAP after each instruction.
///
/// # Safety
///
/// `f` is a C function that may be called so, and SIGTRAP has a handler that returns.
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn call_stepped(f: usize, arg: usize) -> usize {
    naked_asm!(
        ".cfi_startproc",
        "push %rbx",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset %rbx, -16",
        "mov %rdi, %rax",
        "mov %rsi, %rdi",
        "pushf",
        ".cfi_def_cfa_offset 24",
        "orl $0x100, (%rsp)",
        "popf",
        ".cfi_def_cfa_offset 16",
        "call *%rax",
        "pushf",
        ".cfi_def_cfa_offset 24",
        "andl $~0x100, (%rsp)",
        "popf",
        ".cfi_def_cfa_offset 16",
        "pop %rbx",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
        options(att_syntax)
    )
}

/// The address of the instruction that the thread would run next.
pub fn pc(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
}
