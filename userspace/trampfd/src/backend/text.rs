//! Static text: the tables of `trampfd-text`, and more of them.
//!
//! A table that is used up is mapped once more, with new slots at the same distance. Several
//! tables share a growth area, for D > 0 (for D < 0 the slots come first):
//!
//! ```text
//!   base                                       base + D
//!   ├─ copy 0 ─┼─ copy 1 ─┼ .. ┼─ PROT_NONE ───┼─ slots 0 ─┼─ slots 1 ─┼ .. ─┤
//!      R-X        R-X                             RW-         RW-
//! ```
//!
//! The first copies are of the table's first pages only: those stay in the instruction cache,
//! being the same physical pages each time, and up to some ten thousand closures that is faster.
//! Later copies are of the whole table, so that a million closures need few mappings.
//!
//! In areas of the table of dynamic closures what lies between copies and slots is writable too, so
//! that an area is one mapping for each copy and one for all the rest. The blocks of these slots
//! lie elsewhere, those of whole copies in large pages: to make small ones takes longer than
//! everything else that is done to make a closure.
//!
//! Each copy is a private mapping of the program's own file, made in one of two ways: by
//! mremap(2) of the table that runs, which keeps the original in place (Linux 5.13; not where
//! the text is mseal'ed); or by mapping the same offset of the program's file, found by
//! dl_iterate_phdr or AT_EXECFN, and comparing every byte before use. Neither needs /proc.

use core::ops::Range;
use core::ptr::null_mut;
use std::ffi::CStr;
use std::io;

use trampfd_text::arch;
use trampfd_text::entry::Freed;
use trampfd_text::table::{Slot, StaticTable};

use crate::block::{self, Block};
use crate::error::Error;
use crate::{objects, sys, unwind};

/// How the static tables may grow. The default tries all ways.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// A duplicate of the table in memory; where that fails, the program's file.
    #[default]
    Any,
    /// Only a duplicate of the table in memory.
    Duplicate,
    /// Only the program's own file, mapped again.
    File,
}

/// Slots of a small copy: 16 KiB of stubs, half of a common first-level instruction cache.
const SMALL_SLOTS: usize = 512;
/// Small copies, before whole ones follow.
const SMALL_COPIES: usize = 62;
/// Copies in the largest growth area, and whole copies whose blocks are mapped at once.
const MAX_COPIES: usize = 64;

/// Bytes of the stubs, and of the slots, of `slots` slots.
const fn bytes(slots: usize) -> usize {
    slots * arch::SLOT_STRIDE
}

/// A growth area of one table.
#[derive(Clone, Copy)]
struct Area {
    /// Where the next copy goes.
    next: usize,
    /// Behind the last.
    end: usize,
    /// Slots of each copy.
    slots: usize,
}

impl Area {
    /// Copies that there is room for.
    fn copies(&self) -> usize {
        (self.end - self.next) / bytes(self.slots)
    }
}

/// What was added to a table.
pub(crate) struct Grown {
    /// New slots.
    pub(crate) slots: Range<*mut Slot>,
    /// Room for their blocks; null where there is none.
    pub(crate) blocks: *mut Block,
}

/// What was made of one static table.
#[derive(Clone, Copy)]
struct Growing {
    /// Slots of the static table itself that were given out.
    own: usize,
    /// Copies that there are, or have room in an area.
    copies: usize,
    area: Option<Area>,
    /// Memory for blocks of the next copies, by addresses.
    room: (usize, usize),
}

/// Which tables there are.
pub(crate) struct Tables([Growing; arch::TABLES]);

impl Tables {
    pub(crate) const fn new() -> Tables {
        Tables([Growing { own: 0, copies: 0, area: None, room: (0, 0) }; arch::TABLES])
    }

