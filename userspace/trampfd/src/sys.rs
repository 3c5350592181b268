//! System calls, as functions that return `io::Result`.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

/// The answer of a call that says -1 for an error.
fn check(ret: libc::c_long) -> io::Result<usize> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret as usize) }
}

/// Reserves `len` bytes of address space that cannot be touched, within 4 GiB of `near` where
/// there is room.
///
/// A jump from there to code at `near` is then one that branch predictors keep: with farther
/// targets an Intel CPU mispredicts the jump of each of 10,000 stubs (`make bench`, "random
/// order"), twice the time.
pub(crate) fn reserve(len: usize, near: usize) -> io::Result<usize> {
    const GIB: usize = 1 << 30;
    // Below a program lies nothing, below a library what was mapped after it. Above a program its
    // heap grows, so that comes last.
    let below = [GIB, 2 * GIB, 3 * GIB].map(|d| near.checked_sub(d + len));
    let above = [3 * GIB, 2 * GIB].map(|d| near.checked_add(d));
    for hint in below.into_iter().chain(above).flatten().filter(|hint| *hint >= GIB / 16) {
        let start = reserve_at(len, hint & !0xffff)?;
        if start.abs_diff(near) < 4 * GIB {
            return Ok(start);
        }
        // SAFETY: just reserved.
        unsafe { unmap(start, len) };
    }
    reserve_at(len, 0)
}

/// Reserves address space, at `hint` where that is free.
fn reserve_at(len: usize, hint: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let hint = core::ptr::without_provenance_mut(hint);
    // SAFETY: a new mapping; the hint replaces nothing.
    let p = unsafe { libc::mmap(hint, len, libc::PROT_NONE, flags, -1, 0) };
    check(p as libc::c_long)
}

/// Maps `len` bytes of new memory.
pub(crate) fn map_anonymous(len: usize) -> io::Result<usize> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let p = unsafe { libc::mmap(core::ptr::null_mut(), len, prot, flags, -1, 0) };
    check(p as libc::c_long)
}

/// Maps `len` bytes of new memory, in large pages where the kernel has them to give.
pub(crate) fn map_large(len: usize) -> io::Result<usize> {
    /// What most processors and kernels have.
    const LARGE: usize = 2 << 20;
    let start = map_anonymous(len + LARGE)?;
    // SAFETY: what the pages hold does not change.
    unsafe {
        let start = core::ptr::with_exposed_provenance_mut(start);
        libc::madvise(start, len + LARGE, libc::MADV_HUGEPAGE)
    };
    Ok(start.next_multiple_of(LARGE))
}

/// Has the kernel make the pages of `[addr, addr + len)`, which is writable memory, at once (Linux
/// 5.14). Where it cannot, each comes with its first use.
pub(crate) fn populate(addr: usize, len: usize) {
    // SAFETY: what the pages hold does not change.
    unsafe {
        libc::madvise(core::ptr::with_exposed_provenance_mut(addr), len, libc::MADV_POPULATE_WRITE)
    };
}

/// Maps `len` bytes of `fd` privately over `[addr, addr + len)`.
///
/// # Safety
///
/// The range lies in a reservation of the caller that nothing refers to.
pub(crate) unsafe fn map_over(
    addr: usize,
    len: usize,
    prot: i32,
    fd: RawFd,
    offset: u64,
) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let addr = core::ptr::with_exposed_provenance_mut(addr);
    // SAFETY: the caller owns the range.
    let p = unsafe { libc::mmap(addr, len, prot, flags, fd, offset as libc::off_t) };
    check(p as libc::c_long).map(drop)
}

/// Makes `[addr, addr + len)` readable and writable.
///
/// # Safety
///
/// The range lies in a reservation of the caller that nothing refers to.
pub(crate) unsafe fn make_writable(addr: usize, len: usize) -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller owns the range.
    let ret = unsafe { libc::mprotect(core::ptr::with_exposed_provenance_mut(addr), len, prot) };
    check(ret.into()).map(drop)
}

