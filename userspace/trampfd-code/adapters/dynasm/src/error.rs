//! Why code could not be had.

use std::fmt;

use dynasmrt::DynasmError;
use trampfd_code::alloc;

/// Why code could not be had.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// It has no memory: [`alloc::Error::Empty`] if it has no bytes.
    Memory(alloc::Error),
    /// A label was placed twice, or not at all; or a distance is too great for its instruction:
    /// of a value, from the address that the code has.
    Assembly(DynasmError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("assembled code has no memory"),
            Error::Assembly(_) => f.write_str("the code cannot be assembled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => Some(error),
            Error::Assembly(error) => Some(error),
        }
    }
}

impl From<alloc::Error> for Error {
    fn from(error: alloc::Error) -> Error {
        Error::Memory(error)
    }
}

impl From<DynasmError> for Error {
    fn from(error: DynasmError) -> Error {
        Error::Assembly(error)
    }
}
