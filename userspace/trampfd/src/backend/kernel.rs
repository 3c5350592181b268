//! The kernel service: tables of stubs whose slots only the kernel writes.
//!
//! A reservation for each table, three mappings:
//!
//! ```text
//!   start              + D                 + 2 D
//!   ├─ code view R-X ──┼─ data view R-- ───┼─ cells RW- ─┤      D = TRAMPFD_TABLE_SIZE
//!      stub i             slot i ─────────────► cell i          16 bytes a cell
//! ```
//!
//! Slot i is bound to cell i of its own table, always; the cell holds what the closure captures.
//! So a run of slots can be bound to one target ahead of need, by one call, and making a closure
//! of that kind only fills a cell. Runs start at one slot and double, so that a program with a
//! thousand kinds of closures stays small, and one with a million of a kind makes few calls.
//!
//! A closure that is dropped leaves a slot that can still be called. Such slots wait on a list
//! of at most [`OUTSTANDING`] for one CLEAR of all; only then are they bound again.

use core::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

use trampfd_sys::{TRAMPFD_ABI_VERSION, TRAMPFD_TABLE_SIZE, trampfd_info, trampfd_slot};

use crate::backend::ioctl::Device;
use crate::error::{Backend, Error, Unavailable};
use crate::{fork, sys, unwind};

/// Slots that were freed and can still be called: at most this many in a process.
pub(crate) const OUTSTANDING: usize = 256;
/// Bytes of a cell.
pub(crate) const CELL: usize = 16;
/// Slots bound by one call, at most.
const MAX_RUN: u32 = 1024;
/// Slots of a run that one thread takes for itself, at most.
const MAX_OWN: u32 = 128;
/// Times that SET is asked again when the target's page could not be looked at.
const RETRIES: usize = 16;

/// Bytes from a stub to its slot.
pub(crate) const DISTANCE: usize = TRAMPFD_TABLE_SIZE;

/// What slots are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// The register, as DWARF number.
    pub(crate) reg: u16,
    /// Where the stubs jump.
    pub(crate) code: usize,
}

/// Slots that follow each other in one table, bound and not yet used.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Address of the first stub.
    stub: usize,
    count: u32,
}

/// Bound slots of one kind that belong to no thread.
#[derive(Debug, Default)]
struct Bound {
    runs: Vec<Run>,
    /// Slots bound at the last call.
    last: u32,
}

/// One table.
#[derive(Debug)]
struct Table {
    start: usize,
    reg: u16,
    /// Slots from here on were never bound.
    next: u32,
    /// Slots that were cleared.
    cleared: Vec<u32>,
}

/// Where stubs are in a table.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    stride: usize,
    per_page: usize,
    page: usize,
    slots: u32,
}

impl Geometry {
    const fn new() -> Geometry {
        Geometry { stride: 0, per_page: 0, page: 0, slots: 0 }
    }

    /// Bytes of the cells of one table.
    fn cells(&self) -> usize {
        (self.slots as usize * CELL).next_multiple_of(self.page)
    }

    fn stub(&self, table: &Table, slot: u32) -> usize {
        let slot = slot as usize;
        table.start + slot / self.per_page * self.page + slot % self.per_page * self.stride
    }

    fn slot(&self, table: &Table, stub: usize) -> u32 {
        let at = stub - table.start;
        (at / self.page * self.per_page + at % self.page / self.stride) as u32
    }

    /// The stub behind `stub`.
    fn after(&self, stub: usize) -> usize {
        let next = stub + self.stride;
        if next % self.page / self.stride == self.per_page || next.is_multiple_of(self.page) {
            next.next_multiple_of(self.page)
        } else {
            next
        }
    }
}

/// What the process knows of the service.
#[derive(Debug)]
pub(crate) struct Service {
    device: Option<Device>,
    geometry: Geometry,
    tables: Vec<Table>,
    kinds: BTreeMap<Kind, Bound>,
    /// Stubs of dropped closures that are still bound.
    freed: Vec<u64>,
    sealed: bool,
}

