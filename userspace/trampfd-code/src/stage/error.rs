//! Why memory could not be had, or not be made executable.

use std::fmt;

use crate::vm;

/// Why memory could not be had, or not be made executable.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The pages could not be had, written or mapped.
    Memory(vm::Error),
    /// Address or length are no multiples of [`vm::page_size`], or there is nothing.
    NotPages {
        /// Of the first byte.
        address: usize,
        /// Bytes.
        len: usize,
    },
    /// An alignment that is no power of two.
    Alignment(usize),
    /// More bytes than lie within reach of each other.
    TooLarge(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("no memory for code"),
            Error::NotPages { address, len } => {
                write!(f, "{len} bytes at {address:#x} are no whole pages")
            }
            Error::Alignment(align) => {
                write!(f, "{align} is no alignment: no power of two")
            }
            Error::TooLarge(len) => write!(f, "{len} bytes are too many"),
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
