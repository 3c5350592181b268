//! What the threads of one process share: address space, heaps, large blocks.
//!
//! A child of fork starts with a state of its own, and only reads its parent's: no lock of that
//! is ever taken there, whoever held it.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::carver::{Carver, Name};
use super::heap::{Block, Heap, Owner, Place};
use super::map::{Map, Refused};
use super::segment::{Books, Pages, Segment, Unit};
use super::{Error, Options};
use crate::vm::{self, Meter, Write, token};

/// Address space that is taken at once, at first.
const SEGMENT: usize = 64 << 20;
/// Segments of a state. After four each, twice as much is taken at once.
const SEGMENTS: usize = 64;

/// Bytes of memory that a heap keeps though it holds nothing.
const KEEP: usize = 512 << 10;
/// Heaps are spread over so many segments, as the kernel lets one thread at a time write a file.
const LANES: usize = 4;

/// An allocator, its threads' included.
///
/// # Invariants
///
/// `head` is a list of states, linked by `older`, each made by [`Box`], which are there as long
/// as this value.
#[derive(Debug)]
pub(super) struct Inner {
    /// A number that no other allocator of this process has had, and not 0.
    pub(super) id: u64,
    head: AtomicPtr<State>,
    pub(super) sealed: AtomicBool,
    pub(super) withdrawn: AtomicBool,
    /// Bytes of the largest block that a heap hands out: 0 after sealing.
    pub(super) small: AtomicUsize,
    /// Bytes of a granule and of a unit, as powers of two.
    pub(super) granule: u32,
    pub(super) unit: u32,
    /// Units that a heap keeps though they hold nothing.
    pub(super) keep: usize,
    pub(super) options: Options,
    pub(super) meter: Meter,
}

/// An address of an allocator.
pub(super) struct Found<'a> {
    pub(super) state: &'a State,
    pub(super) segment: &'a Segment,
    pub(super) offset: usize,
}

impl Inner {
    pub(super) fn new(options: &Options) -> Result<Inner, Error> {
        options.check()?;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inner = Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            head: AtomicPtr::new(Box::into_raw(Box::new(State::new(ptr::null_mut())))),
            sealed: AtomicBool::new(false),
            withdrawn: AtomicBool::new(false),
            small: AtomicUsize::new(options.block / 4),
            granule: options.granularity.shift(),
            unit: options.block.trailing_zeros(),
            keep: match options.immediate_release {
                true => 0,
                false => (KEEP / options.block).max(1),
            },
            options: options.clone(),
            meter: Meter::new(),
        };
        let state = inner.newest();
        state.new_units(&inner, &mut state.lane(0))?;
        Ok(inner)
    }

    /// Granules of a small block of `len` bytes.
    #[inline(always)]
    pub(super) fn granules(&self, len: usize) -> usize {
        (len.wrapping_sub(1) >> self.granule) + 1
    }

    /// The state of this process, or of one that it was forked from.
    #[inline(always)]
    pub(super) fn newest(&self) -> &State {
        // SAFETY: by the invariant.
        unsafe { &*self.head.load(Ordering::Acquire) }
    }

    /// The state of this process.
    #[inline(always)]
    pub(super) fn state(&self) -> &State {
        let state = self.newest();
        if state.is_ours() { state } else { self.begin_anew(state) }
    }

    #[cold]
    fn begin_anew(&self, parents: &State) -> &State {
        let old = ptr::from_ref(parents).cast_mut();
        let new = Box::into_raw(Box::new(State::new(old)));
        let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
        match self.head.compare_exchange(old, new, done, failed) {
            // SAFETY: by the invariant.
            Ok(_) => unsafe { &*new },
            Err(theirs) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: by the invariant; another thread of this process made it.
                unsafe { &*theirs }
            }
        }
    }

    /// Where an address is.
    #[inline(always)]
    pub(super) fn find(&self, rx: *const u8) -> Option<Found<'_>> {
        let mut state = self.newest();
        loop {
            if let Some((segment, offset)) = state.find(rx) {
                return Some(Found { state, segment, offset });
            }
            // SAFETY: by the invariant.
            state = unsafe { state.older.as_ref() }?;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut state = *self.head.get_mut();
        while !state.is_null() {
            // SAFETY: by the invariant; nobody borrows from it any more.
            state = unsafe { Box::from_raw(state) }.older;
        }
    }
}

