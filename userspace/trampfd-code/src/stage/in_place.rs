//! The same for memory that is somebody else's.

use super::{Error, system, written_once};
use crate::sys::{self, At, Prot};
#[cfg(doc)]
use crate::vm::Write;
use crate::vm::{self, Access, CodeFile, Meter, Options, Source};

/// What [`publish_in_place`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Where the executable pages came from.
    pub source: Source,
}

/// Makes memory of somebody else executable where it is: what is in it goes into a file for
/// code, of which then no descriptor is left, and the file's R-X view takes the memory's place.
/// Its private pages are given back. A child of fork has the code too, and can as little write
/// it.
///
/// [`Write::Pwrite`] is the only value of [`Options::write`] that matters: code is written once,
/// and an alias that was needed for it is gone when this returns. [`Options::place`] is not
/// looked at.
///
/// Until the last step, mapping, failure leaves the memory as it was.
///
/// # Safety
///
/// `[ptr, ptr + len)` is mapped, readable, and the caller's to replace; nobody writes there while
/// this runs, nor afterwards, until [`unpublish_in_place`]. The content is position-independent
/// or made for `ptr`.
///
/// # Errors
///
/// [`Error::NotPages`], and [`Error::Memory`] with those of [`CodeFile::new`],
/// [`CodeFile::write`] and mmap(2).
pub unsafe fn publish_in_place(
    ptr: *mut u8,
    len: usize,
    options: &Options,
    meter: &Meter,
) -> Result<Published, Error> {
    check_pages(ptr, len)?;
    let file = CodeFile::new(len, &written_once(options), meter)?;
    // SAFETY: readable, and not written meanwhile, by the caller's contract.
    let content = unsafe { std::slice::from_raw_parts(ptr, len) };
    // SAFETY: a new file, which nobody has mapped.
    unsafe { file.write(0, content) }?;
    let fd = file.fd(Access::Execute)?;
    // SAFETY: the caller's to replace.
    unsafe { sys::map_file(meter.counts(), At::Over(ptr), len, Prot::ReadExecute, true, fd, 0) }
        .map_err(system("mapping code over what was written"))?;
    crate::arch::flush(ptr, len);
    Ok(Published { source: file.source().clone() })
}

/// How many bytes are copied at once: in a system call, and in that much memory.
const CHUNK: usize = 1 << 20;

/// Makes memory that [`publish_in_place`] had made executable private again, to read and write,
/// with the same content: a system call for each MiB. It needs a MiB of other memory at most, so
/// that it works where there is little left.
///
/// If it fails, some of the first pages may be private; it can be called again for all of them.
///
/// # Safety
///
/// `[ptr, ptr + len)` is the caller's to replace, and readable; nobody executes it any more.
///
/// # Errors
///
/// [`Error::NotPages`], and [`Error::Memory`] where there is no memory for the copy, or mmap(2)
/// fails.
pub unsafe fn unpublish_in_place(ptr: *mut u8, len: usize, meter: &Meter) -> Result<(), Error> {
    check_pages(ptr, len)?;
    let mut content: Vec<u8> = Vec::new();
    content
        .try_reserve_exact(len.min(CHUNK))
        .map_err(|_| std::io::ErrorKind::OutOfMemory.into())
        .map_err(system("copying code"))?;
    for start in (0..len).step_by(CHUNK) {
        let (ptr, len) = (ptr.wrapping_add(start), CHUNK.min(len - start));
        content.clear();
        // SAFETY: readable, by the caller's contract.
        content.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr, len) });
        // SAFETY: the caller's to replace.
        unsafe { sys::map_nothing(meter.counts(), At::Over(ptr), len, Prot::ReadWrite) }
            .map_err(system("mapping memory over code"))?;
        // SAFETY: mapped for writing just now, `len` bytes.
        unsafe { ptr.copy_from_nonoverlapping(content.as_ptr(), len) };
    }
    Ok(())
}

fn check_pages(ptr: *mut u8, len: usize) -> Result<(), Error> {
    let page = vm::page_size();
    let whole = (ptr as usize).is_multiple_of(page) && len.is_multiple_of(page);
    let there = len > 0 && !ptr.is_null() && (ptr as usize).checked_add(len).is_some();
    if whole && there { Ok(()) } else { Err(Error::NotPages { address: ptr as usize, len }) }
}
