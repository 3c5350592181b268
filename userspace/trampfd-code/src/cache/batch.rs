//! A mapped batch.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::format::{self, Contents};
use super::{Error, arch};
use crate::sys::{self, At, Prot};
use crate::vm::{self, Meter};

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
    mappings: isize,
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
        meter: &Meter,
    ) -> Result<Batch, Error> {
        let counts = meter.counts();
        let layout = contents.layout;
        let no_room = |error| vm::Error::System { what: "reserving address space", error };
        let view = |at, len, prot, from: usize| {
            // SAFETY: pages of the reservation below, which nobody knows yet.
            unsafe { sys::map_file(counts, at, len, prot, false, fd, from as u64) }
        };
        // Code alone needs no reservation.
        let alone = layout.len == layout.constants;
        let base = match alone {
            true => view(At::Anywhere, layout.constants, Prot::ReadExecute, contents.code_at)
                .map_err(refused)?,
            // SAFETY: nothing is replaced.
            false => unsafe { sys::map_nothing(counts, At::Anywhere, layout.len, Prot::ReadWrite) }
                .map_err(no_room)?,
        };
        let mut batch = Batch {
            base,
            len: layout.len,
            got: layout.got,
            slots: contents.slots.len(),
            mappings: 1,
            meter: meter.clone(),
        };
        counts.mapped(1, layout.len as isize);
        if alone {
            return Ok(batch);
        }
        view(At::Over(base), layout.constants, Prot::ReadExecute, contents.code_at)
            .map_err(refused)?;
        batch.note(1);
        let constants = layout.got - layout.constants;
        if constants > 0 {
            let at = At::Over(base.wrapping_add(layout.constants));
            view(at, constants, Prot::Read, contents.code_at + layout.constants)
                .map_err(|error| vm::Error::System { what: "mapping constants", error })?;
            // All of the reservation is replaced where there is no GOT.
            batch.note(if layout.got < layout.len { 1 } else { 0 });
        }
        for group in 0..format::groups(batch.slots) {
            let at = group * format::GROUP;
            batch.word(at).store(arch::enter as *const () as usize, Ordering::Relaxed);
            batch.word(at + size_of::<usize>()).store(cache, Ordering::Relaxed);
        }
        Ok(batch)
    }

    fn note(&mut self, more: isize) {
        self.mappings += more;
        self.meter.counts().mapped(more, 0);
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
    pub(super) fn protect(&self, read_only: bool) -> Result<(), Error> {
        let len = self.len - self.got;
        if len == 0 {
            return Ok(());
        }
        let prot = if read_only { Prot::Read } else { Prot::ReadWrite };
        // SAFETY: pages of this value's.
        unsafe { sys::protect(self.meter.counts(), self.base.wrapping_add(self.got), len, prot) }
            .map_err(|error| vm::Error::System { what: "protecting the GOT", error })?;
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
        let counts = self.meter.counts();
        // SAFETY: pages of this value's; who drops it answers for nobody using them.
        let gone = unsafe { sys::unmap(counts, self.base, self.len) };
        if gone.is_ok() {
            counts.mapped(-self.mappings, -(self.len as isize));
        }
    }
}

fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::NotExecutable(error),
        _ => vm::Error::System { what: "mapping code", error }.into(),
    }
}
