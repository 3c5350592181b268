//! Files in a folder, by a descriptor of the folder: nobody can put another in its place.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{self, Path, PathBuf};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, RawDir, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::ioctl::{self, Updater, opcode};

use super::Counts;

pub(crate) use rustix::fs::{FileType, Stat};

/// A file's permission bits.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

pub(crate) fn user(counts: &Counts) -> u32 {
    counts.call();
    rustix::process::geteuid().as_raw()
}

/// The same path from the root on.
pub(crate) fn absolute(counts: &Counts, path: &Path) -> io::Result<PathBuf> {
    if path.is_relative() {
        counts.call();
    }
    path::absolute(path)
}

/// For nobody but this user. `false`: something of that name is there.
pub(crate) fn make_folder(counts: &Counts, path: &Path) -> io::Result<bool> {
    counts.call();
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A folder, and no symbolic link to one.
pub(crate) fn open_folder(counts: &Counts, path: &Path) -> io::Result<OwnedFd> {
    counts.call();
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::open(path, how, Mode::empty())?)
}

/// A file for reading: no symbolic link; a pipe is opened without waiting for its other end.
pub(crate) fn open_in(counts: &Counts, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    counts.call();
    let how =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(fs::openat(folder, name, how, Mode::empty())?)
}

/// A new file for reading and writing, which was not there, for this user alone.
pub(crate) fn create_in(
    counts: &Counts,
    folder: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<OwnedFd> {
    counts.call();
    let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(folder, name, how, Mode::RUSR | Mode::WUSR)?)
}

pub(crate) fn stat_in(counts: &Counts, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    counts.call();
    Ok(fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes a file, or with `is_folder` an empty folder.
pub(crate) fn unlink_in(
    counts: &Counts,
    folder: BorrowedFd<'_>,
    name: &CStr,
    is_folder: bool,
) -> io::Result<()> {
    counts.call();
    let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    Ok(fs::unlinkat(folder, name, flags)?)
}

pub(crate) fn rename_in(
    counts: &Counts,
    folder: BorrowedFd<'_>,
    from: &CStr,
    to: &CStr,
) -> io::Result<()> {
    counts.call();
    Ok(fs::renameat(folder, from, folder, to)?)
}

/// The names in a folder, but for `.` and `..`.
pub(crate) fn list(counts: &Counts, folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    counts.call();
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = fs::openat(folder, c".", how, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(&own, &mut buffer);
    let mut names = Vec::new();
    loop {
        if entries.is_buffer_empty() {
            counts.call();
        }
        match entries.next() {
            None => return Ok(names),
            Some(Err(Errno::INTR)) => {}
            Some(entry) => {
                let name = entry?.file_name().to_owned();
                if ![c".", c".."].contains(&&*name) {
                    names.push(name);
                }
            }
        }
    }
}

/// Reads into `bytes`, which is empty, until it has `len` or the file ends.
pub(crate) fn read(
    counts: &Counts,
    fd: BorrowedFd<'_>,
    len: usize,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while bytes.len() < len {
        counts.call();
        let at = bytes.len() as u64;
        match rustix::io::pread(fd, rustix::buffer::spare_capacity(bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    bytes.truncate(len);
    Ok(())
}

pub(crate) fn only_readable(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<()> {
    counts.call();
    Ok(fs::fchmod(fd, Mode::RUSR)?)
}

pub(crate) fn sync(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<()> {
    counts.call();
    Ok(fs::fsync(fd)?)
}

/// Locks a file as long as the descriptor is open. `false`: somebody else has it locked.
pub(crate) fn lock(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<bool> {
    counts.call();
    match fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The file was used now.
pub(crate) fn touch(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<()> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    counts.call();
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times =
        Timestamps { last_access: time(UTIME_NOW as _), last_modification: time(UTIME_OMIT as _) };
    Ok(fs::futimens(fd, &times)?)
}

/// Makes a file unchangeable. Nobody may have it open for writing.
pub(crate) fn enable_verity(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<()> {
    /// struct fsverity_enable_arg of linux/fsverity.h.
    #[repr(C)]
    struct Enable {
        version: u32,
        hash_algorithm: u32,
        block_size: u32,
        salt_size: u32,
        salt: u64,
        sig_size: u32,
        reserved1: u32,
        signature: u64,
        reserved2: [u64; 11],
    }
    const OPCODE: ioctl::Opcode = opcode::write::<Enable>(b'f', 133);
    const SHA256: u32 = 1;
    counts.call();
    let how = Enable {
        version: 1,
        hash_algorithm: SHA256,
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        sig_size: 0,
        reserved1: 0,
        signature: 0,
        reserved2: [0; 11],
    };
    // SAFETY: FS_IOC_ENABLE_VERITY reads this structure.
    Ok(unsafe { ioctl::ioctl(fd, ioctl::Setter::<OPCODE, Enable>::new(how)) }?)
}

/// Succeeds if a file is unchangeable.
pub(crate) fn has_verity(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<()> {
    /// struct fsverity_digest of linux/fsverity.h, whose last member has no length there.
    #[repr(C)]
    struct Digest {
        algorithm: u16,
        size: u16,
        digest: [u8; 64],
    }
    const OPCODE: ioctl::Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);
    counts.call();
    let mut digest = Digest { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: FS_IOC_MEASURE_VERITY writes at most `size` bytes of digest.
    Ok(unsafe { ioctl::ioctl(fd, Updater::<OPCODE, Digest>::new(&mut digest)) }?)
}

/// A second descriptor of what `name` is, if it is the same file as `fd`.
pub(crate) fn reopen_in(
    counts: &Counts,
    folder: BorrowedFd<'_>,
    name: &CStr,
    fd: &OwnedFd,
) -> io::Result<OwnedFd> {
    let again = open_in(counts, folder, name)?;
    let (one, two) = (super::stat(counts, fd.as_fd())?, super::stat(counts, again.as_fd())?);
    if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) {
        Ok(again)
    } else {
        Err(io::Error::other("the file was replaced while it was written"))
    }
}
