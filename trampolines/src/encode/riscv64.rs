//! riscv64: a stub of 32 bytes.
//!
//! ```text
//!   0   00000017   lpad 0             landing pad (Zicfilp); is auipc zero, 0 elsewhere: a no-op
//!   4   hhhhhR17   auipc R, hi(D-4)
//!   8   lllRR R03  ld    R, lo(R)     R  <- slot.data
//!  12   hhhhhe17   auipc t3, hi(D-4)  slot.code is 8 behind slot.data, and so is this auipc
//!  16   llle3e03   ld    t3, lo(t3)   t3 <- slot.code
//!  20   000e0067   jr    t3
//!  24   00000000   unimp              slot.code of an empty slot: SIGILL (an ebreak were SIGTRAP)
//!  28   00000000   unimp
//! ```
//!
//! `lo` is signed, so `hi` is rounded to the nearest multiple of 4096.

use super::{Refused, Trap, bits, put, word};

pub(super) const STRIDE: usize = 32;
pub(super) const CODE: usize = 24;
pub(super) const TRAP: Trap = Trap::InStub(24);
/// All bits zero is an illegal instruction, of 2 bytes as well.
pub(super) const FILL: [u8; 4] = [0; 4];
/// t0 to t2; a0 to a7; t4 to t6.
pub(super) const REGS: u64 = bits(&[(5, 7), (10, 17), (29, 31)]);

/// Carries the jump: not t0 or ra (return hints), not t2 (exempt from landing pads).
const T3: u32 = 28;

pub(super) fn refused(reg: u16) -> Refused {
    match reg {
        0 => Refused::Zero,
        1 => Refused::ReturnAddress,
        2 => Refused::StackPointer,
        3 | 4 => Refused::Platform,
        8 | 9 | 18..=27 => Refused::CallPreserved,
        28 => Refused::CarriesJump,
        _ => Refused::NoSuchRegister,
    }
}

fn auipc(reg: u32, hi: u32) -> u32 {
    hi << 12 | reg << 7 | 0x17
}

fn ld(reg: u32, lo: u32) -> u32 {
    lo << 20 | reg << 15 | 3 << 12 | reg << 7 | 0x03
}

pub(super) fn write(reg: u16, distance: i64, code: &mut [u8]) -> Option<()> {
    let reg = u32::from(reg);
    let offset = distance.checked_sub(4)?;
    let hi = offset.checked_add(0x800)? >> 12;
    if !(-(1 << 19)..1 << 19).contains(&hi) {
        return None;
    }
    let (hi, lo) = (hi as u32, (offset & 0xfff) as u32);
    put(
        code,
        &[auipc(0, 0), auipc(reg, hi), ld(reg, lo), auipc(T3, hi), ld(T3, lo), T3 << 15 | 0x67],
    );
    Some(())
}

pub(super) fn read(code: &[u8]) -> Option<(u16, i64)> {
    let (load_hi, load_lo) = (word(code, 1)?, word(code, 2)?);
    let hi = (load_hi & 0xffff_f000) as i32;
    let lo = load_lo as i32 >> 20;
    Some(((load_hi >> 7 & 0x1f) as u16, i64::from(hi) + i64::from(lo) + 4))
}
