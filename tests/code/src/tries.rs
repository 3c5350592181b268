//! What a policy answers to the calls that code memory needs: asked of the kernel past the
//! library, so that a policy that forbids nothing is seen.

use std::ffi::CStr;
use std::io;
use std::ptr::null_mut;

/// What is tried, in order.
pub const NAMES: &str = "memfd, MFD_EXEC, MFD_NOEXEC_SEAL, /tmp, /dev/shm, W+X, /proc";

const PAGE: usize = 4096;
const MFD_NOEXEC_SEAL: libc::c_uint = 8;
const MFD_EXEC: libc::c_uint = 0x10;

/// For each of [`NAMES`] 0 or the name of its errno.
pub fn answers() -> String {
    let answers = [
        memfd(0),
        memfd(MFD_EXEC),
        memfd(MFD_NOEXEC_SEAL),
        file_in(c"/tmp"),
        file_in(c"/dev/shm"),
        writable_and_executable(),
        open(c"/proc/self/maps", libc::O_RDONLY).map(drop),
    ];
    let words = answers.map(|answer| match answer.err().and_then(|e| e.raw_os_error()) {
        None => "0".to_owned(),
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::EACCES) => "EACCES".into(),
        Some(libc::ENOENT) => "ENOENT".into(),
        Some(libc::ENOSYS) => "ENOSYS".into(),
        Some(other) => other.to_string(),
    });
    words.join(" ")
}

fn number(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn open(path: &CStr, flags: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: a C string.
    number(unsafe { libc::open(path.as_ptr(), flags, 0o600) })
}

fn map(prot: libc::c_int, flags: libc::c_int, fd: libc::c_int) -> io::Result<()> {
    // SAFETY: a new mapping.
    let page = unsafe { libc::mmap(null_mut(), PAGE, prot, flags, fd, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Made, and mapped as any file may be.
fn memfd(flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: a C string.
    let fd = number(unsafe { libc::memfd_create(c"tries".as_ptr(), flags) })?;
    // SAFETY: a new file.
    number(unsafe { libc::ftruncate(fd, PAGE as libc::off_t) })?;
    map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, fd)
}

fn file_in(folder: &CStr) -> io::Result<()> {
    let fd = open(folder, libc::O_TMPFILE | libc::O_RDWR)?;
    // SAFETY: a new file.
    number(unsafe { libc::ftruncate(fd, PAGE as libc::off_t) })?;
    map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, fd)
}

fn writable_and_executable() -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    map(prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
}
