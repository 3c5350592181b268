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
//! is executed. A file that such a program cuts off while it is mapped ends this process with
//! SIGBUS, as for every mapped file; it cannot be cut off with [`Verity`].
//!
//! A file is *known* when this cache has verified it before: then it is compared by device,
//! number, size, and times of change of content and state, which the system sets and no program
//! can set back (but writing through a shared mapping of its own may be seen late); nothing is
//! read. What is known is kept in memory only; no file is trusted for
//! what a file says about another.
//!
//! What fails a check is not used but made anew in its place; [`Cache::take_events`] tells why.
//!
//! # Files that are removed
//!
//! By the limit ([`Options::limit`]), by [`Cache::clear`], or by hand: a mapped batch stays as it
//! is.

mod arch;
mod batch;
mod build;
mod code;
mod compiler;
mod error;
mod folder;
mod format;
mod graph;
mod key;
mod lazy;
mod options;
mod reason;
mod room;
mod state;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use code::{Code, Constant, Slot, Target};
pub use compiler::{Compiler, Failure};
pub use error::Error;
pub use format::{Contents, parse};
pub use key::Key;
pub use options::{Event, Happened, Options, Stats, Verity};
pub use reason::Reason;

use folder::{Folder, Found};
use format::Callee;
use lazy::{Guard, Lazy};
use state::{Resolved, State, To};

/// Compiled methods: those of this process, and those in a folder's files.
///
/// Threads may use it at the same time. So may a child of fork, for which all that was mapped is
/// there, if no other thread was using it at the fork: what the child compiles and loads after
/// that is its own, and the files are both's.
pub struct Cache<C: Compiler> {
    lazy: Box<Lazy<C>>,
}

/// The compiler and the files, which one thread at a time uses.
struct Work<C: Compiler> {
    compiler: C,
    folder: Folder,
    /// Of batches that were loaded or compiled, by their roots.
    resolved: HashMap<Key, Arc<Resolved<C::Method>>>,
}

impl<C: Compiler> Cache<C> {
    /// Opens the folder `dir`, and makes it if its parent is there and it is not. If it is removed
    /// later it is made once more when a batch is compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`], [`Error::ForeignFolder`], [`Error::OpenFolder`].
    pub fn open(dir: &Path, compiler: C, options: Options) -> Result<Cache<C>, Error> {
        let state = State::new(options.protect_got);
        let folder = Folder::open(dir, &options, &state.meter)?;
        let work = Work { compiler, folder, resolved: HashMap::new() };
        Ok(Cache { lazy: Lazy::new(work, state) })
    }

    /// The address of a method's code: known already, or loaded, or compiled. It stays valid
    /// until [`Cache::unload`] or the cache is dropped, after which no thread may run it.
    ///
    /// # Errors
    ///
    /// Those of the compiler, of its code, of writing a file, and of mapping it. A file that
    /// cannot be used is no error.
    pub fn get(&self, method: C::Method) -> Result<*const u8, Error> {
        self.lazy.get(method, None).map(|address| address as *const u8)
    }

    /// The address of a method's code, if it is mapped.
    pub fn compiled(&self, method: C::Method) -> Option<*const u8> {
        self.lazy.state().table.address(method).map(|address| address as *const u8)
    }

    /// Uses the compiler: to tell it of more methods, for instance.
    ///
    /// # Errors
    ///
    /// [`Error::Nested`].
    pub fn with_compiler<R>(&self, f: impl FnOnce(&mut C) -> R) -> Result<R, Error> {
        Ok(f(&mut self.lazy.work()?.compiler))
    }

    /// What happened since this was asked last; of very many events the latest.
    pub fn take_events(&self) -> Vec<Event> {
        self.lazy.state().events.drain(..).collect()
    }

    /// What was done until now.
    pub fn stats(&self) -> Stats {
        self.lazy.state().stats()
    }

    /// Unmaps all batches. Files stay, and are known still; the memory that batches lay in is kept
    /// for the next, until the cache is dropped.
    ///
    /// # Safety
    ///
    /// No thread runs code of this cache, or will by an address that it got before.
    pub unsafe fn unload(&self) {
        self.lazy.state().unload();
    }

    /// Removes the files of all batches. What is mapped stays.
    ///
    /// # Errors
    ///
    /// [`Error::Publish`]; [`Error::Nested`].
    pub fn clear(&self) -> Result<(), Error> {
        self.lazy.work()?.folder.clear()
    }
}

impl<C: Compiler> fmt::Debug for Cache<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<C: Compiler> Lazy<C> {
    /// The address of a method, which may be in the batch of `home`.
    fn get(&self, method: C::Method, home: Option<Key>) -> Result<usize, Error> {
        let address = || self.state().table.address(method);
        if let Some(address) = address() {
            return Ok(address);
        }
        let mut work = self.work()?;
        let key = work.compiler.key(method);
        for root in [home, Some(key)].into_iter().flatten() {
            // Another thread may have been faster.
            if let Some(address) = address() {
                return Ok(address);
            }
            if !self.state().has(&root) {
                self.load(&mut work, root)?;
            }
        }
        if let Some(address) = address() {
            return Ok(address);
        }
        self.compile(&mut work, method, key)?;
        address().ok_or(Error::Keys(key))
    }

