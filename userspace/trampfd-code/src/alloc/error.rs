//! Why a block could not be had, or not be given back.

use std::fmt;

use crate::vm;

/// Why a block of code could not be had, changed or given back.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The pages could not be had or written. [`vm::Error::LargePages`] if large pages were asked
    /// for; [`vm::Error::OtherProcess`] if the block was made by the process that this one was
    /// forked from.
    Memory(vm::Error),
    /// No bytes were asked for.
    Empty,
    /// [`Options::block`](super::Options::block) is no power of two from 64 KiB to 16 MiB.
    BlockSize(usize),
    /// The address lies in no memory of this allocator.
    NotOurs(usize),
    /// The address is inside a block, not its first byte: nothing was released.
    Interior {
        /// What was given.
        address: usize,
        /// Where the block begins that it lies in.
        start: usize,
    },
    /// No block begins at the address: it was released before, or never handed out.
    AlreadyReleased(usize),
    /// Not inside the block.
    OutOfRange {
        /// Offset of the first byte.
        at: usize,
        /// Bytes.
        len: usize,
        /// Bytes of the block.
        block: usize,
    },
    /// There is no writable alias: it was not asked for, or withdrawn.
    NoAlias,
    /// The allocator was sealed: its code is final.
    Sealed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("no memory for code"),
            Error::Empty => f.write_str("a block of code has a byte at least"),
            Error::BlockSize(len) => {
                write!(f, "{len} bytes are no size of blocks: a power of two from 64 KiB to 16 MiB")
            }
            Error::NotOurs(address) => write!(f, "{address:#x} is not of this allocator"),
            Error::Interior { address, start } => {
                write!(f, "{address:#x} is inside the block that begins at {start:#x}")
            }
            Error::AlreadyReleased(address) => {
                write!(f, "no block begins at {address:#x}: it was released before")
            }
            Error::OutOfRange { at, len, block } => {
                write!(f, "{len} bytes at {at} are not inside a block of {block} bytes")
            }
            Error::NoAlias => f.write_str("the code has no writable alias"),
            Error::Sealed => f.write_str("the allocator was sealed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => Some(error),
            _ => None,
        }
    }
}

impl From<vm::Error> for Error {
    fn from(error: vm::Error) -> Error {
        Error::Memory(error)
    }
}
