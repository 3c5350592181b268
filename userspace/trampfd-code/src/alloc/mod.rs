//! Small blocks of code, as malloc.
//!
//! ```
//! use trampfd_code::alloc::JitAllocator;
//!
//! let allocator = JitAllocator::new()?;
//! let mut code = allocator.alloc(6)?;
//! code.write(0, &[0xb8, 42, 0, 0, 0, 0xc3])?; // x86-64: mov eax, 42; ret
//! assert_eq!(allocator.query(code.rx()).map(|block| block.len), Some(64));
//! # Ok::<(), trampfd_code::alloc::Error>(())
//! ```
//!
//! ```text
//!  JitAllocator ─► thread ─► Owner of a Heap ─► Carver ─► Runs: free runs, in bins by length
//!       │                         ▲                └────► Map: bit arrays for each unit
//!       │                  mail of other threads
//!       └► State, one for each process ─► Segment: a region of address space, in units
//! ```
//!
//! A thread takes memory in units ([`Options::block`]) and carves blocks out of it without a
//! lock; any thread may give them back. A small block that was given back stays as it is for the
//! next that is as long. Such blocks are joined with the free memory beside them before more is
//! taken from the system. When a thread ends, the next one that begins has its memory. The
//! allocator keeps its books outside the memory of the code, so nothing that runs there finds a
//! pointer of the allocator's.
//!
//! After a fork both processes execute the code there is, and only the parent can write it, or
//! give it back. The child can allocate, from memory of its own, whatever the threads that it
//! does not have were doing.

mod bits;
mod carver;
mod error;
mod heap;
mod map;
mod options;
mod runs;
mod segment;
mod span;
mod state;
mod statistics;
mod thread;

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use error::Error;
pub use options::{Granularity, Options};
pub use span::{Handle, Span, Writer};
pub use statistics::{Info, Statistics};

use self::heap::{Block, Heap, Message, Owner};
use self::map::{Map, Refused};
use self::segment::{Books, Pages, Segment, Unit};
use self::state::{Found, GivePages, Inner, State};
use crate::arch;
use crate::vm::{self, Meter};

/// Hands out blocks of executable memory. All threads can share one; dropping it takes the
/// memory of all blocks away.
pub struct JitAllocator {
    inner: Arc<Inner>,
}

impl fmt::Debug for JitAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitAllocator").field("options", self.options()).finish_non_exhaustive()
    }
}

/// A block that was looked for, and is handed out.
struct Known<'a> {
    unit: &'a Unit,
    map: &'a Map,
    /// First granule, and their number.
    start: usize,
    len: usize,
}

impl JitAllocator {
    /// With [`Options::default`]: written by pwrite(2) where that works.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::with`].
    pub fn new() -> Result<JitAllocator, Error> {
        JitAllocator::with(&Options::default())
    }