    /// Maps the batch of `root`, if there is a file that can be used.
    fn load(&self, work: &mut Guard<'_, C>, root: Key) -> Result<(), Error> {
        // A file that others have just renamed changes while it is looked at.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            match work.folder.load(&root) {
                Ok(None) => return Ok(()),
                Ok(Some(found)) if self.load_found(work, root, &found)? => return Ok(()),
                Ok(Some(_)) => {}
                Err(reason) => {
                    self.state().happened(root, Happened::Ignored(reason));
                    return Ok(());
                }
            }
        }
        self.state().happened(root, Happened::Ignored(Reason::Changed));
        Ok(())
    }

    /// Whether the file is what it was after it was mapped.
    fn load_found(&self, work: &mut Guard<'_, C>, root: Key, found: &Found) -> Result<bool, Error> {
        let before = work.resolved.get(&root).filter(|_| found.known);
        let resolved = match before.filter(|it| holds(&work.compiler, &found.contents, it)) {
            Some(resolved) => resolved.clone(),
            None => match resolve(&work.compiler, &found.contents) {
                Ok(resolved) => Arc::new(resolved),
                Err(reason) => {
                    self.state().happened(root, Happened::Ignored(reason));
                    return Ok(true);
                }
            },
        };
        let batch = self.map(&found.fd, &found.contents)?;
        if !work.folder.confirm(found) {
            return Ok(false);
        }
        let methods = resolved.methods.len();
        let mut state = self.state();
        state.install(batch, &found.contents, &resolved)?;
        state.happened(root, Happened::Loaded { methods, known: found.known });
        if !found.known {
            drop(state);
            work.resolved.insert(root, resolved);
        }
        Ok(true)
    }

    fn compile(&self, work: &mut Guard<'_, C>, method: C::Method, root: Key) -> Result<(), Error> {
        let Work { compiler, folder, .. } = &mut **work;
        let draft = graph::collect(compiler, method, |m| self.state().table.address(m).is_some())?;
        let home = |m| self.state().table.root(m);
        let bytes = build::build(draft, compiler, folder.version(), home)?;
        let not_ours = |reason| match reason {
            Reason::Helper(name) => Error::Helper(name),
            Reason::Stale(key) => Error::Keys(key),
            other => Error::Publish {
                what: "reading what was written",
                error: std::io::Error::other(other),
            },
        };
        let contents = Arc::new(parse(&bytes).map_err(not_ours)?);
        let resolved = resolve(compiler, &contents).map_err(not_ours)?;
        let fd = folder.publish(&root, &bytes)?;
        let batch = self.map(&fd, &contents)?;
        let tidied = folder.tidy(&root);
        let methods = resolved.methods.len();
        let mut state = self.state();
        state.install(batch, &contents, &resolved)?;
        state.happened(root, Happened::Compiled { methods });
        match tidied {
            Ok(removed) => {
                removed.into_iter().for_each(|key| state.happened(key, Happened::Evicted));
            }
            Err(error) => state.happened(root, Happened::Untidied(error)),
        }
        Ok(())
    }
}

/// Whether the methods and helpers of a known file are still those that they were. Helpers stay
/// where they are ([`Compiler::helper`]).
fn holds<C: Compiler>(compiler: &C, contents: &Contents, before: &Resolved<C::Method>) -> bool {
    let mut methods = contents.methods.iter().zip(&before.methods);
    let mut slots = contents.slots.iter().zip(&before.slots);
    contents.methods.len() == before.methods.len()
        && contents.slots.len() == before.slots.len()
        && methods.all(|(row, &method)| compiler.key(method) == row.key)
        && slots.all(|pair| match pair {
            (Callee::Outside { key, .. }, To::Outside { method, .. }) => {
                compiler.key(*method) == *key
            }
            _ => true,
        })
}

/// Who the methods and helpers of a file are in this process.
fn resolve<C: Compiler>(compiler: &C, contents: &Contents) -> Result<Resolved<C::Method>, Reason> {
    let find = |key: &Key| compiler.find(key).ok_or(Reason::Stale(*key));
    let methods = contents.methods.iter().map(|method| find(&method.key));
    let slots = contents.slots.iter().map(|callee| match callee {
        Callee::Inside(n) => Ok(To::Inside(*n)),
        Callee::Outside { key, home, stub } => {
            find(key).map(|method| To::Outside { method, home: *home, stub: *stub })
        }
        Callee::Helper(name) => match compiler.helper(name) {
            Some(address) => Ok(To::Helper(address as usize)),
            None => Err(Reason::Helper(name.clone())),
        },
    });
    Ok(Resolved {
        methods: methods.collect::<Result<_, Reason>>()?,
        slots: slots.collect::<Result<_, Reason>>()?,
    })
}
