//! Why pages could not be had.

use std::fmt;
use std::io;

use super::Source;

/// What one source of executable pages said.
#[derive(Debug)]
pub struct Attempt {
    /// Which.
    pub source: Source,
    /// What was tried: "create", "size", "open read-only", "map R-X".
    pub step: &'static str,
    /// The answer.
    pub error: io::Error,
}

/// Why pages could not be had, or done with as asked.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// No source gives executable pages: this system allows no code that is made at run time,
    /// but in files that stay ([`cache`](crate::cache)). What each source said is listed.
    NoExecutableMemory(Vec<Attempt>),
    /// [`Write::Pwrite`](super::Write::Pwrite) was asked for; pages can be had, but no
    /// descriptor that only reads them, without /proc.
    NoReadOnlyDescriptor,
    /// There is no room as near as asked; without /proc: none was found by trying.
    NoRoomNear {
        /// What it had to be near to.
        address: usize,
        /// How near, in bytes.
        within: usize,
    },
    /// Huge pages were asked for: not with pages that are views of a file.
    LargePages,
    /// More bytes than there can be.
    TooLarge(usize),
    /// Not a part of it, or not whole pages.
    OutOfRange {
        /// Offset of the first byte.
        at: usize,
        /// Bytes.
        len: usize,
    },
    /// Pages that were or can be written were asked to be executable.
    WouldExecute,
    /// A view of a file: it keeps the access that it was made with
    /// ([`Mapping::map_file`](super::Mapping::map_file)).
    ViewOfFile,
    /// The pages belong to the process that this one was forked from, and are not written here.
    OtherProcess,
    /// The writable alias was withdrawn.
    Withdrawn,
    /// A writable alias is there: it has to be withdrawn before writing can be sealed off.
    Aliased,
    /// The file cannot be sealed: it is no memfd.
    NoSeals,
    /// A system call failed.
    System {
        /// What was tried.
        what: &'static str,
        /// The answer.
        error: io::Error,
    },
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::System { what, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoExecutableMemory(attempts) => {
                f.write_str("this system gives no pages for code made at run time:")?;
                for Attempt { source, step, error } in attempts {
                    write!(f, " {source}: {step}: {error};")?;
                }
                f.write_str(" code in a cache of files may still work")
            }
            Error::NoReadOnlyDescriptor => f.write_str(
                "code cannot be written without an alias here: a descriptor that only reads \
                 needs /proc, or a folder for an unlinked file that may be executed",
            ),
            Error::NoRoomNear { address, within } => {
                write!(f, "no room within {within} bytes of {address:#x}")
            }
            Error::LargePages => f.write_str("large pages: not with dual mapping"),
            Error::TooLarge(len) => write!(f, "{len} bytes are too many"),
            Error::OutOfRange { at, len } => {
                write!(f, "{len} bytes at {at:#x} are no whole pages of it")
            }
            Error::WouldExecute => f.write_str("pages that can be written are never executable"),
            Error::ViewOfFile => f.write_str("a view of a file keeps its access"),
            Error::OtherProcess => {
                f.write_str("the pages belong to the process that this one was forked from")
            }
            Error::Withdrawn => f.write_str("the writable alias was withdrawn"),
            Error::Aliased => f.write_str("a writable alias is still there; withdraw it first"),
            Error::NoSeals => f.write_str("the pages are of a file that cannot be sealed"),
            Error::System { what, .. } => write!(f, "{what} failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::System { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::MemfdExec => f.write_str("memfd (MFD_EXEC)"),
            Source::MemfdNoexecSeal => f.write_str("memfd (MFD_NOEXEC_SEAL)"),
            Source::Memfd => f.write_str("memfd"),
            Source::Folder(path) => write!(f, "unlinked file in {}", path.display()),
        }
    }
}
