//! A set: logged, laid out, filled, committed.

use std::ops::Range;

use super::arena::blank;
use super::handle::Handle;
use super::plan::Item;
use super::section::next_set;
use super::tail::Taken;
use super::{Error, Kind, Placed, Request, Section, Set};
use crate::vm::page_size;

/// Requests that are logged, to be laid out at once.
#[derive(Debug)]
pub struct SetBuilder {
    id: u64,
    pool: Handle,
    requests: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    name: Box<str>,
    kind: Kind,
    item: Item,
}

impl SetBuilder {
    pub(super) fn new(pool: Handle) -> SetBuilder {
        SetBuilder { id: next_set(), pool, requests: Vec::new() }
    }

    /// Logs a request. Whether it can be met is said by [`SetBuilder::lay_out`].
    pub fn request(&mut self, request: Request<'_>) -> Section {
        let Request { name, kind, len, align } = request;
        self.requests.push(Wanted { name: name.into(), kind, item: Item { len, align } });
        Section::new(self.id, self.requests.len() - 1)
    }

    /// Gives every section its address, and bytes to be filled.
    ///
    /// Takes address space of the pool, and no memory of it yet. Sections of the same kind share
    /// pages with each other and with those of the pool's other sets.
    ///
    /// # Errors
    ///
    /// [`Error::Alignment`], [`Error::TooLarge`]; [`Error::Finalised`], [`Error::NoSuchPool`], if
    /// there is a request; [`Error::Memory`].
    pub fn lay_out(self) -> Result<Layout, Error> {
        for Wanted { name, item: Item { align, .. }, .. } in &self.requests {
            if !align.is_power_of_two() || *align > page_size() {
                return Err(Error::Alignment { section: name.clone(), align: *align });
            }
        }
        let mut layout =
            Layout { id: self.id, pool: self.pool, sections: Vec::new(), parts: Vec::new() };
        layout.sections.extend(self.requests.iter().map(|wanted| {
            let Wanted { name, kind, item: Item { len, .. } } = wanted;
            let placed = Placed { name: name.clone(), kind: *kind, address: 0, len: *len };
            Staged { placed, part: 0, bytes: 0..0 }
        }));
        for kind in Kind::ALL {
            let of_kind = |&i: &usize| self.requests[i].kind == kind;
            let indices: Vec<usize> = (0..self.requests.len()).filter(of_kind).collect();
            let items: Vec<Item> = indices.iter().map(|&i| self.requests[i].item).collect();
            if items.is_empty() {
                continue;
            }
            // What was handed out before an error is given back by `Layout::drop`.
            let (run, plan, taken, base) = layout.pool.hand_out(kind, &items)?;
            for (&i, &at) in indices.iter().zip(&plan.offsets) {
                let staged = &mut layout.sections[i];
                let start = at - taken.range().start;
                staged.placed.address = base + at;
                staged.part = layout.parts.len();
                staged.bytes = start..start + staged.placed.len;
            }
            let len = taken.range().len();
            layout.parts.push(Part { kind, run, taken, bytes: Vec::new() });
            if let Some(part) = layout.parts.last_mut() {
                part.bytes = blank(kind, len)?;
            }
        }
        Ok(layout)
    }
}

/// Sections that have their addresses, and bytes that will be there after [`Layout::commit`].
///
/// Dropped without it, nothing was done.
#[derive(Debug)]
pub struct Layout {
    id: u64,
    pool: Handle,
    sections: Vec<Staged>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Staged {
    placed: Placed,
    /// Index of the part that it is in.
    part: usize,
    /// Its bytes there.
    bytes: Range<usize>,
}

/// All sections of one kind.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    /// Which of the pool's runs of that kind.
    pub(super) run: usize,
    pub(super) taken: Taken,
    /// For all that was taken.
    pub(super) bytes: Vec<u8>,
}

impl Layout {
    /// Where the section's first byte will be.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSection`].
    pub fn address(&self, section: Section) -> Result<usize, Error> {
        Ok(self.sections[section.index_in(self.id)?].placed.address)
    }

    /// What will be there: as many bytes as were asked for. At first zeros; of code, instructions
    /// that trap.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignSection`].
    pub fn bytes(&mut self, section: Section) -> Result<&mut [u8], Error> {
        let Staged { part, bytes, .. } = &self.sections[section.index_in(self.id)?];
        Ok(&mut self.parts[*part].bytes[bytes.clone()])
    }

    /// Writes all sections to where they belong: from here code can run, and be called by other
    /// threads that learn of it.
    ///
    /// If it fails the set is gone, and its place is free for another.
    ///
    /// # Errors
    ///
    /// [`Error::Finalised`], [`Error::NoSuchPool`]: since it was laid out; [`Error::Memory`].
    pub fn commit(mut self) -> Result<Set, Error> {
        let payload = self.sections.iter().map(|staged| staged.placed.len).sum();
        self.pool.write(&mut self.parts, payload)?;
        // Nothing is given back any more.
        self.parts.clear();
        let sections = self.sections.drain(..).map(|staged| staged.placed);
        Ok(Set::new(self.id, sections.collect()))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        self.pool.give_up(&self.parts);
    }
}
