//! The shape of a static table.
//!
//! ```text
//!   text, R-X (one page after another)         .bss, RW-
//!   code + 0   landing pad                     data + 0   value for the register
//!              register <- [data + 0]          data + 8   where the stub jumps
//!              jump        [data + 8]          data + 16  16 bytes for what a closure captures
//!   code + S   the next stub                   data + S   the next slot
//! ```
//!
//! `data - code` is the same for each stub of a table, and for each copy of a table that is
//! mapped elsewhere together with slots at that distance.

/// The words of one slot, as the stub reads them.
///
/// # Invariants
///
/// A slot is aligned to its size, which is [`crate::arch::SLOT_STRIDE`]. Only `data` and `code`
/// are read by the stub.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct Slot {
    /// What the stub loads into its register.
    pub data: usize,
    /// Where the stub jumps.
    pub code: usize,
    /// Room for a small captured value; a free list while the slot is free.
    pub spare: [usize; 2],
}

/// Bytes of [`Slot::spare`].
pub const SPARE: usize = 16;

/// One static table: its text, its slots and the register that its stubs load.
///
/// # Invariants
///
/// `text` is the first stub of `len` stubs, `slots` the first of as many slots; both are aligned
/// to [`crate::arch::TABLE_ALIGN`] and fill whole pages.
#[derive(Debug)]
pub struct StaticTable {
    /// DWARF number (psABI) of the register that the stubs load.
    pub reg: u16,
    /// Number of stubs, and of slots.
    pub len: usize,
    pub(crate) text: extern "C" fn(),
    pub(crate) slots: *const Slot,
}

// SAFETY: both pointers name statics of the program; what is read and written through them is
// the business of whoever owns the slots.
unsafe impl Sync for StaticTable {}

impl StaticTable {
    /// Address of the first stub.
    #[inline(always)]
    pub fn code(&self) -> usize {
        self.text as *const () as usize
    }

    /// Address of the first slot.
    #[inline(always)]
    pub fn slots(&self) -> *mut Slot {
        self.slots.cast_mut()
    }

    /// Bytes from a stub to its slot, the same for every stub of the table and of its copies.
    #[inline(always)]
    pub fn distance(&self) -> isize {
        (self.slots as isize).wrapping_sub(self.code() as isize)
    }
}
