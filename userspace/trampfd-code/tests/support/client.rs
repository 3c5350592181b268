//! What makes code under a policy, in a process that the rows of tests/code look at: how it ends,
//! and what it looks at itself.

use std::error::Error;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::FromRawFd;
use std::process::ExitCode;

use trampfd_code::vm;

/// What comes out of one.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Exit status of who says that there is no executable memory.
pub const NO_MEMORY: u8 = 3;

/// Runs `work`, and says how it ended: by the status, and the error with its causes.
pub fn run(work: impl FnOnce() -> Result) -> ExitCode {
    let result = work().and_then(|()| Ok(nothing_is_writable_and_executable()?));
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("because: {error}");
        cause = error.source();
    }
    if says_no_memory(error.as_ref()) { ExitCode::from(NO_MEMORY) } else { ExitCode::FAILURE }
}

/// Whether one of the causes of an error is that there is no executable memory.
fn says_no_memory(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(vm::Error::NoExecutableMemory(attempts)) = error.downcast_ref() {
            return !attempts.is_empty();
        }
        cause = error.source();
    }
    false
}

/// Looks at this process's mappings: where the launcher of a policy has left a descriptor of
/// /proc open for that, by that one.
pub fn nothing_is_writable_and_executable() -> io::Result<()> {
    let mut text = String::new();
    match std::env::var("TRAMPFD_PROC") {
        Err(_) => drop(File::open("/proc/self/maps")?.read_to_string(&mut text)?),
        Ok(number) => match open_in(number.parse().map_err(io::Error::other)?, c"self/maps") {
            Ok(mut maps) => drop(maps.read_to_string(&mut text)?),
            // The launcher itself was started where there is none.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBADF)) => {}
            Err(error) => return Err(error),
        },
    }
    match text.lines().find(|line| line.contains(" rwx")) {
        Some(row) => Err(io::Error::other(format!("writable and executable: {row}"))),
        None => Ok(()),
    }
}

fn open_in(folder: i32, path: &CStr) -> io::Result<File> {
    // SAFETY: a C string.
    let fd = unsafe { libc::openat(folder, path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { File::from_raw_fd(fd) })
}
