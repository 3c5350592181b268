//! x86-64.
//!
//! What libffi writes into a closure that lies in memory of the caller:
//!
//! ```text
//!   closure + 0    endbr64
//!           + 4    lea -11(%rip), %r10      r10 = closure
//!           + 11   jmp *7(%rip)             to the address at closure + 24
//!           + 17   nop
//!           + 24   address of the entry     for this signature and convention
//!           + 32   cif, fun, user_data
//! ```
//!
//! So the entry wants the closure's address in r10, and takes the rest from there.

/// `FFI_UNIX64`.
pub const NATIVE_ABI: u32 = 2;

/// What libffi writes before the entry's address, as 8-byte words.
const TRAMPOLINE: [u64; 3] = [0xf515_8d4c_fa1e_0ff3, 0x0000_0725_ffff_ffff, 0x0000_0000_801f_0f00];

/// The entry that libffi has chosen, of the first words of a closure that it has prepared; `None`
/// if they are not as drawn above.
pub fn entry_of(words: &[usize; 4]) -> Option<usize> {
    let drawn = words.iter().zip(TRAMPOLINE).all(|(&word, drawn)| word as u64 == drawn);
    drawn.then_some(words[3])
}
