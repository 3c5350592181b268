//! Free slots: a bit for each, in the slots of the first stubs of their table, which are never
//! given out.
//!
//! ```text
//!   table:  stub 0 ...... stub 8 │ stub 9  stub 10 ..            64 KiB of text
//!   slots:  Chunk { next, taken }│ slot 9  slot 10 ..            64 KiB of memory
//!   chunks: the program's own ─► a copy ─► a copy ..             newest copy first
//! ```
//!
//! All of it is atomic words, of which each is right whenever it is read: no lock that a signal
//! handler or a child of fork could meet. In a child the slots that other threads had taken are
//! lost.
//!
//! Copies of the table are not made known to the unwinder, for which malloc would be called, maybe
//! by a handler that interrupted it. No exception passes through a stub: it has jumped, and is on
//! no stack. Only a look at a thread's stack while it runs the three instructions of a copied stub
//! ends there.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use trampfd_text::arch;
use trampfd_text::table::{Slot, StaticTable};

use crate::{Gone, copies};

/// The table whose stubs and slots these are.
pub(crate) const TABLE: &StaticTable = arch::static_table(arch::NESTED);

/// Slots of a chunk.
const SLOTS: usize = arch::TABLE_SLOTS;
/// Bytes of the stubs of a chunk, and of its slots.
pub(crate) const BYTES: usize = SLOTS * arch::SLOT_STRIDE;
const WORDS: usize = SLOTS / 64;

/// Which slots of a table are taken. Lies where its first slots would be.
///
/// # Invariants
///
/// A bit of `taken` is set by whoever takes the slot, who then owns it, and cleared by the owner.
/// `next` is set before the chunk is shared and not changed then; but that of the program's own
/// table is the head of the list of copies. A copy's chunk is aligned to [`BYTES`].
#[repr(C)]
pub(crate) struct Chunk {
    next: AtomicPtr<Chunk>,
    taken: [AtomicU64; WORDS],
}

/// Slots that the chunk itself takes, all in the first word.
const HEAD: usize = size_of::<Chunk>().div_ceil(arch::SLOT_STRIDE);
const _: () = assert!(HEAD < 64 && SLOTS.is_multiple_of(64));

/// The chunk where slots were found last, or given back; null: the own one.
static LIKELY: AtomicPtr<Chunk> = AtomicPtr::new(null_mut());

/// The chunk of the program's own table.
fn own() -> *mut Chunk {
    TABLE.slots().cast()
}

/// The stub of a slot.
#[inline(always)]
pub(crate) fn stub(slot: *mut Slot) -> usize {
    slot.addr().wrapping_add_signed(-TABLE.distance())
}

/// The slot of a stub, if it is one that was taken.
pub(crate) fn taken(stub: usize) -> Option<*mut Slot> {
    let slot = stub.wrapping_add_signed(TABLE.distance());
    let (chunk, n) = place(slot)?;
    // SAFETY: a chunk lives for ever.
    let word = unsafe { (*chunk).taken[n / 64].load(Ordering::Relaxed) };
    let is_taken = slot.is_multiple_of(arch::SLOT_STRIDE) && n >= HEAD && word & 1 << (n % 64) != 0;
    is_taken.then(|| core::ptr::with_exposed_provenance_mut(slot))
}

/// The chunk that a slot belongs to, and its number there; `None` if it belongs to none.
fn place(slot: usize) -> Option<(*mut Chunk, usize)> {
    let inside = slot.wrapping_sub(own().addr());
    if inside < BYTES {
        return Some((own(), inside / arch::SLOT_STRIDE));
    }
    // SAFETY: chunks live for ever.
    let mut chunk = unsafe { (*own()).next.load(Ordering::Acquire) };
    let hint = LIKELY.load(Ordering::Relaxed);
    let start = slot & !(BYTES - 1);
    if hint.addr() == start && hint != own() {
        chunk = hint;
    }
    while !chunk.is_null() && chunk.addr() != start {
        // SAFETY: as above.
        chunk = unsafe { (*chunk).next.load(Ordering::Acquire) };
    }
    (!chunk.is_null()).then_some((chunk, slot % BYTES / arch::SLOT_STRIDE))
}

