//! Address space that is the process's until it is dropped, and what is mapped in it.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::process::without_forks;
use super::{Access, CodeFile, Error, Meter, Place, page_size, round_to_pages, token};
use crate::sys::{self, At, Prot};

/// A range of address space.
///
/// # Invariants
///
/// `[ptr, ptr + len)` is mapped, by this value alone, until it is dropped; `len` is whole pages,
/// and not 0. `parts` says what lies where, without gap, in order. In a child of fork writable
/// views of files are missing: the child changes nothing where one was (`aliased`).
#[derive(Debug)]
pub struct Mapping {
    ptr: *mut u8,
    len: usize,
    parts: Mutex<Vec<Part>>,
    sealed: AtomicBool,
    /// There was a writable view of a file in it.
    aliased: AtomicBool,
    /// The process that made it. A child has it too, but for writable views of files.
    owner: u64,
    meter: Meter,
}

// SAFETY: it is addresses; what lies there is reached by raw pointers only, whose users answer
// for what they do.
unsafe impl Send for Mapping {}
// SAFETY: as above; changes of the mappings are the kernel's and whole.
unsafe impl Sync for Mapping {}

/// What one mapping of the kernel shows, from `at` to where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    at: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Memory(Access),
    /// A file's number, and its offset minus `at`: the same for neighbours that continue each
    /// other.
    File(Access, u64, usize),
}

impl Mapping {
    /// Takes address space of `len` bytes, rounded up to pages, that can be neither read nor
    /// written.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoomNear`], [`Error::TooLarge`], [`Error::System`].
    pub fn reserve(len: usize, place: Place, meter: &Meter) -> Result<Mapping, Error> {
        let len = round_to_pages(len.max(1))?;
        let ptr = match place {
            Place::Anywhere => map_at(At::Anywhere, len, meter)?,
            Place::Near { address, within } => near(address, within, len, meter)?,
        };
        Ok(Mapping::new(ptr, len, Access::None, meter))
    }

    /// Takes address space of `len` bytes, rounded up to pages, with empty memory in all of it,
    /// private, to read and write.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::System`].
    pub fn memory(len: usize, meter: &Meter) -> Result<Mapping, Error> {
        let len = round_to_pages(len.max(1))?;
        // SAFETY: nothing is replaced.
        let ptr = unsafe { sys::map_nothing(meter.counts(), At::Anywhere, len, Prot::ReadWrite) }
            .map_err(Error::system("mapping memory"))?;
        Ok(Mapping::new(ptr, len, Access::Write, meter))
    }

    fn new(ptr: *mut u8, len: usize, access: Access, meter: &Meter) -> Mapping {
        meter.counts().mapped(1, len as isize);
        let parts = Mutex::new(vec![Part { at: 0, what: What::Memory(access) }]);
        let (sealed, aliased) = (AtomicBool::new(false), AtomicBool::new(false));
        Mapping { ptr, len, parts, sealed, aliased, owner: token(), meter: meter.clone() }
    }

    /// The first byte.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Bytes: whole pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is a page at least.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shows `len` bytes of a file, from its offset `from` on, at offset `at` of the mapping, in
    /// place of what is there. [`Access::Write`] views are not inherited by children of fork.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::System`]; [`Error::OtherProcess`] in a child of fork, if
    /// the file, or a writable view in this mapping, is its parent's.
    pub fn map_file(
        &self,
        at: usize,
        len: usize,
        file: &CodeFile,
        from: usize,
        access: Access,
    ) -> Result<(), Error> {
        let len = self.check(at, len)?;
        let end = from.checked_add(len);
        if !from.is_multiple_of(page_size()) || end.is_none_or(|end| end > file.len()) {
            return Err(Error::OutOfRange { at: from, len });
        }
        let prot = prot(access);
        let fd = file.fd(access)?;
        let over = At::Over(self.at(at));
        let counts = self.meter.counts();
        let map = || {
            // SAFETY: pages of this mapping, by its invariant.
            unsafe { sys::map_file(counts, over, len, prot, true, fd, from as u64) }
                .map_err(Error::system("mapping a file for code"))
        };
        let view = What::File(access, file.id(), from.wrapping_sub(at));
        let (what, kept) = match access {
            // A child of a fork in between would have the alias.
            Access::Write => without_forks(|| {
                self.aliased.store(true, Ordering::Release);
                map()?;
                // SAFETY: as above.
                let kept = unsafe { sys::keep_from_children(counts, self.at(at), len) };
                if kept.is_ok() {
                    return Ok((view, kept));
                }
                // SAFETY: as above.
                let gone = unsafe { sys::map_nothing(counts, over, len, Prot::None) };
                Ok((if gone.is_ok() { What::Memory(Access::None) } else { view }, kept))
            })?,
            _ => map().map(|_| (view, Ok(())))?,
        };
        self.note(at, len, what);
        kept.map_err(Error::system("keeping the alias from children"))
    }

