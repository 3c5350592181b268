//! Functions to put into memory.
//!
//! ```text
//!  answer   b8 imm32             mov eax, imm32
//!           c3                   ret
//!  sum      8b 05 disp32         mov eax, [rip + disp32]
//!           03 05 disp32         add eax, [rip + disp32]
//!           c3                   ret
//!  bump     ff 05 disp32         inc dword [rip + disp32]
//!           c3                   ret
//!  trap     cc                   int3
//! ```

/// Bytes of what [`answer`] returns.
pub const ANSWER: usize = 6;
/// Bytes of what [`sum`] returns.
pub const SUM: usize = 13;
/// Bytes of what [`bump`] returns.
pub const BUMP: usize = 7;

/// What no jump gets past.
pub const TRAP: u8 = 0xcc;

/// Returns `value`.
pub fn answer(value: i32) -> [u8; ANSWER] {
    let v = value.to_le_bytes();
    [0xb8, v[0], v[1], v[2], v[3], 0xc3]
}

/// At `code`: returns the sum of two numbers elsewhere, if it reaches them.
pub fn sum(code: usize, one: usize, other: usize) -> Option<[u8; SUM]> {
    let one = displacement(code + 6, one)?;
    let other = displacement(code + 12, other)?;
    let mut bytes = [0x8b, 0x05, 0, 0, 0, 0, 0x03, 0x05, 0, 0, 0, 0, 0xc3];
    bytes[2..6].copy_from_slice(&one);
    bytes[8..12].copy_from_slice(&other);
    Some(bytes)
}

/// At `code`: adds one to a number elsewhere, if it reaches it.
pub fn bump(code: usize, number: usize) -> Option<[u8; BUMP]> {
    let d = displacement(code + 6, number)?;
    Some([0xff, 0x05, d[0], d[1], d[2], d[3], 0xc3])
}

fn displacement(from: usize, to: usize) -> Option<[u8; 4]> {
    Some(i32::try_from(to as i64 - from as i64).ok()?.to_le_bytes())
}
