//! Tables that the unwinder (libgcc's) is told of.

unsafe extern "C" {
    fn __register_frame(table: *const u8);
    fn __deregister_frame(table: *const u8);
}

/// A table that the unwinder knows.
///
/// # Invariants
///
/// `table` is the address of a table that was registered once, and is mapped until this is
/// dropped.
#[derive(Debug)]
pub(super) struct Registered {
    table: usize,
}

impl Registered {
    /// Tells the unwinder.
    ///
    /// # Safety
    ///
    /// A whole .eh_frame with its end is there, which tells the truth about code that is there,
    /// and both stay until this is dropped.
    pub(super) unsafe fn new(table: usize) -> Registered {
        // SAFETY: the caller's contract.
        unsafe { __register_frame(table as *const u8) };
        Registered { table }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: by the type's invariants.
        unsafe { __deregister_frame(self.table as *const u8) };
    }
}