static SERVICE: Mutex<Service> = Mutex::new(Service {
    device: None,
    geometry: Geometry::new(),
    tables: Vec::new(),
    kinds: BTreeMap::new(),
    freed: Vec::new(),
    sealed: false,
});

/// The lock of the service. fork takes it too.
pub(crate) fn lock() -> MutexGuard<'static, Service> {
    SERVICE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Bound slots that one thread uses up next, of one kind.
#[derive(Clone, Copy)]
struct Own {
    kind: Kind,
    run: Run,
}

/// Kinds of which a thread has slots of its own.
const OWN: usize = 8;

thread_local! {
    static OWN_RUNS: [Cell<Own>; OWN] = const {
        [const {
            Cell::new(Own { kind: Kind { reg: 0, code: 0 }, run: Run { stub: 0, count: 0 } })
        }; OWN]
    };
    /// Its destructor hands the thread's slots on.
    static AT_END: AtEnd = const { AtEnd };
}

struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        let mut service = lock();
        OWN_RUNS.with(|own| own.iter().for_each(|own| service.give_back(take_all(own))));
        // What is still outstanding is cleared by the next call that can.
        let _ = service.flush();
    }
}

/// Takes what a thread has of a kind away from it.
fn take_all(own: &Cell<Own>) -> Own {
    let all = own.get();
    own.set(Own { run: Run { count: 0, ..all.run }, ..all });
    all
}

/// The address of the cell that belongs to a bound stub.
///
/// # Safety
///
/// `stub` is a live stub of the kernel service.
pub(crate) unsafe fn cell(stub: usize) -> *mut u8 {
    // SAFETY: the data view is mapped readable; the slot's first word is its data.
    let data = unsafe { core::ptr::with_exposed_provenance::<usize>(stub + DISTANCE).read() };
    core::ptr::with_exposed_provenance_mut(data)
}

/// Takes a slot that is bound to `kind`: the address of its stub.
pub(crate) fn take(kind: Kind) -> Result<usize, Error> {
    OWN_RUNS.with(|runs| {
        let own = &runs[(kind.code >> 4 ^ kind.reg as usize) % OWN];
        let mut now = own.get();
        let mut service = None;
        if now.kind != kind || now.run.count == 0 {
            fork::prepare();
            let alive = AT_END.try_with(|_| ()).is_ok();
            let service = service.insert(lock());
            service.give_back(take_all(own));
            let most = if alive { MAX_OWN } else { 1 };
            now = Own { kind, run: service.take_run(kind, most)? };
        }
        let stub = now.run.stub;
        now.run.count -= 1;
        if now.run.count > 0 {
            let geometry = service.unwrap_or_else(lock).geometry;
            now.run.stub = geometry.after(stub);
        }
        own.set(now);
        Ok(stub)
    })
}

/// Takes a slot and binds it to `code` and `data` themselves: the address of its stub.
pub(crate) fn take_one(reg: u16, code: usize, data: usize) -> Result<usize, Error> {
    fork::prepare();
    lock().bind_one(reg, code, data)
}

/// Whether `stub` lies in a table of the service.
pub(crate) fn owns(stub: usize) -> bool {
    lock().tables.iter().any(|table| stub.wrapping_sub(table.start) < DISTANCE)
}

/// Gives a slot back; it traps from the next CLEAR on, at once if that is asked for.
pub(crate) fn put(stub: usize, at_once: bool) {
    let mut service = lock();
    if service.sealed {
        // It can neither be cleared nor be bound again: it is retired.
        return;
    }
    service.freed.push(stub as u64);
    if at_once || service.freed.len() >= OUTSTANDING {
        // Where the service is gone the slots stay on the list, and are never bound again.
        let _ = service.flush();
    }
}

impl Service {
    /// Hands back what a thread did not use.
    fn give_back(&mut self, own: Own) {
        if own.run.count > 0 {
            self.kinds.entry(own.kind).or_default().runs.push(own.run);
        }
    }

