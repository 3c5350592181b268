//! x86-64.
//!
//! ```text
//!   b8 NN 00 00 00   mov $NN, %eax
//!   c3               ret
//!
//!   48 83 ec 08      sub $8, %rsp
//!   ff 15 ........   call *SLOT(%rip)
//!   83 c0 01         add $1, %eax
//!   48 83 c4 08      add $8, %rsp
//!   c3               ret
//! ```

use trampfd_code::cache::{Code, Slot};

/// A function that returns `n`.
pub fn answer(n: u8) -> [u8; 6] {
    [0xb8, n, 0, 0, 0, 0xc3]
}

/// A function that returns one more than the method of a slot.
pub fn call_and_add_one(code: &mut Code<'_, u8>, slot: Slot) {
    code.emit(&[0x48, 0x83, 0xec, 8, 0xff, 0x15]);
    code.emit_distance(slot);
    code.emit(&[0x83, 0xc0, 1, 0x48, 0x83, 0xc4, 8, 0xc3]);
}
