//! Why a pool could not be had, or not be filled.

use std::fmt;

use crate::vm;

/// Why a pool could not be had, or not be filled.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The pages could not be had, written or given back.
    Memory(vm::Error),
    /// There is a pool with this id.
    IdInUse(u64),
    /// There is no pool with this id: there never was, or it was freed.
    NoSuchPool(u64),
    /// The pool was finalised: nothing of it is written any more.
    Finalised(u64),
    /// A section's alignment is no power of two, or more than a page.
    Alignment {
        /// Name of the section.
        section: Box<str>,
        /// The alignment that was asked for, in bytes.
        align: usize,
    },
    /// More bytes than lie within reach of each other.
    TooLarge(usize),
    /// The section is of another set.
    ForeignSection,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("no memory for the pool"),
            Error::IdInUse(id) => write!(f, "there is a pool {id} already"),
            Error::NoSuchPool(id) => write!(f, "there is no pool {id}"),
            Error::Finalised(id) => write!(f, "pool {id} was finalised"),
            Error::Alignment { section, align } => {
                write!(
                    f,
                    "section {section:?}: {align} is no alignment: no power of two, or above a page"
                )
            }
            Error::TooLarge(len) => {
                write!(f, "{len} bytes of sections do not lie within reach of each other")
            }
            Error::ForeignSection => f.write_str("the section is of another set"),
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