/// Of one process.
#[derive(Debug)]
pub(super) struct State {
    /// A number that no other state of this process has had, and not 0.
    pub(super) id: u64,
    token: u64,
    /// That of the process it was forked from.
    older: *mut State,
    segments: [OnceLock<Arc<Segment>>; SEGMENTS],
    lanes: [Mutex<Space>; LANES],
    heaps: Mutex<Vec<Arc<Heap>>>,
    /// Blocks that are too large for a heap, in whole pages.
    large: Mutex<Carver<Arc<Segment>>>,
}

// SAFETY: `older` is only followed by `Inner`, to what can be shared itself.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

/// Units that no heap has.
#[derive(Debug, Default)]
pub(super) struct Space {
    back: Vec<Place>,
    /// Never taken, from there on to the end of the segment.
    fresh: Option<Place>,
}

impl State {
    fn new(older: *mut State) -> State {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        State {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            token: token(),
            older,
            segments: [const { OnceLock::new() }; SEGMENTS],
            lanes: Default::default(),
            heaps: Mutex::default(),
            // Blocks are not put by.
            large: Mutex::new(Carver::new(0)),
        }
    }

    /// It was made by this process.
    #[inline(always)]
    pub(super) fn is_ours(&self) -> bool {
        self.token == token()
    }

