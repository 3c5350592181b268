//! Address space that pools share, and the bytes in it.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::lock;
use super::plan::{Item, Plan};
use super::tail::{Tail, Taken};
use super::{Error, Kind};
use crate::extents::Extents;
use crate::sys;
use crate::vm::{self, Access, CodeFile, Mapping, Meter, Place, Source, Write, page_size};

/// How far from its first byte an arena may reach, and the first bytes of arenas from each other:
/// any two bytes of them are less than 2 GiB from each other then.
pub(super) const REACH: usize = 1 << 30;

/// A reservation with an area for each kind of section.
///
/// # Invariants
///
/// `mapping` begins with views of all of `file`: executable in the code area, for reading in the
/// read-only area, at offsets that are the file's; the read-write area, of as many bytes as each
/// of the others, is private memory. A range that was taken from `free` belongs to one [`Run`].
#[derive(Debug)]
pub(super) struct Arena {
    mapping: Mapping,
    file: CodeFile,
    free: Mutex<[Extents; 3]>,
    /// Memory of the file may run out, which a write through an alias could not report.
    allocate_first: bool,
    /// The pool that has it for itself, as nothing else than an alias of the whole file, made
    /// with it, can write, and it goes when that pool is finalised.
    pub(super) owner: Option<u64>,
}

impl Arena {
    /// With areas of `area` bytes, or a few more. For the pool with the number `owner`, if pools
    /// cannot share it.
    pub(super) fn new(
        area: usize,
        place: Place,
        options: &vm::Options,
        meter: &Meter,
        owner: u64,
    ) -> Result<Arena, Error> {
        let pages = area.max(1).checked_next_multiple_of(page_size());
        let area = pages.filter(|&len| len <= REACH / 3).ok_or(Error::TooLarge(area))?;
        // Runs have aliases of their own.
        let write = match options.write {
            Write::Pwrite => Write::Pwrite,
            Write::Any | Write::Alias => Write::Any,
        };
        let file = CodeFile::new(2 * area, &vm::Options { write, ..options.clone() }, meter)?;
        let mapping = Mapping::reserve(3 * area, place, meter)?;
        mapping.map_file(0, area, &file, 0, Access::Execute)?;
        mapping.map_file(area, area, &file, area, Access::Read)?;
        mapping.map_memory(2 * area, area)?;
        mapping.use_small_pages()?;
        let allocate_first = match file.source() {
            Source::Folder(_) => true,
            _ => !overcommits(meter),
        };
        let owner = (file.how() == Write::Alias).then_some(owner);
        let free = [0, 1, 2].map(|i| Extents::new(i * area..(i + 1) * area));
        Ok(Arena { mapping, file, free: Mutex::new(free), allocate_first, owner })
    }

    /// Address of its first byte.
    pub(super) fn base(&self) -> usize {
        self.mapping.ptr() as usize
    }

    /// Where its code, and its read-only data, can be written.
    fn alias(&self, run: Range<usize>) -> Result<Option<Mapping>, Error> {
        match self.owner {
            None => Ok(Some(self.file.writable(run)?)),
            Some(_) => Ok(None),
        }
    }
}

/// Whether the system hands out memory that it may not have, so that touching memory fails only
/// where it would for every other program.
fn overcommits(meter: &Meter) -> bool {
    let mode = sys::read_text(meter.counts(), "/proc/sys/vm/overcommit_memory".as_ref());
    mode.is_ok_and(|mode| matches!(mode.trim(), "0" | "1"))
}

/// Pages of an area that are one pool's.
///
/// # Invariants
///
/// `tail`'s run was taken from the free pages of `arena`'s area for `kind`, and is this value's
/// alone. `alias`, if there is one, shows all of it.
#[derive(Debug)]
pub(super) struct Run {
    arena: Arc<Arena>,
    kind: Kind,
    tail: Tail,
    alias: Option<Mapping>,
}

impl Run {
    /// `len` bytes, rounded up to pages, if the arena has as many.
    pub(super) fn take(arena: &Arc<Arena>, kind: Kind, len: usize) -> Option<Run> {
        let len = vm::round_to_pages(len).ok()?;
        let run = lock(&arena.free)[kind as usize].take(len)?;
        let tail = Tail::new(run, page_size());
        Some(Run { arena: arena.clone(), kind, tail, alias: None })
    }

    /// Hands out bytes for the items, if there are as many.
    pub(super) fn hand_out(&mut self, items: &[Item]) -> Option<(Plan, Taken)> {
        self.tail.take(items)
    }

    /// Takes back what was not used.
    pub(super) fn give_up(&mut self, taken: &Taken) {
        self.tail.put(taken);
    }

    /// The address of its arena.
    pub(super) fn base(&self) -> usize {
        self.arena.base()
    }

    /// From here writing takes no system call. Nothing to do where that is so anyhow.
    pub(super) fn make_alias(&mut self) -> Result<(), Error> {
        if self.alias.is_none() && self.kind != Kind::ReadWrite {
            self.alias = self.arena.alias(self.tail.run())?;
        }
        Ok(())
    }

