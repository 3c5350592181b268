//! x86-64: a stub of 32 bytes.
//!
//! ```text
//!   0   f3 0f 1e fa            endbr64           landing pad for indirect calls
//!   4   48 8b mm dd dd dd dd   mov  D(%rip), %R  R <- slot.data; 4c for r8 to r11
//!  11   ff 25 dd dd dd dd      jmp *D+8(%rip)    to slot.code
//!  17   cc x 7                 int3              nothing is run speculatively behind the jump
//!  24   0f 0b                  ud2               slot.code of an empty slot: SIGILL
//!  26   cc x 6                 int3
//! ```
//!
//! D is counted from the stub, the displacements from the end of their instruction: D - 11 and
//! D + 8 - 17.

use super::{Refused, Trap, bits};

pub(super) const STRIDE: usize = 32;
pub(super) const CODE: usize = 17;
pub(super) const TRAP: Trap = Trap::InStub(24);
/// By the offset in the stub.
pub(super) const FILL: [u8; 32] = {
    let mut fill = [0xcc; 32];
    fill[24] = 0x0f;
    fill[25] = 0x0b;
    fill
};
/// rax, rdx, rcx; rsi, rdi; r8 to r11.
pub(super) const REGS: u64 = bits(&[(0, 2), (4, 5), (8, 11)]);

/// The register's number in an instruction, by its DWARF number.
const MACHINE: [u8; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

pub(super) fn refused(reg: u16) -> Refused {
    match reg {
        7 => Refused::StackPointer,
        3 | 6 | 12..=15 => Refused::CallPreserved,
        _ => Refused::NoSuchRegister,
    }
}

pub(super) fn write(reg: u16, distance: i64, code: &mut [u8]) -> Option<()> {
    let machine = MACHINE[usize::from(reg)];
    let load = i32::try_from(distance.checked_sub(11)?).ok()?;
    let jump = i32::try_from(distance.checked_sub(9)?).ok()?;
    code[..4].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
    // REX.W, with REX.R as the register's fourth bit; ModRM: mod 0, rm 5 is rip-relative.
    code[4..7].copy_from_slice(&[0x48 | machine >> 3 << 2, 0x8b, (machine & 7) << 3 | 5]);
    code[7..11].copy_from_slice(&load.to_le_bytes());
    code[11..13].copy_from_slice(&[0xff, 0x25]);
    code[13..].copy_from_slice(&jump.to_le_bytes());
    Some(())
}

pub(super) fn read(code: &[u8]) -> Option<(u16, i64)> {
    let machine = (code[4] >> 2 & 1) << 3 | code[6] >> 3 & 7;
    let reg = MACHINE.iter().position(|&m| m == machine)?;
    let load = i32::from_le_bytes(*code[7..].first_chunk()?);
    Some((reg as u16, i64::from(load) + 11))
}
