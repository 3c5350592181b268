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
//! Each copy is a private mapping of the program's own file, made in one of two ways: by
//! mremap(2) of the table that runs, which keeps the original in place (Linux 5.13; not where
//! the text is mseal'ed); or by mapping the same offset of the program's file, found by
//! dl_iterate_phdr or AT_EXECFN, and comparing every byte before use. Neither needs /proc.

use std::ffi::CStr;
use std::io;

use trampfd_text::arch;
use trampfd_text::entry::Freed;
use trampfd_text::table::{Slot, StaticTable};

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

/// Bytes of a table, and of its slots.
const LEN: usize = arch::TABLE_SLOTS * arch::SLOT_STRIDE;
/// Tables of the largest growth area.
const MAX_TABLES: usize = 64;

/// A growth area of one table.
#[derive(Clone, Copy)]
struct Area {
    /// Where the next copy goes.
    next: usize,
    /// Behind the last.
    end: usize,
    /// Number of tables it was made for.
    tables: usize,
}

/// Which tables there are.
pub(crate) struct Tables {
    /// For each static table: whether its own slots were given out.
    used: [bool; arch::TABLES],
    areas: [Option<Area>; arch::TABLES],
}

impl Tables {
    pub(crate) const fn new() -> Tables {
        Tables { used: [false; arch::TABLES], areas: [None; arch::TABLES] }
    }

    /// Slots of another table like table number `n`, which is `table`: first and end.
    ///
    /// # Errors
    ///
    /// [`Error::Growth`].
    pub(crate) fn grow(
        &mut self,
        n: usize,
        table: &'static StaticTable,
        growth: Growth,
    ) -> Result<(*mut Slot, *mut Slot), Error> {
        let slots = if !self.used[n] {
            self.used[n] = true;
            table.slots()
        } else {
            let code = self.copy(n, table, growth)?;
            core::ptr::with_exposed_provenance_mut(code.wrapping_add_signed(table.distance()))
        };
        Ok((slots, slots.wrapping_add(arch::TABLE_SLOTS)))
    }

    /// A copy of the table with slots at the same distance.
    fn copy(
        &mut self,
        n: usize,
        table: &'static StaticTable,
        growth: Growth,
    ) -> Result<usize, Error> {
        let area = match self.areas[n] {
            Some(area) if area.next < area.end => area,
            last => new_area(table, last.map_or(1, |area| area.tables * 2)).map_err(no_memory)?,
        };
        self.areas[n] = Some(area);
        copy_to(area.next, table, growth)?;
        self.areas[n] = Some(Area { next: area.next + LEN, ..area });
        Ok(area.next)
    }
}

fn no_memory(error: io::Error) -> Error {
    Error::Growth { duplicate: Some(error), file: None }
}

/// Reserves an area for about `wanted` tables; its slots are readable and writable.
fn new_area(table: &StaticTable, wanted: usize) -> io::Result<Area> {
    let distance = table.distance();
    let gap = distance.unsigned_abs();
    // The copies must not reach the slots.
    let tables = wanted.min(MAX_TABLES).min(gap / LEN).max(1);
    let len = gap + tables * LEN;
    let base = sys::reserve(len)?;
    let code = if distance > 0 { base } else { base + gap };
    let slots = code.wrapping_add_signed(distance);
    // SAFETY: inside the reservation that was just made.
    unsafe {
        if let Err(error) = sys::make_writable(slots, tables * LEN) {
            sys::unmap(base, len);
            return Err(error);
        }
    }
    unwind::register(code, tables * LEN);
    Ok(Area { next: code, end: code + tables * LEN, tables })
}

/// Maps the text of `table` at `to`, in the ways that `growth` allows.
fn copy_to(to: usize, table: &StaticTable, growth: Growth) -> Result<(), Error> {
    let mut duplicate = None;
    if growth != Growth::File {
        // SAFETY: `to` is the next free place of an area; the table is text.
        match unsafe { sys::duplicate(table.code(), LEN, to) } {
            Ok(()) => return Ok(()),
            Err(error) => duplicate = Some(error),
        }
    }
    let mut file = None;
    if growth != Growth::Duplicate {
        match copy_from_file(to, table) {
            Ok(()) => return Ok(()),
            Err(error) => file = Some(error),
        }
    }
    Err(Error::Growth { duplicate, file })
}

/// Maps the text of `table` at `to` from the file that it was loaded from.
fn copy_from_file(to: usize, table: &StaticTable) -> io::Result<()> {
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
        if file.len < segment.offset + LEN as u64 {
            return Err(other("the program's file is not the one that was loaded"));
        }
        // SAFETY: `to` is the next free place of an area.
        unsafe { sys::map_over(to, LEN, libc::PROT_READ | libc::PROT_EXEC, fd, segment.offset) }
    });
    sys::close(fd);
    mapped?;
    let bytes = |at: usize| core::ptr::with_exposed_provenance::<[u8; LEN]>(at);
    // SAFETY: both are mapped readable, and the file is long enough.
    if unsafe { *bytes(to) == *bytes(table.code()) } {
        return Ok(());
    }
    // SAFETY: nothing refers to the place; it becomes what it was, a reservation.
    unsafe { sys::map_none(to, LEN)? };
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
