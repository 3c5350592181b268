//! One reservation: code, read-only and writable data beside each other.

use std::ops::Range;

use super::area::Area;
use super::{Error, Kind};
use crate::arch;
use crate::vm::{self, Access, CodeFile, Mapping, Meter, Options, Place};

/// Bytes of each area: whole pages, not 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) code: usize,
    pub(super) read_only: usize,
    pub(super) read_write: usize,
}

impl Sizes {
    /// Half of `room` for code, the rest for both kinds of data.
    pub(super) fn of(room: usize) -> Result<Sizes, Error> {
        let quarter = vm::round_to_pages((room / 4).max(1))?;
        Ok(Sizes {
            code: vm::round_to_pages(room / 2)?.max(quarter),
            read_only: quarter,
            read_write: quarter,
        })
    }

    /// With room for `len` more bytes of a kind, wherever its area begins.
    pub(super) fn and(mut self, kind: Kind, len: usize, align: usize) -> Result<Sizes, Error> {
        let worst = len.checked_add(align).ok_or(Error::TooLarge(len))?;
        let worst = vm::round_to_pages(worst).map_err(|_| Error::TooLarge(len))?;
        let area = match kind {
            Kind::Code => &mut self.code,
            Kind::ReadOnly => &mut self.read_only,
            Kind::ReadWrite => &mut self.read_write,
        };
        *area = worst.max(*area);
        Ok(self)
    }

    pub(super) fn total(self) -> Option<usize> {
        self.code.checked_add(self.read_only)?.checked_add(self.read_write)
    }
}

/// One reservation.
///
/// ```text
///   │ code                      │ read-only         │ writable  │
///   │ R-X ..│ RW staged ..│ -   │ R ..│ RW ..│ -    │ RW ..│ -  │
///    ▲ the file, from its first byte on
/// ```
///
/// # Invariants
///
/// Code lies at the same offset in `map` and `file`. Pages before an area's staged part are
/// final; the staged ones, and those up to where the area is ready, are private, to read and
/// write; the rest is only reserved, so that it counts nowhere. What an area has not handed out
/// is known to nobody.
#[derive(Debug)]
pub(super) struct Span {
    map: Mapping,
    file: CodeFile,
    code: Area,
    read_only: Area,
    read_write: Area,
}

impl Span {
    pub(super) fn new(
        sizes: Sizes,
        place: Place,
        options: &Options,
        meter: &Meter,
    ) -> Result<Span, Error> {
        let len = sizes.total().ok_or(Error::TooLarge(usize::MAX))?;
        let file = CodeFile::new(sizes.code, options, meter)?;
        let map = Mapping::reserve(len, place, meter)?;
        map.use_small_pages()?;
        let data = sizes.code + sizes.read_only;
        Ok(Span {
            map,
            file,
            code: Area::new(0..sizes.code),
            read_only: Area::new(sizes.code..data),
            read_write: Area::new(data..len),
        })
    }

    pub(super) fn base(&self) -> usize {
        self.map.ptr() as usize
    }

    /// What was handed out stays where it is until the process ends.
    pub(super) fn leak(self) {
        for unused in [&self.code, &self.read_only, &self.read_write].map(Area::unused) {
            if !unused.is_empty() {
                // Where the kernel does not, more is left.
                let _ = self.map.release(unused.start, unused.len());
            }
        }
        self.map.leak();
    }

    /// `len` bytes, if there is room for them.
    pub(super) fn take(
        &mut self,
        kind: Kind,
        len: usize,
        align: usize,
    ) -> Result<Option<*mut u8>, Error> {
        let base = self.base();
        let area = match kind {
            Kind::Code => &mut self.code,
            Kind::ReadOnly => &mut self.read_only,
            Kind::ReadWrite => &mut self.read_write,
        };
        let Some(room) = area.room(base, len, align) else { return Ok(None) };
        if let Some(pages) = area.unready(room.end) {
            self.map.protect(pages.start, pages.len(), Access::Write)?;
            area.made_ready(pages.end);
        }
        area.hand_out(&room);
        Ok(Some(self.map.ptr().wrapping_add(room.start)))
    }

    /// What is staged becomes final: data before code, so that no code runs whose data could be
    /// written. What failed is staged still.
    pub(super) fn finalise(&mut self, options: &Options, meter: &Meter) -> Result<(), Error> {
        if let Some(data) = self.read_only.staged() {
            self.map.protect(data.start, data.len(), Access::Read)?;
            self.read_only.finish();
        }
        if let Some(code) = self.code.staged() {
            self.publish(code, options, meter)?;
            self.code.finish();
        }
        Ok(())
    }

    fn publish(
        &mut self,
        code: Range<usize>,
        options: &Options,
        meter: &Meter,
    ) -> Result<(), Error> {
        if !self.file.is_ours() {
            // A child of fork has its own: its parent's, mapped before, stays as it is.
            self.file = CodeFile::new(self.file.len(), options, meter)?;
        }
        let end = vm::round_to_pages(code.end)?;
        let start = self.map.ptr().wrapping_add(code.start);
        // SAFETY: private pages of this mapping, to read and write, whose users are done with
        // writing (`Stage::finalise`).
        let pages = unsafe { std::slice::from_raw_parts_mut(start, end - code.start) };
        for (at, byte) in pages.iter_mut().enumerate().skip(code.len()) {
            *byte = arch::TRAP[at % arch::TRAP.len()];
        }
        // SAFETY: no view shows these bytes of the file before the next line, by the invariant,
        // or only one that failed to replace what is staged.
        unsafe { self.file.write(code.start, pages) }?;
        self.map.map_file(code.start, pages.len(), &self.file, code.start, Access::Execute)?;
        arch::flush(start, end - code.start);
        Ok(())
    }
}
