//! Free slots of the static tables: a list in each thread, and one for all.
//!
//! ```text
//!   thread: lane of a table          all threads, behind a lock
//!   head ─► slot ─► slot ─► ..       batches ─► slot ─► .. (128)    spare[0]: next in list
//!   fresh .. fresh_end                            │                 spare[1]: next batch
//!           a page never used                     ▼
//!                                                slot ─► .. (128)
//!                                    fresh .. fresh_end: pages never used, then growth
//! ```
//!
//! A slot may be given back by any thread; it goes to that thread's list. A thread that has too
//! many hands a batch on, one that ends hands on all. A child of fork has a copy of everything,
//! the lists of threads that it does not have excepted: those slots are lost to it.

use core::cell::Cell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use trampfd_text::arch;
use trampfd_text::table::{Slot, StaticTable};

use crate::backend::text::{Growth, Tables};
use crate::block::{self, Block};
use crate::error::Error;
use crate::fork;

/// Slots that move between a thread and the others at once.
const BATCH: u32 = 128;
/// Slots that a thread keeps in one lane. A quarter of a static table: where nothing can grow,
/// what one thread freed must be there for the others.
const KEEP: u32 = 4 * BATCH;
/// Slots never used that a thread takes at once: a page, so that threads share no cache line.
const FRESH: usize = 4096 / arch::SLOT_STRIDE;

/// One thread's free slots of one table.
///
/// # Invariants
///
/// `head` is a list of `len` free slots linked by `spare[0]`, `fresh..fresh_end` are slots that
/// were never used; all belong to this thread alone.
struct Lane {
    head: Cell<*mut Slot>,
    len: Cell<u32>,
    fresh: Cell<*mut Slot>,
    fresh_end: Cell<*mut Slot>,
}

impl Lane {
    /// Takes a slot; null if there is none.
    #[inline(always)]
    fn take(&self) -> *mut Slot {
        let slot = self.head.get();
        if !slot.is_null() {
            // SAFETY: by the invariant.
            self.head.set(unsafe { next(slot) });
            self.len.set(self.len.get() - 1);
            return slot;
        }
        seldom();
        let slot = self.fresh.get();
        if slot == self.fresh_end.get() {
            return null_mut();
        }
        self.fresh.set(slot.wrapping_add(1));
        slot
    }

    /// Takes a slot back.
    ///
    /// # Safety
    ///
    /// The slot is the caller's, and free.
    #[inline(always)]
    unsafe fn put(&self, slot: *mut Slot) {
        // SAFETY: by the contract.
        unsafe { (*slot).spare[0] = self.head.get().expose_provenance() };
        self.head.set(slot);
        self.len.set(self.len.get() + 1);
    }

    /// Takes up to [`BATCH`] slots off the list, which has some. Where that can be it is done
    /// without the lock: what the lock is held for makes others wait.
    fn cut(&self) -> *mut Slot {
        let first = self.head.get();
        let mut last = first;
        let mut count = 1;
        // SAFETY: by the invariant, `len` slots are linked.
        unsafe {
            while count < self.len.get().min(BATCH) {
                last = next(last);
                count += 1;
            }
            self.head.set(next(last));
            (*last).spare[0] = 0;
        }
        self.len.set(self.len.get() - count);
        first
    }

    /// Takes a batch as its list, which was empty.
    ///
    /// # Safety
    ///
    /// The batch is the caller's.
    unsafe fn adopt(&self, batch: *mut Slot) {
        let mut count = 1;
        let mut slot = batch;
        // SAFETY: by the contract, a list of free slots.
        unsafe {
            while !next(slot).is_null() {
                slot = next(slot);
                count += 1;
            }
        }
        self.head.set(batch);
        self.len.set(count);
    }
}

/// Tells the compiler which way of a branch is to be the one that jumps: a jump taken costs more
/// than a few instructions.
#[cold]
#[inline(always)]
pub(crate) fn seldom() {}

