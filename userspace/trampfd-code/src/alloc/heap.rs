//! One thread's memory.
//!
//! ```text
//!  owner ──► carver: idle blocks, else free runs; no locked instruction
//!  other threads ──► bit in the block's map ──► message ──► read by the owner when it next calls
//! ```

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use super::carver::{Carver, Name};
use super::map::{Map, Refused};
use super::segment::{Books, Segment, Unit};
use super::state::{Inner, State};
use super::thread::me;
use crate::vm::{self, token};

/// A unit of a segment.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    /// Which unit, and where it begins.
    pub(super) unit: usize,
    pub(super) at: usize,
}

impl Place {
    fn unit(&self) -> Option<&Unit> {
        match &self.segment.books {
            Books::Units(units) => units.get(self.unit),
            Books::Pages(_) => None,
        }
    }
}

/// What another thread asks the owner to do with a block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Release { piece: u32, start: usize },
    Shrink { piece: u32, start: usize, len: usize },
}

/// A block that is handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) rx: *const u8,
    /// The same byte in the alias, if there is one.
    pub(super) rw: *mut u8,
    /// Whose it is; null if it is a large one.
    pub(super) heap: *const Heap,
    /// Where in the heap: see [`Name`].
    pub(super) name: Name,
}

impl Block {
    /// What a [`Carver`] has found.
    #[inline(always)]
    fn new(inner: &Inner, heap: *const Heap, found: (Name, &Place, usize)) -> Block {
        let (name, Place { segment, at, .. }, start) = found;
        let at = at + (start << inner.granule);
        Block { rx: segment.rx(at), rw: segment.rw(at), heap, name }
    }
}

/// Units, and the free runs in them.
///
/// # Invariants
///
/// `carver` is touched only by the thread that `owner` names, which [`Owner`] stands for.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Heap {
    carver: UnsafeCell<Carver<Place>>,
    mail: AtomicBool,
    /// [`me`] of the thread that has it; 0 if none has.
    owner: AtomicUsize,
    /// That of the process it was made by.
    token: u64,
    /// Bytes of the carver's books.
    side: AtomicUsize,
    inbox: Mutex<Vec<Message>>,
    /// Which units it takes: see [`State`].
    lane: usize,
}

// SAFETY: by the invariants; the rest can be shared.
unsafe impl Sync for Heap {}

impl Heap {
    /// Of this process, whose `token` that is.
    pub(super) fn new(inner: &Inner, lane: usize, token: u64) -> Heap {
        Heap {
            carver: UnsafeCell::new(Carver::new(inner.unit - inner.granule)),
            mail: AtomicBool::new(false),
            owner: AtomicUsize::new(0),
            token,
            side: AtomicUsize::new(0),
            inbox: Mutex::new(Vec::new()),
            lane,
        }
    }

    /// Makes this thread the owner, if there is none.
    pub(super) fn own(&self) -> Option<Owner<'_>> {
        let own = self.owner.compare_exchange(0, me(), Ordering::Acquire, Ordering::Relaxed);
        own.ok().map(|_| Owner { heap: self, thread: PhantomData })
    }

    /// The process that made it is this one.
    #[inline(always)]
    pub(super) fn is_ours(&self) -> bool {
        self.token == token()
    }

    /// What [`Heap::own`] gave to this thread before.
    ///
    /// # Safety
    ///
    /// It did, [`Owner::leave`] was not called since, and there is no other [`Owner`] in use.
    pub(super) unsafe fn as_owner(&self) -> Owner<'_> {
        Owner { heap: self, thread: PhantomData }
    }

    /// The same, if it did.
    ///
    /// # Safety
    ///
    /// There is no other [`Owner`] of it in use.
    #[inline(always)]
    pub(super) unsafe fn owner(&self) -> Option<Owner<'_>> {
        let owned = self.owner.load(Ordering::Relaxed) == me() && self.is_ours();
        owned.then_some(Owner { heap: self, thread: PhantomData })
    }

    /// Bytes of memory that the books take, but for the maps.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Heap>() + self.side.load(Ordering::Relaxed)
    }

    /// Other threads have asked for something.
    #[inline(always)]
    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Relaxed)
    }

    /// Asks the owner, or does it if there is none.
    pub(super) fn send(&self, inner: &Inner, message: Message) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.mail.store(true, Ordering::Relaxed);
        // With the one in `leave`: either that thread sees the mail, or this one that there is no
        // owner.
        fence(Ordering::SeqCst);
        if self.owner.load(Ordering::Relaxed) == 0
            && let Some(owner) = self.own()
        {
            owner.leave(inner);
        }
    }
}

/// The thread that a heap belongs to.
#[derive(Debug)]
pub(super) struct Owner<'a> {
    heap: &'a Heap,
    /// It stays in its thread.
    thread: PhantomData<*const ()>,
}