/// Makes `[addr, addr + len)` a reservation again, whatever was mapped there.
///
/// # Safety
///
/// The range lies in a reservation of the caller that nothing refers to.
pub(crate) unsafe fn map_none(addr: usize, len: usize) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let addr = core::ptr::with_exposed_provenance_mut(addr);
    // SAFETY: the caller owns the range.
    let p = unsafe { libc::mmap(addr, len, libc::PROT_NONE, flags, -1, 0) };
    check(p as libc::c_long).map(drop)
}

/// Gives address space back.
///
/// # Safety
///
/// The range is the caller's and nothing refers to it.
pub(crate) unsafe fn unmap(addr: usize, len: usize) {
    // SAFETY: the caller owns the range. An error leaves it mapped, which harms nobody.
    unsafe { libc::munmap(core::ptr::with_exposed_provenance_mut(addr), len) };
}

/// Lets the pages at `from` appear at `to` as well: a second mapping of the same private file
/// mapping, while the original stays and refaults (Linux 5.13).
///
/// # Safety
///
/// `from` is text of the program that was never written; `[to, to + len)` lies in a reservation
/// of the caller that nothing refers to.
pub(crate) unsafe fn duplicate(from: usize, len: usize, to: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let to = core::ptr::with_exposed_provenance_mut::<libc::c_void>(to);
    // SAFETY: the content at `from` is the same before, meanwhile and after.
    let p =
        unsafe { libc::mremap(core::ptr::with_exposed_provenance_mut(from), len, len, flags, to) };
    check(p as libc::c_long).map(drop)
}

/// mseal(2), Linux 6.10: no further change of these mappings.
pub(crate) fn seal(addr: usize, len: usize) -> io::Result<()> {
    /// The same on every architecture.
    const SYS_MSEAL: libc::c_long = 462;
    // SAFETY: takes away ways to change mappings, and does nothing else.
    check(unsafe { libc::syscall(SYS_MSEAL, addr, len, 0) }).map(drop)
}

/// Opens for reading, close-on-exec. It never waits, whatever is there: the program's own name
/// may have become a fifo's, or a terminal's.
pub(crate) fn open(path: &CStr) -> io::Result<RawFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a C string.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    check(fd.into()).map(|fd| fd as RawFd)
}

/// Closes an fd that the caller owns.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the caller's fd; nothing else is done with it.
    unsafe { libc::close(fd) };
}

/// What an fd refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    dev: u64,
    ino: u64,
    rdev: u64,
    /// It is a character device.
    pub(crate) device: bool,
    /// Bytes of a regular file.
    pub(crate) len: u64,
}

/// Asks what `fd` refers to.
pub(crate) fn identity(fd: RawFd) -> io::Result<Identity> {
    // SAFETY: an all-zero stat is one.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: writes the struct.
    check(unsafe { libc::fstat(fd, &mut stat) }.into())?;
    Ok(Identity {
        dev: stat.st_dev,
        ino: stat.st_ino,
        rdev: stat.st_rdev,
        device: stat.st_mode & libc::S_IFMT == libc::S_IFCHR,
        len: stat.st_size as u64,
    })
}

/// Whether `fd` lies on a mount with the option noexec.
pub(crate) fn noexec(fd: RawFd) -> bool {
    // SAFETY: an all-zero statvfs is one.
    let mut stat: libc::statvfs = unsafe { core::mem::zeroed() };
    // SAFETY: writes the struct.
    let ok = unsafe { libc::fstatvfs(fd, &mut stat) } == 0;
    ok && stat.f_flag & libc::ST_NOEXEC != 0
}

/// A word of the auxiliary vector, 0 if it is not there.
pub(crate) fn auxv(kind: libc::c_ulong) -> usize {
    // SAFETY: asks a number.
    unsafe { libc::getauxval(kind) as usize }
}

/// Writes a message to standard error, as one call and without allocation.
pub(crate) fn complain(message: &[u8]) {
    // SAFETY: reads the message. If it cannot be written there is nobody to tell.
    let _ = unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
}
