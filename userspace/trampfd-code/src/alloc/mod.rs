//! Small blocks of code, as malloc.

mod error;
mod options;
mod span;
mod statistics;

pub use error::Error;
pub use options::{Granularity, Options};
pub use span::{Handle, Span, Writer};
pub use statistics::{Info, Statistics};

/// Hands out blocks of executable memory.
#[derive(Debug)]
pub struct JitAllocator {}

impl JitAllocator {
    /// With [`Options::default`]: written by pwrite(2) where that works.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::with`].
    pub fn new() -> Result<JitAllocator, Error> {
        JitAllocator::with(&Options::default())
    }

    /// # Errors
    ///
    /// [`Error::BlockSize`], [`Error::Memory`].
    pub fn with(_options: &Options) -> Result<JitAllocator, Error> {
        unimplemented!()
    }

    /// A block of at least `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::Memory`], [`Error::Sealed`].
    pub fn alloc(&self, len: usize) -> Result<Span<&JitAllocator>, Error> {
        Span::new(self, len)
    }

    /// A block of at least `len` bytes, that is the caller's until [`JitAllocator::release`]: its
    /// first byte in the executable view.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::alloc`].
    pub fn alloc_block(&self, _len: usize) -> Result<*const u8, Error> {
        unimplemented!()
    }

    /// As [`JitAllocator::alloc_block`]: the first byte in the executable view, and the same
    /// byte in the writable alias.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::alloc`], and [`Error::NoAlias`].
    pub fn alloc_raw(&self, _len: usize) -> Result<(*const u8, *mut u8), Error> {
        unimplemented!()
    }

    /// Writes code into a block, at offset `at` of it.
    ///
    /// # Safety
    ///
    /// The block that begins at `rx` is the caller's, and nobody executes or writes these bytes
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], [`Error::Interior`], [`Error::AlreadyReleased`],
    /// [`Error::OutOfRange`], [`Error::Memory`].
    pub unsafe fn write(&self, _rx: *const u8, _at: usize, _bytes: &[u8]) -> Result<(), Error> {
        unimplemented!()
    }

    /// Takes a block back, from whatever thread.
    ///
    /// # Safety
    ///
    /// If `rx` is the first byte of a block, it is the caller's, and nobody uses it any more.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], [`Error::Interior`], [`Error::AlreadyReleased`]: nothing was done.
    /// [`Error::Memory`] if it could not be filled.
    pub unsafe fn release(&self, _rx: *const u8) -> Result<(), Error> {
        unimplemented!()
    }

    /// Keeps the first `len` bytes of a block, takes the rest back.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nobody uses the rest any more.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::release`]; [`Error::Empty`]; [`Error::OutOfRange`] if it is longer
    /// than the block.
    pub unsafe fn shrink(&self, _rx: *const u8, _len: usize) -> Result<(), Error> {
        unimplemented!()
    }

    /// The block that an address lies in, its first byte or any other.
    pub fn query(&self, _rx: *const u8) -> Option<Info> {
        unimplemented!()
    }

    /// What is used, reserved and free.
    pub fn statistics(&self) -> Statistics {
        unimplemented!()
    }

    /// Takes the writable alias away. Code that comes later is written by pwrite(2), where
    /// that works.
    ///
    /// # Safety
    ///
    /// Nobody uses a pointer into the alias any more, a [`Writer`] included, nor writes code
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub unsafe fn withdraw_alias(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Makes all code final: no code can be written or allocated any more (F_SEAL_WRITE).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]: [`vm::Error::Aliased`](crate::vm::Error::Aliased) while there is an
    /// alias, [`vm::Error::NoSeals`](crate::vm::Error::NoSeals).
    pub fn seal_writes(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Executable views there are now stay where they are until the process ends (mseal(2)).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn seal_pages(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