impl<'a> Owner<'a> {
    pub(super) fn heap(&self) -> &'a Heap {
        self.heap
    }

    /// The name of a block.
    #[inline(always)]
    pub(super) fn name(&mut self, piece: u32, start: usize) -> Name {
        self.carver().name(piece, start)
    }

    #[inline(always)]
    fn carver(&mut self) -> &mut Carver<Place> {
        // SAFETY: by the invariants of `Heap`, borrowed from the one owner.
        unsafe { &mut *self.heap.carver.get() }
    }

    /// A block of `len` granules that was given back before, if there is one.
    #[inline(always)]
    pub(super) fn take_up(&mut self, inner: &Inner, len: usize) -> Option<Block> {
        if self.heap.has_mail() {
            return None;
        }
        let heap = ptr::from_ref(self.heap);
        let found = self.carver().take_up(len)?;
        Some(Block::new(inner, heap, found))
    }

    /// A block of `len` granules, not more than a unit has.
    pub(super) fn take(
        &mut self,
        inner: &Inner,
        state: &State,
        len: usize,
    ) -> Result<Block, vm::Error> {
        if self.heap.has_mail() {
            self.read_mail(inner);
        }
        if let Some(block) = self.take_up(inner, len) {
            return Ok(block);
        }
        let heap = ptr::from_ref(self.heap);
        match self.carver().take(len) {
            Some(found) => Ok(Block::new(inner, heap, found)),
            None => self.take_more(inner, state, len),
        }
    }

    #[cold]
    fn take_more(&mut self, inner: &Inner, state: &State, len: usize) -> Result<Block, vm::Error> {
        let heap = ptr::from_ref(self.heap);
        // What is idle may be joined to runs that are long enough.
        self.carver().flush();
        if let Some(found) = self.carver().take(len) {
            return Ok(Block::new(inner, heap, found));
        }
        let place = state.take_unit(inner, self.heap.lane)?;
        let segment = place.segment.clone();
        let none = || vm::Error::TooLarge(len << inner.granule);
        let unit = match &segment.books {
            Books::Units(units) => units.get(place.unit),
            Books::Pages(_) => None,
        };
        let unit = unit.ok_or_else(none)?;
        let map = unit.map.get_or_init(|| Arc::new(Map::new(inner.options.block >> inner.granule)));
        let piece = match self.carver().add(map.clone(), place) {
            Ok(piece) => piece,
            Err(place) => {
                state.give_unit(place, self.heap.lane);
                return Err(none());
            }
        };
        unit.piece.store(piece, Ordering::Relaxed);
        unit.heap.store(heap.cast_mut(), Ordering::Release);
        self.tell();
        let found = self.carver().take(len).ok_or_else(none)?;
        Ok(Block::new(inner, heap, found))
    }

    /// Says how much memory the books take.
    pub(super) fn tell(&mut self) {
        let bytes = self.carver().bytes();
        self.heap.side.store(bytes, Ordering::Relaxed);
    }

    /// Takes a block back that is handed out, `len` granules long.
    #[inline(always)]
    pub(super) fn give(&mut self, inner: &Inner, name: Name, len: usize) {
        match self.carver().put_by(name, len) {
            Some(false) => {}
            Some(true) if self.carver().empty() <= inner.keep => {}
            other => self.give_rest(inner, name, len, other.is_some()),
        }
    }

    /// What is left to do for a block that was put by, or cannot be.
    #[cold]
    fn give_rest(&mut self, inner: &Inner, name: Name, len: usize, put_by: bool) {
        let carver = self.carver();
        let (piece, start) = (carver.piece_of(name), carver.start_of(name));
        let empty = put_by || carver.give(piece, start, len);
        if empty && carver.empty() > inner.keep {
            self.give_up(inner, piece);
        }
    }

    pub(super) fn shrink(&mut self, piece: u32, start: usize, len: usize) -> Result<(), Refused> {
        self.carver().shrink(piece, start, len)
    }

    /// Gives a piece back to the system that is empty. Where that cannot be it is kept.
    #[cold]
    fn give_up(&mut self, inner: &Inner, piece: u32) {
        let Some(place) = self.carver().place(piece).cloned() else { return };
        if inner.sealed.load(Ordering::Relaxed) || place.unit().is_none() {
            return;
        }
        let range = place.at..place.at + inner.options.block;
        // SAFETY: nothing is handed out there.
        if unsafe { place.segment.file().discard(range) }.is_err() {
            return;
        }
        self.carver().flush();
        if let Some(place) = self.carver().remove(piece) {
            if let Some(unit) = place.unit() {
                unit.heap.store(ptr::null_mut(), Ordering::Relaxed);
            }
            // That of this process, as the heap is.
            inner.newest().give_unit(place, self.heap.lane);
        }
    }

    /// Does what other threads have asked for.
    #[cold]
    pub(super) fn read_mail(&mut self, inner: &Inner) {
        self.heap.mail.store(false, Ordering::Relaxed);
        let mut inbox = self.heap.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = std::mem::take(&mut *inbox);
        drop(inbox);
        for message in messages {
            match message {
                Message::Release { piece, start } => {
                    if let Some(map) = self.carver().map(piece) {
                        map.accept(start);
                        if let Ok(len) = map.check(start) {
                            let name = self.carver().name(piece, start);
                            self.give(inner, name, len);
                        }
                    }
                }
                // Refused if it was released since: that message follows.
                Message::Shrink { piece, start, len } => {
                    let _ = self.shrink(piece, start, len);
                }
            }
        }
    }

    /// The thread has no use for the heap any more.
    pub(super) fn leave(mut self, inner: &Inner) {
        loop {
            self.read_mail(inner);
            for piece in self.carver().empty_pieces() {
                self.give_up(inner, piece);
            }
            self.tell();
            self.heap.owner.store(0, Ordering::Release);
            // With the one in `send`.
            fence(Ordering::SeqCst);
            if !self.heap.has_mail() {
                return;
            }
            match self.heap.own() {
                Some(again) => self = again,
                None => return,
            }
        }
    }
}
