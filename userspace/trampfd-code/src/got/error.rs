//! Why objects could not be loaded.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{pool, vm};

/// A place in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The name the object was added under.
    pub object: String,
    /// Its section.
    pub section: String,
    /// Bytes from the section's start.
    pub offset: u64,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}+{:#x})", self.object, self.section, self.offset)
    }
}

/// Why objects could not be loaded.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// No memory for it.
    Memory(vm::Error),
    /// The pools refuse: an id in use, say.
    Pool(pool::Error),
    /// Not an ELF relocatable object, or a broken one.
    Malformed {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More memory than the options allow, or than one address space area holds.
    TooLarge {
        /// The object, or the set.
        object: String,
        /// What takes it.
        section: String,
        /// Bytes asked for.
        len: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A relocation that is not done here.
    Unsupported {
        /// Where it is.
        site: Site,
        /// Its name.
        relocation: String,
        /// What stands against it.
        reason: &'static str,
    },
    /// The distance does not fit where it has to be written.
    OutOfRange {
        /// Where it is.
        site: Site,
        /// What is referred to.
        symbol: String,
        /// The value that should be written: for pc-relative references the distance in bytes,
        /// for absolute ones the address.
        distance: i128,
        /// Bits there are for it.
        bits: u32,
    },
    /// Nothing defines the symbol: not the set, not the sets it shares with, not the resolver.
    Unresolved {
        /// The first object that refers to it.
        object: String,
        /// The symbol.
        symbol: String,
    },
    /// Two objects define it, none of them weakly.
    Duplicate {
        /// The symbol.
        symbol: String,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A reference to a section that is not loaded: it has no memory, or another object's copy
    /// of the same group was taken and the symbol is local.
    NotLoaded {
        /// The place.
        site: Site,
        /// The symbol or section.
        symbol: String,
    },
    /// The symbol's address would come from running a function of the object (STT_GNU_IFUNC):
    /// the table is read-only before any code of the set can run.
    Ifunc {
        /// The object.
        object: String,
        /// The symbol.
        symbol: String,
    },
    /// A thread's variable is referred to as if it were not one, or the other way round.
    WrongKind {
        /// The place.
        site: Site,
        /// The symbol.
        symbol: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The set's own thread-local variables are used by the local or initial exec model, or by
    /// descriptors, and the library has no room at a fixed distance from the thread pointer that
    /// serves. Compile with `-fPIC -ftls-model=global-dynamic -mtls-dialect=gnu`.
    StaticTls {
        /// A place that uses that model.
        site: Site,
        /// What stands against it.
        reason: &'static str,
    },
    /// Tables for the unwinder that it would not survive.
    Unwind {
        /// The object.
        object: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What profilers read could not be written.
    Profile {
        /// The file.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("no memory for the set"),
            Error::Pool(_) => f.write_str("no pool for the set"),
            Error::Malformed { object, reason } => write!(f, "{object}: {reason}"),
            Error::TooLarge { object, section, len, limit } => {
                write!(f, "{object}: {section} takes {len} bytes; {limit} are allowed")
            }
            Error::Unsupported { site, relocation, reason } => {
                write!(f, "{site}: {relocation}: {reason}")
            }
            Error::OutOfRange { site, symbol, distance, bits } => {
                let sign = if *distance < 0 { "-" } else { "" };
                let far = distance.unsigned_abs();
                write!(f, "{site}: {symbol} is out of range: {sign}{far:#x} in {bits} bits")
            }
            Error::Unresolved { object, symbol } => {
                write!(f, "{object}: nothing defines {symbol}")
            }
            Error::Duplicate { symbol, first, second } => {
                write!(f, "{first} and {second} both define {symbol}")
            }
            Error::NotLoaded { site, symbol } => {
                write!(f, "{site}: {symbol} lies in a section that is not loaded")
            }
            Error::Ifunc { object, symbol } => {
                write!(f, "{object}: {symbol} is chosen by a function of the object (ifunc)")
            }
            Error::WrongKind { site, symbol, reason } => write!(f, "{site}: {symbol}: {reason}"),
            Error::StaticTls { site, reason } => write!(
                f,
                "{site}: {reason}; compile with \
                 -fPIC -ftls-model=global-dynamic -mtls-dialect=gnu"
            ),
            Error::Unwind { object, reason } => write!(f, "{object}: .eh_frame: {reason}"),
            Error::Profile { path, .. } => write!(f, "cannot write {}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => Some(error),
            Error::Pool(error) => Some(error),
            Error::Profile { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<pool::Error> for Error {
    fn from(error: pool::Error) -> Error {
        match error {
            pool::Error::Memory(error) => Error::Memory(error),
            other => Error::Pool(other),
        }
    }
}
