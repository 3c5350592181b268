//! A pool: what it has, and whether it may still be written.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use super::arena::Run;
use super::plan::{self, Item, Plan};
use super::pools::Inner;
use super::set::Part;
use super::tail::Taken;
use super::{Error, Kind, SetBuilder, lock};
use crate::vm::{self, Write};

/// Address space that a pool takes of an area at first: pages that are not touched cost nothing.
/// Each further run is twice as long, up to [`LAST_RUN`], or as long as a set needs.
const FIRST_RUN: usize = 64 << 10;
/// The same where every run has an alias, which takes system calls.
const FIRST_ALIASED_RUN: usize = 256 << 10;
const LAST_RUN: usize = 1 << 20;

/// A pool: sets of sections that are freed together. May be used by any thread.
///
/// Dropping it frees it, as [`Pools::free`](super::Pools::free) does; [`Pool::leak`] keeps it.
#[derive(Debug)]
pub struct Pool {
    handle: Handle,
    leaked: bool,
}

/// A pool, for whoever has business with it.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pools: Arc<Inner>,
    state: Arc<State>,
}

/// What a pool has.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: u64,
    /// No other pool of this process ever has it.
    pub(super) number: u64,
    body: Mutex<Body>,
}

/// # Invariants
///
/// Runs are only ever added, until it is freed.
#[derive(Debug, Default)]
struct Body {
    /// By [`Kind`].
    runs: [Vec<Run>; 3],
    payload: usize,
    finalised: bool,
    freed: bool,
}

impl Pool {
    pub(super) fn new(pools: Arc<Inner>, state: Arc<State>) -> Result<Pool, Error> {
        let handle = Handle { pools, state };
        let pool = Pool { handle, leaked: false };
        // Dropped, and freed, if this fails.
        pool.handle.prepare()?;
        Ok(pool)
    }

    /// What it was created with.
    pub fn id(&self) -> u64 {
        self.handle.state.id
    }

    /// A new set, with no requests yet.
    pub fn set(&self) -> SetBuilder {
        SetBuilder::new(self.handle.clone())
    }

    /// From here nothing of the pool's code and read-only data can be written by this library:
    /// no alias is left. Read-write data stays as it is. A second time does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPool`]; [`Error::Memory`]: an alias may be left, and this can be called
    /// again; nothing more is committed in any case.
    pub fn finalise(&self) -> Result<(), Error> {
        self.handle.finalise()
    }

    /// The pool stays until [`Pools::free`](super::Pools::free), or until the process ends.
    pub fn leak(mut self) {
        self.leaked = true;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.leaked {
            // It may have been freed by its id; a child of fork frees nothing.
            let _ = self.handle.pools.free_this(&self.handle.state);
        }
    }
}

impl State {
    pub(super) fn new(id: u64, number: u64) -> State {
        State { id, number, body: Mutex::default() }
    }

    /// The pool has no runs and no payload any more: here they are.
    pub(super) fn empty(&self) -> (impl Iterator<Item = Run>, usize) {
        let mut body = lock(&self.body);
        body.freed = true;
        (mem::take(&mut body.runs).into_iter().flatten(), mem::take(&mut body.payload))
    }
}

impl Handle {
    fn body(&self) -> Result<MutexGuard<'_, Body>, Error> {
        self.pools.check_process()?;
        let body = lock(&self.state.body);
        if body.freed { Err(Error::NoSuchPool(self.state.id)) } else { Ok(body) }
    }

    /// The pool, if it may be written.
    fn open(&self) -> Result<MutexGuard<'_, Body>, Error> {
        let body = self.body()?;
        if body.finalised { Err(Error::Finalised(self.state.id)) } else { Ok(body) }
    }

    /// Has ready what the first commit would have to wait for: aliases.
    fn prepare(&self) -> Result<(), Error> {
        let mut body = self.body()?;
        self.grow(&mut body, Kind::ReadOnly, 1)?.make_alias()?;
        if self.aliases_code() {
            self.grow(&mut body, Kind::Code, 1)?;
        }
        Ok(())
    }

    fn aliases_code(&self) -> bool {
        self.pools.options.memory.write == Write::Alias
    }

    /// One more run, of at least `needed` bytes.
    fn grow<'a>(
        &self,
        body: &'a mut Body,
        kind: Kind,
        needed: usize,
    ) -> Result<&'a mut Run, Error> {
        let runs = &mut body.runs[kind as usize];
        let at = runs.len();
        let first = if self.aliases_code() { FIRST_ALIASED_RUN } else { FIRST_RUN };
        let wanted = (first << at.min(10)).min(LAST_RUN);
        let run = self.pools.take_run(kind, wanted, needed, self.state.number)?;
        runs.push(run);
        let run = &mut runs[at];
        if self.aliases_code() {
            run.make_alias()?;
        }
        Ok(run)
    }

    /// Hands out bytes of one run for the items: its number, where they are in its arena, and the
    /// arena's address.
    pub(super) fn hand_out(
        &self,
        kind: Kind,
        items: &[Item],
    ) -> Result<(usize, Plan, Taken, usize), Error> {
        let mut body = self.open()?;
        let runs = body.runs[kind as usize].iter_mut().enumerate();
        let there = runs.filter_map(|(i, run)| Some((i, run.hand_out(items)?, run.base())));
        if let Some((i, (plan, taken), base)) = { there }.next() {
            return Ok((i, plan, taken, base));
        }
        let too_large = || {
            Error::TooLarge(items.iter().fold(0, |sum: usize, item| sum.saturating_add(item.len)))
        };
        let needed = plan::place(0, items).ok_or_else(too_large)?.end;
        let needed = vm::round_to_pages(needed).map_err(|_| too_large())?;
        let i = body.runs[kind as usize].len();
        let run = self.grow(&mut body, kind, needed)?;
        let (plan, taken) = run.hand_out(items).ok_or_else(too_large)?;
        Ok((i, plan, taken, run.base()))
    }

    /// Takes back what was handed out for parts that are not written.
    pub(super) fn give_up(&self, parts: &[Part]) {
        let Ok(mut body) = self.body() else { return };
        for part in parts {
            body.runs[part.kind as usize][part.run].give_up(&part.taken);
        }
    }

    /// Writes parts of a set, data before the code that uses it.
    pub(super) fn write(&self, parts: &mut [Part], payload: usize) -> Result<(), Error> {
        let mut body = self.open()?;
        for part in parts.iter_mut().rev() {
            let run = &mut body.runs[part.kind as usize][part.run];
            let new = run.write(part.taken.range(), mem::take(&mut part.bytes))?;
            self.pools.committed.fetch_add(new, Ordering::Relaxed);
        }
        body.payload += payload;
        self.pools.payload.fetch_add(payload, Ordering::Relaxed);
        Ok(())
    }

    fn finalise(&self) -> Result<(), Error> {
        let mut body = self.body()?;
        body.finalised = true;
        let mut result = Ok(());
        for run in body.runs.iter_mut().flatten() {
            // The other aliases go also if this one cannot.
            result = result.and(run.withdraw());
        }
        result
    }
}