    /// Takes address space, but no memory.
    ///
    /// # Errors
    ///
    /// [`Error::BlockSize`]; [`Error::Memory`]: those of [`Region::new`](vm::Region::new).
    pub fn with(options: &Options) -> Result<JitAllocator, Error> {
        Ok(JitAllocator { inner: Arc::new(Inner::new(options)?) })
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Counts what was asked of the system.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// A block of at least `len` bytes. [`Span::new`] gives one that keeps the allocator alive.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`]; [`Error::Memory`]: no memory; [`Error::Sealed`].
    #[inline(always)]
    pub fn alloc(&self, len: usize) -> Result<Span<&JitAllocator>, Error> {
        Span::new(self, len)
    }

    /// A block of at least `len` bytes, that is the caller's until [`JitAllocator::release`]: its
    /// first byte in the executable view. What is in it is not said.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::alloc`].
    #[inline]
    pub fn alloc_block(&self, len: usize) -> Result<*const u8, Error> {
        Ok(self.take(len)?.rx)
    }

    /// As [`JitAllocator::alloc_block`]: the first byte in the executable view, and the same
    /// byte in the writable alias. A child of fork has the view, but not the alias.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::alloc`], and [`Error::NoAlias`].
    pub fn alloc_raw(&self, len: usize) -> Result<(*const u8, *mut u8), Error> {
        let Block { rx, rw, .. } = self.take(len)?;
        if rw.is_null() {
            // SAFETY: nobody has seen it.
            unsafe { self.release(rx) }?;
            return Err(Error::NoAlias);
        }
        Ok((rx, rw))
    }

    #[inline(always)]
    fn take(&self, len: usize) -> Result<Block, Error> {
        let inner = &*self.inner;
        // Not 0, and not too large.
        if len.wrapping_sub(1) < inner.small.load(Ordering::Relaxed)
            && let Some(mut owner) = thread::last(inner)
            && let Some(block) = owner.take_up(inner, inner.granules(len))
        {
            return Ok(block);
        }
        // Field by field, so that the block is in registers: read as a whole right after it was
        // written in parts, it would have to wait for the memory.
        let Block { rx, rw, heap, name } = self.take_other(len)?;
        Ok(Block { rx, rw, heap, name })
    }

    #[inline(never)]
    fn take_other(&self, len: usize) -> Result<Block, Error> {
        let inner = &self.inner;
        let state = inner.state();
        if inner.sealed.load(Ordering::Relaxed) {
            return Err(Error::Sealed);
        }
        if len.wrapping_sub(1) >= inner.small.load(Ordering::Relaxed) {
            return match len {
                0 => Err(Error::Empty),
                _ => Ok(state.take_pages(inner, len)?),
            };
        }
        let take = |mut owner: Owner<'_>| owner.take(inner, state, inner.granules(len));
        match thread::owned(inner, state) {
            Some(owner) => Ok(take(owner)?),
            None => Ok(thread::own(inner, state, take)?),
        }
    }

    /// Writes code into a block, at offset `at` of it.
    ///
    /// # Safety
    ///
    /// The block that begins at `rx` is the caller's, and nobody executes or writes these bytes
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], [`Error::Interior`], [`Error::AlreadyReleased`],
    /// [`Error::OutOfRange`], [`Error::Memory`], [`Error::Sealed`].
    pub unsafe fn write(&self, rx: *const u8, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let Info { start, len } = self.query(rx).ok_or_else(|| self.unknown(rx))?;
        if start != rx {
            return Err(Error::Interior { address: rx.addr(), start: start.addr() });
        }
        match at.checked_add(bytes.len()) {
            // SAFETY: in the block; the rest is the caller's contract.
            Some(end) if end <= len => unsafe { self.put(rx.wrapping_add(at), bytes) },
            _ => Err(Error::OutOfRange { at, len: bytes.len(), block: len }),
        }
    }

    /// Writes code.
    ///
    /// # Safety
    ///
    /// It is a part of a block of this allocator, which is the caller's, and nobody executes or
    /// writes these bytes meanwhile.
    #[inline(never)]
    unsafe fn put(&self, rx: *const u8, bytes: &[u8]) -> Result<(), Error> {
        let Some(Found { state, segment, offset }) = self.inner.find(rx) else {
            return Err(Error::NotOurs(rx.addr()));
        };
        if !state.is_ours() {
            return Err(vm::Error::OtherProcess.into());
        }
        if self.inner.sealed.load(Ordering::Relaxed) {
            return Err(Error::Sealed);
        }
        // SAFETY: the caller's contract, and that of `withdraw_alias`.
        Ok(unsafe { segment.write(offset, bytes) }?)
    }

    /// The same at offset `at` of a block, with less to look up.
    ///
    /// # Safety
    ///
    /// As [`JitAllocator::put`].
    #[inline(always)]
    unsafe fn put_block(&self, block: Block, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let rx = block.rx.wrapping_add(at);
        // SAFETY: null, or its block's, which is there.
        let ours = unsafe { block.heap.as_ref() }.is_some_and(Heap::is_ours);
        if !ours || block.rw.is_null() || self.inner.withdrawn.load(Ordering::Relaxed) {
            // SAFETY: the caller's contract.
            return unsafe { self.put(rx, bytes) };
        }
        // SAFETY: in the alias, which is there by the contract of `withdraw_alias`; the rest is
        // the caller's contract.
        unsafe { block.rw.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        arch::flush(rx, bytes.len());
        Ok(())
    }

    /// The writable alias of an address, in the process that has it.
    fn alias(&self, rx: *const u8) -> Result<Option<NonNull<u8>>, Error> {
        let Some(Found { state, segment, offset }) = self.inner.find(rx) else {
            return Err(Error::NotOurs(rx.addr()));
        };
        if !state.is_ours() {
            return Err(vm::Error::OtherProcess.into());
        }
        if self.inner.sealed.load(Ordering::Relaxed) {
            return Err(Error::Sealed);
        }
        Ok(NonNull::new(segment.rw(offset)))
    }

    /// Takes a block back, from whatever thread. What another thread than the one that allocated
    /// it releases can be had again when that one next calls the allocator, or ends.
    ///
    /// In a child of fork, a block of its parent's is taken for released there, and that is all.
    ///
    /// # Safety
    ///
    /// If `rx` is the first byte of a block, that block is the caller's, and nobody uses it any
    /// more. If it is in memory of a block that was released, no other thread allocates or
    /// releases meanwhile what lies there.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], [`Error::Interior`], [`Error::AlreadyReleased`]: nothing was done.
    /// [`Error::Memory`]: it could not be filled, or its pages not be given back; the block is
    /// the caller's still.
    #[inline]
    pub unsafe fn release(&self, rx: *const u8) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        if unsafe { self.give(rx) } {
            return Ok(());
        }
        // SAFETY: the caller's contract; nothing was done.
        unsafe { self.give_other(rx) }
    }

