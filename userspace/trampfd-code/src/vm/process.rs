//! Which process this is: a child of fork has its parent's memory, but must not change the
//! parent's code.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

use super::Error;
use crate::sys::{self, At, Counts, Prot};

/// Where the token of this process is. In a page that a child of fork finds empty, once there is
/// one.
static TOKEN: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NOWHERE).cast_mut());
static NOWHERE: AtomicU64 = AtomicU64::new(0);

/// Changes with each fork, never twice the same in one line of descent, and not 0.
#[inline(always)]
pub(crate) fn token() -> u64 {
    // SAFETY: a static, or a word of a page that stays mapped, touched by atomic operations only.
    match unsafe { &*TOKEN.load(Ordering::Acquire) }.load(Ordering::Relaxed) {
        0 => new_token(),
        token => token,
    }
}

/// Where no such page can be had, the process number stands in for it.
#[cold]
fn new_token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    static PAGE: OnceLock<Option<usize>> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        let counts = Counts::default();
        let len = sys::page_size();
        // SAFETY: new pages, which nobody else knows and which stay mapped.
        unsafe {
            let page = sys::map_nothing(&counts, At::Anywhere, len, Prot::ReadWrite).ok()?;
            sys::wipe_in_children(&counts, page, len).ok()?;
            Some(page as usize)
        }
    });
    let Some(page) = *page else { return u64::from(std::process::id()) };
    let word = page as *mut AtomicU64;
    let new = NEXT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: aligned, in that page.
    let set = unsafe { &*word }.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
    TOKEN.store(word, Ordering::Release);
    set.err().unwrap_or(new)
}

/// A descriptor that writes code: closed in children of fork, before they do anything.
#[derive(Debug)]
pub(super) struct WriteFd {
    /// Not dropped in a child, where the number may mean another file.
    fd: ManuallyDrop<OwnedFd>,
    owner: u64,
}

impl WriteFd {
    /// What `make` opens, before any fork can come between.
    pub(super) fn new(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<WriteFd> {
        let fd = open::add(make)?;
        Ok(WriteFd { fd: ManuallyDrop::new(fd), owner: token() })
    }

    /// The descriptor, for who has just made it.
    pub(super) fn as_made(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor, in the process that made it.
    pub(super) fn get(&self) -> Result<BorrowedFd<'_>, Error> {
        if self.owner == token() { Ok(self.fd.as_fd()) } else { Err(Error::OtherProcess) }
    }
}

impl Drop for WriteFd {
    fn drop(&mut self) {
        if self.owner == token() {
            // SAFETY: not used after this.
            open::remove(unsafe { ManuallyDrop::take(&mut self.fd) });
        }
    }
}

/// Calls `act`; until it returns no thread of this process forks, except past the C library. It
/// must not wait for other threads, panic or make a [`WriteFd`].
pub(super) fn without_forks<T>(act: impl FnOnce() -> T) -> T {
    open::lock();
    let result = act();
    open::unlock();
    result
}

/// The numbers of all [`WriteFd`]s.
mod open {
    use core::cell::UnsafeCell;

    use super::{AsRawFd, AtomicBool, Once, Ordering, OwnedFd, RawFd, io};

    /// A spin lock, as the child's handler may use no other: held for a push, a search or a few
    /// system calls, and over each fork.
    struct Open {
        locked: AtomicBool,
        fds: UnsafeCell<Vec<RawFd>>,
    }

    // SAFETY: `fds` is touched only by who has set `locked`.
    unsafe impl Sync for Open {}

    static OPEN: Open = Open { locked: AtomicBool::new(false), fds: UnsafeCell::new(Vec::new()) };

    pub(super) fn lock() {
        while OPEN.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    pub(super) fn unlock() {
        OPEN.locked.store(false, Ordering::Release);
    }

    pub(super) fn add(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: functions of this program. Without memory for it children keep
            // descriptors which the library refuses to use there.
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        });
        lock();
        let made = make();
        if let Ok(fd) = &made {
            // SAFETY: locked.
            unsafe { (*OPEN.fds.get()).push(fd.as_raw_fd()) };
        }
        unlock();
        made
    }

    pub(super) fn remove(fd: OwnedFd) {
        lock();
        // SAFETY: locked.
        let fds = unsafe { &mut *OPEN.fds.get() };
        if let Some(at) = fds.iter().position(|&known| known == fd.as_raw_fd()) {
            fds.swap_remove(at);
        }
        drop(fd);
        unlock();
    }

    extern "C" fn before() {
        lock();
    }

    extern "C" fn in_parent() {
        unlock();
    }

    extern "C" fn in_child() {
        // SAFETY: locked by `before`, in this thread, the only one there is; the numbers are
        // still what they were in the parent.
        unsafe {
            let fds = &mut *OPEN.fds.get();
            for fd in fds.drain(..) {
                libc::close(fd);
            }
        }
        unlock();
    }
}
