//! What a stub jumps to: how a C call arrives at a Rust function with its arguments and the data.
//!
//! Three ways, each a function of [`crate::arch`] that is made for each [`Callee`]:
//!
//! | signature | stub loads | way |
//! |---|---|---|
//! | an integer argument register is left, no stack arguments | that register | [`crate::arch::in_registers`] |
//! | the same with stack arguments (floating-point ones) | that register | [`crate::arch::on_stack`] |
//! | all integer argument registers used | static chain register | [`crate::arch::entry`] |
//!
//! In the last case no argument register can carry the data pointer. The entry stores what its
//! callee could not see otherwise into a [`crate::arch::Frame`], and passes the frame's address
//! in the last integer argument register. Nothing is pushed again: stack arguments are read where
//! the caller put them.

use crate::arch::Regs;

/// Who is called in the end.
pub trait Callee {
    /// The result, as the C signature says.
    type Ret;

    /// The table whose stubs lead here: the index of the integer argument register that carries
    /// the data, or the static chain register's.
    const TABLE: usize;

    /// Gets what the stub loaded, and the argument registers as the caller of the stub left them.
    ///
    /// # Safety
    ///
    /// Only the functions of [`crate::arch`] call it, for a stub of table [`Callee::TABLE`].
    unsafe fn call(data: usize, regs: &Regs) -> Self::Ret;
}

/// Who is told when a stub is called whose slot was freed.
pub trait Freed {
    /// Gets the address of the stub. When it returns, the caller gets SIGILL.
    extern "C" fn freed(stub: usize);
}
