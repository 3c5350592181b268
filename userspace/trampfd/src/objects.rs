//! The loaded objects: which segment an address lies in, and whether it is text.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::error::Error;
use crate::{fork, sys};

/// A segment of a loaded object.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The object's name as the loader knows it; `None` for the program itself.
    pub(crate) name: Option<CString>,
    /// Offset in the object's file of the address that was asked for.
    pub(crate) offset: u64,
    /// It is executable and not writable.
    pub(crate) text: bool,
}

/// The segment that `addr` lies in, of the program, its libraries and what was loaded later.
/// The vDSO is none: it is no file's.
pub(crate) fn segment_of(addr: usize) -> Option<Segment> {
    struct Search {
        addr: usize,
        vdso: usize,
        found: Option<Segment>,
    }

    /// # Safety
    ///
    /// Called by dl_iterate_phdr with a `Search`.
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        search: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: both are what dl_iterate_phdr was called with and promises.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        let headers = if info.dlpi_phnum == 0 {
            &[]
        } else {
            // SAFETY: the loader's own table.
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) }
        };
        for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD) {
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            if search.addr.wrapping_sub(start) >= header.p_memsz as usize {
                continue;
            }
            let inside = (search.addr - start) as u64;
            let is_vdso =
                search.vdso != 0 && search.vdso == info.dlpi_addr as usize + headers_base(headers);
            if !is_vdso {
                // SAFETY: null or a C string of the loader.
                let name = (!info.dlpi_name.is_null())
                    .then(|| unsafe { CStr::from_ptr(info.dlpi_name) })
                    .filter(|name| !name.is_empty())
                    .map(CStr::to_owned);
                search.found = Some(Segment {
                    name,
                    offset: header.p_offset + inside,
                    text: header.p_flags & libc::PF_X != 0
                        && header.p_flags & libc::PF_W == 0
                        && inside < header.p_filesz,
                });
            }
            return 1;
        }
        0
    }

    fn headers_base(headers: &[libc::Elf64_Phdr]) -> usize {
        headers.iter().find(|h| h.p_type == libc::PT_LOAD).map_or(0, |h| h.p_vaddr as usize)
    }

    let mut search = Search { addr, vdso: sys::auxv(libc::AT_SYSINFO_EHDR), found: None };
    // SAFETY: `visit` gets the `Search` that it expects.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

/// Entries of the table of targets that were found to be text.
const KNOWN: usize = 1024;

/// Targets that were found to be text, each at the place that its address chooses.
static KNOWN_TEXT: [AtomicUsize; KNOWN] = [const { AtomicUsize::new(0) }; KNOWN];

/// All of them, for those that share a place.
static ALL_TEXT: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// That a stub may jump to `code`: it lies in an executable, not writable segment of a loaded
/// object. Looked up once for each target.
///
/// # Errors
///
/// [`Error::NotText`].
#[inline(always)]
pub(crate) fn check_text(code: usize) -> Result<(), Error> {
    // 0 is what is in a place that holds none.
    let known = code != 0 && KNOWN_TEXT[place(code)].load(Ordering::Relaxed) == code;
    if known { Ok(()) } else { look_up(code) }
}

#[inline(always)]
fn place(code: usize) -> usize {
    // Functions are aligned to 16.
    (code >> 4) % KNOWN
}

#[cold]
fn look_up(code: usize) -> Result<(), Error> {
    fork::prepare();
    let mut all = lock();
    let at = all.binary_search(&code);
    if let Err(at) = at {
        if !segment_of(code).is_some_and(|segment| segment.text) {
            return Err(Error::NotText { code });
        }
        all.insert(at, code);
    }
    KNOWN_TEXT[place(code)].store(code, Ordering::Relaxed);
    Ok(())
}

/// The lock of the list of targets. fork takes it too.
pub(crate) fn lock() -> MutexGuard<'static, Vec<usize>> {
    ALL_TEXT.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [usize; 4] = [1; 4];
    static mut ZEROES: [usize; 4] = [0; 4];

    #[test]
    fn a_segment_is_known_by_its_addresses() {
        let text = segment_of(segment_of as *const () as usize).unwrap();
        assert!(text.text && text.name.is_none(), "{text:?}");
        assert!(!segment_of(CONSTANT.as_ptr() as usize).unwrap().text);
        assert!(!segment_of(&raw const ZEROES as usize).unwrap().text);
        let library = segment_of(libc::abs as *const () as usize).unwrap();
        assert!(library.text, "{library:?}");
        assert!(segment_of(Box::into_raw(Box::new(1u64)) as usize).is_none());
        assert!(segment_of(0).is_none());
        assert!(segment_of(sys::auxv(libc::AT_SYSINFO_EHDR)).is_none(), "vDSO");
    }

    #[test]
    fn targets_that_share_a_place_are_both_remembered() {
        // The same place in the table, in one text: twice the table apart.
        let first = check_text as *const () as usize;
        let good = |code| check_text(code).is_ok();
        assert!(good(first));
        let second = first + 16 * KNOWN;
        assert_eq!(place(first), place(second));
        let both = segment_of(second).is_some_and(|segment| segment.text);
        for _ in 0..3 {
            assert!(good(first));
            assert_eq!(good(second), both);
        }
        assert!(lock().contains(&first));
        assert!(!good(CONSTANT.as_ptr() as usize));
        assert!(!lock().contains(&(CONSTANT.as_ptr() as usize)));
    }
}
