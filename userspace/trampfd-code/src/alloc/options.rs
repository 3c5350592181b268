//! What an allocator is told when it is made.

use super::Error;
use crate::vm;

/// What sizes of blocks are rounded up to, and where blocks begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// 64 bytes.
    #[default]
    B64,
    /// 128 bytes.
    B128,
    /// 256 bytes.
    B256,
}

impl Granularity {
    /// In bytes.
    pub fn bytes(self) -> usize {
        1 << self.shift()
    }

    pub(super) fn shift(self) -> u32 {
        match self {
            Granularity::B64 => 6,
            Granularity::B128 => 7,
            Granularity::B256 => 8,
        }
    }
}

/// What [`JitAllocator::with`](super::JitAllocator::with) is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How code gets in, where pages come from, and where they lie. Large pages are refused.
    pub memory: vm::Options,
    /// What sizes are rounded up to.
    pub granularity: Granularity,
    /// Bytes that a thread takes from the system at once: a power of two from 64 KiB (the
    /// default) to 16 MiB. Requests of more than a quarter of it are rounded up to whole pages,
    /// which are shared between all threads and given back to the system when they are released.
    pub block: usize,
    /// Fill memory that holds no code with instructions that trap: when it is taken from the
    /// system, and again when code is released. Address space without memory reads as zeros.
    pub fill: bool,
    /// Give a thread's memory back to the system when its last code is released. Without this
    /// each thread keeps up to 512 KiB and an [`Options::block`], or two, that hold nothing.
    pub immediate_release: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory: vm::Options::default(),
            granularity: Granularity::default(),
            block: 64 << 10,
            fill: false,
            immediate_release: false,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Error> {
        let pages = vm::page_size().max(64 << 10);
        if !self.block.is_power_of_two() || !(pages..=16 << 20).contains(&self.block) {
            return Err(Error::BlockSize(self.block));
        }
        if self.memory.large_pages {
            return Err(vm::Error::LargePages.into());
        }
        Ok(())
    }
}