    /// Shows `len` bytes of any file, privately: what is written to the file later may be seen or
    /// not. Not writable, and for [`Access::Execute`] `fd` should not be, either.
    pub(crate) fn map_private(
        &self,
        at: usize,
        len: usize,
        fd: BorrowedFd<'_>,
        from: usize,
        access: Access,
    ) -> Result<(), Error> {
        let len = self.check(at, len)?;
        let over = At::Over(self.at(at));
        // SAFETY: pages of this mapping, by its invariant.
        unsafe {
            sys::map_file(self.meter.counts(), over, len, prot(access), false, fd, from as u64)
        }
        .map_err(Error::system("mapping a file"))?;
        self.note(at, len, What::File(access, super::file::next_id(), from.wrapping_sub(at)));
        Ok(())
    }

    /// Puts empty memory, private, to read and write, in place of what is there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::System`].
    pub fn map_memory(&self, at: usize, len: usize) -> Result<(), Error> {
        self.map_nothing(at, len, Access::Write)
    }

    /// Back to address space that is only reserved.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::System`].
    pub fn release(&self, at: usize, len: usize) -> Result<(), Error> {
        self.map_nothing(at, len, Access::None)
    }

    fn map_nothing(&self, at: usize, len: usize, access: Access) -> Result<(), Error> {
        let len = self.check(at, len)?;
        let over = At::Over(self.at(at));
        // SAFETY: pages of this mapping, by its invariant.
        unsafe { sys::map_nothing(self.meter.counts(), over, len, prot(access)) }
            .map_err(Error::system("mapping memory"))?;
        self.note(at, len, What::Memory(access));
        Ok(())
    }

    /// Changes what may be done with private memory of the mapping.
    ///
    /// # Errors
    ///
    /// [`Error::WouldExecute`] for [`Access::Execute`]: what was written never becomes
    /// executable where it is. [`Error::ViewOfFile`] if not all of it is memory.
    /// [`Error::OutOfRange`], [`Error::OtherProcess`], [`Error::System`].
    pub fn protect(&self, at: usize, len: usize, access: Access) -> Result<(), Error> {
        if access == Access::Execute {
            return Err(Error::WouldExecute);
        }
        let len = self.check(at, len)?;
        if self.shows_file(at, len) {
            return Err(Error::ViewOfFile);
        }
        // SAFETY: pages of this mapping, by its invariant.
        unsafe { sys::protect(self.meter.counts(), self.at(at), len, prot(access)) }
            .map_err(Error::system("protecting memory"))?;
        self.note(at, len, What::Memory(access));
        Ok(())
    }