/// Takes up to `count` slots that follow each other closely, and hands each to `each`.
///
/// # Errors
///
/// A sentence: why there are no further slots.
pub(crate) fn take(count: u32, mut each: impl FnMut(*mut Slot)) -> Result<(), &'static str> {
    loop {
        let likely = LIKELY.load(Ordering::Acquire);
        let start = if likely.is_null() { own() } else { likely };
        let mut chunk = start;
        loop {
            // SAFETY: chunks live for ever.
            let words = unsafe { &(*chunk).taken };
            if let Some((n, bits)) =
                words.iter().enumerate().find_map(|(n, word)| Some((n, claim(word, n, count)?)))
            {
                LIKELY.store(chunk, Ordering::Release);
                // SAFETY: the chunk lies where its slots are.
                let first = unsafe { chunk.cast::<Slot>().add(64 * n) };
                (0..64).filter(|bit| bits & 1 << bit != 0).for_each(|bit| {
                    // SAFETY: one of the chunk's slots.
                    each(unsafe { first.add(bit) })
                });
                return Ok(());
            }
            // SAFETY: as above.
            chunk = unsafe { (*chunk).next.load(Ordering::Acquire) };
            if chunk.is_null() {
                chunk = own();
            }
            if chunk == start {
                break;
            }
        }
        add(copies::copy()?);
    }
}

/// Takes up to `count` slots of word `n`; `None` if none is free.
fn claim(word: &AtomicU64, n: usize, count: u32) -> Option<u64> {
    let head = if n == 0 { (1 << HEAD) - 1 } else { 0 };
    let mut free = !(word.load(Ordering::Relaxed) | head);
    while free != 0 {
        let mut rest = free;
        for _ in 0..count {
            rest &= rest.wrapping_sub(1); // without its lowest bit
        }
        let wanted = free & !rest;
        let before = word.fetch_or(wanted, Ordering::Acquire);
        if wanted & !before != 0 {
            return Some(wanted & !before);
        }
        free &= !before;
    }
    None
}

/// Adds a copy of the table to the list.
fn add(slots: usize) {
    let chunk = core::ptr::with_exposed_provenance_mut::<Chunk>(slots);
    // SAFETY: new memory, zero and large enough, which nobody else knows yet.
    unsafe {
        let list = &(*own()).next;
        let mut head = list.load(Ordering::Relaxed);
        loop {
            (*chunk).next.store(head, Ordering::Relaxed);
            match list.compare_exchange_weak(head, chunk, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
    }
    LIKELY.store(chunk, Ordering::Release);
}

/// Gives a slot back.
///
/// # Safety
///
/// It is the caller's, from [`take`], and [`disarm`]ed.
pub(crate) unsafe fn put(slot: *mut Slot) {
    if let Some((chunk, n)) = place(slot.addr()) {
        LIKELY.store(chunk, Ordering::Release);
        // SAFETY: chunks live for ever.
        unsafe { (*chunk).taken[n / 64].fetch_and(!(1 << (n % 64)), Ordering::Release) };
    }
}

/// From now on the stub loads `chain` and jumps to `code`.
///
/// # Safety
///
/// The slot is the caller's.
#[inline(always)]
pub(crate) unsafe fn arm(slot: *mut Slot, chain: usize, code: usize) {
    // SAFETY: by the contract.
    unsafe {
        store(&raw mut (*slot).data, chain);
        store(&raw mut (*slot).code, code);
    }
}

/// From now on the stub traps.
///
/// # Safety
///
/// The slot is the caller's.
#[inline(always)]
pub(crate) unsafe fn disarm(slot: *mut Slot) {
    // SAFETY: by the contract. The jump first: no new data with old code.
    unsafe {
        store(&raw mut (*slot).code, const { arch::freed::<Gone>(arch::NESTED) } as usize);
        store(&raw mut (*slot).data, stub(slot));
    }
}

/// # Safety
///
/// `word` is a word of a slot of the caller.
#[inline(always)]
unsafe fn store(word: *mut usize, value: usize) {
    // SAFETY: aligned; stubs read it at any time, as one word.
    unsafe { AtomicUsize::from_ptr(word) }.store(value, Ordering::Release);
}