    /// More slots of table number `n`, which is `table`.
    ///
    /// # Errors
    ///
    /// [`Error::Growth`].
    pub(crate) fn grow(
        &mut self,
        n: usize,
        table: &'static StaticTable,
        growth: Growth,
    ) -> Result<Grown, Error> {
        let growing = &mut self.0[n];
        let until = match growing.own {
            0 => SMALL_SLOTS,
            SMALL_SLOTS if growing.copies >= SMALL_COPIES && growing.is_full() => table.len,
            own => own,
        };
        if until > growing.own {
            return Ok(growing.own_until(until, table));
        }
        match growing.copy(table, growth, n == arch::DYNAMIC) {
            // Where nothing can be copied, what is left of the table itself is still there.
            Err(_) if growing.own < table.len => Ok(growing.own_until(table.len, table)),
            grown => grown,
        }
    }
}

impl Growing {
    fn is_full(&self) -> bool {
        self.area.is_none_or(|area| area.next == area.end)
    }

    /// Gives out the table's own slots up to `until`.
    fn own_until(&mut self, until: usize, table: &'static StaticTable) -> Grown {
        let (first, slots) = (self.own, table.slots());
        self.own = until;
        Grown { slots: slots.wrapping_add(first)..slots.wrapping_add(until), blocks: null_mut() }
    }

    /// Slots of another copy of the table.
    fn copy(
        &mut self,
        table: &'static StaticTable,
        growth: Growth,
        with_blocks: bool,
    ) -> Result<Grown, Error> {
        let area = self.area(table, with_blocks).map_err(|error| no_memory(growth, error))?;
        let (stubs, blocks) = (bytes(area.slots), block::SIZE * area.slots);
        if with_blocks {
            self.make_room(area).map_err(|error| no_memory(growth, error))?;
        }
        copy_to(area.next, stubs, table, growth)?;
        self.area = Some(Area { next: area.next + stubs, ..area });
        let slots = area.next.wrapping_add_signed(table.distance());
        let whole = area.slots > SMALL_SLOTS;
        if whole {
            // All of it will be used, and one call is cheaper than a fault for each page.
            sys::populate(slots, stubs);
        }
        let mut first_block = 0;
        if with_blocks {
            first_block = self.room.0;
            self.room.0 += blocks;
            if whole {
                sys::populate(first_block, blocks);
            }
        }
        let slots = core::ptr::with_exposed_provenance_mut::<Slot>(slots);
        Ok(Grown {
            slots: slots..slots.wrapping_add(area.slots),
            blocks: core::ptr::with_exposed_provenance_mut(first_block),
        })
    }

    /// Memory for the blocks of the next copy, which goes into `area`.
    fn make_room(&mut self, area: Area) -> io::Result<()> {
        let needed = block::SIZE * area.slots;
        if self.room.1 - self.room.0 < needed {
            let (start, len) = if area.slots > SMALL_SLOTS {
                let len = needed * MAX_COPIES;
                (sys::map_large(len)?, len)
            } else {
                let len = needed * area.copies();
                (sys::map_anonymous(len)?, len)
            };
            self.room = (start, start + len);
        }
        Ok(())
    }

    /// An area with room for a copy.
    fn area(&mut self, table: &StaticTable, with_blocks: bool) -> io::Result<Area> {
        if let Some(area) = self.area.filter(|area| area.next < area.end) {
            return Ok(area);
        }
        let slots = if self.copies < SMALL_COPIES { SMALL_SLOTS } else { table.len };
        // Areas grow as the number of closures does.
        let area = new_area(table, slots, self.copies.clamp(2, MAX_COPIES), with_blocks)?;
        self.copies += area.copies();
        self.area = Some(area);
        Ok(area)
    }
}

/// There is no room for a growth area: the error of the first way that would have been tried.
fn no_memory(growth: Growth, error: io::Error) -> Error {
    match growth {
        Growth::File => Error::Growth { duplicate: None, file: Some(error) },
        _ => Error::Growth { duplicate: Some(error), file: None },
    }
}

