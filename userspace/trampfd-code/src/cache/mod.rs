//! Batches of code in files, verified, mapped R-X straight from them.
//!
//! Where only files may be executed, a JIT compiler can still work: it writes its code to a file.
//! A method that is called and not compiled yet is compiled, with the methods that it calls and
//! those that these call, as one *batch*: one file, one mapping. The next start, and other
//! processes, find the file and compile nothing.
//!
//! ```text
//!  a file                               mapped (one reservation)
//!  ┌───────────────────────────┐
//!  │ header: magic, version,   │  read into memory, verified
//!  │   counts, hash of the rest│
//!  │ table: method → code;     │
//!  │   slot → method or helper │
//!  ├─────────────── page ──────┤        ┌───────────────────────────┐
//!  │ code of M                 │  R-X   │ code of M                 │
//!  │   call *slot(%rip)        │ ─────► │   call *slot(%rip) ───────┼──┐
//!  │ code of N, L ..           │ private│ code of N, L ..           │  │ a distance that is
//!  │ a stub for each method    │  file  │ stubs: r11 = slot, jump ──┼─┐│ the same wherever the
//!  │   called                  │        │                           │ ││ reservation lies
//!  ├─────────────── page ──────┤        ├───────────────────────────┤ ││
//!  │ constants                 │  R--   │ constants                 │ ││
//!  └───────────────────────────┘        ├───────────────────────────┤ ││
//!                                       │ main GOT: this batch's    │ ││
//!                                  RW-  │   part: resolver, cache ◄─┼─┘│
//!                               private │   slot: address of a ◄────┼──┘
//!                                memory │   method, or of its stub  │
//!                                       └───────────────────────────┘
//! ```
//!
//! Code holds no address, so a file is used as it is. All of the GOT's parts are filled from one
//! table, method → address: a method that is compiled later is entered in all slots that wait
//! for it. A slot whose method is not compiled holds the address of its stub, which goes to the
//! resolver: static text of this library, which keeps the arguments, compiles the method (or
//! loads its batch), fills the slots and jumps to it. Threads may do that at the same time; the
//! method is compiled once.
//!
//! # Which methods
//!
//! After John Richard Moser's mail "PaX and Mono" (mono-devel-list, February 2005):
//!
//! 1. M is called, and not compiled: it is compiled.
//! 2. All methods N that M calls are compiled, if and only if they are not yet.
//! 3. All methods L that those N call are compiled, if and only if they are not yet.
//! 4. No more methods are compiled. What a method calls that was found compiled is not looked at.
//!
//! So if M calls N3, compiled before, which calls L2, which is not, L2 is not compiled; if M calls
//! N4, which is not compiled and calls L3, which is not compiled and calls Z12, then M, N4 and L3
//! are compiled and Z12 is not. All N come before all L: a method that M calls itself counts as
//! N, also where another N calls it too.
//!
//! # What a file is trusted for
//!
//! Code is executed that was in a folder which only this user may enter, owned by this user, mode
//! 0700, and not reached over a symbolic link in the last component (its parents are the
//! caller's to choose); in a regular file of this user, with one name, that nobody else may write.
//! All of this is asked of the descriptor that is mapped, which cannot write. That keeps other
//! users out. The content hash finds what is broken: half-written files after a crash of the
//! system, bad disks. It keeps nobody out who may write as this user: who can replace a file can
//! replace the hash in it. Such a program could also write to a file after it was verified:
//! pages of it that this process has not touched yet would show it. Files have mode 0400, and
//! their writer closes its descriptor before they get their name; with [`Verity`] the kernel
//! refuses every write, and reads that differ from what was written, so what was verified is what
//! is executed.
//!
//! A file is *known* when this cache has verified it before: then it is compared by device,
//! number, size, and times of change of content and state, which the system sets and no program
//! can set back; nothing is read. What is known is kept in memory only; no file is trusted for
//! what a file says about another.
//!
//! What fails a check is not used but made anew in its place; [`Cache::take_events`] tells why.
//!
//! # Files that are removed
//!
//! By the limit ([`Options::limit`]), by [`Cache::clear`], or by hand: a mapped batch stays as it
//! is.

mod code;
mod compiler;
mod error;
mod key;
mod options;
mod reason;

use std::path::Path;

pub use code::{Code, Constant, Slot, Target};
pub use compiler::{Compiler, Failure};
pub use error::Error;
pub use key::Key;
pub use options::{Event, Happened, Options, Stats, Verity};
pub use reason::Reason;

/// Compiled methods: those of this process, and those in a folder's files.
#[derive(Debug)]
pub struct Cache<C: Compiler> {
    compiler: std::sync::Mutex<C>,
}

impl<C: Compiler> Cache<C> {
    /// Opens the folder `dir`, and makes it if its parent is there and it is not.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`], [`Error::ForeignFolder`], [`Error::OpenFolder`].
    pub fn open(_dir: &Path, _compiler: C, _options: Options) -> Result<Cache<C>, Error> {
        unimplemented!()
    }

    /// The address of a method's code: known already, or loaded, or compiled. It stays valid
    /// until [`Cache::unload`] or the cache is dropped.
    ///
    /// # Errors
    ///
    /// Those of the compiler, of its code, of writing a file, and of mapping it. A file that
    /// cannot be used is no error.
    pub fn get(&self, _method: C::Method) -> Result<*const u8, Error> {
        unimplemented!()
    }

    /// The address of a method's code, if it is mapped.
    pub fn compiled(&self, _method: C::Method) -> Option<*const u8> {
        unimplemented!()
    }

    /// Uses the compiler.
    pub fn with_compiler<R>(&self, f: impl FnOnce(&mut C) -> R) -> R {
        f(&mut self.compiler.lock().unwrap())
    }

    /// What happened since this was asked last; of very many events the latest.
    pub fn take_events(&self) -> Vec<Event> {
        unimplemented!()
    }

    /// What was done until now.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Unmaps all batches. Files stay, and are known still.
    ///
    /// # Safety
    ///
    /// No thread runs code of this cache, or will by an address that it got before.
    pub unsafe fn unload(&self) {}

    /// Removes the files of all batches. What is mapped stays.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`].
    pub fn clear(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

/// What a file of the cache says, its hash not checked: `bytes` are all of it. For any bytes it
/// returns.
///
/// # Errors
///
/// Why they are not a batch.
pub fn parse(_bytes: &[u8]) -> Result<(), Reason> {
    unimplemented!()
}