    #[inline(always)]
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().map_while(OnceLock::get)
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, Space> {
        self.lanes[lane % LANES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an address is.
    #[inline(always)]
    pub(super) fn find(&self, rx: *const u8) -> Option<(&Segment, usize)> {
        self.segments().find_map(|segment| Some((&**segment, segment.offset(rx)?)))
    }

    /// All lanes: no heap gets units meanwhile.
    pub(super) fn all_lanes(&self) -> [MutexGuard<'_, Space>; LANES] {
        std::array::from_fn(|lane| self.lane(lane))
    }

    pub(super) fn large(&self) -> MutexGuard<'_, Carver<Arc<Segment>>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heaps(&self) -> MutexGuard<'_, Vec<Arc<Heap>>> {
        self.heaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory that the books take, but for those of the segments.
    pub(super) fn bytes(&self) -> usize {
        let heaps: usize = self.heaps().iter().map(|heap| heap.bytes()).sum();
        let back = |lane: &MutexGuard<'_, Space>| lane.back.capacity() * size_of::<Place>();
        let back: usize = self.all_lanes().iter().map(back).sum();
        size_of::<State>() + heaps + back + self.large().bytes()
    }

    /// A segment of `len` bytes at least.
    fn new_segment(
        &self,
        inner: &Inner,
        len: usize,
        books: impl FnOnce(usize) -> Books,
    ) -> Result<Arc<Segment>, vm::Error> {
        let count = self.segments().count();
        let mut options = inner.options.memory.clone();
        if inner.withdrawn.load(Ordering::Relaxed) {
            options.write = Write::Pwrite;
        }
        let wish = SEGMENT << (count / 4);
        let segment = Arc::new(Segment::new(len, wish, &options, &inner.meter, books)?);
        let mut slots = self.segments.iter();
        let mut new = Some(segment.clone());
        // Another thread may take a slot meanwhile, for large blocks or for small.
        while let Some(segment) = new.take() {
            let slot = slots.next().ok_or(vm::Error::TooLarge(len))?;
            new = slot.set(segment).err();
        }
        Ok(segment)
    }

    fn new_units(&self, inner: &Inner, space: &mut Space) -> Result<(), vm::Error> {
        let units = |len| {
            let count = len >> inner.unit;
            Books::Units(std::iter::repeat_with(Unit::default).take(count).collect())
        };
        let segment = self.new_segment(inner, inner.options.block, units)?;
        space.fresh = Some(Place { segment, unit: 0, at: 0 });
        Ok(())
    }

    /// A unit, with memory.
    pub(super) fn take_unit(&self, inner: &Inner, lane: usize) -> Result<Place, vm::Error> {
        let block = inner.options.block;
        let mut space = self.lane(lane);
        let place = match space.back.pop() {
            Some(place) => place,
            None => {
                if space.fresh.as_ref().is_none_or(|next| next.at + block > next.segment.len()) {
                    self.new_units(inner, &mut space)?;
                }
                let next = space.fresh.as_mut().ok_or(vm::Error::TooLarge(block))?;
                let place = next.clone();
                (next.unit, next.at) = (next.unit + 1, next.at + block);
                place
            }
        };
        drop(space);
        match place.segment.take(place.at..place.at + block, inner.options.fill) {
            Ok(()) => Ok(place),
            Err(error) => {
                self.give_unit(place, lane);
                Err(error)
            }
        }
    }

    /// A unit that no heap has any more.
    pub(super) fn give_unit(&self, place: Place, lane: usize) {
        self.lane(lane).back.push(place);
    }

    /// A heap that has no owner, or a new one.
    pub(super) fn own_heap<T>(&self, inner: &Inner, then: impl FnOnce(Owner<'_>) -> T) -> T {
        let mut heaps = self.heaps();
        let owned = heaps.iter().find(|heap| heap.own().is_some()).cloned();
        let heap = owned.unwrap_or_else(|| {
            let heap = Arc::new(Heap::new(inner, heaps.len(), self.token));
            heap.own();
            heaps.push(heap.clone());
            heap
        });
        drop(heaps);
        // SAFETY: owned above, by this thread.
        then(unsafe { heap.as_owner() })
    }

    /// A large block, in whole pages.
    pub(super) fn take_pages(&self, inner: &Inner, len: usize) -> Result<Block, vm::Error> {
        let bytes = vm::round_to_pages(len)?;
        let page = vm::page_size();
        let mut large = self.large();
        let mut found =
            large.take(bytes / page).map(|(_, segment, start)| (segment.clone(), start));
        if found.is_none() {
            let books = |len| {
                let map = Arc::new(Map::new(len / page));
                Books::Pages(Pages { map, piece: AtomicU32::new(0) })
            };
            let segment = self.new_segment(inner, bytes, books)?;
            if let Books::Pages(pages) = &segment.books {
                let piece = large.add(pages.map.clone(), segment.clone());
                let piece = piece.map_err(|_| vm::Error::TooLarge(len))?;
                pages.piece.store(piece, Ordering::Relaxed);
            }
            found = large.take(bytes / page).map(|(_, segment, start)| (segment.clone(), start));
        }
        let (segment, start) = found.ok_or(vm::Error::TooLarge(len))?;
        let at = start * page;
        if let Err(error) = segment.take(at..at + bytes, inner.options.fill) {
            if let Books::Pages(pages) = &segment.books {
                large.give(pages.piece.load(Ordering::Relaxed), start, bytes / page);
            }
            return Err(error);
        }
        let (rx, rw) = (segment.rx(at), segment.rw(at));
        Ok(Block { rx, rw, heap: ptr::null(), name: Name::default() })
    }

    /// Takes pages of a large block back, from page `keep` of it on.
    ///
    /// # Safety
    ///
    /// Nobody uses them.
    pub(super) unsafe fn give_pages(
        &self,
        inner: &Inner,
        segment: &Segment,
        pages: &Pages,
        start: usize,
        keep: usize,
    ) -> Result<(), GivePages> {
        let page = vm::page_size();
        let mut large = self.large();
        let len = pages.map.check(start).map_err(GivePages::Refused)?;
        if keep > len {
            return Err(GivePages::TooShort(len * page));
        }
        if keep == len {
            return Ok(());
        }
        if !inner.sealed.load(Ordering::Relaxed) {
            let range = (start + keep) * page..(start + len) * page;
            // SAFETY: the caller's contract.
            match unsafe { segment.file().discard(range.clone()) } {
                Err(vm::Error::System { error, .. })
                    if error.kind() == std::io::ErrorKind::Unsupported =>
                {
                    if inner.options.fill {
                        // SAFETY: the caller's contract.
                        unsafe { segment.fill(range) }.map_err(GivePages::Memory)?;
                    }
                }
                other => other.map_err(GivePages::Memory)?,
            }
        }
        let piece = pages.piece.load(Ordering::Relaxed);
        if keep > 0 {
            return large.shrink(piece, start, keep).map_err(GivePages::Refused);
        }
        large.give(piece, start, len);
        Ok(())
    }
}

/// Why pages were not taken back.
pub(super) enum GivePages {
    Memory(vm::Error),
    Refused(Refused),
    /// Bytes of the block.
    TooShort(usize),
}
