//! The process's own mappings. Reads without allocation, since memory may be what is lacking.

use std::ffi::CStr;
use std::io;

/// Environment variable with the number of an fd of /proc, for those who cannot see it.
const PROC: &CStr = c"TRAMPFD_PROC";

/// The first row that is writable and executable.
pub(crate) fn writable_text() -> io::Result<Option<String>> {
    let fd = open()?;
    let found = scan(fd);
    // SAFETY: opened here.
    unsafe { libc::close(fd) };
    found
}

fn open() -> io::Result<i32> {
    // SAFETY: C strings; the environment is not changed by this program.
    let fd = unsafe {
        let folder = libc::getenv(PROC.as_ptr());
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let through = match folder.is_null() {
            true => -1,
            false => libc::openat(libc::atoi(folder), c"self/maps".as_ptr(), flags),
        };
        if through >= 0 { through } else { libc::open(c"/proc/self/maps".as_ptr(), flags) }
    };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn scan(fd: i32) -> io::Result<Option<String>> {
    let mut buffer = [0u8; 8192];
    let mut filled = 0;
    let mut rows = 0;
    loop {
        let room = &mut buffer[filled..];
        // SAFETY: reads into the buffer.
        let n = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        filled += n as usize;
        let mut start = 0;
        while let Some(len) = buffer[start..filled].iter().position(|&b| b == b'\n') {
            let row = &buffer[start..start + len];
            // "start-end rwxp ..."
            let mode = row.iter().position(|&b| b == b' ').and_then(|at| row.get(at + 1..at + 5));
            let Some(mode) = mode else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a row without a mode"));
            };
            if mode[1] == b'w' && mode[2] == b'x' {
                return Ok(Some(String::from_utf8_lossy(row).into_owned()));
            }
            rows += 1;
            start += len + 1;
        }
        if n == 0 {
            break;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
    // This code itself is a row.
    if rows == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) }
}