    /// Takes a small block back in the usual case: from the thread that allocated it, and without
    /// filling it. Whether it was that.
    ///
    /// # Safety
    ///
    /// As [`JitAllocator::release`].
    unsafe fn give(&self, rx: *const u8) -> bool {
        let inner = &*self.inner;
        let Some((segment, offset)) = inner.newest().find(rx) else { return false };
        let Books::Units(units) = &segment.books else { return false };
        let Some(unit) = units.get(offset >> inner.unit) else { return false };
        let Some(map) = unit.map.get() else { return false };
        let start = (offset & ((1 << inner.unit) - 1)) >> inner.granule;
        if inner.options.fill || offset & ((1 << inner.granule) - 1) != 0 {
            return false;
        }
        // SAFETY: null, or by `Unit::heap`, whose segment is there; no owner is in use here.
        let owner =
            unsafe { unit.heap.load(Ordering::Relaxed).as_ref().and_then(|heap| heap.owner()) };
        let (Some(mut owner), Ok(len)) = (owner, map.check(start)) else { return false };
        let name = owner.name(unit.piece.load(Ordering::Relaxed), start);
        owner.give(inner, name, len);
        true
    }

    /// The same without a look at the books.
    ///
    /// # Safety
    ///
    /// It is a block of `len` bytes of this allocator, the caller's, and nobody uses it any more.
    #[inline(always)]
    unsafe fn give_block(&self, block: Block, len: usize) -> Result<(), Error> {
        let inner = &*self.inner;
        // SAFETY: null, or its block's, which is there; no owner is in use here.
        let owner = unsafe { block.heap.as_ref().and_then(|heap| heap.owner()) };
        match owner {
            // Another thread may have shrunk it, and what it asked for not be done yet.
            Some(mut owner) if !inner.options.fill && !owner.heap().has_mail() => {
                owner.give(inner, block.name, inner.granules(len));
                Ok(())
            }
            // SAFETY: the caller's contract.
            _ => unsafe { self.give_other(block.rx) },
        }
    }

    /// As [`JitAllocator::release`].
    ///
    /// # Safety
    ///
    /// As [`JitAllocator::release`].
    #[inline(never)]
    unsafe fn give_other(&self, rx: *const u8) -> Result<(), Error> {
        let inner = &self.inner;
        let Some(Found { state, segment, offset }) = inner.find(rx) else {
            return Err(Error::NotOurs(rx.addr()));
        };
        let units = match &segment.books {
            Books::Units(units) => units,
            Books::Pages(pages) => {
                // SAFETY: the caller's contract.
                return unsafe { self.give_pages(rx, state, segment, pages, offset, 0) };
            }
        };
        let Known { unit, map, start, len } = self.known(rx, units, offset)?;
        if !state.is_ours() {
            return map.give_back(start).map_err(|why| self.refused(rx, why));
        }
        if inner.options.fill && !inner.sealed.load(Ordering::Relaxed) {
            // SAFETY: the caller's contract.
            unsafe { segment.fill(offset..offset + (len << inner.granule)) }?;
        }
        let heap = unit.heap.load(Ordering::Relaxed);
        let piece = unit.piece.load(Ordering::Relaxed);
        // SAFETY: null, or by `Unit::heap`, whose segment is there; no owner is in use here.
        if let Some(mut owner) = unsafe { heap.as_ref().and_then(|heap| heap.owner()) } {
            let name = owner.name(piece, start);
            owner.give(inner, name, len);
            return Ok(());
        }
        map.give_back(start).map_err(|why| self.refused(rx, why))?;
        self.send(heap, Message::Release { piece, start });
        Ok(())
    }

