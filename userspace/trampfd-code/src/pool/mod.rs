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

mod arena;
mod error;
mod extents;
mod handle;
mod plan;
mod pools;
mod section;
mod set;
mod tail;

use std::sync::{Mutex, MutexGuard};

pub use error::Error;
pub use handle::Pool;
pub use pools::Pools;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
