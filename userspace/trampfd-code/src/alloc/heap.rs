//! One thread's memory.
//!
//! ```text
//!  owner ──► carver: take, give, no locked instruction
//!  other threads ──► bit in the block's map ──► message ──► read by the owner when it next calls
//! ```

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use super::carver::Carver;
use super::map::{Map, Refused};
use super::segment::{Books, Segment, Unit};
use super::state::{Inner, State};
use crate::vm;

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

/// What is its owner's alone.
#[derive(Debug)]
struct Own {
    carver: Carver<Place>,
    /// Where the block is that was given back last.
    last: *const u8,
}

/// Units, and the free runs in them.
///
/// # Invariants
///
/// `own` is touched only by the thread that has set `owned`, which [`Owner`] stands for.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Heap {
    own: UnsafeCell<Own>,
    mail: AtomicBool,
    owned: AtomicBool,
    /// Bytes of the carver's books.
    side: AtomicUsize,
    inbox: Mutex<Vec<Message>>,
    /// Which units it takes: see [`State`].
    lane: usize,
}

// SAFETY: `last` is an address.
unsafe impl Send for Heap {}
// SAFETY: by the invariants; the rest can be shared.
unsafe impl Sync for Heap {}

impl Heap {
    pub(super) fn new(lane: usize) -> Heap {
        Heap {
            own: UnsafeCell::new(Own { carver: Carver::new(), last: ptr::null() }),
            mail: AtomicBool::new(false),
            owned: AtomicBool::new(false),
            side: AtomicUsize::new(0),
            inbox: Mutex::new(Vec::new()),
            lane,
        }
    }

