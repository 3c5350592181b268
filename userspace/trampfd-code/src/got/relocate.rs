//! Fills the parts of a set once each has an address. Works on buffers and numbers only.

use super::arch::{self, Entry, Origin, Target};
use super::object::{Home, Object};
use super::plan::{Meaning, Plan, Reference, Slot, entry_len};
use super::{Error, Site, Symbol};

/// Where the parts of a set are, and what is written there.
pub(super) trait Buffers {
    fn address(&self, part: usize) -> usize;
    /// As many as the part has; zeros at first, but for code.
    fn bytes(&mut self, part: usize) -> &mut [u8];
}

/// Where the set's block is in each thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum BlockPlace {
    /// `__tls_get_addr` finds it by this number.
    Module(usize),
    /// So far from the thread pointer, in every thread.
    Fixed(isize),
}

/// Addresses of everything.
pub(super) struct Places<'a> {
    objects: &'a [Object],
    plan: &'a Plan,
    parts: Vec<usize>,
    block: BlockPlace,
}

/// A value, not cut off.
type Value = i128;

impl<'a> Places<'a> {
    pub(super) fn new(
        objects: &'a [Object],
        plan: &'a Plan,
        buffers: &impl Buffers,
        block: BlockPlace,
    ) -> Places<'a> {
        let parts = (0..plan.parts.len()).map(|part| buffers.address(part)).collect();
        Places { objects, plan, parts, block }
    }

    fn table(&self) -> usize {
        self.plan.table.map_or(0, |part| self.parts[part])
    }

    fn slot(&self, slot: Slot, part: Option<usize>) -> usize {
        match slot {
            Slot::Own(at) => part.map_or(0, |part| self.parts[part]) + at,
            Slot::Shared(_, address) => address,
        }
    }

    /// The address of an entry, if there is one.
    pub(super) fn entry(&self, entry: Entry, meaning: Meaning) -> Option<usize> {
        let slot = *self.plan.entries.get(&(entry, meaning))?;
        Some(self.slot(slot, self.plan.table))
    }

    /// The address of a stub, if there is one.
    pub(super) fn stub(&self, meaning: Meaning) -> Option<usize> {
        let slot = *self.plan.stubs.get(&meaning)?;
        Some(self.slot(slot, self.plan.stub_part))
    }

    /// The address of what is no thread's variable.
    pub(super) fn address(&self, meaning: Meaning) -> Option<usize> {
        match meaning {
            Meaning::Nothing => Some(0),
            Meaning::Table => Some(self.table()),
            Meaning::Set => self.entry(Entry::Address, Meaning::Set),
            Meaning::Block => None,
            Meaning::Here(o, s) => {
                let symbol = &self.objects[o].symbols[s];
                match symbol.home {
                    Home::Section(section) => {
                        let (part, at) = self.plan.home(o, section)?;
                        Some(self.parts[part] + at + symbol.value as usize)
                    }
                    Home::Absolute => Some(symbol.value as usize),
                    Home::Undefined | Home::Common => None,
                }
            }
            Meaning::Common(common) => {
                let part = self.plan.common_part?;
                Some(self.parts[part] + self.plan.common(common))
            }
            Meaning::Outside(outside) => match self.plan.outside[outside].symbol {
                Some(Symbol::Address(address)) => Some(address),
                Some(_) => None,
                None => Some(0),
            },
        }
    }

    /// Where a variable is in the set's block.
    fn in_block(&self, meaning: Meaning) -> Option<usize> {
        match meaning {
            Meaning::Block => Some(0),
            Meaning::Here(o, s) => {
                let symbol = &self.objects[o].symbols[s];
                let Home::Section(section) = symbol.home else { return None };
                Some(self.plan.in_block(o, section)? + symbol.value as usize)
            }
            _ => None,
        }
    }

    /// What `__tls_get_addr` is told.
    fn variable(&self, meaning: Meaning) -> Option<[usize; 2]> {
        match (meaning, self.block) {
            (Meaning::Outside(outside), _) => match self.plan.outside[outside].symbol {
                Some(Symbol::Thread(distance)) => Some([0, distance as usize]),
                Some(Symbol::ThreadModule { module, offset }) => Some([module, offset]),
                _ => None,
            },
            (_, BlockPlace::Module(module)) => Some([module, self.in_block(meaning)?]),
            (_, BlockPlace::Fixed(start)) => {
                Some([0, (start as usize).wrapping_add(self.in_block(meaning)?)])
            }
        }
    }

    /// Distance of a thread's variable from the thread pointer.
    fn thread_distance(&self, meaning: Meaning) -> Option<isize> {
        match (meaning, self.block) {
            (Meaning::Outside(outside), _) => match self.plan.outside[outside].symbol {
                Some(Symbol::Thread(distance)) => Some(distance),
                _ => None,
            },
            (_, BlockPlace::Fixed(start)) => Some(start + self.in_block(meaning)? as isize),
            (_, BlockPlace::Module(_)) => None,
        }
    }

    /// The words of an entry.
    fn words(&self, entry: Entry, meaning: Meaning) -> Option<[usize; 2]> {
        match entry {
            Entry::Address => Some([self.address(meaning)?, 0]),
            Entry::FromThread => Some([self.thread_distance(meaning)? as usize, 0]),
            Entry::Variable | Entry::Block => self.variable(meaning),
        }
    }

    fn value(&self, reference: &Reference, at: usize) -> Option<Value> {
        let meaning = reference.meaning;
        let target = match reference.form.target {
            Target::Nothing => return Some(0),
            Target::Symbol => self.address(meaning)? as Value,
            Target::Callee => match self.stub(meaning) {
                Some(stub) => stub as Value,
                None => self.address(meaning)? as Value,
            },
            Target::Size => self.plan.size(self.objects, meaning)?.into(),
            Target::Table => self.table() as Value,
            Target::Entry(Entry::Block) => self.entry(Entry::Block, Meaning::Block)? as Value,
            Target::Entry(entry) => self.entry(entry, meaning)? as Value,
            Target::InBlock => self.in_block(meaning)? as Value,
            Target::FromThread => self.thread_distance(meaning)? as Value,
        };
        let origin = match reference.form.origin {
            Origin::Zero => 0,
            Origin::Place => at as Value + Value::from(reference.form.shift),
            Origin::Table => self.table() as Value,
        };
        Some(target + Value::from(reference.addend) - origin)
    }
}

