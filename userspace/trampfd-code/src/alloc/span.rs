//! A block of code that somebody owns.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use super::{Error, JitAllocator};

mod sealed {
    pub trait Sealed {}
}

/// What a [`Span`] keeps its allocator by: `&JitAllocator`, `Arc<JitAllocator>` or
/// `Rc<JitAllocator>`.
pub trait Handle: Deref<Target = JitAllocator> + sealed::Sealed {}

impl sealed::Sealed for &JitAllocator {}
impl Handle for &JitAllocator {}
impl sealed::Sealed for Arc<JitAllocator> {}
impl Handle for Arc<JitAllocator> {}
impl sealed::Sealed for Rc<JitAllocator> {}
impl Handle for Rc<JitAllocator> {}

/// A block of executable memory, given back when it is dropped: whoever calls code in it answers
/// for its being there still.
///
/// # Invariants
///
/// `[rx, rx + len)` is a block of `owner` that is handed out, to this value alone.
#[derive(Debug)]
pub struct Span<A: Handle> {
    owner: A,
    rx: *const u8,
    len: usize,
}

// SAFETY: it is an address and a handle; the block may be written and released by any thread.
unsafe impl<A: Handle + Send> Send for Span<A> {}
// SAFETY: as above; what changes the block needs the value alone.
unsafe impl<A: Handle + Sync> Sync for Span<A> {}

impl<A: Handle> Span<A> {
    /// A block of at least `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::Memory`], [`Error::Sealed`].
    pub fn new(owner: A, len: usize) -> Result<Span<A>, Error> {
        let rx = owner.alloc_block(len)?;
        Ok(Span { owner, rx, len })
    }

    /// The first byte, in the executable view.
    pub fn rx(&self) -> *const u8 {
        self.rx
    }

    /// Bytes: what was asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is a byte at least.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The allocator.
    pub fn allocator(&self) -> &JitAllocator {
        &self.owner
    }

    /// The first byte in the writable alias, while there is one.
    pub fn rw(&mut self) -> Option<*mut u8> {
        unimplemented!()
    }

    /// Writes code at offset `at`, and makes the processor see it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Memory`].
    pub fn write(&mut self, _at: usize, _bytes: &[u8]) -> Result<(), Error> {
        unimplemented!()
    }

    /// To write the block as a slice: see [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]: [`vm::Error::OtherProcess`](crate::vm::Error::OtherProcess).
    pub fn writer(&mut self) -> Result<Writer<'_, A>, Error> {
        unimplemented!()
    }

    /// Keeps the first `len` bytes, gives the rest back.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::OutOfRange`], [`Error::Memory`]: nothing was done.
    pub fn shrink(&mut self, _len: usize) -> Result<(), Error> {
        unimplemented!()
    }

    /// Gives the block back, as dropping it does, and says whether that worked.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if it could not be filled: it stays taken.
    pub fn release(self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The block is the caller's: until [`JitAllocator::release`], or as long as there is the
    /// allocator.
    pub fn into_raw(self) -> *const u8 {
        unimplemented!()
    }
}

/// Writes a block as a slice. Without an alias it is a copy, which [`Writer::finish`] writes out;
/// if it is dropped instead, nothing has changed. With an alias the block is written at once.
#[derive(Debug)]
pub struct Writer<'a, A: Handle> {
    span: &'a mut Span<A>,
}

impl<A: Handle> Writer<'_, A> {
    /// Makes the processor see what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn finish(self) -> Result<(), Error> {
        unimplemented!()
    }
}

impl<A: Handle> Deref for Writer<'_, A> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        unimplemented!()
    }
}

impl<A: Handle> DerefMut for Writer<'_, A> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let _ = &self.span;
        unimplemented!()
    }
}
