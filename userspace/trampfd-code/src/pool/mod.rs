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
//! whatever set they are of. The number of mappings does not grow with sections, sets or pools
//! that are finalised; one that is not has a mapping more, through which its read-only data is
//! written. With [`vm::Write::Pwrite`] a commit takes one system call, which writes code, and a
//! few more when the pool's read-only data needs another run of pages, for its alias; finalising
//! takes one for each alias. With [`vm::Write::Alias`] a set takes none, but where the pool needs
//! another run.
//!
//! ```
//! use trampfd_code::pool::{Kind, Pools, Request};
//!
//! let pools = Pools::new()?;
//! let pool = pools.create(1)?;
//! let mut set = pool.set();
//! let answer = set.request(Request { name: "answer", kind: Kind::Code, len: 6, align: 16 });
//! let mut layout = set.lay_out()?;
//! // mov eax, 42; ret of x86-64.
//! layout.bytes(answer)?.copy_from_slice(&[0xb8, 42, 0, 0, 0, 0xc3]);
//! let set = layout.commit()?;
//! pool.finalise()?;
//! let code = set.section(answer)?.address;
//! // SAFETY: that is a function, and the pool is there.
//! let answer = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(code)() };
//! assert_eq!(answer, 42);
//! pools.free(1)?;
//! # Ok::<(), trampfd_code::pool::Error>(())
//! ```

mod arena;
mod error;
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
    /// Bytes of address space of each of the three areas of an arena; rounded up to pages. A pool
    /// takes 64 KiB of each area that it uses, or more. When an arena is full there is another,
    /// while there is room within 1 GiB of the first; it stays until all pools are dropped, for the
    /// pools that come. Where the system hands out no more memory
    /// than it has (vm.overcommit_memory=2) each arena is charged as much as an area.
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