/// One thread's free slots.
///
/// # Invariants
///
/// The thread's word ([`arch::thread_word`]) is 0 before the first use, and from then on the
/// address of the thread's own, which is there until the thread has ended.
struct Cache {
    lanes: [Lane; arch::TABLES],
    /// Slots to keep in a lane: 0 before the thread's first use and after its end, so that the
    /// fast path needs no other test.
    keep: Cell<u32>,
}

/// The cache of this thread; `None` before its first use.
#[inline(always)]
fn cache<'a>() -> Option<&'a Cache> {
    // SAFETY: by the invariant; it is used by this thread, before that ends.
    unsafe { core::ptr::with_exposed_provenance::<Cache>(arch::thread_word()).as_ref() }
}

thread_local! {
    static CACHE: Cache = const {
        Cache {
            lanes: [const {
                Lane {
                    head: Cell::new(null_mut()),
                    len: Cell::new(0),
                    fresh: Cell::new(null_mut()),
                    fresh_end: Cell::new(null_mut()),
                }
            }; arch::TABLES],
            keep: Cell::new(0),
        }
    };
    /// Its destructor hands the thread's slots on.
    static AT_END: AtEnd = const { AtEnd };
}

struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        CACHE.with(|cache| {
            cache.keep.set(0);
            for (n, lane) in cache.lanes.iter().enumerate() {
                // Those never used go with the others, of which some are their neighbours: if two
                // threads got them, they would share a cache line.
                let end = lane.fresh_end.replace(null_mut());
                let mut slot = lane.fresh.replace(null_mut());
                while slot != end {
                    // SAFETY: by the invariant of `Lane`, a free slot of this thread.
                    unsafe { lane.put(slot) };
                    slot = slot.wrapping_add(1);
                }
                while lane.len.get() > 0 {
                    let batch = lane.cut();
                    // SAFETY: cut from the list of this thread.
                    unsafe { lock().lanes[n].push_batch(batch) };
                }
            }
        });
    }
}

/// Free slots of one table that belong to no thread.
///
/// # Invariants
///
/// `batches` is a list, linked by `spare[1]`, of lists of at most [`BATCH`] free slots;
/// `fresh..fresh_end` were never used. In the table of dynamic closures, `blocks` is memory for
/// as many blocks as there are fresh slots, or null; every slot that left `fresh` gets its block
/// before it is used.
struct Shared {
    batches: *mut Slot,
    fresh: *mut Slot,
    fresh_end: *mut Slot,
    blocks: *mut Block,
}

const NOTHING: Shared =
    Shared { batches: null_mut(), fresh: null_mut(), fresh_end: null_mut(), blocks: null_mut() };

/// What all threads share.
pub(crate) struct All {
    lanes: [Shared; arch::TABLES],
    tables: Tables,
}

// SAFETY: by the invariants, the slots belong to whoever holds the lock.
unsafe impl Send for All {}

static ALL: Mutex<All> = Mutex::new(All { lanes: [NOTHING; arch::TABLES], tables: Tables::new() });

/// The lock of all that is shared. fork takes it too.
pub(crate) fn lock() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(|e| e.into_inner())
}

/// Slots that were never used, and in the table of dynamic closures memory for their blocks.
struct Fresh {
    first: *mut Slot,
    end: *mut Slot,
    blocks: *mut Block,
}

impl Fresh {
    /// Gives the slots their blocks; first and end. Without the lock where that can be, as this is
    /// the first use of their pages.
    ///
    /// # Safety
    ///
    /// They are the caller's, and of `table`.
    unsafe fn pair(self, table: &StaticTable) -> (*mut Slot, *mut Slot) {
        if !self.blocks.is_null() {
            // SAFETY: by the contract.
            unsafe { block::pair(self.first, self.end, self.blocks, table) };
        }
        (self.first, self.end)
    }
}

