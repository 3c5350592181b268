//! x86-64: calls of methods that are not compiled yet.
//!
//! ```text
//!  code of a batch                 its stubs                     this file
//!
//!  call *slot(%rip) ── not yet ──► stub:   endbr64
//!       │                                  lea slot(%rip), %r11
//!       │                                  jmp shared
//!       │ compiled                 shared: jmp *got(%rip) ─────► enter: keeps what arguments
//!       ▼                                                         may be in; the slot's group
//!  the method ◄────────────────────────────────────────────────── of the GOT names the cache;
//!                                                                 resolve(cache, slot); jmp *r11
//! ```
//!
//! Arguments may be in rdi, rsi, rdx, rcx, r8, r9, the number of vector registers in al, the
//! static chain in r10, vectors in the vector registers, whole, and masks. r11 is nobody's
//! (System V ABI for AMD64, 3.2.3).

use core::arch::naked_asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// ELF's e_machine.
pub(in super::super) const MACHINE: u32 = 62;

/// Bytes of a stub, and of the part that they share.
pub(in super::super) const STUB: usize = 16;

/// `got`: distance from the stub's first byte to the first word of the GOT.
pub(in super::super) fn shared_stub(got: i32) -> [u8; STUB] {
    let mut code = [crate::arch::TRAP[0]; STUB];
    code[..2].copy_from_slice(&[0xff, 0x25]);
    code[2..6].copy_from_slice(&got.wrapping_sub(6).to_le_bytes());
    code
}

/// `slot` and `shared`: distances from the stub's first byte.
pub(in super::super) fn stub(slot: i32, shared: i32) -> [u8; STUB] {
    let mut code = [0; STUB];
    code[..7].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa, 0x4c, 0x8d, 0x1d]);
    code[7..11].copy_from_slice(&slot.wrapping_sub(11).to_le_bytes());
    code[11] = 0xe9;
    code[12..].copy_from_slice(&shared.wrapping_sub(16).to_le_bytes());
    code
}

/// Bytes that XSAVE writes. 0: the processor or the system has only FXSAVE.
static STATE: AtomicUsize = AtomicUsize::new(0);

/// Learns what `enter` has to keep. Before anything can call it.
pub(in super::super) fn prepare() {
    const OSXSAVE: u32 = 1 << 27;
    // Once: a hypervisor may be asked each time.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Marked unsafe by older compilers.
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 processor has CPUID; leaf 0xd is there where OSXSAVE is.
        let state = unsafe {
            if __cpuid(1).ecx & OSXSAVE != 0 { __cpuid_count(0xd, 0).ebx as usize } else { 0 }
        };
        STATE.store(state, Ordering::Release);
    });
}

/// Where stubs go, with the slot's address in r11.
#[unsafe(naked)]
pub(in super::super) unsafe extern "C" fn enter() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push %rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset %rbp, -16",
        "mov %rsp, %rbp",
        ".cfi_def_cfa_register %rbp",
        "push %rax",
        "push %rdi",
        "push %rsi",
        "push %rdx",
        "push %rcx",
        "push %r8",
        "push %r9",
        "push %r10",
        "mov {state}(%rip), %rcx",
        "test %rcx, %rcx",
        "jz 2f",
        // XSAVE: aligned to 64; of its header it writes the first word only, and XRSTOR wants
        // zeros in the others.
        "sub %rcx, %rsp",
        "and $-64, %rsp",
        "xor %edx, %edx",
        "mov %rdx, 512(%rsp)",
        "mov %rdx, 520(%rsp)",
        "mov %rdx, 528(%rsp)",
        "mov %rdx, 536(%rsp)",
        "mov %rdx, 544(%rsp)",
        "mov %rdx, 552(%rsp)",
        "mov %rdx, 560(%rsp)",
        "mov %rdx, 568(%rsp)",
        // All that may carry arguments: SSE, AVX, masks and the rest of AVX-512.
        "mov $0xe6, %eax",
        "xsave64 (%rsp)",
        "jmp 3f",
        "2:",
        "sub $512, %rsp",
        "and $-64, %rsp",
        "fxsave64 (%rsp)",
        "3:",
        // resolve(cache, slot): the cache's address is the second word of the slot's group, and
        // begins with the address of its resolver.
        "mov %r11, %rsi",
        "mov %r11, %rdi",
        "and ${group}, %rdi",
        "mov 8(%rdi), %rdi",
        "cld",
        "call *(%rdi)",
        "mov %rax, %r11",
        "cmpq $0, {state}(%rip)",
        "je 4f",
        "mov $0xe6, %eax",
        "xor %edx, %edx",
        "xrstor64 (%rsp)",
        "jmp 5f",
        "4:",
        "fxrstor64 (%rsp)",
        "5:",
        "mov -8(%rbp), %rax",
        "mov -16(%rbp), %rdi",
        "mov -24(%rbp), %rsi",
        "mov -32(%rbp), %rdx",
        "mov -40(%rbp), %rcx",
        "mov -48(%rbp), %r8",
        "mov -56(%rbp), %r9",
        "mov -64(%rbp), %r10",
        "leave",
        ".cfi_def_cfa %rsp, 8",
        ".cfi_restore %rbp",
        "jmp *%r11",
        ".cfi_endproc",
        state = sym STATE,
        group = const -(super::super::format::GROUP as i32),
        options(att_syntax)
    )
}
