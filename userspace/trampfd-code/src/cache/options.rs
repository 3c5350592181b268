//! What a cache is told, and what it tells.

use super::{Key, Reason};
use crate::vm;

/// What [`Cache::open`](super::Cache::open) is told.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// All that the code depends on and [`Compiler::key`](super::Compiler::key) does not say:
    /// the compiler's version, the processor's features, options. A file of another version is
    /// replaced, so a folder is for one program.
    pub version: Vec<u8>,
    /// Whether a file and its name are on the disk before it is used (fsync(2)). Without it a
    /// crash of the system can leave a broken file, which is found out and made anew.
    pub sync: bool,
    /// Whether files are made unchangeable by fs-verity.
    pub verity: Verity,
    /// At most so many bytes of files: when one is added, the least recently used are removed, but
    /// not the one that was added. A file was used when a cache that has a limit verified it;
    /// that is known to the minute.
    /// `None`: no limit.
    pub limit: Option<u64>,
    /// The GOT is read-only but for the moments in which a slot is changed: two more system
    /// calls for each first call of a method. Without it the GOT stays writable, as any other
    /// pointer to a function in memory.
    pub protect_got: bool,
}

/// Whether files of a cache are made unchangeable by fs-verity, so that what was verified stays
/// what is executed, also if the user's own programs write to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verity {
    /// No.
    #[default]
    No,
    /// Where the file system can do it.
    IfThere,
    /// Yes: files without it are ignored, and none is made where it cannot be had.
    Require,
}

/// What happened to one batch.
#[derive(Debug)]
pub struct Event {
    /// The method whose batch it is: its file is named after it.
    pub root: Key,
    /// What.
    pub what: Happened,
}

/// What happened to a batch.
#[non_exhaustive]
#[derive(Debug)]
pub enum Happened {
    /// It was mapped from a file that was there.
    Loaded {
        /// Methods in it.
        methods: usize,
        /// Whether this process had verified the file before, and it is still the same.
        known: bool,
    },
    /// It was compiled, and its file published.
    Compiled {
        /// Methods in it.
        methods: usize,
    },
    /// A file was there and was not used.
    Ignored(Reason),
    /// Its file was removed, so that the limit is kept.
    Evicted,
    /// After its file was published the folder could not be read, for what the system said. So
    /// nothing was removed that is over the limit or left over; the next file that is published
    /// tries it again.
    Untidied(std::io::Error),
}

/// What was done until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches that were mapped from files that were there.
    pub loaded: u64,
    /// Batches that were compiled.
    pub compiled: u64,
    /// Methods that were compiled.
    pub methods_compiled: u64,
    /// Files that were not used.
    pub ignored: u64,
    /// Bytes of code and constants mapped now.
    pub bytes: usize,
    /// Slots that wait for their method to be compiled.
    pub waiting: usize,
    /// System calls and mappings.
    pub memory: vm::Stats,
}