    /// Makes this thread the owner, if there is none.
    pub(super) fn own(&self) -> Option<Owner<'_>> {
        let own = self.owned.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        own.ok().map(|_| Owner { heap: self, thread: PhantomData })
    }

    /// What [`Heap::own`] gave to this thread before.
    ///
    /// # Safety
    ///
    /// It did, there is no other [`Owner`] in use, and [`Owner::leave`] was not called since.
    #[inline(always)]
    pub(super) unsafe fn owner(&self) -> Owner<'_> {
        Owner { heap: self, thread: PhantomData }
    }

    /// Bytes of memory that the books take, but for the maps.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Heap>() + self.side.load(Ordering::Relaxed)
    }

    /// Asks the owner, or does it if there is none.
    pub(super) fn send(&self, inner: &Inner, state: &State, message: Message) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.mail.store(true, Ordering::Relaxed);
        // With the one in `leave`: either that thread sees the mail, or this one that there is no
        // owner.
        fence(Ordering::SeqCst);
        if !self.owned.load(Ordering::Relaxed)
            && let Some(owner) = self.own()
        {
            owner.leave(inner, state);
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

    #[inline(always)]
    fn own(&mut self) -> &mut Own {
        // SAFETY: by the invariants of `Heap`, borrowed from the one owner.
        unsafe { &mut *self.heap.own.get() }
    }

    /// The block that was given back last, if it has `len` granules.
    #[inline(always)]
    pub(super) fn take_again(&mut self, len: usize) -> Option<*const u8> {
        let mail = self.heap.mail.load(Ordering::Relaxed);
        let own = self.own();
        (!mail && own.carver.take_again(len)).then_some(own.last)
    }

    /// A block of `len` granules, not more than a unit has: where it is.
    pub(super) fn take(
        &mut self,
        inner: &Inner,
        state: &State,
        len: usize,
    ) -> Result<*const u8, vm::Error> {
        if self.heap.mail.load(Ordering::Relaxed) {
            self.read_mail(inner, state);
        }
        self.settle(inner, state);
        match self.own().carver.take(len) {
            Some((place, start)) => Ok(place.segment.rx(place.at + (start << inner.granule))),
            None => self.take_more(inner, state, len),
        }
    }

    #[cold]
    fn take_more(
        &mut self,
        inner: &Inner,
        state: &State,
        len: usize,
    ) -> Result<*const u8, vm::Error> {
        let place = state.take_unit(inner, self.heap.lane)?;
        let segment = place.segment.clone();
        let none = || vm::Error::TooLarge(len << inner.granule);
        let unit = match &segment.books {
            Books::Units(units) => units.get(place.unit),
            Books::Pages(_) => None,
        };
        let unit = unit.ok_or_else(none)?;
        let map = unit.map.get_or_init(|| Arc::new(Map::new(inner.options.block >> inner.granule)));
        let piece = self.own().carver.add(map.clone(), place);
        unit.piece.store(piece, Ordering::Relaxed);
        unit.heap.store(ptr::from_ref(self.heap).cast_mut(), Ordering::Release);
        self.tell();
        let (place, start) = self.own().carver.take(len).ok_or_else(none)?;
        Ok(place.segment.rx(place.at + (start << inner.granule)))
    }

    /// Says how much memory the books take.
    pub(super) fn tell(&mut self) {
        let bytes = self.own().carver.bytes();
        self.heap.side.store(bytes, Ordering::Relaxed);
    }

    /// Takes a block back, at `rx`, whose length [`Map::check`] has told.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "what its only caller has at hand")]
    pub(super) fn give(
        &mut self,
        inner: &Inner,
        state: &State,
        rx: *const u8,
        map: &Map,
        piece: u32,
        start: usize,
        len: usize,
    ) {
        self.settle(inner, state);
        let own = self.own();
        own.carver.give(map, piece, start, len);
        own.last = rx;
        if inner.keep == 0 {
            self.settle(inner, state);
        }
    }

    /// What was given back last can be had for blocks of any length.
    #[inline(always)]
    pub(super) fn settle(&mut self, inner: &Inner, state: &State) {
        if let Some(piece) = self.own().carver.settle() {
            self.emptied(inner, state, piece);
        }
    }

    pub(super) fn shrink(
        &mut self,
        inner: &Inner,
        state: &State,
        piece: u32,
        start: usize,
        len: usize,
    ) -> Result<(), Refused> {
        self.settle(inner, state);
        self.own().carver.shrink(piece, start, len)
    }

    /// Keeps some pieces that hold nothing.
    #[cold]
    fn emptied(&mut self, inner: &Inner, state: &State, piece: u32) {
        if self.own().carver.empty() > inner.keep {
            self.give_up(inner, state, piece);
        }
    }

    /// Gives a piece back to the system that is empty. Where that cannot be it is kept.
    fn give_up(&mut self, inner: &Inner, state: &State, piece: u32) {
        let Some(place) = self.own().carver.place(piece).cloned() else { return };
        if inner.sealed.load(Ordering::Relaxed) || place.unit().is_none() {
            return;
        }
        let range = place.at..place.at + inner.options.block;
        // SAFETY: nothing is handed out there.
        if unsafe { place.segment.file().discard(range) }.is_err() {
            return;
        }
        if let Some(place) = self.own().carver.remove(piece) {
            if let Some(unit) = place.unit() {
                unit.heap.store(ptr::null_mut(), Ordering::Relaxed);
            }
            state.give_unit(place, self.heap.lane);
        }
    }

    /// Does what other threads have asked for.
    #[cold]
    pub(super) fn read_mail(&mut self, inner: &Inner, state: &State) {
        self.heap.mail.store(false, Ordering::Relaxed);
        let mut inbox = self.heap.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = std::mem::take(&mut *inbox);
        drop(inbox);
        for message in messages {
            match message {
                Message::Release { piece, start } => {
                    self.settle(inner, state);
                    let own = self.own();
                    if let Some(map) = own.carver.map(piece) {
                        map.accept(start);
                        if let Ok(len) = map.check(start) {
                            own.carver.give(&map, piece, start, len);
                            self.settle(inner, state);
                        }
                    }
                }
                // Refused if it was released since: that message follows.
                Message::Shrink { piece, start, len } => {
                    let _ = self.shrink(inner, state, piece, start, len);
                }
            }
        }
    }

    /// The thread has no use for the heap any more.
    pub(super) fn leave(mut self, inner: &Inner, state: &State) {
        loop {
            self.read_mail(inner, state);
            self.settle(inner, state);
            for piece in self.own().carver.empty_pieces() {
                self.give_up(inner, state, piece);
            }
            self.tell();
            self.heap.owned.store(false, Ordering::Release);
            // With the one in `send`.
            fence(Ordering::SeqCst);
            if !self.heap.mail.load(Ordering::Relaxed) {
                return;
            }
            match self.heap.own() {
                Some(again) => self = again,
                None => return,
            }
        }
    }
}