impl Shared {
    /// Hands out up to `count` fresh slots, of more that are made where there are none.
    fn take_fresh(
        &mut self,
        tables: &mut Tables,
        n: usize,
        table: &'static StaticTable,
        growth: Growth,
        count: usize,
    ) -> Result<Fresh, Error> {
        if self.fresh == self.fresh_end {
            let grown = tables.grow(n, table, growth)?;
            (self.fresh, self.fresh_end) = (grown.slots.start, grown.slots.end);
            self.blocks = grown.blocks;
        }
        let first = self.fresh;
        let end = first.wrapping_add(count).min(self.fresh_end);
        let mut blocks = null_mut();
        if n == arch::DYNAMIC {
            if self.blocks.is_null() {
                self.blocks =
                    block::map((self.fresh_end.addr() - first.addr()) / arch::SLOT_STRIDE)?;
            }
            blocks = self.blocks;
            self.blocks = blocks.wrapping_add((end.addr() - first.addr()) / arch::SLOT_STRIDE);
        }
        self.fresh = end;
        Ok(Fresh { first, end, blocks })
    }

    /// Takes a batch.
    ///
    /// # Safety
    ///
    /// The batch is the caller's: a list of at most [`BATCH`] free slots.
    unsafe fn push_batch(&mut self, batch: *mut Slot) {
        // SAFETY: by the contract.
        unsafe { (*batch).spare[1] = self.batches.expose_provenance() };
        self.batches = batch;
    }

    /// Makes a batch of `first..end`, slots that follow each other. They stay together, so that
    /// no two threads get neighbours, which share a cache line.
    ///
    /// # Safety
    ///
    /// The slots are free, the caller's, and at most [`BATCH`].
    unsafe fn push_run(&mut self, first: *mut Slot, end: *mut Slot) {
        let mut slot = first;
        while slot != end {
            let following = slot.wrapping_add(1);
            let link = if following == end { null_mut() } else { following };
            // SAFETY: by the contract.
            unsafe { (*slot).spare[0] = link.expose_provenance() };
            slot = following;
        }
        if first != end {
            // SAFETY: by the contract.
            unsafe { self.push_batch(first) };
        }
    }

    /// Gives a batch; null if there is none.
    fn pop_batch(&mut self) -> *mut Slot {
        let batch = self.batches;
        if !batch.is_null() {
            // SAFETY: by the invariant.
            self.batches = unsafe { core::ptr::with_exposed_provenance_mut((*batch).spare[1]) };
        }
        batch
    }
}

/// The next slot of a list.
///
/// # Safety
///
/// `slot` is a free slot in a list.
unsafe fn next(slot: *mut Slot) -> *mut Slot {
    // SAFETY: free slots are linked by their first spare word.
    core::ptr::with_exposed_provenance_mut(unsafe { (*slot).spare[0] })
}

/// Stores a word of a slot, after all that was written before.
///
/// # Safety
///
/// `word` is a word of a slot of the caller.
#[inline(always)]
pub(crate) unsafe fn store(word: *mut usize, value: usize) {
    // SAFETY: aligned; stubs read it at any time, as one word.
    unsafe { AtomicUsize::from_ptr(word) }.store(value, Ordering::Release);
}

/// Takes a free slot of table number `n`, which is `table`.
///
/// # Errors
///
/// [`Error::Growth`].
#[inline(always)]
pub(crate) fn take(
    n: usize,
    table: &'static StaticTable,
    growth: Growth,
) -> Result<*mut Slot, Error> {
    match recent(n) {
        Some(slot) => Ok(slot.as_ptr()),
        None => refill(n, table, growth),
    }
}

/// A free slot of table number `n` that this thread has already. Never calls anything.
#[inline(always)]
pub(crate) fn recent(n: usize) -> Option<NonNull<Slot>> {
    NonNull::new(cache()?.lanes[n].take())
}

