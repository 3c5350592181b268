//! The system calls that std has no name for, and all `unsafe` of this crate.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

fn check(result: libc::c_long) -> Result<()> {
    if result == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(Error::from)
}

/// Mounts a file system of type `kind` on `place`.
pub fn mount(kind: &str, place: &str, options: &str) -> Result<()> {
    let (kind, place, options) = (c_string(kind)?, c_string(place)?, c_string(options)?);
    // SAFETY: the strings end in zero and outlive the call, which only reads them.
    check(libc::c_long::from(unsafe {
        libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    }))
}

/// Loads the kernel module in `path`.
pub fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // SAFETY: the file is open and the parameters are an empty string.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) })
}

/// Unloads the kernel module `name`; does not wait where it is in use.
pub fn unload_module(name: &str) -> Result<()> {
    let name = c_string(name)?;
    // SAFETY: the string ends in zero and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
}

/// A private, readable mapping of a file's start, until dropped.
///
/// # Invariants
/// `start` and `len` are a mapping made by mmap that nothing else knows of.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    pub fn of(file: &File, len: usize) -> Result<Self> {
        // SAFETY: without MAP_FIXED a new mapping takes nobody's memory.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the mapping is ours alone.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Kills every process but this one, and waits for those that are our children
/// by now. Returns how many were there.
pub fn kill_all() -> usize {
    // SAFETY: kill touches no memory; as PID 1 we are not among those meant.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    let mut reaped = 0;
    // SAFETY: waitpid without a status writes nothing.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::__WALL) } > 0 {
        reaped += 1;
    }
    reaped
}

/// Kills the process group `group`.
pub fn kill_group(group: u32) {
    if let Ok(group) = libc::pid_t::try_from(group) {
        // SAFETY: kill touches no memory.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Takes what the line discipline would add or change off a serial port.
pub fn make_raw(port: &File) -> Result<()> {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the port is open and tcgetattr writes one termios.
    check(libc::c_long::from(unsafe { libc::tcgetattr(port.as_raw_fd(), settings.as_mut_ptr()) }))?;
    // SAFETY: tcgetattr succeeded, so it has written all of it.
    let mut settings = unsafe { settings.assume_init() };
    // SAFETY: `settings` is a termios of ours.
    unsafe { libc::cfmakeraw(&mut settings) };
    // SAFETY: the port is open and tcsetattr only reads the settings.
    check(libc::c_long::from(unsafe {
        libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &settings)
    }))
}

/// Waits until everything written to a serial port has left it.
pub fn drain(port: &File) -> Result<()> {
    // SAFETY: tcdrain touches no memory.
    check(libc::c_long::from(unsafe { libc::tcdrain(port.as_raw_fd()) }))
}

/// Makes `file` our stdin, stdout and stderr.
pub fn become_stdio(file: &File) -> Result<()> {
    for number in 0..3 {
        // SAFETY: the numbers of std's streams stay open, on another file.
        check(libc::c_long::from(unsafe { libc::dup2(file.as_raw_fd(), number) }))?;
    }
    Ok(())
}

/// Switches the loopback device on.
pub fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain data, all zeroes is one.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq with name and flags, which this is.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))
}

/// Switches the machine off. Returns only where that is impossible.
pub fn power_off() -> Error {
    // SAFETY: sync and reboot touch no memory of ours.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    Error::last_os_error()
}
