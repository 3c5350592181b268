//! The calls of `linux/trampfd.h`, the only place that makes them.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use trampfd_sys::{
    TRAMPFD_CLEAR, TRAMPFD_INFO, TRAMPFD_OFF_DATA, TRAMPFD_SEAL, TRAMPFD_SEAL_ALL, TRAMPFD_SET,
    TRAMPFD_SET_STRIDED, TRAMPFD_TABLE_SIZE, off_code, trampfd_clear, trampfd_info, trampfd_seal,
    trampfd_set, trampfd_slot,
};

use crate::sys;

/// The node of the device.
const PATH: &CStr = c"/dev/trampfd";

/// An open trampfd device.
///
/// # Invariants
///
/// `fd` referred to a character device with `identity` when it was opened. A program may close
/// fds that are not its own, and the number may name something else by now: each use looks first.
#[derive(Debug)]
pub(crate) struct Device {
    fd: RawFd,
    identity: sys::Identity,
}

impl Device {
    /// Opens the device.
    pub(crate) fn open() -> io::Result<Device> {
        let fd = sys::open(PATH)?;
        match sys::identity(fd) {
            Ok(identity) if identity.device => Ok(Device { fd, identity }),
            Ok(_) => {
                sys::close(fd);
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a character device"))
            }
            Err(error) => {
                sys::close(fd);
                Err(error)
            }
        }
    }

    /// The fd, if it is still the device; else the device is opened anew. What the number names
    /// by now is somebody else's and stays as it is.
    fn fd(&mut self) -> io::Result<RawFd> {
        if !sys::identity(self.fd).is_ok_and(|now| now == self.identity) {
            *self = Device::open()?;
        }
        Ok(self.fd)
    }

    /// Closes the fd, if it is still the device.
    pub(crate) fn close(self) {
        if sys::identity(self.fd).is_ok_and(|now| now == self.identity) {
            sys::close(self.fd);
        }
    }

    /// Whether the device lies on a mount with the option noexec.
    pub(crate) fn noexec(&self) -> bool {
        sys::noexec(self.fd)
    }

    /// `TRAMPFD_INFO`.
    pub(crate) fn info(&mut self) -> io::Result<trampfd_info> {
        let mut info = trampfd_info { size: size_of::<trampfd_info>() as u32, ..zeroed_info() };
        // SAFETY: the struct of this command, which the kernel fills.
        unsafe { self.call(TRAMPFD_INFO, (&raw mut info).cast())? };
        Ok(info)
    }

    /// Maps the data view of a table to be at `start`.
    ///
    /// # Safety
    ///
    /// Two table sizes from `start` are a reservation of the caller that nothing refers to.
    pub(crate) unsafe fn map_data(&mut self, start: usize) -> io::Result<()> {
        let fd = self.fd()?;
        let len = TRAMPFD_TABLE_SIZE;
        // SAFETY: the caller's reservation.
        unsafe { sys::map_over(start + len, len, libc::PROT_READ, fd, TRAMPFD_OFF_DATA) }
    }

    /// Maps the code view of the table at `start`, after its data view.
    ///
    /// # Safety
    ///
    /// As for [`Device::map_data`].
    pub(crate) unsafe fn map_code(&mut self, start: usize, reg: u16) -> io::Result<()> {
        let fd = self.fd()?;
        let prot = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: the caller's reservation. Should another thread have put a different file
        // under this number just now, no stub in it is ever handed out: SET refuses its address.
        unsafe { sys::map_over(start, TRAMPFD_TABLE_SIZE, prot, fd, off_code(reg)) }
    }

    /// `TRAMPFD_SET` of `count` slots from `stub` on, with data that goes on by `data_stride`.
    pub(crate) fn set_run(
        &mut self,
        stub: usize,
        count: u32,
        code: usize,
        data: usize,
        data_stride: usize,
    ) -> io::Result<()> {
        let mut set = trampfd_set {
            size: size_of::<trampfd_set>() as u32,
            flags: TRAMPFD_SET_STRIDED,
            count,
            bad: 0,
            entries: 0,
            stub: stub as u64,
            code: code as u64,
            data: data as u64,
            data_stride: data_stride as u64,
        };
        // SAFETY: the struct of this command; user space memory is only read.
        unsafe { self.call(TRAMPFD_SET, (&raw mut set).cast()) }
    }

    /// `TRAMPFD_SET` of the slots in `entries`.
    pub(crate) fn set(&mut self, entries: &[trampfd_slot]) -> io::Result<()> {
        let mut set = trampfd_set {
            size: size_of::<trampfd_set>() as u32,
            flags: 0,
            count: entries.len() as u32,
            bad: 0,
            entries: entries.as_ptr().expose_provenance() as u64,
            stub: 0,
            code: 0,
            data: 0,
            data_stride: 0,
        };
        // SAFETY: the struct of this command; the entries are only read.
        unsafe { self.call(TRAMPFD_SET, (&raw mut set).cast()) }
    }

    /// `TRAMPFD_CLEAR` of these stubs' slots, which lie in one table.
    pub(crate) fn clear(&mut self, stubs: &[u64]) -> io::Result<()> {
        let mut clear = trampfd_clear {
            size: size_of::<trampfd_clear>() as u32,
            flags: 0,
            count: stubs.len() as u32,
            bad: 0,
            entries: stubs.as_ptr().expose_provenance() as u64,
            stub: 0,
        };
        // SAFETY: the struct of this command; the entries are only read.
        unsafe { self.call(TRAMPFD_CLEAR, (&raw mut clear).cast()) }
    }

    /// `TRAMPFD_SEAL_ALL`.
    pub(crate) fn seal_all(&mut self) -> io::Result<()> {
        let mut seal = trampfd_seal {
            size: size_of::<trampfd_seal>() as u32,
            flags: TRAMPFD_SEAL_ALL,
            stub: 0,
        };
        // SAFETY: the struct of this command.
        unsafe { self.call(TRAMPFD_SEAL, (&raw mut seal).cast()) }
    }

    /// # Safety
    ///
    /// `arg` is the struct of command `nr`, and what it points to is what that command wants.
    unsafe fn call(&mut self, nr: u32, arg: *mut libc::c_void) -> io::Result<()> {
        let fd = self.fd()?;
        // SAFETY: by the contract of this function; `fd` is the device.
        match unsafe { libc::ioctl(fd, nr as libc::Ioctl, arg) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn zeroed_info() -> trampfd_info {
    // SAFETY: a struct of integers.
    unsafe { core::mem::zeroed() }
}
