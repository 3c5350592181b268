//! Sections: what is asked for, and what it became.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Instructions: R-X.
    Code,
    /// Constants: R--.
    ReadOnly,
    /// Variables: RW-.
    ReadWrite,
}

impl Kind {
    /// All of them, in the order in which they lie in an arena.
    pub(super) const ALL: [Kind; 3] = [Kind::Code, Kind::ReadOnly, Kind::ReadWrite];
}

/// A section that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it is called: need not be unique.
    pub name: &'a str,
    /// What it is for.
    pub kind: Kind,
    /// Bytes; may be 0, its address lies inside the pool then, too, and is nobody else's.
    pub len: usize,
    /// What its address is a multiple of, in bytes: a power of two, at most a page.
    pub align: usize,
}

/// Which section of a set: the answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    set: u64,
    index: usize,
}

/// What became of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is called.
    pub name: Box<str>,
    /// What it is for.
    pub kind: Kind,
    /// Of its first byte.
    pub address: usize,
    /// Bytes.
    pub len: usize,
}

/// The sections of a set that was committed, in the order of their requests.
///
/// It says where they are, and keeps nothing: the addresses are good until the pool is freed.
#[derive(Clone, Debug)]
pub struct Set {
    id: u64,
    sections: Arc<[Placed]>,
}

impl Set {
    pub(super) fn new(id: u64, sections: Vec<Placed>) -> Set {
        Set { id, sections: sections.into() }
    }

    /// All of them.
    pub fn sections(&self) -> &[Placed] {
        &self.sections
    }

    /// The first with this name.
    pub fn get(&self, name: &str) -> Option<&Placed> {
        self.sections.iter().find(|section| &*section.name == name)
    }

    /// The answer to one request.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSection`].
    pub fn section(&self, section: Section) -> Result<&Placed, Error> {
        self.sections.get(section.index_in(self.id)?).ok_or(Error::ForeignSection)
    }
}

impl Section {
    pub(super) fn new(set: u64, index: usize) -> Section {
        Section { set, index }
    }

    /// Its number, if it is of this set.
    pub(super) fn index_in(self, set: u64) -> Result<usize, Error> {
        if self.set == set { Ok(self.index) } else { Err(Error::ForeignSection) }
    }
}

/// A number that no other set of this process has.
pub(super) fn next_set() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
