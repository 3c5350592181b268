//! Further tables: the same page of our own text, mapped again beside new slots.
//!
//! ```text
//!   copy of the table              distance             its slots, aligned to 64 KiB
//!      R-X                                                 RW-
//! ```
//!
//! Two ways, as in the backend of `trampfd`: mremap(2) of the table that runs (Linux 5.13); or,
//! where that is refused, the same offset of the file that it was loaded from, of which every byte
//! is compared before use. Neither needs /proc. This file has no standard library to lean on, and
//! is all that a C program carries of it.

use core::ffi::{c_int, c_void};
use core::ptr::{null_mut, with_exposed_provenance, with_exposed_provenance_mut};

use crate::pool::{BYTES, TABLE};

/// Makes a copy. Answers where its slots are.
///
/// # Errors
///
/// A sentence: why not.
pub(crate) fn copy() -> Result<usize, &'static str> {
    let gap = TABLE.distance().unsigned_abs();
    // Room to align the slots, the gap, and the higher of the two parts.
    let len = gap + 2 * BYTES;
    let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, none, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err("no address space for the pointer of a nested function");
    }
    let base = base.expose_provenance();
    // The part at the lower address begins in the first BYTES.
    let (slots, stubs) = if TABLE.distance() > 0 {
        let slots = (base + gap).next_multiple_of(BYTES);
        (slots, slots - gap)
    } else {
        let slots = base.next_multiple_of(BYTES);
        (slots, slots + gap)
    };
    // SAFETY: inside the reservation, which nothing refers to.
    let made = unsafe { make(stubs, slots) };
    let (low, high) = (stubs.min(slots), stubs.max(slots));
    // SAFETY: what is not used of the reservation, or all of it.
    unsafe {
        match made {
            Ok(()) => {
                unmap(base, low);
                unmap(low + BYTES, high);
                unmap(high + BYTES, base + len);
            }
            Err(_) => unmap(base, base + len),
        }
    }
    made.map(|()| slots)
}

/// # Safety
///
/// `[start, end)` is the caller's and nothing refers to it.
unsafe fn unmap(start: usize, end: usize) {
    if start < end {
        // SAFETY: by the contract. An error leaves it reserved, which harms nobody.
        unsafe { libc::munmap(with_exposed_provenance_mut(start), end - start) };
    }
}

/// Fills both parts.
///
/// # Safety
///
/// Both lie in a reservation that nothing refers to.
unsafe fn make(stubs: usize, slots: usize) -> Result<(), &'static str> {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: by the contract; what is at the table's own address is the same before, meanwhile
    // and after.
    unsafe {
        if libc::mprotect(with_exposed_provenance_mut(slots), BYTES, writable) != 0 {
            return Err("no memory for the pointer of a nested function");
        }
        let from = with_exposed_provenance_mut::<c_void>(TABLE.code());
        let to = with_exposed_provenance_mut::<c_void>(stubs);
        if libc::mremap(from, BYTES, BYTES, flags, to) != libc::MAP_FAILED {
            return Ok(());
        }
        copy_from_file(stubs)
    }
}

/// Where the table lies in the file that it was loaded from.
struct Origin {
    /// The file's name as the loader knows it; null: nothing was found.
    name: *const core::ffi::c_char,
    offset: u64,
}

/// # Safety
///
/// Called by dl_iterate_phdr with an `Origin`.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    origin: *mut c_void,
) -> c_int {
    // SAFETY: both are what dl_iterate_phdr was called with and promises.
    let (info, origin) = unsafe { (&*info, &mut *origin.cast::<Origin>()) };
    for n in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: the loader's own table.
        let header = unsafe { &*info.dlpi_phdr.add(n) };
        let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        let inside = TABLE.code().wrapping_sub(start);
        if header.p_type == libc::PT_LOAD && inside < header.p_filesz as usize {
            *origin = Origin { name: info.dlpi_name, offset: header.p_offset + inside as u64 };
            return 1;
        }
    }
    0
}

/// Maps the table's text at `stubs` from its file.
///
/// # Safety
///
/// `stubs` lies in a reservation that nothing refers to.
unsafe fn copy_from_file(stubs: usize) -> Result<(), &'static str> {
    const NO: &str = "the table of nested functions' pointers is full, and neither a duplicate of \
                      it nor the program's own file can be mapped";
    let mut origin = Origin { name: null_mut(), offset: 0 };
    // SAFETY: `visit` gets the `Origin` that it expects. The path of a set-uid program is the
    // caller's choice, and the file behind it could be changed after the comparison. AT_EXECFN is
    // a C string at the top of the stack. The comparison reads what was mapped, and not beyond the
    // file's end.
    unsafe {
        if libc::getauxval(libc::AT_SECURE) != 0 {
            return Err(NO);
        }
        libc::dl_iterate_phdr(Some(visit), (&raw mut origin).cast());
        if origin.name.is_null() {
            return Err(NO);
        }
        if *origin.name == 0 {
            origin.name = with_exposed_provenance(libc::getauxval(libc::AT_EXECFN) as usize);
        }
        if origin.name.is_null() {
            return Err(NO);
        }
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let fd = libc::open(origin.name, flags);
        if fd < 0 {
            return Err(NO);
        }
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let to = with_exposed_provenance_mut::<c_void>(stubs);
        let mut stat: libc::stat = core::mem::zeroed();
        let same = libc::fstat(fd, &mut stat) == 0
            && stat.st_size as u64 >= origin.offset + BYTES as u64
            && libc::mmap(to, BYTES, executable, fixed, fd, origin.offset as libc::off_t) == to
            && libc::memcmp(to, with_exposed_provenance(TABLE.code()), BYTES) == 0;
        libc::close(fd);
        if same { Ok(()) } else { Err(NO) }
    }
}
