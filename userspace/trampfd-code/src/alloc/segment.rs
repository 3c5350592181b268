//! A region of address space, and who has which part of it.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::heap::Heap;
use super::map::Map;
use crate::arch;
use crate::vm::{self, CodeFile, Meter, Region};

/// A region, in units that belong to heaps or as pages.
///
/// # Invariants
///
/// `alias` is null, or the first byte of the region's writable alias.
#[derive(Debug)]
pub(super) struct Segment {
    region: Region,
    alias: AtomicPtr<u8>,
    pub(super) books: Books,
}

#[derive(Debug)]
pub(super) enum Books {
    /// Of [`Options::block`](super::Options::block) bytes each.
    Units(Box<[Unit]>),
    /// A granule is a page.
    Pages(Pages),
}

/// What one heap takes at once.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Made when it is first taken.
    pub(super) map: OnceLock<Arc<Map>>,
    /// Whose it is; null while it is nobody's. A heap is there as long as the segment.
    pub(super) heap: AtomicPtr<Heap>,
    /// Which of the heap's pieces it is.
    pub(super) piece: AtomicU32,
}

#[derive(Debug)]
pub(super) struct Pages {
    pub(super) map: Arc<Map>,
    /// Which piece it is of those that all threads share.
    pub(super) piece: AtomicU32,
}

impl Segment {
    /// At least `len` bytes, and fewer than `wish` if so many cannot be had. `books` is told how
    /// many there are.
    pub(super) fn new(
        len: usize,
        wish: usize,
        options: &vm::Options,
        meter: &Meter,
        books: impl FnOnce(usize) -> Books,
    ) -> Result<Segment, vm::Error> {
        let mut wish = wish.max(len);
        let region = loop {
            match Region::new(wish, options, meter) {
                Err(vm::Error::NoRoomNear { .. } | vm::Error::System { .. }) if wish > len => {
                    wish = (wish / 2).max(len);
                }
                other => break other?,
            }
        };
        let alias = AtomicPtr::new(region.rw().unwrap_or(ptr::null_mut()));
        let books = books(region.len());
        Ok(Segment { region, alias, books })
    }

    pub(super) fn len(&self) -> usize {
        self.region.len()
    }

    pub(super) fn file(&self) -> &CodeFile {
        self.region.file()
    }

    /// Bytes of memory that the table of units or the map takes.
    pub(super) fn bytes(&self) -> usize {
        let books = match &self.books {
            Books::Units(units) => {
                let maps = units.iter().filter_map(|unit| unit.map.get());
                size_of_val(&**units) + maps.map(|map| map.bytes()).sum::<usize>()
            }
            Books::Pages(pages) => pages.map.bytes(),
        };
        size_of::<Segment>() + books
    }

    #[inline(always)]
    pub(super) fn rx(&self, at: usize) -> *const u8 {
        self.region.rx().wrapping_add(at)
    }

    /// The writable alias of the same byte; null without one.
    #[inline(always)]
    pub(super) fn rw(&self, at: usize) -> *mut u8 {
        let alias = self.alias.load(Ordering::Relaxed);
        if alias.is_null() { alias } else { alias.wrapping_add(at) }
    }

    #[inline(always)]
    pub(super) fn offset(&self, rx: *const u8) -> Option<usize> {
        self.region.offset(rx)
    }

    /// Writes code, in the process that made the region.
    ///
    /// # Safety
    ///
    /// Nobody executes or writes these bytes meanwhile; nobody withdraws the alias meanwhile;
    /// they are in the segment.
    pub(super) unsafe fn write(&self, at: usize, bytes: &[u8]) -> Result<(), vm::Error> {
        let rw = self.rw(at);
        if rw.is_null() {
            // SAFETY: the caller's contract.
            return unsafe { self.region.write(at, bytes) };
        }
        // SAFETY: in the alias, by the invariant and the caller's contract.
        unsafe { rw.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        arch::flush(self.rx(at), bytes.len());
        Ok(())
    }

    /// Fills with instructions that trap.
    ///
    /// # Safety
    ///
    /// As [`Segment::write`].
    pub(super) unsafe fn fill(&self, range: Range<usize>) -> Result<(), vm::Error> {
        let mut traps = [0; 4096];
        for (at, byte) in traps.iter_mut().enumerate().take(range.len()) {
            *byte = arch::TRAP[at % arch::TRAP.len()];
        }
        for at in range.clone().step_by(traps.len()) {
            let len = traps.len().min(range.end - at);
            // SAFETY: the caller's contract.
            unsafe { self.write(at, &traps[..len]) }?;
        }
        Ok(())
    }

    /// Takes memory for a range that nobody has.
    pub(super) fn take(&self, range: Range<usize>, fill: bool) -> Result<(), vm::Error> {
        match self.file().allocate(range.clone()) {
            // Writing takes it too; through an alias the lack of it would be a signal.
            Err(vm::Error::System { error, .. })
                if error.kind() == std::io::ErrorKind::Unsupported && self.rw(0).is_null() =>
            {
                // SAFETY: nobody has it.
                return unsafe { self.fill(range) };
            }
            other => other?,
        }
        if fill {
            // SAFETY: nobody has it.
            unsafe { self.fill(range) }?;
        }
        Ok(())
    }

    /// # Safety
    ///
    /// Nobody uses the alias any more, nor writes meanwhile.
    pub(super) unsafe fn withdraw(&self) -> Result<(), vm::Error> {
        // SAFETY: the caller's contract.
        unsafe { self.file().withdraw() }?;
        self.alias.store(ptr::null_mut(), Ordering::Release);
        Ok(())
    }

    pub(super) fn seal_pages(&self) -> Result<(), vm::Error> {
        self.region.seal_pages()
    }
}
