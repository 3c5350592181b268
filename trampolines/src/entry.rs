//! The entry for signatures that use up the integer argument registers.
//!
//! There is no argument register left that could carry the data pointer, so the stub loads the
//! static chain register and jumps to [`crate::arch::entry`]. The entry stores what its callee
//! could not see otherwise into a [`crate::arch::Frame`], and passes the frame's address in the
//! last integer argument register. Nothing is pushed again: the callee reads the caller's stack
//! arguments where they lie.

use crate::arch::Frame;

/// Who is called by [`crate::arch::entry`].
pub trait Framed {
    /// The result, as the C signature says.
    type Ret;

    /// Gets the integer argument registers but the last, the frame instead of the last, and the
    /// floating-point argument registers, as the caller of the stub left them.
    ///
    /// # Safety
    ///
    /// Only [`crate::arch::entry`] calls it. A register that the C signature does not use holds
    /// no value of any meaning.
    #[allow(clippy::too_many_arguments)]
    unsafe extern "C-unwind" fn shim(
        i0: u64,
        i1: u64,
        i2: u64,
        i3: u64,
        i4: u64,
        frame: *const Frame,
        f0: f64,
        f1: f64,
        f2: f64,
        f3: f64,
        f4: f64,
        f5: f64,
        f6: f64,
        f7: f64,
    ) -> Self::Ret;
}

/// Who is told when a stub is called whose slot was freed.
pub trait Freed {
    /// Gets the address of the stub. When it returns, the caller gets SIGILL.
    extern "C" fn freed(stub: usize);
}