/// Gives a slot of table number `n` back.
///
/// # Safety
///
/// The slot came from [`take`] with the same `n`, and nothing refers to it but stubs that may be
/// called by mistake.
#[inline(always)]
pub(crate) unsafe fn put(n: usize, slot: *mut Slot) {
    let Some(cache) = cache() else {
        // SAFETY: by the contract.
        return unsafe { put_first(n, slot) };
    };
    // SAFETY: by the contract.
    unsafe { cache.lanes[n].put(slot) };
    if cache.lanes[n].len.get() > cache.keep.get() {
        hand_on(n);
    }
}

/// The same in a thread that never had a slot.
///
/// # Safety
///
/// As for [`put`].
#[cold]
#[inline(never)]
unsafe extern "C" fn put_first(n: usize, slot: *mut Slot) {
    // SAFETY: by the contract.
    CACHE.with(|cache| unsafe { cache.lanes[n].put(slot) });
    hand_on(n);
}

/// Starts the cache of a thread, so that its end empties it. False if it has ended.
fn start(cache: &Cache) -> bool {
    if cache.keep.get() == 0 {
        fork::prepare();
        if AT_END.try_with(|_| ()).is_err() {
            return false;
        }
        cache.keep.set(KEEP);
        arch::set_thread_word((&raw const *cache).expose_provenance());
    }
    true
}

/// Gives the others what this thread has too many of. Cannot unwind, so that who calls it last
/// needs no frame of its own.
#[cold]
#[inline(never)]
extern "C" fn hand_on(n: usize) {
    CACHE.with(|cache| {
        let alive = start(cache);
        let lane = &cache.lanes[n];
        while lane.len.get() > if alive { KEEP } else { 0 } {
            let batch = lane.cut();
            // SAFETY: cut from the list of this thread.
            unsafe { lock().lanes[n].push_batch(batch) };
        }
    });
}

/// Takes a slot from what the threads share, and more for this thread.
#[cold]
fn refill(n: usize, table: &'static StaticTable, growth: Growth) -> Result<*mut Slot, Error> {
    CACHE.with(|cache| {
        let alive = start(cache);
        let lane = &cache.lanes[n];
        let mut guard = lock();
        let all = &mut *guard;
        let batch = all.lanes[n].pop_batch();
        if !batch.is_null() {
            drop(guard);
            // SAFETY: ours now; the list is empty, or there would be no need.
            unsafe { lane.adopt(batch) };
            let slot = lane.take();
            // Where the destructor that would hand them on has run already, none is kept.
            while !alive && lane.len.get() > 0 {
                let batch = lane.cut();
                // SAFETY: cut from the list of this thread.
                unsafe { lock().lanes[n].push_batch(batch) };
            }
            return Ok(slot);
        }
        let count = if alive { FRESH } else { 1 };
        let fresh = all.lanes[n].take_fresh(&mut all.tables, n, table, growth, count)?;
        drop(guard);
        // SAFETY: ours now.
        let (slot, end) = unsafe { fresh.pair(table) };
        lane.fresh.set(slot.wrapping_add(1));
        lane.fresh_end.set(end);
        Ok(slot)
    })
}

/// Sees to it that `count` slots of table number `n` are there before they are asked for.
///
/// # Errors
///
/// [`Error::Growth`].
pub(crate) fn prewarm(
    n: usize,
    table: &'static StaticTable,
    growth: Growth,
    count: usize,
) -> Result<(), Error> {
    fork::prepare();
    let mut all = lock();
    let all = &mut *all;
    let shared = &mut all.lanes[n];
    let mut ready = 0;
    while ready < count {
        let fresh = shared.take_fresh(&mut all.tables, n, table, growth, BATCH as usize)?;
        // SAFETY: ours until they are pushed; never used.
        let (first, end) = unsafe { fresh.pair(table) };
        // SAFETY: as above.
        unsafe { shared.push_run(first, end) };
        ready += (end.addr() - first.addr()) / arch::SLOT_STRIDE;
    }
    Ok(())
}
