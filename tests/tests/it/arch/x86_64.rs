//! x86-64: single steps by the trap flag.
//!
//! ```text
//!            │ return address of the caller  │
//!            │ rbp, rbx, r12, r13, r14, r15  │ what the caller has in them
//!    rsp ──► │ alignment                     │ during the call: 16-byte aligned
//!            └───────────────────────────────┘
//! ```

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicUsize;

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

/// What [`kept`] remembers of a call, and what it found when that was over.
///
/// ```text
///   0 target   8 return address   16 rsp   24 rbx, rbp, r12 .. r15 of the caller   72 faults
/// ```
#[repr(C)]
struct Call(UnsafeCell<[usize; 10]>);

// SAFETY: used by one thread at a time, which is the business of those who use `keeping`.
unsafe impl Sync for Call {}

static CALL: Call = Call(UnsafeCell::new([0; 10]));

/// A function that goes on to `target` with every argument as it is, and looks when it is back
/// whether the registers that a callee must keep, and rsp, are as they were. For one call at a
/// time.
pub fn keeping(target: *const ()) -> *const () {
    // SAFETY: by the contract nobody else uses it now.
    unsafe { (*CALL.0.get())[0] = target as usize };
    kept as *const ()
}

/// Registers that were not kept in calls through [`keeping`], so far.
pub fn faults() -> usize {
    // SAFETY: as above.
    unsafe { (*CALL.0.get())[9] }
}

#[unsafe(naked)]
extern "C" fn kept() {
    naked_asm!(
        "endbr64",
        "mov (%rsp), %r11",
        "mov %r11, 8+{call}(%rip)",
        "mov %rsp, 16+{call}(%rip)",
        "mov %rbx, 24+{call}(%rip)",
        "mov %rbp, 32+{call}(%rip)",
        "mov %r12, 40+{call}(%rip)",
        "mov %r13, 48+{call}(%rip)",
        "mov %r14, 56+{call}(%rip)",
        "mov %r15, 64+{call}(%rip)",
        "lea 2f(%rip), %r11",
        "mov %r11, (%rsp)",
        "mov ${rbp}, %ebp",
        "mov ${rbx}, %ebx",
        "mov ${r12}, %r12d",
        "mov ${r13}, %r13d",
        "mov ${r14}, %r14d",
        "mov ${r15}, %r15d",
        "jmp *{call}(%rip)",
        // Back: the result registers and st(0), st(1) are left alone.
        "2:",
        "pushq 8+{call}(%rip)",
        "cmp 16+{call}(%rip), %rsp",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${rbp}, %rbp",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${rbx}, %rbx",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${r12}, %r12",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${r13}, %r13",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${r14}, %r14",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: cmp ${r15}, %r15",
        "je 3f",
        "incq 72+{call}(%rip)",
        "3: mov 16+{call}(%rip), %rsp",
        "mov 24+{call}(%rip), %rbx",
        "mov 32+{call}(%rip), %rbp",
        "mov 40+{call}(%rip), %r12",
        "mov 48+{call}(%rip), %r13",
        "mov 56+{call}(%rip), %r14",
        "mov 64+{call}(%rip), %r15",
        "ret",
        call = sym CALL,
        rbp = const KEPT[0].1,
        rbx = const KEPT[1].1,
        r12 = const KEPT[2].1,
        r13 = const KEPT[3].1,
        r14 = const KEPT[4].1,
        r15 = const KEPT[5].1,
        options(att_syntax)
    )
}

/// Handlers that were entered with a stack that is not aligned to 16 before the call.
pub static MISALIGNED: AtomicUsize = AtomicUsize::new(0);

/// A handler that goes on to the handler at the start of what `data` points to, and counts in
/// [`MISALIGNED`].
///
/// # Safety
///
/// As for that handler.
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn aligned(
    signature: *const (),
    result: *mut u8,
    args: *const *mut u8,
    data: *mut (),
) {
    naked_asm!(
        "endbr64",
        "lea 8(%rsp), %rax",
        "test $15, %al",
        "jz 2f",
        "lock incq {misaligned}(%rip)",
        "2: jmp *(%rcx)",
        misaligned = sym MISALIGNED,
        options(att_syntax)
    )
}

/// Returns what is in the static chain register: no C function.
#[unsafe(naked)]
pub unsafe extern "C" fn chain() -> usize {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "mov %r10, %rax",
        "ret",
        ".cfi_endproc",
        options(att_syntax)
    )
}