    /// A run of at most `most` slots of this kind, of those that are bound or newly bound.
    fn take_run(&mut self, kind: Kind, most: u32) -> Result<Run, Error> {
        let sealed = self.sealed;
        if self.kinds.get(&kind).is_none_or(|bound| bound.runs.is_empty()) {
            let last = self.kinds.get(&kind).map_or(0, |bound| bound.last);
            let bound = self.bind(kind, (last * 2).clamp(1, MAX_RUN))?;
            let entry = self.kinds.entry(kind).or_default();
            entry.last = (last * 2).clamp(1, MAX_RUN);
            entry.runs = bound;
        }
        let geometry = self.geometry;
        let runs = &mut self.kinds.entry(kind).or_default().runs;
        // After the seal no slot may lie idle in a thread.
        let most = if sealed { 1 } else { most };
        let mut run = runs.pop().ok_or(Error::Sealed)?;
        if run.count > most {
            let mut rest = run;
            for _ in 0..most {
                rest.stub = geometry.after(rest.stub);
            }
            rest.count -= most;
            run.count = most;
            runs.push(rest);
        }
        Ok(run)
    }

    /// Binds up to `count` slots to `kind`: cleared ones where there are any, else new ones.
    fn bind(&mut self, kind: Kind, count: u32) -> Result<Vec<Run>, Error> {
        if self.sealed {
            return Err(Error::Sealed);
        }
        let cleared = self.tables.iter().position(|t| t.reg == kind.reg && !t.cleared.is_empty());
        if let Some(at) = cleared {
            return self.bind_cleared(at, kind, count);
        }
        let fresh =
            self.tables.iter().position(|t| t.reg == kind.reg && t.next < self.geometry.slots);
        let at = match fresh {
            Some(at) => at,
            None => self.add_table(kind.reg, kind.code)?,
        };
        let geometry = self.geometry;
        let table = &mut self.tables[at];
        let run = Run {
            stub: geometry.stub(table, table.next),
            count: count.min(geometry.slots - table.next),
        };
        let data = table.start + 2 * DISTANCE + table.next as usize * CELL;
        let device = self.device.as_mut().ok_or(Error::Sealed)?;
        asked_again(|| device.set_run(run.stub, run.count, kind.code, data, CELL))
            .map_err(|e| not_set(e, kind.code))?;
        table.next += run.count;
        Ok(vec![run])
    }

    /// Binds one slot to `code` and `data`.
    fn bind_one(&mut self, reg: u16, code: usize, data: usize) -> Result<usize, Error> {
        if self.sealed {
            return Err(Error::Sealed);
        }
        let of = |table: &Table| table.reg == reg;
        let slots = self.geometry.slots;
        let at = match self.tables.iter().position(|t| of(t) && !t.cleared.is_empty()) {
            Some(at) => at,
            None => match self.tables.iter().position(|t| of(t) && t.next < slots) {
                Some(at) => at,
                None => self.add_table(reg, code)?,
            },
        };
        let geometry = self.geometry;
        let table = &mut self.tables[at];
        let slot = table.cleared.last().copied().unwrap_or(table.next);
        let stub = geometry.stub(table, slot);
        let device = self.device.as_mut().ok_or(Error::Sealed)?;
        asked_again(|| device.set_run(stub, 1, code, data, 0)).map_err(|e| not_set(e, code))?;
        if table.cleared.pop().is_none() {
            table.next += 1;
        }
        Ok(stub)
    }

    fn bind_cleared(&mut self, at: usize, kind: Kind, count: u32) -> Result<Vec<Run>, Error> {
        let geometry = self.geometry;
        let table = &mut self.tables[at];
        let mut slots = table.cleared.split_off(table.cleared.len().saturating_sub(count as usize));
        slots.sort_unstable();
        let entries: Vec<trampfd_slot> = slots
            .iter()
            .map(|&slot| trampfd_slot {
                stub: geometry.stub(table, slot) as u64,
                code: kind.code as u64,
                data: (table.start + 2 * DISTANCE + slot as usize * CELL) as u64,
            })
            .collect();
        let device = self.device.as_mut().ok_or(Error::Sealed)?;
        if let Err(error) = asked_again(|| device.set(&entries)) {
            table.cleared.append(&mut slots);
            return Err(not_set(error, kind.code));
        }
        Ok(slots
            .chunk_by(|a, b| a + 1 == *b)
            .map(|run| Run { stub: geometry.stub(table, run[0]), count: run.len() as u32 })
            .collect())
    }

