//! Methods for tests.
//!
//! ```text
//!  sum      53                   push rbx          (the stack is aligned for calls)
//!           bb imm32             mov ebx, value
//!           ff 15 distance       call [slot]       ┐ for each call
//!           01 c3                add ebx, eax      ┘
//!           03 1d distance       add ebx, [constant]
//!           89 d8 5b c3          mov eax, ebx; pop rbx; ret
//!  pass on  ff 25 distance       jmp [slot]
//!  nothing  c3                   ret
//! ```

use std::hash::Hash;

use trampfd_code::cache::{Code, Slot};

/// A function `() -> i32`: the value, the constant and the results of all slots, added.
pub fn sum<M: Copy + Eq + Hash>(code: &mut Code<'_, M>, value: i32, constant: i32, calls: &[Slot]) {
    code.emit(&[0x53, 0xbb]);
    code.emit(&value.to_le_bytes());
    for &slot in calls {
        code.emit(&[0xff, 0x15]);
        code.emit_distance(slot);
        code.emit(&[0x01, 0xc3]);
    }
    let constant = code.constant(&constant.to_le_bytes());
    code.emit(&[0x03, 0x1d]);
    code.emit_distance(constant);
    code.emit(&[0x89, 0xd8, 0x5b, 0xc3]);
}

/// Goes on to the function in the slot with the arguments that came.
pub fn pass_on<M: Copy + Eq + Hash>(code: &mut Code<'_, M>, slot: Slot) {
    code.emit(&[0xff, 0x25]);
    code.emit_distance(slot);
}

/// Returns.
pub fn nothing<M: Copy + Eq + Hash>(code: &mut Code<'_, M>) {
    code.emit(&[0xc3]);
}

/// The system call that gives files other names.
pub const RENAME: libc::c_long = libc::SYS_renameat;

/// What arguments may be in: rdi, rsi, rdx, rcx, r8, r9, rax, r10; then ymm0 to ymm7.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    general: [u64; 8],
    vectors: [[u64; 4]; 8],
}

impl Arguments {
    /// All different.
    pub fn new() -> Arguments {
        let n = |i: usize| 0x0101_0101_0101_0101 * (i as u64 + 1);
        Arguments {
            general: std::array::from_fn(n),
            vectors: std::array::from_fn(|i| std::array::from_fn(|j| n(10 + 4 * i + j))),
        }
    }
}

/// What is in the registers after `function` was called, which leaves them alone. Without AVX
/// the upper halves of vectors come back as they were given.
///
/// # Safety
///
/// `function` can be called.
pub unsafe fn registers_after(function: *const u8, arguments: &Arguments) -> Arguments {
    let mut after = *arguments;
    // SAFETY: reads one structure and writes another; all that a function may change is named.
    unsafe {
        if std::arch::is_x86_feature_detected!("avx") {
            std::arch::asm!(
                "push rbx", "push r12", "mov rbx, rsi", "mov r12, rdx",
                "push rbp", "mov rbp, rsp", "and rsp, -16", "mov r11, rdi",
                "vmovdqu ymm0, [rbx + 64]", "vmovdqu ymm1, [rbx + 96]",
                "vmovdqu ymm2, [rbx + 128]", "vmovdqu ymm3, [rbx + 160]",
                "vmovdqu ymm4, [rbx + 192]", "vmovdqu ymm5, [rbx + 224]",
                "vmovdqu ymm6, [rbx + 256]", "vmovdqu ymm7, [rbx + 288]",
                "mov rdi, [rbx]", "mov rsi, [rbx + 8]", "mov rdx, [rbx + 16]",
                "mov rcx, [rbx + 24]", "mov r8, [rbx + 32]", "mov r9, [rbx + 40]",
                "mov rax, [rbx + 48]", "mov r10, [rbx + 56]",
                "call r11",
                "vmovdqu [r12 + 64], ymm0", "vmovdqu [r12 + 96], ymm1",
                "vmovdqu [r12 + 128], ymm2", "vmovdqu [r12 + 160], ymm3",
                "vmovdqu [r12 + 192], ymm4", "vmovdqu [r12 + 224], ymm5",
                "vmovdqu [r12 + 256], ymm6", "vmovdqu [r12 + 288], ymm7",
                "mov [r12], rdi", "mov [r12 + 8], rsi", "mov [r12 + 16], rdx",
                "mov [r12 + 24], rcx", "mov [r12 + 32], r8", "mov [r12 + 40], r9",
                "mov [r12 + 48], rax", "mov [r12 + 56], r10",
                "vzeroupper", "mov rsp, rbp", "pop rbp", "pop r12", "pop rbx",
                inout("rdi") function => _,
                inout("rsi") arguments => _,
                inout("rdx") &raw mut after => _,
                clobber_abi("C"),
            );
        } else {
            std::arch::asm!(
                "push rbx", "push r12", "mov rbx, rsi", "mov r12, rdx",
                "push rbp", "mov rbp, rsp", "and rsp, -16", "mov r11, rdi",
                "movdqu xmm0, [rbx + 64]", "movdqu xmm7, [rbx + 288]",
                "mov rdi, [rbx]", "mov rsi, [rbx + 8]", "mov rdx, [rbx + 16]",
                "mov rcx, [rbx + 24]", "mov r8, [rbx + 32]", "mov r9, [rbx + 40]",
                "mov rax, [rbx + 48]", "mov r10, [rbx + 56]",
                "call r11",
                "movdqu [r12 + 64], xmm0", "movdqu [r12 + 288], xmm7",
                "mov [r12], rdi", "mov [r12 + 8], rsi", "mov [r12 + 16], rdx",
                "mov [r12 + 24], rcx", "mov [r12 + 32], r8", "mov [r12 + 40], r9",
                "mov [r12 + 48], rax", "mov [r12 + 56], r10",
                "mov rsp, rbp", "pop rbp", "pop r12", "pop rbx",
                inout("rdi") function => _,
                inout("rsi") arguments => _,
                inout("rdx") &raw mut after => _,
                clobber_abi("C"),
            );
        }
    }
    after
}
