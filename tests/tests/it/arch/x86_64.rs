//! x86-64: single steps by the trap flag.
//!
//! ```text
//!            │ return address of the caller  │
//!            │ rbp, rbx, r12, r13, r14, r15  │ what the caller has in them
//!    rsp ──► │ alignment                     │ during the call: 16-byte aligned
//!            └───────────────────────────────┘
//! ```

use core::arch::naked_asm;

/// What [`call_stepped`] has in the registers that a callee must keep: DWARF number and value.
pub const KEPT: [(i32, usize); 6] =
    [(6, 0x5106), (3, 0x5103), (12, 0x510c), (13, 0x510d), (14, 0x510e), (15, 0x510f)];

/// Calls `f(arg)` and returns its result. From the call on, and until `f` is back, the thread
/// gets SIGTRAP after each instruction. The registers of [`KEPT`] have their values meanwhile.
///
/// # Safety
///
/// `f` is a C function that may be called so, and SIGTRAP has a handler that returns.
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn call_stepped(f: usize, arg: usize) -> usize {
    naked_asm!(
        ".cfi_startproc",
        "push %rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %rbp, 0",
        "push %rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %rbx, 0",
        "push %r12",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %r12, 0",
        "push %r13",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %r13, 0",
        "push %r14",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %r14, 0",
        "push %r15",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset %r15, 0",
        "sub $8, %rsp",
        ".cfi_adjust_cfa_offset 8",
        "mov ${rbp}, %ebp",
        "mov ${rbx}, %ebx",
        "mov ${r12}, %r12d",
        "mov ${r13}, %r13d",
        "mov ${r14}, %r14d",
        "mov ${r15}, %r15d",
        "mov %rdi, %rax",
        "mov %rsi, %rdi",
        "pushf",
        ".cfi_adjust_cfa_offset 8",
        "orl $0x100, (%rsp)",
        "popf",
        ".cfi_adjust_cfa_offset -8",
        "call *%rax",
        "pushf",
        ".cfi_adjust_cfa_offset 8",
        "andl $~0x100, (%rsp)",
        "popf",
        ".cfi_adjust_cfa_offset -8",
        "add $8, %rsp",
        ".cfi_adjust_cfa_offset -8",
        "pop %r15",
        ".cfi_adjust_cfa_offset -8",
        "pop %r14",
        ".cfi_adjust_cfa_offset -8",
        "pop %r13",
        ".cfi_adjust_cfa_offset -8",
        "pop %r12",
        ".cfi_adjust_cfa_offset -8",
        "pop %rbx",
        ".cfi_adjust_cfa_offset -8",
        "pop %rbp",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        rbp = const KEPT[0].1,
        rbx = const KEPT[1].1,
        r12 = const KEPT[2].1,
        r13 = const KEPT[3].1,
        r14 = const KEPT[4].1,
        r15 = const KEPT[5].1,
        options(att_syntax)
    )
}

/// The address of the instruction that the thread would run next.
pub fn pc(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
}