    /// Clears the slots of dropped closures.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(device) = &mut self.device else { return Ok(()) };
        self.freed.sort_unstable();
        while let Some(&last) = self.freed.last() {
            let table = self
                .tables
                .iter_mut()
                .find(|t| (last as usize).wrapping_sub(t.start) < DISTANCE)
                .ok_or_else(|| io::Error::other("a stub that lies in no table"))?;
            let first = self.freed.partition_point(|&stub| (stub as usize) < table.start);
            device.clear(&self.freed[first..])?;
            for stub in self.freed.drain(first..) {
                table.cleared.push(self.geometry.slot(table, stub as usize));
            }
        }
        Ok(())
    }

    /// Opens the device, if that was not done yet.
    fn open(&mut self) -> Result<&mut Device, Unavailable> {
        if self.sealed {
            return Err(Unavailable::Sealed);
        }
        if self.device.is_none() {
            let mut device = Device::open().map_err(not_opened)?;
            let info = match device.info() {
                Ok(info) if info.abi_version == TRAMPFD_ABI_VERSION => info,
                Ok(info) => {
                    device.close();
                    return Err(Unavailable::Version(info.abi_version));
                }
                Err(error) => {
                    device.close();
                    return Err(match error.raw_os_error() {
                        Some(libc::EACCES | libc::EPERM) => Unavailable::Lsm(error),
                        _ => Unavailable::Failed(error),
                    });
                }
            };
            self.geometry = Geometry {
                stride: info.slot_stride as usize,
                per_page: info.slots_per_page as usize,
                page: info.page_size as usize,
                slots: info.slots_per_table,
            };
            self.device = Some(device);
        }
        self.device.as_mut().ok_or(Unavailable::NotPresent)
    }

    /// Maps a table for this register, near the code that it will lead to.
    fn map_table(&mut self, reg: u16, near: usize) -> Result<Table, Unavailable> {
        self.open()?;
        let cells = self.geometry.cells();
        let device = self.open()?;
        let len = 2 * DISTANCE + cells;
        let start = sys::reserve(len, near).map_err(Unavailable::Limit)?;
        // SAFETY: in the reservation that was just made.
        let mapped = unsafe {
            device
                .map_data(start)
                .map_err(|e| not_mapped(e, Unavailable::Sealed))
                .and_then(|()| {
                    device.map_code(start, reg).map_err(|e| {
                        if device.noexec() {
                            Unavailable::NoexecMount
                        } else {
                            let eperm = io::Error::from_raw_os_error(libc::EPERM);
                            not_mapped(e, Unavailable::Lsm(eperm))
                        }
                    })
                })
                .and_then(|()| {
                    sys::make_writable(start + 2 * DISTANCE, cells).map_err(Unavailable::Limit)
                })
        };
        if let Err(error) = mapped {
            // SAFETY: no stub of it was handed out.
            unsafe { sys::unmap(start, len) };
            return Err(error);
        }
        Ok(Table { start, reg, next: 0, cleared: Vec::new() })
    }

    /// Adds a table for this register; returns its index.
    fn add_table(&mut self, reg: u16, near: usize) -> Result<usize, Error> {
        let table = self.map_table(reg, near).map_err(refused)?;
        unwind::register(table.start, DISTANCE);
        self.tables.push(table);
        Ok(self.tables.len() - 1)
    }

    /// Seals the process. True if the views are sealed against munmap too (mseal, Linux 6.10).
    ///
    /// # Errors
    ///
    /// [`Error::Service`]; [`Error::Unavailable`] if there is no service.
    pub(crate) fn seal(&mut self) -> Result<bool, Error> {
        let unavailable = |reason| Error::Unavailable { backend: Backend::Kernel, reason };
        if self.sealed {
            return Err(Error::Sealed);
        }
        self.open().map_err(unavailable)?;
        let service = |call| move |source| Error::Service { call, source };
        self.flush().map_err(service("TRAMPFD_CLEAR"))?;
        if self.tables.is_empty() {
            // The seal is kept on tables; without one there is nothing to keep it on.
            self.add_table(trampfd_text::arch::CHAIN_REG, 0)?;
        }
        self.open().map_err(unavailable)?.seal_all().map_err(service("TRAMPFD_SEAL"))?;
        self.sealed = true;
        if let Some(device) = self.device.take() {
            device.close();
        }
        Ok(self.tables.iter().all(|table| sys::seal(table.start, 2 * DISTANCE).is_ok()))
    }

    /// Binds `count` slots to `kind` ahead of need.
    ///
    /// # Errors
    ///
    /// As for [`take`].
    pub(crate) fn prewarm(&mut self, kind: Kind, count: u32) -> Result<(), Error> {
        let mut left = count;
        while left > 0 {
            let runs = self.bind(kind, left.min(self.geometry.slots.max(1)))?;
            left -= runs.iter().map(|run| run.count).sum::<u32>();
            self.kinds.entry(kind).or_default().runs.extend(runs);
        }
        Ok(())
    }

    /// Whether the service can be used here: opens the device, maps a table and binds a slot to
    /// text of this program, as a closure would, and gives all of it back.
    pub(crate) fn probe(&mut self) -> Result<trampfd_info, Unavailable> {
        // Nothing needs to be tried again once a slot was bound.
        if self.tables.iter().all(|table| table.next == 0) {
            let table = self.map_table(trampfd_text::arch::CHAIN_REG, 0)?;
            let device = self.open()?;
            let code = not_opened as *const () as usize;
            let set = asked_again(|| device.set_run(table.start, 1, code, 0, 0));
            // SAFETY: no stub of it was handed out.
            unsafe { sys::unmap(table.start, 2 * DISTANCE + self.geometry.cells()) };
            set.map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => Unavailable::OwnText,
                Some(libc::EDQUOT | libc::ENOMEM) => Unavailable::Limit(error),
                _ => Unavailable::Failed(error),
            })?;
        }
        self.open()?.info().map_err(Unavailable::Failed)
    }
}