    /// Private memory that is mapped now is had page by page, also where the system prefers huge
    /// pages: for memory of which little is touched, or parts are replaced.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn use_small_pages(&self) -> Result<(), Error> {
        self.check(0, self.len)?;
        // SAFETY: pages of this mapping, by its invariant.
        unsafe { sys::small_pages(self.meter.counts(), self.ptr, self.len) }
            .map_err(Error::system("asking for small pages"))
    }

    /// Empties private memory of the mapping and gives it back.
    ///
    /// # Safety
    ///
    /// The pages are of [`Mapping::map_memory`]; nobody needs what is in them.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::System`].
    pub unsafe fn empty(&self, at: usize, len: usize) -> Result<(), Error> {
        let len = self.check(at, len)?;
        // SAFETY: the caller's contract.
        unsafe { sys::empty(self.meter.counts(), self.at(at), len) }
            .map_err(Error::system("giving memory back"))
    }

    /// Until the process ends nothing can unmap, move or protect these pages (mseal(2), Linux
    /// 6.10). Dropping the mapping leaves them where they are.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: without mseal, ENOSYS.
    pub fn seal(&self) -> Result<(), Error> {
        self.check(0, self.len)?;
        // SAFETY: pages of this mapping, which `drop` leaves alone from here on.
        unsafe { sys::seal_pages(self.meter.counts(), self.ptr, self.len) }
            .map_err(Error::system("mseal"))?;
        self.sealed.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives it back, as dropping it does, but says if that fails: then it is all still there.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: the kernel lacks memory to split a mapping.
    pub(crate) fn unmap(mut self) -> Result<(), (Mapping, Error)> {
        if self.owner != token() {
            // A child may not have all of it.
            return Ok(());
        }
        // SAFETY: nobody else has these pages, by the invariant, and `self` ends here.
        match unsafe { sys::unmap(self.meter.counts(), self.ptr, self.len) } {
            Ok(()) => {
                let parts = self.parts.get_mut().unwrap_or_else(|e| e.into_inner()).len();
                self.meter.counts().mapped(-(parts as isize), -(self.len as isize));
                // Nothing is left for `drop`.
                *self.sealed.get_mut() = true;
                Ok(())
            }
            Err(error) => Err((self, Error::system("taking a mapping away")(error))),
        }
    }

    /// Leaves all where it is until the process ends, but for what is only reserved: that is
    /// given back, as far as the kernel does.
    pub(crate) fn leak(self) {
        let mut mapping = std::mem::ManuallyDrop::new(self);
        let (ptr, len) = (mapping.ptr, mapping.len);
        let parts = mapping.parts.get_mut().unwrap_or_else(|e| e.into_inner());
        let parts = std::mem::take(parts);
        let ends = parts.iter().skip(1).map(|part| part.at).chain([len]);
        for (part, end) in parts.iter().zip(ends) {
            let (start, len) = (ptr.wrapping_add(part.at), end - part.at);
            let reserved = part.what == What::Memory(Access::None);
            // SAFETY: nobody else has these pages, by the invariant, nor knows them: nothing can
            // be done there.
            if reserved && unsafe { sys::unmap(mapping.meter.counts(), start, len) }.is_ok() {
                mapping.meter.counts().mapped(-1, -(len as isize));
            }
        }
    }

    fn at(&self, at: usize) -> *mut u8 {
        self.ptr.wrapping_add(at)
    }

    /// Whole pages of it, which this process has.
    fn check(&self, at: usize, len: usize) -> Result<usize, Error> {
        if self.aliased.load(Ordering::Acquire) && self.owner != token() {
            return Err(Error::OtherProcess);
        }
        let out = Error::OutOfRange { at, len };
        let Ok(whole) = round_to_pages(len) else { return Err(out) };
        match at.checked_add(whole) {
            Some(end) if end <= self.len && whole > 0 && at.is_multiple_of(page_size()) => {
                Ok(whole)
            }
            _ => Err(out),
        }
    }

    /// Whether a view of a file lies in this range.
    fn shows_file(&self, at: usize, len: usize) -> bool {
        let parts = self.parts.lock().unwrap_or_else(|e| e.into_inner());
        let first = parts.partition_point(|part| part.at <= at).saturating_sub(1);
        let inside = parts[first..].iter().take_while(|part| part.at < at + len);
        inside.into_iter().any(|part| matches!(part.what, What::File(..)))
    }

    fn note(&self, at: usize, len: usize, what: What) {
        let mut parts = self.parts.lock().unwrap_or_else(|e| e.into_inner());
        let before = parts.len();
        let end = at + len;
        let next = parts.iter().rev().find(|part| part.at <= end).map(|part| part.what);
        parts.retain(|part| part.at < at || part.at > end);
        let place = parts.partition_point(|part| part.at < at);
        parts.insert(place, Part { at, what });
        if let Some(what) = next.filter(|_| end < self.len) {
            parts.insert(place + 1, Part { at: end, what });
        }
        parts.dedup_by_key(|part| part.what);
        self.meter.counts().mapped(parts.len() as isize - before as isize, 0);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.sealed.load(Ordering::Acquire) {
            return;
        }
        let parts = self.parts.get_mut().unwrap_or_else(|e| e.into_inner());
        self.meter.counts().mapped(-(parts.len() as isize), -(self.len as isize));
        // In a child something else may lie where its parent has a writable view of a file.
        let inherited = self.owner != token();
        let absent = |what: What| inherited && matches!(what, What::File(Access::Write, ..));
        let ends: Vec<usize> = parts.iter().skip(1).map(|p| p.at).chain([self.len]).collect();
        let ranges: Vec<_> = match parts.iter().any(|part| absent(part.what)) {
            false => vec![(0, self.len)],
            true => {
                let there = parts.iter().zip(ends).filter(|(part, _)| !absent(part.what));
                there.map(|(part, end)| (part.at, end)).collect()
            }
        };
        for (at, end) in ranges {
            // SAFETY: nobody else has these pages. It fails only where the kernel lacks memory
            // to split a mapping; then they stay mapped.
            let _ = unsafe { sys::unmap(self.meter.counts(), self.ptr.wrapping_add(at), end - at) };
        }
    }
}

