//! Why code could not be had.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{Failure, Key};
use crate::vm;

/// Why code could not be had.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// Memory could not be had or mapped.
    Memory(vm::Error),
    /// The folder cannot be made or opened. ENOTDIR and ELOOP: its last component is a symbolic
    /// link, or no folder.
    Folder {
        /// Which.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
    /// The folder belongs to another user.
    ForeignFolder {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may use the folder: its mode has to be 0700.
    OpenFolder {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file could not be written and published.
    Publish {
        /// What was tried.
        what: &'static str,
        /// The answer.
        error: io::Error,
    },
    /// fs-verity is required, and cannot be had here.
    NoVerity(io::Error),
    /// Code of the folder's files may not be executed: its file system is mounted noexec, or a
    /// policy forbids it.
    NotExecutable(io::Error),
    /// The compiler refused a method.
    Compiler {
        /// Which.
        method: Key,
        /// Why.
        error: Failure,
    },
    /// The compiler panicked, in a method that was compiled when code called it.
    Panicked,
    /// There is no helper of this name.
    Helper(String),
    /// A batch has more bytes of code and constants than lie in reach of each other.
    TooLarge(usize),
    /// [`Code::fix`](super::Code::fix) was asked for four bytes that are not in the method, or
    /// for a distance that four bytes do not hold.
    Fixup {
        /// Of the method.
        method: Key,
        /// Offset in it.
        at: usize,
    },
    /// The key of a method is all zeros, or two methods have it.
    Keys(Key),
    /// The compiler, while it compiled, asked for code of the cache that it compiles for.
    Nested,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(_) => f.write_str("no memory for code"),
            Error::Folder { path, .. } => {
                write!(f, "the folder {} cannot be used for code", path.display())
            }
            Error::ForeignFolder { path, owner } => {
                write!(f, "the folder {} belongs to user {owner}", path.display())
            }
            Error::OpenFolder { path, mode } => {
                write!(f, "the folder {} has mode {mode:04o}; it has to be 0700", path.display())
            }
            Error::Publish { what, .. } => write!(f, "{what} failed"),
            Error::NoVerity(_) => f.write_str("fs-verity is required, and cannot be had here"),
            Error::NotExecutable(_) => {
                f.write_str("files of the cache's folder may not be executed")
            }
            Error::Compiler { method, .. } => write!(f, "method {method} was not compiled"),
            Error::Panicked => f.write_str("the compiler panicked"),
            Error::Helper(name) => write!(f, "there is no helper {name}"),
            Error::TooLarge(len) => write!(f, "{len} bytes are too many for one batch"),
            Error::Fixup { method, at } => {
                write!(f, "no distance fits in four bytes at {at:#x} of method {method}")
            }
            Error::Keys(key) => write!(f, "{key} is the key of two methods, or of none"),
            Error::Nested => f.write_str("a compiler asked for code of its own cache"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => Some(error),
            Error::Compiler { error, .. } => Some(&**error),
            Error::Folder { error, .. }
            | Error::Publish { error, .. }
            | Error::NoVerity(error)
            | Error::NotExecutable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<vm::Error> for Error {
    fn from(error: vm::Error) -> Error {
        Error::Memory(error)
    }
}
