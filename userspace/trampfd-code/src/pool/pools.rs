//! Pools by id, and the arenas that they share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::arena::{Arena, REACH, Run};
use super::handle::{Pool, State};
use super::{Error, Kind, Options, Stats, lock};
use crate::vm::{self, Meter, Place, token};

/// Bytes of an area of an arena that is one pool's.
const OWN_AREA: usize = 4 << 20;

/// Pools that are near each other: code of each reaches code and data of all by signed
/// displacements of 32 bits. Clones are the same pools. May be used by any thread.
///
/// A child of fork has the sections of its parent's pools, those of read-write data its own copy;
/// but every function here that would change something returns
/// [`vm::Error::OtherProcess`] in [`Error::Memory`], and waits for no lock, so that it does not
/// matter what other threads did at the fork. [`Pools::stats`] works, and so do pools that the
/// child makes. Code that the parent frees is gone for its children, too.
#[derive(Clone, Debug)]
pub struct Pools(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: Options,
    meter: Meter,
    /// The process that may write.
    process: u64,
    /// What all arenas are near to.
    base: usize,
    /// Bytes of an area of a new arena.
    area: usize,
    arenas: Mutex<Vec<Arc<Arena>>>,
    pools: Mutex<HashMap<u64, Arc<State>>>,
    /// As in [`Stats`].
    pub(super) committed: AtomicUsize,
    pub(super) payload: AtomicUsize,
}

impl Pools {
    /// No pool yet; with [`Options::default`].
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn new() -> Result<Pools, Error> {
        Pools::with(Options::default())
    }

    /// No pool yet. Address space is taken here, so that a system that allows no such memory says
    /// so at once.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]; [`Error::TooLarge`] for arenas that do not lie within reach.
    pub fn with(options: Options) -> Result<Pools, Error> {
        let meter = Meter::new();
        let memory = &options.memory;
        let first = Arena::new(options.arena, memory.place, memory, &meter, 0)?;
        let base = first.base();
        // No pool has the number 0: an arena that cannot be shared goes.
        let (arenas, area) = match first.owner {
            None => (vec![Arc::new(first)], options.arena),
            Some(_) => (Vec::new(), options.arena.min(OWN_AREA)),
        };
        Ok(Pools(Arc::new(Inner {
            options,
            meter,
            process: token(),
            base,
            area,
            arenas: Mutex::new(arenas),
            pools: Mutex::default(),
            committed: AtomicUsize::new(0),
            payload: AtomicUsize::new(0),
        })))
    }

    /// A new, empty pool.
    ///
    /// # Errors
    ///
    /// [`Error::IdInUse`], [`Error::Memory`].
    pub fn create(&self, id: u64) -> Result<Pool, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.0.check_process()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State::new(id, number));
        match lock(&self.0.pools).entry(id) {
            Entry::Occupied(_) => return Err(Error::IdInUse(id)),
            Entry::Vacant(place) => drop(place.insert(state.clone())),
        }
        Pool::new(self.0.clone(), state)
    }

    /// Frees a pool: its sections are gone, nothing of other pools is touched. Nobody may run or
    /// use them any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPool`]; [`Error::Memory`]: in a child of fork nothing was done; else the
    /// pool is gone, but memory of it could not be given back.
    pub fn free(&self, id: u64) -> Result<(), Error> {
        self.0.check_process()?;
        let state = lock(&self.0.pools).remove(&id).ok_or(Error::NoSuchPool(id))?;
        self.0.free(&state)
    }

    /// What was taken until now.
    pub fn stats(&self) -> Stats {
        let vm::Stats { system_calls, mappings, reserved } = self.0.meter.stats();
        let committed = self.0.committed.load(Ordering::Relaxed);
        let payload = self.0.payload.load(Ordering::Relaxed);
        Stats { system_calls, mappings, reserved, committed, payload }
    }
}

impl Inner {
    pub(super) fn check_process(&self) -> Result<(), Error> {
        if self.process == token() { Ok(()) } else { Err(vm::Error::OtherProcess.into()) }
    }

    /// A run of `wanted` bytes, or of at least `needed`, for the pool with a number.
    pub(super) fn take_run(
        &self,
        kind: Kind,
        wanted: usize,
        needed: usize,
        number: u64,
    ) -> Result<Run, Error> {
        let mut arenas = lock(&self.arenas);
        for len in [wanted.max(needed), needed] {
            let usable = arenas.iter().filter(|arena| arena.owner.is_none_or(|o| o == number));
            if let Some(run) = usable.into_iter().find_map(|arena| Run::take(arena, kind, len)) {
                return Ok(run);
            }
        }
        let (area, place) = (self.area.max(needed), self.next_place());
        let arena = Arena::new(area, place, &self.options.memory, &self.meter, number)?;
        let arena = Arc::new(arena);
        let run = Run::take(&arena, kind, wanted.min(area).max(needed));
        arenas.push(arena);
        run.ok_or(Error::TooLarge(needed))
    }

    /// In reach of all that there is, and where the caller wants it.
    fn next_place(&self) -> Place {
        let address = self.base;
        match self.options.memory.place {
            Place::Anywhere => Place::Near { address, within: REACH },
            // Any two places in there are in reach of each other.
            near @ Place::Near { within, .. } if within <= REACH => near,
            Place::Near { address: wanted, within } => {
                let left = within.saturating_sub(address.abs_diff(wanted));
                Place::Near { address, within: left.min(REACH) }
            }
        }
    }

    /// Gives back what a pool has that nobody can find any more.
    fn free(&self, state: &State) -> Result<(), Error> {
        let (runs, payload) = state.empty();
        self.payload.fetch_sub(payload, Ordering::Relaxed);
        let mut result = Ok(());
        for run in runs {
            self.committed.fetch_sub(run.committed(), Ordering::Relaxed);
            // The others are given back also if this one cannot be.
            result = result.and(run.free());
        }
        lock(&self.arenas).retain(|arena| arena.owner != Some(state.number));
        result
    }

    /// Frees the pool if it is still there: not another one with its id.
    pub(super) fn free_this(&self, state: &State) -> Result<(), Error> {
        self.check_process()?;
        match lock(&self.pools).entry(state.id) {
            Entry::Occupied(there) if there.get().number == state.number => drop(there.remove()),
            _ => return Err(Error::NoSuchPool(state.id)),
        }
        self.free(state)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Pools that are still there were leaked, or are their parent's: their pages stay.
        let pools = self.pools.get_mut().unwrap_or_else(|e| e.into_inner());
        pools.drain().for_each(mem::forget);
    }
}
