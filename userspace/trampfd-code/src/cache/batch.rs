//! A mapped batch.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::format::{self, Contents};
use super::room::{Rooms, Share};
use super::{Error, arch};
use crate::sys::{self, At, Prot};
use crate::vm::{self, Access, Meter};

/// A mapped batch: code R-X, constants R, private views of the file, and the batch's part of the
/// GOT.
///
/// # Invariants
///
/// `[base, base + len)` is mapped, by this value alone, until it is dropped. From `got` on it is
/// private memory, all of it whole groups of words, which are touched as atomic words only;
/// writable but where `protected` says that it is read-only.
#[derive(Debug)]
pub(super) struct Batch {
    base: *mut u8,
    len: usize,
    got: usize,
    slots: usize,
    /// `None`: code alone, which needs no GOT beside it.
    share: Option<Share>,
    /// Whether the GOT is read-only now.
    protected: bool,
    meter: Meter,
}

// SAFETY: it is addresses, and words that are touched atomically.
unsafe impl Send for Batch {}

impl Batch {
    /// Maps what the file behind `fd` has, whose slots are empty until they are set. The
    /// resolver is called with `cache`.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        contents: &Contents,
        cache: usize,
        rooms: &Rooms,
        meter: &Meter,
    ) -> Result<Batch, Error> {
        let layout = contents.layout;
        let (code, constants) = (layout.constants, layout.got - layout.constants);
        let mut batch = Batch {
            base: std::ptr::null_mut(),
            len: layout.len,
            got: layout.got,
            slots: contents.slots.len(),
            share: None,
            protected: false,
            meter: meter.clone(),
        };
        if layout.len == code {
            // SAFETY: new pages.
            batch.base = unsafe {
                let (counts, how) = (meter.counts(), Prot::ReadExecute);
                sys::map_file(counts, At::Anywhere, code, how, false, fd, contents.code_at as u64)
            }
            .map_err(refused)?;
            meter.counts().mapped(1, code as isize);
            return Ok(batch);
        }
        let share = rooms.take(layout.len)?;
        batch.base = share.base();
        let share = batch.share.insert(share);
        share.map_file(0, code, fd, contents.code_at, Access::Execute).map_err(|e| match e {
            vm::Error::System { error, .. } => refused(error),
            other => other.into(),
        })?;
        if constants > 0 {
            share.map_file(code, constants, fd, contents.code_at + code, Access::Read)?;
        }
        for group in 0..format::groups(batch.slots) {
            let at = group * format::GROUP;
            batch.word(at).store(arch::enter as *const () as usize, Ordering::Relaxed);
            batch.word(at + size_of::<usize>()).store(cache, Ordering::Relaxed);
        }
        Ok(batch)
    }

    /// Address of the byte at `at`.
    pub(super) fn address(&self, at: u32) -> usize {
        self.base as usize + at as usize
    }

    /// Bytes of code and constants.
    pub(super) fn bytes(&self) -> usize {
        self.got
    }

    /// Address of a slot.
    pub(super) fn slot(&self, slot: u32) -> usize {
        self.base as usize + self.got + format::slot_at(slot as usize)
    }

    /// From now on calls through the slot go to `address`. The GOT is writable.
    pub(super) fn set(&self, slot: u32, address: usize) {
        assert!((slot as usize) < self.slots, "no such slot");
        self.word(format::slot_at(slot as usize)).store(address, Ordering::Release);
    }

    /// Makes the GOT read-only, or writable again.
    pub(super) fn protect(&mut self, read_only: bool) -> Result<(), Error> {
        let len = self.len - self.got;
        if len == 0 {
            return Ok(());
        }
        let access = if read_only { Access::Read } else { Access::Write };
        let Some(share) = &self.share else { return Ok(()) };
        share.protect(self.got, len, access)?;
        self.protected = read_only;
        Ok(())
    }

    fn word(&self, at: usize) -> &AtomicUsize {
        debug_assert!(self.got + at + size_of::<usize>() <= self.len);
        // SAFETY: an aligned word of the GOT, by the invariant: slots and groups that the layout
        // counted lie in it.
        unsafe { &*self.base.wrapping_add(self.got + at).cast::<AtomicUsize>() }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            // A GOT that is read-only becomes memory like the rest.
            share.give_back(if self.protected { self.len } else { self.got });
        } else if !self.base.is_null() {
            let counts = self.meter.counts();
            // SAFETY: pages of this value's; who drops it answers for nobody using them.
            if unsafe { sys::unmap(counts, self.base, self.len) }.is_ok() {
                counts.mapped(-1, -(self.len as isize));
            }
        }
    }
}

fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::NotExecutable(error),
        _ => vm::Error::System { what: "mapping code", error }.into(),
    }
}
