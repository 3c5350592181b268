//! What tests do to pages past the library.

use std::io;
use std::ptr::null_mut;

use crate::support::policy::check;

pub fn has_memfd(flags: libc::c_uint) -> bool {
    // SAFETY: a C string; a new descriptor, closed at once.
    unsafe {
        let fd = libc::memfd_create(c"probe".as_ptr(), flags | libc::MFD_CLOEXEC);
        fd >= 0 && libc::close(fd) == 0
    }
}

/// A page at `address`, if nothing is there.
pub fn take(address: *mut u8) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: replaces nothing.
    let page = unsafe { libc::mmap(address.cast(), 4096, libc::PROT_READ, flags, -1, 0) };
    page == address.cast()
}

/// The answers to what could make a page writable, move it or take it away: of mprotect to RW
/// and RWX, munmap, mremap elsewhere, mmap over it.
pub fn attempts(page: *mut u8) -> [i32; 5] {
    let errno = |failed: bool| match failed {
        true => io::Error::last_os_error().raw_os_error().unwrap(),
        false => 0,
    };
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let page = page.cast();
    let over = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the test's own page; where one of them succeeds the test does not use it again.
    unsafe {
        [
            errno(libc::mprotect(page, 4096, rw) != 0),
            errno(libc::mprotect(page, 4096, rw | libc::PROT_EXEC) != 0),
            errno(libc::munmap(page, 4096) != 0),
            errno(
                libc::mremap(
                    page,
                    4096,
                    4096,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    page.wrapping_add(1 << 30),
                ) == libc::MAP_FAILED,
            ),
            errno(libc::mmap(page, 4096, rw, over, -1, 0) == libc::MAP_FAILED),
        ]
    }
}

/// The errno of a write through /proc/self/mem, which asks no mprotect.
pub fn poke(address: *const u8) -> i32 {
    // SAFETY: a C string; a new file; whatever it writes is the byte that is there.
    unsafe {
        let fd = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        check(fd);
        let byte = *address;
        let n = libc::pwrite(fd, (&raw const byte).cast(), 1, address as libc::off_t);
        let errno = if n == 1 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() };
        libc::close(fd);
        errno
    }
}

/// Address space that is taken: nothing else of the process is there.
pub fn reserve(len: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new pages.
    let start = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}