/// Why the device could not be opened.
fn not_opened(error: io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Unavailable::NotPresent,
        Some(libc::ENXIO | libc::ENODEV) => Unavailable::SwitchedOff,
        Some(libc::EACCES | libc::EPERM) => Unavailable::NotPermitted(error),
        _ => Unavailable::Failed(error),
    }
}

/// Why a view could not be mapped; `eperm` is what EPERM means for it.
fn not_mapped(error: io::Error, eperm: Unavailable) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EPERM) => eperm,
        Some(libc::EACCES) => Unavailable::Lsm(error),
        Some(libc::EDQUOT | libc::ENOMEM | libc::ENOSPC) => Unavailable::Limit(error),
        _ => Unavailable::Failed(error),
    }
}

/// The error of a closure for which no table could be had.
fn refused(reason: Unavailable) -> Error {
    match &reason {
        Unavailable::Sealed => Error::Sealed,
        Unavailable::Limit(e) if e.raw_os_error() == Some(libc::EDQUOT) => Error::Quota,
        Unavailable::Limit(e) if e.raw_os_error() == Some(libc::ENOMEM) => Error::NoMemory,
        _ => Error::Unavailable { backend: Backend::Kernel, reason },
    }
}

/// The error of a closure whose slot could not be bound.
fn not_set(error: io::Error, code: usize) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => Error::NotText { code },
        Some(libc::EDQUOT) => Error::Quota,
        Some(libc::ENOMEM) => Error::NoMemory,
        _ => Error::Service { call: "TRAMPFD_SET", source: error },
    }
}

