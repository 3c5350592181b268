//! Every system call of this crate, each counted: what [`vm::Stats`](crate::vm::Stats) says was
//! done is what went through here.

pub(crate) mod folder;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};

pub(crate) use rustix::fs::{Mode as FileMode, SealFlags as Seals};

/// What was asked of the kernel on behalf of one object.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: AtomicU64,
    mappings: AtomicUsize,
    reserved: AtomicUsize,
}

impl Counts {
    /// Calls made, whether they succeeded or not.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Mappings that there are.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Relaxed)
    }

    /// Bytes of address space that are taken.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// `parts` more mappings than before, or fewer.
    pub(crate) fn mapped(&self, parts: isize, bytes: isize) {
        self.mappings.fetch_add(parts as usize, Ordering::Relaxed);
        self.reserved.fetch_add(bytes as usize, Ordering::Relaxed);
    }
}

/// What may be done with pages. There is no name for writing and executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prot {
    None,
    Read,
    ReadWrite,
    ReadExecute,
}

impl Prot {
    fn map(self) -> ProtFlags {
        match self {
            Prot::None => ProtFlags::empty(),
            Prot::Read => ProtFlags::READ,
            Prot::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            Prot::ReadExecute => ProtFlags::READ | ProtFlags::EXEC,
        }
    }

    fn protect(self) -> MprotectFlags {
        MprotectFlags::from_bits_retain(self.map().bits())
    }
}

/// Where a mapping goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// Where the kernel likes.
    Anywhere,
    /// There, if nothing is there; elsewhere if something is.
    Hint(usize),
    /// There, in place of what is there.
    Over(*mut u8),
}

impl At {
    fn parts(self) -> (*mut core::ffi::c_void, MapFlags) {
        match self {
            At::Anywhere => (std::ptr::null_mut(), MapFlags::empty()),
            At::Hint(address) => (address as *mut _, MapFlags::empty()),
            At::Over(address) => (address.cast(), MapFlags::FIXED),
        }
    }
}

/// Maps `len` bytes of nothing, private.
///
/// # Safety
///
/// For [`At::Over`]: the pages there are the caller's to replace.
pub(crate) unsafe fn map_nothing(
    counts: &Counts,
    at: At,
    len: usize,
    prot: Prot,
) -> io::Result<*mut u8> {
    counts.call();
    let (address, fixed) = at.parts();
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | fixed;
    // SAFETY: the caller's contract.
    let ptr = unsafe { mm::mmap_anonymous(address, len, prot.map(), flags) }?;
    Ok(ptr.cast())
}

/// Maps `len` bytes of a file, shared or private.
///
/// # Safety
///
/// For [`At::Over`]: the pages there are the caller's to replace.
pub(crate) unsafe fn map_file(
    counts: &Counts,
    at: At,
    len: usize,
    prot: Prot,
    shared: bool,
    fd: BorrowedFd<'_>,
    offset: u64,
) -> io::Result<*mut u8> {
    counts.call();
    let (address, fixed) = at.parts();
    let kind = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    // SAFETY: the caller's contract.
    let ptr = unsafe { mm::mmap(address, len, prot.map(), kind | fixed, fd, offset) }?;
    Ok(ptr.cast())
}

/// # Safety
///
/// The pages are the caller's, and nobody uses them any more.
pub(crate) unsafe fn unmap(counts: &Counts, ptr: *mut u8, len: usize) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    Ok(unsafe { mm::munmap(ptr.cast(), len) }?)
}

/// # Safety
///
/// The pages are the caller's, and nobody relies on more than `prot` allows.
pub(crate) unsafe fn protect(
    counts: &Counts,
    ptr: *mut u8,
    len: usize,
    prot: Prot,
) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    Ok(unsafe { mm::mprotect(ptr.cast(), len, prot.protect()) }?)
}

/// A child of fork does not get these pages.
///
/// # Safety
///
/// The pages are the caller's.
pub(crate) unsafe fn keep_from_children(
    counts: &Counts,
    ptr: *mut u8,
    len: usize,
) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    Ok(unsafe { mm::madvise(ptr.cast(), len, Advice::LinuxDontFork) }?)
}

/// A child of fork finds these pages empty.
///
/// # Safety
///
/// The pages are the caller's.
pub(crate) unsafe fn wipe_in_children(counts: &Counts, ptr: *mut u8, len: usize) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    Ok(unsafe { mm::madvise(ptr.cast(), len, Advice::LinuxWipeOnFork) }?)
}

