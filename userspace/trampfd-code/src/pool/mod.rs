//! Pools of sections: asked for first, laid out at once, freed without touching others.
//!
//! ```text
//!  pool.set() ── request, request, .. ──► lay_out ──► fill bytes, ──► commit ──► Set
//!                                                     addresses known
//!  arena: one reservation, mapped once; every pool has runs of pages in each area
//!
//!    │ code, R-X       │ read-only, R--  │ read-write, RW- │
//!    │ 1 1 2 2 2 . . . │ 1 2 2 . . . . . │ 1 1 2 . . . . . │   pages of pools 1 and 2
//!    └───── views of one file ───────────┴─ private memory ┘
//! ```
//!
//! Pages are not shared between pools; inside a pool sections of the same kind share them,
//! whatever set they are of. The number of mappings does not grow with sections, sets or pools.

mod error;
mod section;
mod set;

pub use error::Error;
pub use section::{Kind, Placed, Request, Section, Set};
pub use set::{Layout, SetBuilder};

use crate::vm;

/// What [`Pools::with`] is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How code gets in, where pages come from, and where they are to be.
    ///
    /// With [`vm::Write::Alias`] every pool has writable aliases of its pages until it is
    /// finalised, and a commit takes no system call. With the others its code has none, and a
    /// commit writes it by one; its read-only data has an alias until it is finalised.
    pub memory: vm::Options,
    /// Bytes of address space of each of the three areas of an arena.
    pub arena: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { memory: vm::Options::default(), arena: 64 << 20 }
    }
}

/// Pools that are near each other: code of each reaches code and data of all by signed
/// displacements of 32 bits. Clones are the same pools.
#[derive(Clone, Debug)]
pub struct Pools {}

impl Pools {
    /// No pool yet; with [`Options::default`].
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn new() -> Result<Pools, Error> {
        Pools::with(Options::default())
    }

    /// No pool yet.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]; [`Error::TooLarge`] for arenas that do not lie within reach.
    pub fn with(options: Options) -> Result<Pools, Error> {
        todo!()
    }

    /// A new, empty pool.
    ///
    /// # Errors
    ///
    /// [`Error::IdInUse`], [`Error::Memory`].
    pub fn create(&self, id: u64) -> Result<Pool, Error> {
        todo!()
    }

    /// Frees a pool: its sections are gone, nothing of other pools is touched. Nobody may run or
    /// use them any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPool`]; [`Error::Memory`]: the pool is gone, but memory of it could not be
    /// given back.
    pub fn free(&self, id: u64) -> Result<(), Error> {
        todo!()
    }

    /// What was taken until now.
    pub fn stats(&self) -> Stats {
        todo!()
    }
}

/// A pool: sets of sections that are freed together.
///
/// Dropping it frees it, as [`Pools::free`] does; [`Pool::leak`] keeps it.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// What it was created with.
    pub fn id(&self) -> u64 {
        todo!()
    }

    /// A new set, with no requests yet.
    pub fn set(&self) -> SetBuilder {
        todo!()
    }

    /// From here nothing of the pool's code and read-only data can be written by this library:
    /// no alias is left. Read-write data stays as it is. A second time does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPool`], [`Error::Memory`].
    pub fn finalise(&self) -> Result<(), Error> {
        todo!()
    }

    /// The pool stays until [`Pools::free`], or until the process ends.
    pub fn leak(self) {
        todo!()
    }
}

/// What [`Pools`] have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// System calls, those that failed included.
    pub system_calls: u64,
    /// Mappings there are now, as [`vm::Stats::mappings`].
    pub mappings: usize,
    /// Bytes of address space taken now.
    pub reserved: usize,
    /// Bytes of the pages that sections of pools lie in now.
    pub committed: usize,
    /// Bytes of those sections.
    pub payload: usize,
}