/// Copies the sections to their places and writes every relocation, entry and stub.
pub(super) fn fill(
    objects: &[Object],
    plan: &mut Plan,
    buffers: &mut impl Buffers,
    block: BlockPlace,
) -> Result<(), Error> {
    for outside in &plan.outside {
        if outside.symbol.is_none() && !outside.weak {
            return Err(Error::Unresolved {
                object: objects[outside.object].name.clone(),
                symbol: outside.name.clone(),
            });
        }
    }
    let references = understand(objects, plan)?;
    let places = Places::new(objects, plan, buffers, block);
    for part in 0..plan.parts.len() {
        for &(o, s, at) in &plan.parts[part].of {
            let data = objects[o].bytes(s);
            buffers.bytes(part)[at..at + data.len()].copy_from_slice(data);
        }
    }
    for (at, reference) in &references {
        let (o, s, _) = *at;
        let Some((part, start)) = plan.home(o, s) else { continue };
        let offset = start + reference.offset;
        let symbol = || objects[o].symbol_name(reference.symbol).to_owned();
        let value = places.value(reference, buffers.address(part) + offset);
        let Some(value) = value else {
            return Err(Error::WrongKind {
                site: plan.site(objects, *at),
                symbol: symbol(),
                reason: "its place in a thread is not the same in all, or it is of another kind",
            });
        };
        let form = reference.form;
        let field = form.field;
        if !field.fits(value) {
            return Err(Error::OutOfRange {
                site: plan.site(objects, *at),
                symbol: symbol(),
                distance: value,
                bits: 8 * field.len() as u32,
            });
        }
        let bytes = buffers.bytes(part);
        for &(distance, byte) in form.edits {
            bytes[offset.wrapping_add_signed(distance.into())] = byte;
        }
        let first = offset.wrapping_add_signed(form.shift.into());
        arch::write(field, &mut bytes[first..first + field.len()], value);
    }
    fill_table(objects, plan, &places, buffers)?;
    fill_stubs(plan, &places, buffers)?;
    Ok(())
}

type At = (usize, usize, usize);

fn understand(objects: &[Object], plan: &mut Plan) -> Result<Vec<(At, Reference)>, Error> {
    let mut references = Vec::new();
    for (o, object) in objects.iter().enumerate() {
        for (s, section) in object.sections.iter().enumerate() {
            if plan.home(o, s).is_none() {
                continue;
            }
            for r in 0..section.relocations.len() {
                let at = (o, s, r);
                if let Some(reference) = plan.reference(objects, at)? {
                    references.push((at, reference));
                }
            }
        }
    }
    Ok(references)
}

fn fill_table(
    objects: &[Object],
    plan: &Plan,
    places: &Places<'_>,
    buffers: &mut impl Buffers,
) -> Result<(), Error> {
    let Some(table) = plan.table else { return Ok(()) };
    for (&(entry, meaning), &slot) in &plan.entries {
        let Slot::Own(at) = slot else { continue };
        let Some(words) = places.words(entry, meaning) else {
            let symbol = plan.meaning_name(objects, meaning);
            let site = Site { object: "the set".into(), section: ".got".into(), offset: at as u64 };
            let reason = "its place in a thread is not the same in all, or it is of another kind";
            return Err(Error::WrongKind { site, symbol, reason });
        };
        let bytes = &mut buffers.bytes(table)[at..at + entry_len(entry)];
        for (word, value) in bytes.chunks_exact_mut(8).zip(words) {
            word.copy_from_slice(&(value as u64).to_ne_bytes());
        }
    }
    Ok(())
}

fn fill_stubs(plan: &Plan, places: &Places<'_>, buffers: &mut impl Buffers) -> Result<(), Error> {
    let Some(part) = plan.stub_part else { return Ok(()) };
    let start = buffers.address(part);
    for (&meaning, &slot) in &plan.stubs {
        let Slot::Own(at) = slot else { continue };
        let entry = places.entry(Entry::Address, meaning).unwrap_or(0);
        let Some(code) = arch::stub(start + at, entry) else {
            return Err(Error::OutOfRange {
                site: Site {
                    object: "the set".into(),
                    section: ".stubs".into(),
                    offset: at as u64,
                },
                symbol: ".got".into(),
                distance: entry as i128 - (start + at) as i128,
                bits: 32,
            });
        };
        buffers.bytes(part)[at..at + code.len()].copy_from_slice(&code);
    }
    Ok(())
}