    /// Writes what was handed out; `bytes` are for `range`. Says how many bytes of pages are in
    /// use now that were not before.
    pub(super) fn write(&mut self, range: Range<usize>, bytes: Vec<u8>) -> Result<usize, Error> {
        let first = self.tail.used().is_none();
        self.tail.attempt(&range);
        match self.kind {
            Kind::Code => {
                let whole = self.tail.with_rest(range.clone());
                let bytes = with_traps(&whole, &range, bytes);
                self.write_file(whole.clone(), &bytes)?;
                let address = self.arena.mapping.ptr().wrapping_add(whole.start);
                crate::arch::flush(address, whole.len());
                Ok(self.tail.touch(whole))
            }
            Kind::ReadOnly => {
                // The second time: it pays.
                if !first {
                    self.make_alias()?;
                }
                self.write_file(range.clone(), &bytes)?;
                Ok(self.tail.touch(range))
            }
            Kind::ReadWrite => {
                assert_eq!(range.len(), bytes.len());
                // SAFETY: by the invariants of `Run` and `Arena` private memory, of which these
                // bytes were handed out to the caller alone, who has told nobody yet.
                unsafe {
                    let to = self.arena.mapping.ptr().add(range.start);
                    to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                }
                Ok(self.tail.touch(range))
            }
        }
    }

    fn write_file(&self, range: Range<usize>, bytes: &[u8]) -> Result<(), Error> {
        assert_eq!(range.len(), bytes.len());
        let file = &self.arena.file;
        let aliased = self.alias.is_some() || self.arena.owner.is_some();
        if aliased && self.arena.allocate_first && !self.tail.is_touched(range.clone()) {
            file.allocate(self.tail.pages(range.clone()))?;
        }
        match &self.alias {
            // SAFETY: by the invariants of `Run` the alias shows all of the run, in which the
            // range lies; the bytes were handed out to the caller alone, who has told nobody
            // yet, or are nobody's.
            Some(alias) => unsafe {
                let to = alias.ptr().add(range.start - self.tail.run().start);
                to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            },
            // SAFETY: as above; offsets are the file's, by the invariant of `Arena`.
            None => unsafe { file.write(range.start, bytes) }?,
        }
        Ok(())
    }

    /// Nothing can write code and read-only data of the run any more, but its pool's freeing.
    pub(super) fn withdraw(&mut self) -> Result<(), Error> {
        if self.kind == Kind::ReadWrite {
            return Ok(());
        }
        if let Some(Err((alias, error))) = self.alias.take().map(Mapping::unmap) {
            self.alias = Some(alias);
            return Err(error.into());
        }
        if self.arena.owner.is_some() {
            // SAFETY: only runs of this pool write through it, one at a time, none from now on.
            unsafe { self.arena.file.withdraw() }?;
        }
        Ok(())
    }

    /// Bytes of pages in use.
    pub(super) fn committed(&self) -> usize {
        self.tail.committed()
    }

    /// Empties the pages and gives them back. If that fails they are not used again.
    pub(super) fn free(mut self) -> Result<(), Error> {
        self.withdraw()?;
        if self.arena.owner.is_some() {
            // The file goes with its last run.
            return Ok(());
        }
        if let Some(used) = self.tail.used() {
            let Arena { mapping, file, .. } = &*self.arena;
            // SAFETY: by the invariants of `Run` and `Arena` these pages are this run's, in the
            // file, or private memory; whoever frees a pool uses nothing of it any more.
            unsafe {
                match self.kind {
                    Kind::ReadWrite => mapping.empty(used.start, used.len())?,
                    Kind::Code | Kind::ReadOnly => file.discard(used)?,
                }
            }
        }
        lock(&self.arena.free)[self.kind as usize].put(self.tail.run());
        Ok(())
    }
}

/// The bytes for `range`, and traps for the rest of `whole`.
fn with_traps(whole: &Range<usize>, range: &Range<usize>, mut bytes: Vec<u8>) -> Vec<u8> {
    let (before, len) = (range.start - whole.start, whole.len());
    bytes.splice(0..0, std::iter::repeat_n(0, before));
    bytes.resize(len, 0);
    traps(&mut bytes[..before]);
    traps(&mut bytes[len - (whole.end - range.end)..]);
    bytes
}

/// Instructions that trap.
fn traps(to: &mut [u8]) {
    let trap = crate::arch::TRAP;
    to.iter_mut().enumerate().for_each(|(at, byte)| *byte = trap[at % trap.len()]);
}

/// What `len` bytes of a kind are at first: instructions that trap, or zeros. They can become as
/// long as their pages without more memory.
pub(super) fn blank(kind: Kind, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let room = len.saturating_add(2 * page_size());
    bytes.try_reserve_exact(room).map_err(|_| vm::Error::System {
        what: "taking memory for the bytes of a set",
        error: std::io::ErrorKind::OutOfMemory.into(),
    })?;
    bytes.resize(len, 0);
    if kind == Kind::Code {
        traps(&mut bytes);
    }
    Ok(bytes)
}