/// Reserves an area for about `wanted` copies of `slots` slots; its slots are readable and
/// writable, with `all` everything behind the copies.
fn new_area(table: &StaticTable, slots: usize, wanted: usize, all: bool) -> io::Result<Area> {
    let distance = table.distance();
    let gap = distance.unsigned_abs();
    // The copies must not reach the slots.
    let copies = wanted.min(gap / bytes(slots)).max(1);
    let stubs = bytes(slots) * copies;
    let len = gap + stubs;
    let base = sys::reserve(len, table.code())?;
    let code = if distance > 0 { base } else { base + gap };
    let writable = match (all, distance > 0) {
        (false, _) => (code.wrapping_add_signed(distance), stubs),
        (true, true) => (base + stubs, gap),
        (true, false) => (base, gap),
    };
    // SAFETY: inside the reservation that was just made.
    unsafe {
        if let Err(error) = sys::make_writable(writable.0, writable.1) {
            sys::unmap(base, len);
            return Err(error);
        }
    }
    unwind::register(code, stubs);
    Ok(Area { next: code, end: code + stubs, slots })
}

/// Maps the first `len` bytes of the text of `table` at `to`, in the ways that `growth` allows.
fn copy_to(to: usize, len: usize, table: &StaticTable, growth: Growth) -> Result<(), Error> {
    let mut duplicate = None;
    if growth != Growth::File {
        // SAFETY: `to` is the next free place of an area; the table is text.
        match unsafe { sys::duplicate(table.code(), len, to) } {
            Ok(()) => return Ok(()),
            Err(error) => duplicate = Some(error),
        }
    }
    let mut file = None;
    if growth != Growth::Duplicate {
        match copy_from_file(to, len, table) {
            Ok(()) => return Ok(()),
            Err(error) => file = Some(error),
        }
    }
    Err(Error::Growth { duplicate, file })
}

/// Maps the first `len` bytes of the text of `table` at `to`, from the file that it was loaded
/// from.
fn copy_from_file(to: usize, len: usize, table: &StaticTable) -> io::Result<()> {
    let other = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if sys::auxv(libc::AT_SECURE) != 0 {
        // The path is the caller's choice, and the file behind it could be changed after the
        // comparison.
        return Err(other("a set-uid program does not trust the path that it was started by"));
    }
    let segment = objects::segment_of(table.code())
        .ok_or_else(|| other("the table lies in no loaded object"))?;
    let fd = match &segment.name {
        Some(name) => sys::open(name)?,
        None => match sys::auxv(libc::AT_EXECFN) {
            0 => return Err(other("the kernel did not say which file was started")),
            // SAFETY: AT_EXECFN is a C string at the top of the stack.
            name => sys::open(unsafe { CStr::from_ptr(core::ptr::with_exposed_provenance(name)) })?,
        },
    };
    let mapped = sys::identity(fd).and_then(|file| {
        if file.len < segment.offset + len as u64 {
            return Err(other("the program's file is not the one that was loaded"));
        }
        // SAFETY: `to` is the next free place of an area.
        unsafe { sys::map_over(to, len, libc::PROT_READ | libc::PROT_EXEC, fd, segment.offset) }
    });
    sys::close(fd);
    mapped?;
    let text = |at| core::ptr::with_exposed_provenance::<u8>(at);
    // SAFETY: both are mapped readable, and the file is long enough.
    let same = unsafe {
        core::slice::from_raw_parts(text(to), len)
            == core::slice::from_raw_parts(text(table.code()), len)
    };
    if same {
        return Ok(());
    }
    // SAFETY: nothing refers to the place; it becomes what it was, a reservation.
    unsafe { sys::map_none(to, len)? };
    Err(other("the program's file is not the one that was loaded"))
}

/// Who speaks when a freed closure is called.
pub(crate) struct Diagnosis;

impl Freed for Diagnosis {
    extern "C" fn freed(stub: usize) {
        let mut message = *b"trampfd: a freed closure was called, stub 0x0000000000000000\n";
        let end = message.len() - 1;
        for (n, digit) in message[end - 16..end].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[stub >> (4 * n) & 15];
        }
        sys::complain(&message);
    }
}