/// Asks again while the kernel says that it could not look at the target's page just then.
fn asked_again(mut set: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..RETRIES {
        match set() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            done => return done,
        }
    }
    set()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table { start: 0x7f12_3458_0000, reg: 1, next: 0, cleared: Vec::new() };

    /// Geometries as the architectures have them: x86-64, arm64 with pages of 4, 16 and 64 KiB
    /// (whose last slot of a page holds the trap), riscv64.
    fn geometries() -> Vec<Geometry> {
        let page = |page: usize, stride: usize, unused: usize| {
            let per_page = page / stride - unused;
            let slots = (TRAMPFD_TABLE_SIZE / page * per_page) as u32;
            Geometry { stride, per_page, page, slots }
        };
        vec![
            page(4096, 32, 0),
            page(4096, 16, 1),
            page(16384, 16, 1),
            page(65536, 16, 1),
            page(65536, 32, 0),
        ]
    }

    #[test]
    fn slots_and_stubs_are_each_others_inverse() {
        for geometry in geometries() {
            for slot in 0..geometry.slots {
                let stub = geometry.stub(&TABLE, slot);
                assert_eq!(geometry.slot(&TABLE, stub), slot, "{geometry:?}");
                let at = (stub - TABLE.start) % geometry.page;
                assert!(at / geometry.stride < geometry.per_page, "{geometry:?} {slot}");
                assert!(stub + geometry.stride <= TABLE.start + TRAMPFD_TABLE_SIZE);
            }
        }
    }

    #[test]
    fn a_run_goes_on_in_slot_order_from_page_to_page() {
        for geometry in geometries() {
            for slot in 0..geometry.slots - 1 {
                let stub = geometry.stub(&TABLE, slot);
                let next = geometry.stub(&TABLE, slot + 1);
                assert_eq!(geometry.after(stub), next, "{geometry:?} {slot}");
            }
        }
    }

    #[test]
    fn every_slot_has_a_cell() {
        for geometry in geometries() {
            assert!(geometry.cells() >= geometry.slots as usize * CELL);
            assert_eq!(geometry.cells() % geometry.page, 0);
        }
    }

    #[test]
    fn a_call_is_asked_again_only_while_the_kernel_says_so() {
        let fails = |errno, times: usize| {
            let mut asked = 0;
            let result = asked_again(|| {
                asked += 1;
                if asked <= times { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
            });
            (result.is_ok(), asked)
        };
        assert_eq!(fails(libc::EAGAIN, 0), (true, 1));
        assert_eq!(fails(libc::EAGAIN, 5), (true, 6));
        assert_eq!(fails(libc::EAGAIN, usize::MAX), (false, RETRIES + 1));
        assert_eq!(fails(libc::EPERM, 5), (false, 1));
    }

    #[test]
    fn each_refusal_has_its_meaning() {
        let os = io::Error::from_raw_os_error;
        assert!(matches!(not_opened(os(libc::ENOENT)), Unavailable::NotPresent));
        assert!(matches!(not_opened(os(libc::ENODEV)), Unavailable::SwitchedOff));
        assert!(matches!(not_opened(os(libc::ENXIO)), Unavailable::SwitchedOff));
        assert!(matches!(not_opened(os(libc::EACCES)), Unavailable::NotPermitted(_)));
        assert!(matches!(not_opened(os(libc::EMFILE)), Unavailable::Failed(_)));
        let mapped = |errno| refused(not_mapped(os(errno), Unavailable::Sealed));
        assert!(matches!(mapped(libc::EPERM), Error::Sealed));
        assert!(matches!(mapped(libc::EDQUOT), Error::Quota));
        assert!(matches!(mapped(libc::ENOMEM), Error::NoMemory));
        assert!(matches!(
            mapped(libc::EACCES),
            Error::Unavailable { reason: Unavailable::Lsm(_), .. }
        ));
        assert!(matches!(
            mapped(libc::ENOSPC),
            Error::Unavailable { reason: Unavailable::Limit(_), .. }
        ));
        assert!(matches!(not_set(os(libc::EPERM), 7), Error::NotText { code: 7 }));
        assert!(matches!(not_set(os(libc::EDQUOT), 7), Error::Quota));
        assert!(matches!(not_set(os(libc::ENOMEM), 7), Error::NoMemory));
        assert!(matches!(not_set(os(libc::EBUSY), 7), Error::Service { .. }));
    }
}