/// Touching one of these pages never takes the memory of a huge page. Without huge pages in the
/// kernel that is so anyhow.
///
/// # Safety
///
/// The pages are the caller's.
pub(crate) unsafe fn small_pages(counts: &Counts, ptr: *mut u8, len: usize) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    match unsafe { mm::madvise(ptr.cast(), len, Advice::LinuxNoHugepage) } {
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Private pages become empty, and their memory is given back.
///
/// # Safety
///
/// The pages are the caller's, and private; what is in them is not needed.
pub(crate) unsafe fn empty(counts: &Counts, ptr: *mut u8, len: usize) -> io::Result<()> {
    counts.call();
    // SAFETY: the caller's contract.
    Ok(unsafe { mm::madvise(ptr.cast(), len, Advice::LinuxDontNeed) }?)
}

/// Until the process ends these pages stay mapped, as they are.
///
/// # Safety
///
/// The pages are the caller's, who never unmaps them.
pub(crate) unsafe fn seal_pages(counts: &Counts, ptr: *mut u8, len: usize) -> io::Result<()> {
    /// mseal(2), Linux 6.10: the same number on every architecture.
    const SYS_MSEAL: libc::c_long = 462;
    counts.call();
    // SAFETY: the caller's contract.
    let ret = unsafe { libc::syscall(SYS_MSEAL, ptr, len, 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn memfd(counts: &Counts, name: &CStr, exec: MemfdKind) -> io::Result<OwnedFd> {
    /// Linux 6.3.
    const MFD_NOEXEC_SEAL: u32 = 8;
    const MFD_EXEC: u32 = 0x10;
    counts.call();
    let kind = match exec {
        MemfdKind::Exec => MemfdFlags::from_bits_retain(MFD_EXEC),
        MemfdKind::NoexecSeal => MemfdFlags::from_bits_retain(MFD_NOEXEC_SEAL),
        MemfdKind::Plain => MemfdFlags::empty(),
    };
    Ok(fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | kind)?)
}

/// What memfd_create(2) is told about execution, since Linux 6.3.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemfdKind {
    Exec,
    NoexecSeal,
    Plain,
}

/// A new file for reading and writing, which was not there.
pub(crate) fn create(counts: &Counts, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    counts.call();
    let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::open(path, how, mode)?)
}

pub(crate) fn open_readable(counts: &Counts, path: &Path) -> io::Result<OwnedFd> {
    counts.call();
    Ok(fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A file to which is only appended, made if it was not there; no link, and this user's own.
pub(crate) fn append_to(counts: &Counts, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let how = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    counts.call();
    let fd = fs::open(path, how | OFlags::NONBLOCK, mode)?;
    let stat = stat(counts, fd.as_fd())?;
    let is_file = fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::RegularFile;
    if !is_file || stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_nlink != 1 {
        return Err(io::Error::other("the file is somebody else's, or no file"));
    }
    Ok(fd)
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic_nanoseconds(counts: &Counts) -> u64 {
    counts.call();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `now`, and nothing else; the clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The kernel's number of this thread.
pub(crate) fn thread_number(counts: &Counts) -> u32 {
    counts.call();
    // SAFETY: returns a number, and does nothing else.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

pub(crate) fn unlink(counts: &Counts, path: &Path) -> io::Result<()> {
    counts.call();
    Ok(fs::unlink(path)?)
}

pub(crate) fn stat(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<fs::Stat> {
    counts.call();
    Ok(fs::fstat(fd)?)
}

/// Past RLIMIT_FSIZE that is an error; the kernel would send SIGXFSZ.
pub(crate) fn set_len(counts: &Counts, fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    counts.call();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|limit| len > limit) {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    counts.call();
    Ok(fs::ftruncate(fd, len)?)
}

/// Gives the range memory of its own, so that touching it cannot fail later.
pub(crate) fn allocate(counts: &Counts, fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    counts.call();
    Ok(fs::fallocate(fd, FallocateFlags::empty(), at, len)?)
}

/// Takes the range's memory away: it reads as zeros.
pub(crate) fn punch(counts: &Counts, fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    counts.call();
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fs::fallocate(fd, how, at, len)?)
}

/// Writes all of it.
pub(crate) fn write_at(
    counts: &Counts,
    fd: BorrowedFd<'_>,
    mut bytes: &[u8],
    mut at: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        counts.call();
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                at += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

pub(crate) fn seal_file(counts: &Counts, fd: BorrowedFd<'_>, seals: SealFlags) -> io::Result<()> {
    counts.call();
    Ok(fs::fcntl_add_seals(fd, seals)?)
}

/// What PR_SET_MDWE has set for this process (Linux 6.3).
pub(crate) fn mdwe(counts: &Counts) -> io::Result<u32> {
    const PR_GET_MDWE: libc::c_int = 66;
    counts.call();
    // SAFETY: returns a number, and does nothing else.
    let ret = unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) };
    u32::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// Whether seccomp and security modules let a page be mapped writable and executable, without
/// mapping one: where `taken` is mapped already, all they have to say is said before the kernel
/// finds that there is no room. What PR_SET_MDWE says comes later, and is not asked.
///
/// # Safety
///
/// `taken` is mapped.
pub(crate) unsafe fn ask_for_writable_code(counts: &Counts, taken: *mut u8) -> io::Result<()> {
    counts.call();
    let len = page_size();
    let prot = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    match unsafe { mm::mmap_anonymous(taken.cast(), len, prot, flags) } {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
        Ok(page) => {
            // Linux before 4.17 takes the address for a hint.
            // SAFETY: a new page, which nobody knows.
            unsafe { unmap(counts, page.cast(), len) }
        }
    }
}

/// The first bytes of a file of the kernel's, at most 4 KiB.
pub(crate) fn read_text(counts: &Counts, path: &Path) -> io::Result<String> {
    read_at_most(counts, path, 4096)
}

/// All of a file of the kernel's.
pub(crate) fn read_all(counts: &Counts, path: &Path) -> io::Result<String> {
    read_at_most(counts, path, usize::MAX)
}

fn read_at_most(counts: &Counts, path: &Path, most: usize) -> io::Result<String> {
    let file = open_readable(counts, path)?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while bytes.len() < most {
        counts.call();
        let want = part.len().min(most - bytes.len());
        match rustix::io::read(&file, &mut part[..want]) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path under which a descriptor of this process can be opened once more.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Bytes of a page. Asked of the C library, which was told when the program started: others read
/// /proc, which may not be there.
pub(crate) fn page_size() -> usize {
    // SAFETY: returns a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
