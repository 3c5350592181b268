//! A set: logged, laid out, filled, committed.

use std::sync::Arc;

use super::section::next_set;
use super::{Error, Kind, Placed, Request, Section, Set};

/// Requests that are logged, to be laid out at once.
#[derive(Debug)]
pub struct SetBuilder {
    id: u64,
    requests: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    name: Box<str>,
    kind: Kind,
    len: usize,
    align: usize,
}

impl SetBuilder {
    /// Logs a request. Whether it can be met is said by [`SetBuilder::lay_out`].
    pub fn request(&mut self, request: Request<'_>) -> Section {
        let Request { name, kind, len, align } = request;
        self.requests.push(Wanted { name: name.into(), kind, len, align });
        Section::new(self.id, self.requests.len() - 1)
    }

    /// Gives every section its address, and bytes to be filled.
    ///
    /// Takes address space of the pool, and no memory yet. Sections of the same kind share pages
    /// with each other and with those of the pool's other sets.
    ///
    /// # Errors
    ///
    /// [`Error::Alignment`], [`Error::TooLarge`], [`Error::Finalised`], [`Error::NoSuchPool`],
    /// [`Error::Memory`].
    pub fn lay_out(self) -> Result<Layout, Error> {
        todo!()
    }
}

/// Sections that have their addresses, and bytes that will be there after [`Layout::commit`].
///
/// Dropped without it, nothing was done.
#[derive(Debug)]
pub struct Layout {
    id: u64,
}

impl Layout {
    /// Where the section's first byte will be.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSection`].
    pub fn address(&self, section: Section) -> Result<usize, Error> {
        todo!()
    }

    /// What will be there: as many bytes as were asked for. At first zeros; of code, instructions
    /// that trap.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSection`].
    pub fn bytes(&mut self, section: Section) -> Result<&mut [u8], Error> {
        todo!()
    }

    /// Writes all sections to where they belong: from here code can run, and be called by other
    /// threads that learn of it.
    ///
    /// If it fails the set is gone, and its place is free for another.
    ///
    /// # Errors
    ///
    /// [`Error::Finalised`], [`Error::NoSuchPool`]: since it was laid out; [`Error::Memory`].
    pub fn commit(self) -> Result<Set, Error> {
        todo!()
    }
}