    /// Asks the thread that a block belongs to.
    #[cold]
    fn send(&self, heap: *const Heap, message: Message) {
        // SAFETY: null, or by `Unit::heap`, whose segment is there.
        if let Some(heap) = unsafe { heap.as_ref() } {
            heap.send(&self.inner, message);
        }
    }

    /// Keeps the first `len` bytes of a block, takes the rest back. By another thread than the
    /// one that allocated it: when that next calls the allocator, or ends.
    ///
    /// # Safety
    ///
    /// As for [`JitAllocator::release`], of the rest.
    ///
    /// # Errors
    ///
    /// As [`JitAllocator::release`]; [`Error::Empty`]; [`Error::OutOfRange`] if it is longer
    /// than the block; in a child of fork [`vm::Error::OtherProcess`].
    pub unsafe fn shrink(&self, rx: *const u8, len: usize) -> Result<(), Error> {
        let inner = &self.inner;
        if len == 0 {
            return Err(Error::Empty);
        }
        let Some(Found { state, segment, offset }) = inner.find(rx) else {
            return Err(Error::NotOurs(rx.addr()));
        };
        if !state.is_ours() {
            return Err(vm::Error::OtherProcess.into());
        }
        let units = match &segment.books {
            Books::Units(units) => units,
            Books::Pages(pages) => {
                let keep = len.div_ceil(vm::page_size());
                // SAFETY: the caller's contract.
                return unsafe { self.give_pages(rx, state, segment, pages, offset, keep) };
            }
        };
        let block = self.known(rx, units, offset)?;
        let keep = inner.granules(len);
        if keep >= block.len {
            let bytes = block.len << inner.granule;
            return match len <= bytes {
                true => Ok(()),
                false => Err(Error::OutOfRange { at: 0, len, block: bytes }),
            };
        }
        if inner.options.fill && !inner.sealed.load(Ordering::Relaxed) {
            let rest = keep << inner.granule..block.len << inner.granule;
            // SAFETY: the caller's contract.
            unsafe { segment.fill(offset + rest.start..offset + rest.end) }?;
        }
        let heap = block.unit.heap.load(Ordering::Relaxed);
        let piece = block.unit.piece.load(Ordering::Relaxed);
        // SAFETY: as in `give_other`.
        match unsafe { heap.as_ref().and_then(|heap| heap.owner()) } {
            Some(mut owner) => {
                owner.shrink(piece, block.start, keep).map_err(|why| self.refused(rx, why))
            }
            None => {
                self.send(heap, Message::Shrink { piece, start: block.start, len: keep });
                Ok(())
            }
        }
    }

