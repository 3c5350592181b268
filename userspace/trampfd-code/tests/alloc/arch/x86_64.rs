//! A function to put into memory.
//!
//! ```text
//!  returns  b8 imm32             mov eax, imm32
//!           c3                   ret
//!  trap     cc                   int3
//! ```

/// What no jump gets past.
pub const TRAP: u8 = 0xcc;

/// Returns `value`.
pub fn returns(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xb8, a, b, c, d, 0xc3]
}
