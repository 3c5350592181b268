//! A file for code and an executable view of all of it.

use std::ops::Range;

use super::{Access, CodeFile, Error, Mapping, Meter, Options, Source};

/// Executable pages, and a way to write them.
#[derive(Debug)]
pub struct Region {
    rx: Mapping,
    file: CodeFile,
}

impl Region {
    /// At least `len` bytes, rounded up to pages. Nothing is taken but address space until bytes
    /// are written or [allocated](CodeFile::allocate).
    ///
    /// # Errors
    ///
    /// Those of [`CodeFile::new`] and [`Mapping::reserve`].
    pub fn new(len: usize, options: &Options, meter: &Meter) -> Result<Region, Error> {
        let file = CodeFile::new(len, options, meter)?;
        let rx = Mapping::reserve(file.len(), options.place, meter)?;
        rx.map_file(0, file.len(), &file, 0, Access::Execute)?;
        Ok(Region { rx, file })
    }

    /// The first byte of the executable view.
    pub fn rx(&self) -> *const u8 {
        self.rx.ptr()
    }

    /// The first byte of the writable alias, while there is one.
    pub fn rw(&self) -> Option<*mut u8> {
        self.file.alias()
    }

    /// Bytes: whole pages.
    pub fn len(&self) -> usize {
        self.file.len()
    }

    /// Never: there is a page at least.
    pub fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// Offset of an address in the executable view.
    pub fn offset(&self, rx: *const u8) -> Option<usize> {
        let offset = (rx as usize).wrapping_sub(self.rx() as usize);
        (offset < self.len()).then_some(offset)
    }

    /// The file: [allocate](CodeFile::allocate), [discard](CodeFile::discard),
    /// [withdraw](CodeFile::withdraw) and seals are there.
    pub fn file(&self) -> &CodeFile {
        &self.file
    }

    /// Where the pages came from.
    pub fn source(&self) -> &Source {
        self.file.source()
    }

    /// Whether this process made it, and may write it: not so in a child of fork.
    pub fn is_ours(&self) -> bool {
        self.file.is_ours()
    }

    /// Writes code, and makes the processor see it.
    ///
    /// # Safety
    ///
    /// As [`CodeFile::write`].
    ///
    /// # Errors
    ///
    /// As [`CodeFile::write`].
    pub unsafe fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.file.write(at, bytes) }?;
        self.flush(at..at + bytes.len());
        Ok(())
    }

    /// Makes the processor see what was written through the alias.
    pub fn flush(&self, range: Range<usize>) {
        crate::arch::flush(self.rx().wrapping_add(range.start), range.len());
    }

    /// The executable view stays where it is until the process ends (mseal(2)).
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn seal_pages(&self) -> Result<(), Error> {
        self.rx.seal()
    }
}
