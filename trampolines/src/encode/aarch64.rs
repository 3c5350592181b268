//! arm64: a stub of 16 bytes.
//!
//! ```text
//!   0   d503245f   bti c            landing pad for calls
//!   4   58iiiiiR   ldr xR, .+D-4    xR  <- slot.data
//!   8   58iiii10   ldr x16, .+D     x16 <- slot.code, which lies 8 behind slot.data
//!  12   d61f0200   br  x16          from x16 a br may reach a bti c
//! ```
//!
//! There is no room left for a trap: it is the last slot of each page, four times `udf #0`, which
//! raises SIGILL. A stub with a larger stride is filled with the same. The loads reach 1 MiB.

use super::{Refused, Trap, bits, put, word};

pub(super) const STRIDE: usize = 16;
pub(super) const CODE: usize = 16;
pub(super) const TRAP: Trap = Trap::LastOfPage;
/// `udf #0`.
pub(super) const FILL: [u8; 4] = [0; 4];
/// x0 to x15, x17.
pub(super) const REGS: u64 = bits(&[(0, 15), (17, 17)]);

pub(super) fn refused(reg: u16) -> Refused {
    match reg {
        16 => Refused::CarriesJump,
        18 => Refused::Platform,
        19..=29 => Refused::CallPreserved,
        30 => Refused::ReturnAddress,
        31 => Refused::StackPointer,
        _ => Refused::NoSuchRegister,
    }
}

/// `ldr xR, .+offset`; the offset is a multiple of 4 below 1 MiB either way.
fn ldr(reg: u16, offset: i64) -> Option<u32> {
    let words = offset / 4;
    if offset % 4 != 0 || !(-(1 << 18)..1 << 18).contains(&words) {
        return None;
    }
    Some(0x5800_0000 | (words as u32 & 0x7_ffff) << 5 | u32::from(reg))
}

pub(super) fn write(reg: u16, distance: i64, code: &mut [u8]) -> Option<()> {
    let load = ldr(reg, distance.checked_sub(4)?)?;
    let jump = ldr(16, distance)?;
    put(code, &[0xd503_245f, load, jump, 0xd61f_0200]);
    Some(())
}

pub(super) fn read(code: &[u8]) -> Option<(u16, i64)> {
    let load = word(code, 1)?;
    // The 19 bits at bit 5 are the sign and the number of words.
    let words = (load << 8) as i32 >> 13;
    Some((load as u16 & 0x1f, i64::from(words) * 4 + 4))
}
