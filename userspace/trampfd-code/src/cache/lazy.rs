//! Calls of methods that are not compiled yet.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::batch::Batch;
use super::format::Contents;
use super::room::Rooms;
use super::state::State;
use super::{Compiler, Error, Work, arch};
use crate::vm::Meter;

/// What the GOT leads the resolver to.
///
/// # Invariants
///
/// It stays where it is as long as a batch is mapped whose GOT has its address. Who runs code of
/// the cache keeps the cache.
#[repr(C)]
pub(super) struct Lazy<C: Compiler> {
    /// First: `arch::enter` calls it.
    resolve: extern "C" fn(&Lazy<C>, usize) -> usize,
    /// The thread that has `work`.
    owner: AtomicUsize,
    work: Mutex<Work<C>>,
    /// Locked after `work`, and never while a compiler runs.
    state: Mutex<State<C::Method>>,
    rooms: Rooms,
    meter: Meter,
}

impl<C: Compiler> Lazy<C> {
    pub(super) fn new(work: Work<C>, state: State<C::Method>) -> Box<Lazy<C>> {
        arch::prepare();
        let meter = state.meter.clone();
        Box::new(Lazy {
            resolve,
            owner: AtomicUsize::new(0),
            work: Mutex::new(work),
            state: Mutex::new(state),
            rooms: Rooms::new(&meter),
            meter,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<C::Method>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The compiler and the files.
    pub(super) fn work(&self) -> Result<Guard<'_, C>, Error> {
        let me = this_thread();
        if self.owner.load(Ordering::Relaxed) == me {
            return Err(Error::Nested);
        }
        // A compiler that panicked has changed nothing but itself.
        let work = self.work.lock().unwrap_or_else(|e| e.into_inner());
        self.owner.store(me, Ordering::Relaxed);
        Ok(Guard { work, owner: &self.owner })
    }

    pub(super) fn map(&self, fd: &OwnedFd, contents: &Contents) -> Result<Batch, Error> {
        let cache = (&raw const *self).expose_provenance();
        Batch::map(fd.as_fd(), contents, cache, &self.rooms, &self.meter)
    }

    /// The method that the slot at this address is for.
    fn resolve(&self, slot: usize) -> Result<usize, Error> {
        let awaited = self.state().table.awaited(slot);
        match awaited {
            Some(waiting) => self.get(waiting.method, waiting.home),
            // Another thread was faster.
            None => {
                // SAFETY: the address of a slot, whose batch is mapped while its code runs; an
                // aligned word (the invariant of `Batch`).
                let word = unsafe { &*(slot as *const AtomicUsize) };
                Ok(word.load(Ordering::Acquire))
            }
        }
    }
}

/// The address of a variable that each thread has one of.
fn this_thread() -> usize {
    thread_local!(static MINE: u8 = const { 0 });
    MINE.with(|mine| (&raw const *mine).addr())
}

/// Called by `arch::enter`, with the cache's address from the slot's group.
extern "C" fn resolve<C: Compiler>(lazy: &Lazy<C>, slot: usize) -> usize {
    let result = catch_unwind(AssertUnwindSafe(|| lazy.resolve(slot)));
    match result.unwrap_or(Err(Error::Panicked)) {
        Ok(address) => address,
        Err(error) => C::failed(error) as usize,
    }
}

/// The compiler and the files, until it is dropped.
pub(super) struct Guard<'a, C: Compiler> {
    work: MutexGuard<'a, Work<C>>,
    owner: &'a AtomicUsize,
}

impl<C: Compiler> Deref for Guard<'_, C> {
    type Target = Work<C>;

    fn deref(&self) -> &Work<C> {
        &self.work
    }
}

impl<C: Compiler> DerefMut for Guard<'_, C> {
    fn deref_mut(&mut self) -> &mut Work<C> {
        &mut self.work
    }
}

impl<C: Compiler> Drop for Guard<'_, C> {
    fn drop(&mut self) {
        self.owner.store(0, Ordering::Relaxed);
    }
}
