//! That every policy really forbids something: a program that tries, and knows what each policy
//! answers. Without a policy everything succeeds, so a refusal is the policy's.

use std::ffi::CStr;
use std::io;
use std::ptr::null_mut;

use libc::{EACCES, ENOENT, EPERM, c_int};

use crate::policy::{POLICIES, check};

/// One thing to try, and the errno (0: it is allowed) of each of [`POLICIES`], in order.
type Attempt = (&'static str, fn() -> io::Result<()>, [c_int; POLICIES.len()]);

#[rustfmt::skip]
const ATTEMPTS: [Attempt; 13] = [
    //                                               none mdwe    sec    memfd   tmp    proc    dev    chroot  landlk  nowx    strict
    ("map memory writable and executable", map_wx,     [0, EACCES, EPERM, 0,      0,     0,      0,     0,      0,      EPERM,  EPERM]),
    ("make written memory executable", protect,        [0, EACCES, EPERM, 0,      0,     0,      0,     0,      0,      EPERM,  EPERM]),
    ("the same by pkey_mprotect", pkey_protect,        [0, EACCES, EPERM, 0,      0,     0,      0,     0,      0,      EPERM,  EPERM]),
    ("attach shared memory executable", attach,        [0, EACCES, EPERM, 0,      0,     0,      0,     0,      0,      EPERM,  EPERM]),
    ("map anonymous memory executable", map_x,         [0, 0,      0,     0,      0,     0,      0,     0,      0,      0,      EPERM]),
    ("map a memfd executable", memfd,                  [0, 0,      0,     0,      0,     0,      0,     0,      0,      0,      EPERM]),
    ("make an executable memfd", executable_memfd,     [0, 0,      0,     EACCES, 0,     0,      0,     0,      0,      EACCES, EPERM]),
    ("map a file in /tmp executable", file_in_tmp,     [0, 0,      0,     0,      EPERM, 0,      0,     ENOENT, EACCES, EPERM,  0]),
    ("map a file in /dev/shm executable", file_in_shm, [0, 0,      0,     0,      EPERM, 0,      EPERM, ENOENT, EACCES, EPERM,  0]),
    ("open /proc/self/maps", open_maps,                [0, 0,      0,     0,      0,     ENOENT, 0,     ENOENT, 0,      0,      0]),
    ("map /dev/zero executable", map_zero,             [0, 0,      0,     0,      0,     0,      EPERM, ENOENT, 0,      0,      0]),
    ("list /tmp", list_tmp,                            [0, 0,      0,     0,      0,     0,      0,     ENOENT, EACCES, 0,      0]),
    ("write to /dev/null", write_null,                 [0, 0,      0,     0,      0,     0,      0,     ENOENT, EACCES, 0,      0]),
];

const PAGE: usize = 4096;
const R_X: c_int = libc::PROT_READ | libc::PROT_EXEC;
const R_W: c_int = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// A new mapping of a page, at an address of the kernel's choice.
fn map(prot: c_int, flags: c_int, fd: c_int) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new mapping.
    let p = unsafe { libc::mmap(null_mut(), PAGE, prot, flags, fd, 0) };
    if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p) }
}

fn map_wx() -> io::Result<()> {
    map(R_W | R_X, ANONYMOUS, -1).map(drop)
}

fn map_x() -> io::Result<()> {
    map(R_X, ANONYMOUS, -1).map(drop)
}

fn protect() -> io::Result<()> {
    let p = map(R_W, ANONYMOUS, -1)?;
    // SAFETY: the mapping was just made.
    check(unsafe { libc::mprotect(p, PAGE, R_X) })
}

fn pkey_protect() -> io::Result<()> {
    let p = map(R_W, ANONYMOUS, -1)?;
    // SAFETY: the mapping was just made.
    check(unsafe { libc::syscall(libc::SYS_pkey_mprotect, p, PAGE, R_X, -1) } as c_int)
}

fn attach() -> io::Result<()> {
    // SAFETY: a new segment, marked for removal once nobody is attached, which is at the end.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, PAGE, libc::IPC_CREAT | 0o700);
        check(id)?;
        let p = libc::shmat(id, null_mut(), libc::SHM_EXEC);
        let error = io::Error::last_os_error();
        libc::shmctl(id, libc::IPC_RMID, null_mut());
        if p as isize == -1 { Err(error) } else { Ok(()) }
    }
}

fn new_memfd(flags: libc::c_uint) -> io::Result<c_int> {
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"probe".as_ptr(), flags) };
    check(fd)?;
    // SAFETY: a new file.
    check(unsafe { libc::ftruncate(fd, PAGE as libc::off_t) })?;
    Ok(fd)
}

fn memfd() -> io::Result<()> {
    map(R_X, libc::MAP_PRIVATE, new_memfd(0)?).map(drop)
}

fn executable_memfd() -> io::Result<()> {
    const MFD_EXEC: libc::c_uint = 0x10;
    match new_memfd(MFD_EXEC) {
        // Before Linux 6.3 every memfd was.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => new_memfd(0).map(drop),
        made => made.map(drop),
    }
}

fn map_file(folder: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    let fd = unsafe { libc::open(folder.as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o700) };
    check(fd)?;
    map(R_X, libc::MAP_PRIVATE, fd).map(drop)
}

fn file_in_tmp() -> io::Result<()> {
    map_file(c"/tmp")
}

fn file_in_shm() -> io::Result<()> {
    map_file(c"/dev/shm")
}

fn open(path: &CStr) -> io::Result<c_int> {
    // SAFETY: a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
    check(fd)?;
    Ok(fd)
}

fn open_maps() -> io::Result<()> {
    open(c"/proc/self/maps").map(drop)
}

fn map_zero() -> io::Result<()> {
    map(R_X, libc::MAP_PRIVATE, open(c"/dev/zero")?).map(drop)
}

fn list_tmp() -> io::Result<()> {
    open(c"/tmp").map(drop)
}

fn write_null() -> io::Result<()> {
    // SAFETY: a C string.
    check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) })
}

/// Tries everything, in a process that is under `policy`; what was answered otherwise than
/// expected.
pub fn surprises(policy: &str) -> Vec<String> {
    let Some(column) = POLICIES.iter().position(|p| *p == policy) else {
        return vec![format!("there is no policy {policy}")];
    };
    let mut surprises = Vec::new();
    for (what, attempt, expected) in &ATTEMPTS {
        let errno = attempt().err().map_or(0, |e| e.raw_os_error().unwrap_or(-1));
        if errno != expected[column] {
            surprises.push(format!("{what}: errno {errno}, not {}", expected[column]));
        }
    }
    let forbids = ATTEMPTS.iter().any(|(_, _, expected)| expected[column] != 0);
    if forbids == (policy == "none") {
        surprises.push(format!("the table has no refusal of {policy}"));
    }
    surprises
}
