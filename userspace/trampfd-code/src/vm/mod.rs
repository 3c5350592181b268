//! Pages: address space, files that code lies in, views of them, and what this system allows.
//!
//! ```text
//!  address space                              file without a path (memfd, or unlinked)
//!  ├ R-X view ◄──── descriptor, read-only ────┤ pages of code
//!  └ RW alias ◄──── descriptor, read-write ───┘   ▲
//!    (only with Write::Alias; not in children)    └── pwrite (Write::Pwrite)
//! ```

mod error;
mod file;
mod hardened;
mod mapping;
mod process;
mod region;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::{Attempt, Error};
pub use file::CodeFile;
pub use hardened::{Fact, Report, State, Subject, report};
pub use mapping::Mapping;
pub(crate) use process::token;
pub use region::Region;

use crate::sys::Counts;

/// Bytes of a page: what offsets and lengths of mappings are multiples of.
pub fn page_size() -> usize {
    crate::sys::page_size()
}

/// `len`, rounded up to whole pages.
///
/// # Errors
///
/// [`Error::TooLarge`].
pub fn round_to_pages(len: usize) -> Result<usize, Error> {
    len.checked_next_multiple_of(page_size())
        .filter(|&len| len <= isize::MAX as usize)
        .ok_or(Error::TooLarge(len))
}

/// Makes the processor see code that somebody wrote through another view of these `len` bytes.
/// What writes code by functions of this crate has done it.
pub fn flush(start: *const u8, len: usize) {
    crate::arch::flush(start, len);
}

/// What may be done with pages of a [`Mapping`]. Nothing is ever writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: reserved address space.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// Reading and executing.
    Execute,
}

/// How code gets into executable pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Write {
    /// [`Write::Pwrite`] where it works, else [`Write::Alias`].
    #[default]
    Any,
    /// By pwrite(2). No writable view of the code exists in the address space, so nothing but a
    /// system call can change it. A system call for each write.
    Pwrite,
    /// Through a second view, writable and not executable, which children of fork do not get,
    /// and which can be withdrawn. As fast as a copy; who can write any memory of the process,
    /// and finds the alias, can change the code.
    Alias,
}

/// Where the pages of code come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// memfd_create(2) with MFD_EXEC (Linux 6.3).
    MemfdExec,
    /// memfd_create(2) with MFD_NOEXEC_SEAL (Linux 6.3): its file cannot be executed as a
    /// program, but mapped R-X. What is left with vm.memfd_noexec=2.
    MemfdNoexecSeal,
    /// memfd_create(2) as it was before Linux 6.3.
    Memfd,
    /// A file in this folder, unlinked at once.
    Folder(PathBuf),
}

impl Source {
    /// In the order in which they are tried: memfds, /dev/shm, the folders that the environment
    /// names (`XDG_RUNTIME_DIR`, `TMPDIR`; not in set-uid programs), /tmp, /var/tmp, the home, the
    /// current one.
    pub fn usual() -> Vec<Source> {
        file::usual_sources()
    }
}

/// Where in the address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Where the kernel likes.
    #[default]
    Anywhere,
    /// All of it within `within` bytes of `address`, for calls and references that reach only so
    /// far.
    Near {
        /// What it has to be near to.
        address: usize,
        /// Greatest distance of any of its bytes, in bytes.
        within: usize,
    },
}

/// What [`CodeFile::new`] and [`Region::new`] are told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How code gets in.
    pub write: Write,
    /// Where pages come from, in this order; the first that gives executable pages is taken.
    pub sources: Vec<Source>,
    /// Where [`Region::new`] puts the executable view.
    pub place: Place,
    /// Huge pages. Refused, [`Error::LargePages`], because pages are views of a file.
    pub large_pages: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            write: Write::Any,
            sources: Source::usual(),
            place: Place::Anywhere,
            large_pages: false,
        }
    }
}

/// Counts what is asked of the kernel for everything that was made with it or a clone of it.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counts>);

impl Meter {
    /// At zero.
    pub fn new() -> Meter {
        Meter::default()
    }

    /// What was counted until now.
    pub fn stats(&self) -> Stats {
        Stats {
            system_calls: self.0.calls(),
            mappings: self.0.mappings(),
            reserved: self.0.reserved(),
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0
    }
}

/// What a [`Meter`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// System calls, those that failed included.
    pub system_calls: u64,
    /// Mappings there are now, as /proc/self/maps would show them if none could be joined with a
    /// neighbour.
    pub mappings: usize,
    /// Bytes of address space taken now.
    pub reserved: usize,
}