    /// The block that begins at `rx`.
    #[inline(always)]
    fn known<'a>(
        &self,
        rx: *const u8,
        units: &'a [Unit],
        offset: usize,
    ) -> Result<Known<'a>, Error> {
        let inner = &self.inner;
        let unit = units.get(offset >> inner.unit);
        let Some((unit, map)) = unit.and_then(|unit| Some((unit, unit.map.get()?))) else {
            return Err(Error::AlreadyReleased(rx.addr()));
        };
        let within = offset & ((1 << inner.unit) - 1);
        let start = within >> inner.granule;
        if start << inner.granule != within {
            return Err(self.unknown(rx));
        }
        match map.check(start) {
            Ok(len) => Ok(Known { unit, map, start, len }),
            Err(why) => Err(self.refused(rx, why)),
        }
    }

    /// # Safety
    ///
    /// Nobody uses what follows the pages that are kept.
    #[cold]
    unsafe fn give_pages(
        &self,
        rx: *const u8,
        state: &State,
        segment: &Segment,
        pages: &Pages,
        offset: usize,
        keep: usize,
    ) -> Result<(), Error> {
        let page = vm::page_size();
        let start = offset / page;
        if !offset.is_multiple_of(page) {
            return Err(self.unknown(rx));
        }
        if !state.is_ours() {
            return match pages.map.check(start).and_then(|_| pages.map.give_back(start)) {
                Ok(()) => Ok(()),
                Err(why) => Err(self.refused(rx, why)),
            };
        }
        // SAFETY: the caller's contract.
        unsafe { state.give_pages(&self.inner, segment, pages, start, keep) }.map_err(|why| {
            match why {
                GivePages::Memory(error) => Error::Memory(error),
                GivePages::Refused(why) => self.refused(rx, why),
                GivePages::TooShort(block) => Error::OutOfRange { at: 0, len: keep * page, block },
            }
        })
    }

    #[cold]
    fn refused(&self, rx: *const u8, why: Refused) -> Error {
        match why {
            Refused::NotLive => Error::AlreadyReleased(rx.addr()),
            Refused::Interior(_) => self.unknown(rx),
        }
    }

    /// Why no block begins at `rx`.
    #[cold]
    fn unknown(&self, rx: *const u8) -> Error {
        let address = rx.addr();
        match self.query(rx) {
            Some(Info { start, .. }) => Error::Interior { address, start: start.addr() },
            None if self.inner.find(rx).is_some() => Error::AlreadyReleased(address),
            None => Error::NotOurs(address),
        }
    }

    /// The block that an address lies in, its first byte or any other.
    pub fn query(&self, rx: *const u8) -> Option<Info> {
        let Found { segment, offset, .. } = self.inner.find(rx)?;
        let (map, base, shift) = match &segment.books {
            Books::Units(units) => {
                let unit = offset >> self.inner.unit;
                let map = units.get(unit)?.map.get()?;
                (map, unit << self.inner.unit, self.inner.granule)
            }
            Books::Pages(pages) => (&pages.map, 0, vm::page_size().trailing_zeros()),
        };
        let run = map.run((offset - base) >> shift);
        let start = segment.rx(base + (run.start << shift));
        run.live.then_some(Info { start, len: run.len << shift })
    }

    /// What is used, reserved and free, in this process.
    pub fn statistics(&self) -> Statistics {
        let inner = &self.inner;
        let state = inner.state();
        let mut all = Statistics { system: inner.meter.stats(), ..Statistics::default() };
        for segment in state.segments() {
            all.regions += 1;
            all.side_data += segment.bytes();
            match &segment.books {
                Books::Units(units) => {
                    for unit in units {
                        let taken = !unit.heap.load(Ordering::Acquire).is_null();
                        if let Some(map) = unit.map.get().filter(|_| taken) {
                            all.add_unit(map, inner.granule);
                        }
                    }
                }
                Books::Pages(pages) => all.add_pages(&pages.map),
            }
        }
        if let Some(mut owner) = thread::owned(inner, state) {
            owner.tell();
        }
        all.side_data += state.bytes();
        all
    }

    /// Takes the writable alias away. Code that comes later is written by pwrite(2), where
    /// that works.
    ///
    /// # Safety
    ///
    /// Nobody uses a pointer into the alias any more, a [`Writer`] included, nor allocates,
    /// writes or releases code meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]: an alias is still there, and can be taken away later.
    pub unsafe fn withdraw_alias(&self) -> Result<(), Error> {
        let state = self.inner.state();
        self.inner.withdrawn.store(true, Ordering::Relaxed);
        for segment in state.segments() {
            // SAFETY: the caller's contract.
            unsafe { segment.withdraw() }?;
        }
        Ok(())
    }

    /// Makes all code final: no code can be written or allocated any more, by whatever means
    /// (F_SEAL_WRITE). Blocks can be released; their memory stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]: [`vm::Error::Aliased`] while there is an alias,
    /// [`vm::Error::NoSeals`].
    pub fn seal_writes(&self) -> Result<(), Error> {
        let state = self.inner.state();
        // Neither units nor large blocks come from new segments meanwhile.
        let (_lanes, _large) = (state.all_lanes(), state.large());
        for segment in state.segments() {
            segment.file().seal_writes()?;
        }
        self.inner.sealed.store(true, Ordering::Relaxed);
        self.inner.small.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Executable views there are now stay where they are until the process ends (mseal(2)),
    /// also when the allocator is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]: without mseal, ENOSYS.
    pub fn seal_pages(&self) -> Result<(), Error> {
        for segment in self.inner.state().segments() {
            segment.seal_pages()?;
        }
        Ok(())
    }
}
