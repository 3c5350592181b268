//! Why a file was not used.

use std::fmt;
use std::io;

/// Why a file of the cache was not used, but made anew in its place.
#[non_exhaustive]
#[derive(Debug)]
pub enum Reason {
    /// It cannot be opened or read: what the system said.
    Unreadable(io::Error),
    /// A symbolic link is in its place.
    Symlink,
    /// No regular file: a folder, a pipe, a device.
    NotAFile,
    /// It belongs to this user, who is not us.
    Owner(u32),
    /// Others may write it: its permission bits.
    Writable(u32),
    /// It has this many names, so a way to it leads past the private folder.
    Links(u64),
    /// It has this many bytes: fewer or more than its header says, or than there can be.
    Size(u64),
    /// It does not begin as a batch does.
    NoBatch,
    /// It is of another version of this format.
    Format(u32),
    /// It is for another architecture (ELF's number), or pages of other size.
    Machine {
        /// ELF's e_machine.
        machine: u32,
        /// Bytes of a page.
        page: u32,
    },
    /// [`Options::version`](super::Options::version) was another when it was made.
    Version,
    /// It holds the batch of another method: it was renamed.
    OtherBatch,
    /// Its bytes are not those that were written.
    Hash,
    /// Header and table contradict each other: what does.
    Malformed(&'static str),
    /// A method in it, or one that it calls, is not known to the compiler any more: its source
    /// was changed or removed.
    Stale(super::Key),
    /// It calls a helper that the compiler does not have.
    Helper(String),
    /// fs-verity is required, and it has none: what the system said.
    NoVerity(io::Error),
    /// It was changed while it was verified.
    Changed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Reason::Symlink => f.write_str("it is a symbolic link"),
            Reason::NotAFile => f.write_str("it is no regular file"),
            Reason::Owner(uid) => write!(f, "it belongs to user {uid}"),
            Reason::Writable(mode) => write!(f, "others may write it (mode {mode:04o})"),
            Reason::Links(n) => write!(f, "it has {n} names"),
            Reason::Size(len) => write!(f, "{len} bytes are not what its header says"),
            Reason::NoBatch => f.write_str("it does not begin as a batch does"),
            Reason::Format(format) => write!(f, "it is of format {format}"),
            Reason::Machine { machine, page } => {
                write!(f, "it is for machine {machine} with pages of {page} bytes")
            }
            Reason::Version => f.write_str("it was made by another version or for other options"),
            Reason::OtherBatch => f.write_str("it is the batch of another method"),
            Reason::Hash => f.write_str("its bytes are not those that were written"),
            Reason::Malformed(what) => write!(f, "its table is wrong: {what}"),
            Reason::Stale(key) => write!(f, "method {key} is not what it was"),
            Reason::Helper(name) => write!(f, "it calls {name}, which is not there"),
            Reason::NoVerity(error) => write!(f, "it has no fs-verity: {error}"),
            Reason::Changed => f.write_str("it was changed while it was verified"),
        }
    }
}

impl std::error::Error for Reason {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Reason::Unreadable(error) | Reason::NoVerity(error) => Some(error),
            _ => None,
        }
    }
}