fn prot(access: Access) -> Prot {
    match access {
        Access::None => Prot::None,
        Access::Read => Prot::Read,
        Access::Write => Prot::ReadWrite,
        Access::Execute => Prot::ReadExecute,
    }
}

fn map_at(at: At, len: usize, meter: &Meter) -> Result<*mut u8, Error> {
    // SAFETY: nothing is replaced: `at` is no `Over`.
    unsafe { sys::map_nothing(meter.counts(), at, len, Prot::None) }
        .map_err(Error::system("reserving address space"))
}

/// Tries places outward from `address`, closely at first; then all that are free.
fn near(address: usize, within: usize, len: usize, meter: &Meter) -> Result<*mut u8, Error> {
    let page = page_size();
    let fits = |start: usize| {
        let end = start.checked_add(len);
        let far = end.map(|end| address.abs_diff(start).max(address.abs_diff(end)));
        start >= page && far.is_some_and(|far| far <= within)
    };
    let tried = |hint: usize| {
        let hint = hint & !(page - 1);
        if !fits(hint) {
            return Ok(None);
        }
        let ptr = map_at(At::Hint(hint), len, meter)?;
        if fits(ptr as usize) {
            return Ok(Some(ptr));
        }
        // SAFETY: new pages, which nobody knows.
        unsafe { sys::unmap(meter.counts(), ptr, len) }
            .map_err(Error::system("giving address space back"))?;
        Ok(None)
    };
    let mut distance = Some(len);
    while let Some(far) = distance.filter(|&far| far <= within) {
        for hint in [address.checked_sub(far), address.checked_add(far)].into_iter().flatten() {
            if let Some(ptr) = tried(hint)? {
                return Ok(ptr);
            }
        }
        distance = far.checked_add((far / 4).max(len).next_multiple_of(page));
    }
    for gap in gaps(meter) {
        // The closest place in it, and both ends: near a stack not all that is free is given.
        let Some(last) = gap.end.checked_sub(len).filter(|&last| last >= gap.start) else {
            continue;
        };
        for hint in [address.clamp(gap.start, last), gap.start, last] {
            if let Some(ptr) = tried(hint)? {
                return Ok(ptr);
            }
        }
    }
    Err(Error::NoRoomNear { address, within })
}

/// What /proc/self/maps shows as free, from the lowest address on; nothing without /proc.
fn gaps(meter: &Meter) -> Vec<Range<usize>> {
    let rows = sys::read_all(meter.counts(), Path::new("/proc/self/maps")).unwrap_or_default();
    let mut gaps = Vec::new();
    let mut free = page_size();
    for row in rows.lines() {
        let range = row.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) = range.map(|(start, end)| (number(start), number(end)))
        else {
            continue;
        };
        if free < start {
            gaps.push(free..start);
        }
        free = free.max(end);
    }
    gaps
}
