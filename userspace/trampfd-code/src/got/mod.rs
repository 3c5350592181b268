//! Relocatable objects, loaded: what a compiler writes as a file, at addresses of its own.
//!
//! ```text
//!            set of objects                     one pool of crate::pool
//!  a.o ─┐  parse ─ plan: names, groups,       ┌ Code       sections, stubs
//!  b.o ─┼──────────── entries and stubs ─────►│ ReadOnly   sections, table (GOT), .eh_frame
//!  c.o ─┘             counted                 └ ReadWrite  sections, common symbols
//!                                                   │ addresses
//!          fill: relocations, entries, stubs ◄──────┘ then one commit
//! ```
//!
//! What a set needs is counted before anything has an address, by looking at every relocation;
//! what is counted is what is filled. The table is never in an executable page, and read-only
//! from the moment it is there. One entry serves all objects of the set; sets that are laid out
//! in reach of an earlier one can use its entries and stubs ([`SetBuilder::share`]), and the
//! earlier one stays as long as they do.
//!
//! ## Thread-local variables
//!
//! - of the program, or of libraries it was started with: every model ([`Symbol::Thread`]);
//!   of others, the general dynamic model ([`Symbol::ThreadModule`]).
//! - of the set itself, general and local dynamic: each thread gets a block on first use.
//!   `__tls_get_addr` is a function of this crate for loaded code. The first use in a thread
//!   allocates memory, so it has no place in a signal handler.
//! - of the set itself, initial and local exec, and descriptors: the code has the distance from
//!   the thread pointer in it, so there must be room at one distance in all threads, those that
//!   run already included. The crate keeps 2 KiB of its own thread-local variables for that, if
//!   it is part of the program or of a library the program was started with. It is given to sets
//!   for good, as threads may have written there. Variables that do not begin as zeros cannot be
//!   had there ([`Error::StaticTls`]): threads that run already have zeros.
//!
//! ## fork
//!
//! A child has its parent's sets and can run them; variables of threads that its one thread has
//! used are there. It cannot load into its parent's pools ([`vm::Error::OtherProcess`]), only
//! into its own. If another thread was loading a set, or using a set's variables for the first
//! time, at the moment of the fork, both wait forever in the child: call exec(2), or fork when
//! no other thread does.
//!
//! [`vm::Error::OtherProcess`]: crate::vm::Error::OtherProcess

mod arch;
mod dry;
mod error;
mod fixed;
mod gdb;
mod loader;
mod object;
mod perf;
mod plan;
mod relocate;
mod set;
mod tls;
mod unwind;
mod unwind_table;

pub use dry::{Dry, link_dry};
pub use error::{Error, Site};
pub use loader::{Loader, Options, SetBuilder, low};
pub use object::{Object, parse};
pub use set::{InUse, Removal, Set, TableEntry};

use crate::vm;

/// What a name means outside of a set.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// A function or variable, at this address.
    Address(usize),
    /// A thread's variable, so many bytes from the thread pointer in every thread: one of the
    /// program, or of a library that it was started with. See [`Symbol::thread`].
    Thread(isize),
    /// A thread's variable of another library.
    ThreadModule {
        /// The library's number, as `dlinfo(RTLD_DI_TLS_MODID)` gives it.
        module: usize,
        /// Bytes from the start of the library's block.
        offset: usize,
    },
}

impl Symbol {
    /// [`Symbol::Thread`] for a variable of which this thread's copy is at `address`. It has to
    /// be one of the program, or of a library that it was started with.
    pub fn thread(address: *const u8) -> Symbol {
        Symbol::Thread((address as isize).wrapping_sub(crate::arch::thread_pointer() as isize))
    }
}

/// What a set needs, besides the sections of its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Entries of its table (GOT).
    pub entries: usize,
    /// Bytes of its table: entries for `__tls_get_addr` have two words, others one.
    pub table: usize,
    /// Stubs for calls that leave the set.
    pub stubs: usize,
    /// Entries of other sets' tables that it uses.
    pub shared_entries: usize,
    /// Stubs of other sets that it uses.
    pub shared_stubs: usize,
    /// The same for each object, in the order in which they were added. Objects of a set have
    /// entries and stubs in common, so that these add up to more.
    pub objects: Vec<ObjectCounts>,
}

/// What one object of a set refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectCounts {
    /// The name it was added under.
    pub name: String,
    /// Entries, its set's or another's.
    pub entries: usize,
    /// Stubs, its set's or another's.
    pub stubs: usize,
}

/// What addresses of 32 bits reach.
fn low_place() -> vm::Place {
    // From the first page on, as far as a signed displacement of 32 bits reaches from 0.
    let middle = 1 << 30;
    vm::Place::Near { address: middle, within: middle - vm::page_size() }
}
