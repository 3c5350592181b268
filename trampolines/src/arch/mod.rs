//! The architecture that is compiled for. Each folder exports the same names:
//!
//! | name | what |
//! |---|---|
//! | `INT_REGS`, `FLOAT_REGS` | argument registers: DWARF numbers in order; how many |
//! | `CHAIN_REG` | static chain register |
//! | `TABLES`, `static_table` | tables: one for each of `INT_REGS`, then the static chain's, then `DYNAMIC`, the one of dynamic closures |
//! | `NESTED` | one more table, of nested functions, for a crate that knows no other |
//! | `TABLE_ALIGN`, `SLOT_STRIDE` | geometry of a table |
//! | `place` | where the calling convention puts each argument |
//! | `Regs` | the registers and stack words of a call |
//! | `in_registers`, `on_stack`, `entry` (with `Frame`) | what stubs jump to, see [`crate::entry`] |
//! | `LONG_DOUBLE`, `MAX_IN_REGISTERS` | bytes of a `long double`; of the largest value in registers |
//! | `Class`, `Returned` | how a C type is passed, and returned |
//! | `Placer`, `Found`, `together`, `frame` | where the arguments of a dynamic signature are, see [`crate::plan`] |
//! | `entries`, `any`, `foreign`, `unbound` | what stubs of dynamic closures jump to |
//! | `read_stub`, `table_number` | what a stub loads, and from where; which table it is in |
//! | `freed` | the entry that a freed slot jumps to |
//! | `thread_word`, `set_thread_word` | a word of each thread, 0 at first, that costs no call |
//! | `eh_frame` | unwind information for stubs at another address |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("trampfd has no static text for this architecture yet: x86_64 only");

/// Where one argument of a C call is found by the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The integer argument register of this index.
    Int(usize),
    /// The floating-point argument register of this index.
    Float(usize),
    /// The stack argument of this index, in words of 8 bytes from the first.
    Stack(usize),
}
