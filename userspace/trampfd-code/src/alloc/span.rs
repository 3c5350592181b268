//! A block of code that somebody owns.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use super::heap::Block;
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
/// `block` is one of `owner`, of `len` bytes, that is handed out to this value alone.
#[derive(Debug)]
pub struct Span<A: Handle> {
    owner: A,
    block: Block,
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
    #[inline(always)]
    pub fn new(owner: A, len: usize) -> Result<Span<A>, Error> {
        let block = owner.take(len)?;
        Ok(Span { owner, block, len })
    }

    /// The first byte, in the executable view.
    pub fn rx(&self) -> *const u8 {
        self.block.rx
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

    /// The first byte in the writable alias, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] in a child of fork, [`Error::Sealed`].
    pub fn rw(&mut self) -> Result<Option<NonNull<u8>>, Error> {
        self.owner.alias(self.block.rx)
    }

    /// Writes code at offset `at`, and makes the processor see it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Sealed`]; [`Error::Memory`], as in a child of fork.
    #[inline(always)]
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        match at.checked_add(bytes.len()) {
            // SAFETY: in the block, which is this value's.
            Some(end) if end <= self.len => unsafe { self.owner.put_block(self.block, at, bytes) },
            _ => Err(Error::OutOfRange { at, len: bytes.len(), block: self.len }),
        }
    }

    /// To write the block as a slice: see [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`]; [`Error::Memory`], as in a child of fork.
    pub fn writer(&mut self) -> Result<Writer<'_, A>, Error> {
        let code = match self.owner.alias(self.block.rx)? {
            Some(alias) => Code::Alias(alias),
            None => {
                // SAFETY: the block can be read, and nobody but this value writes it.
                let bytes = unsafe { std::slice::from_raw_parts(self.block.rx, self.len) };
                Code::Copy(bytes.to_vec())
            }
        };
        Ok(Writer { span: self, code })
    }

    /// Keeps the first `len` bytes, gives the rest back.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::OutOfRange`], [`Error::Memory`]: nothing was done.
    pub fn shrink(&mut self, len: usize) -> Result<(), Error> {
        if len > self.len {
            return Err(Error::OutOfRange { at: 0, len, block: self.len });
        }
        // SAFETY: the block is this value's.
        unsafe { self.owner.shrink(self.block.rx, len) }?;
        self.len = len;
        Ok(())
    }

    /// Gives the block back, as dropping it does, and says whether that worked.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if it could not be filled or its pages not be given back: then it
    /// stays taken.
    pub fn release(self) -> Result<(), Error> {
        let mut span = ManuallyDrop::new(self);
        // SAFETY: the block is this value's, which is not dropped; so the owner is, here, once,
        // after its last use.
        unsafe {
            let done = span.owner.give_block(span.block, span.len);
            ptr::drop_in_place(&mut span.owner);
            done
        }
    }

    /// The block is the caller's: until [`JitAllocator::release`], or as long as there is the
    /// allocator.
    pub fn into_raw(self) -> *const u8 {
        let mut span = ManuallyDrop::new(self);
        // SAFETY: the value is not dropped, so its owner is, here, once.
        unsafe { ptr::drop_in_place(&mut span.owner) };
        span.block.rx
    }
}

impl<A: Handle> Drop for Span<A> {
    #[inline]
    fn drop(&mut self) {
        // What cannot be given back stays taken; `release` tells.
        // SAFETY: the block is this value's.
        let _ = unsafe { self.owner.give_block(self.block, self.len) };
    }
}

/// Writes a block as a slice. Without an alias it is a copy, which [`Writer::finish`] writes out;
/// if it is dropped instead, nothing has changed. With an alias the block is written at once. A
/// child of fork has not got the alias: it must not touch a writer that its parent had.
#[derive(Debug)]
pub struct Writer<'a, A: Handle> {
    span: &'a mut Span<A>,
    code: Code,
}

/// # Invariants
///
/// The alias is that of the whole span.
#[derive(Debug)]
enum Code {
    Alias(NonNull<u8>),
    Copy(Vec<u8>),
}

// SAFETY: the alias is the span's, which the writer borrows.
unsafe impl<A: Handle + Send> Send for Writer<'_, A> {}
// SAFETY: as above.
unsafe impl<A: Handle + Sync> Sync for Writer<'_, A> {}

impl<A: Handle> Writer<'_, A> {
    /// Writes the copy, and makes the processor see it.
    ///
    /// # Errors
    ///
    /// As [`Span::write`].
    pub fn finish(self) -> Result<(), Error> {
        match self.code {
            Code::Alias(_) => {
                crate::arch::flush(self.span.block.rx, self.span.len);
                Ok(())
            }
            Code::Copy(bytes) => self.span.write(0, &bytes),
        }
    }
}

impl<A: Handle> Deref for Writer<'_, A> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.code {
            // SAFETY: by the invariant, and `withdraw_alias`: nobody withdraws it meanwhile.
            Code::Alias(alias) => unsafe {
                std::slice::from_raw_parts(alias.as_ptr(), self.span.len)
            },
            Code::Copy(bytes) => bytes,
        }
    }
}

impl<A: Handle> DerefMut for Writer<'_, A> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.code {
            // SAFETY: as in `deref`.
            Code::Alias(alias) => unsafe {
                std::slice::from_raw_parts_mut(alias.as_ptr(), self.span.len)
            },
            Code::Copy(bytes) => bytes,
        }
    }
}
