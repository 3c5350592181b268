//! What relocations refer to, and the entries and stubs that they need.

use std::collections::HashSet;

use super::super::arch::{self, Entry, Form, Target};
use super::super::object::{Home, Object, Use};
use super::super::{Error, ObjectCounts, Site, Symbol};
use super::{BLOCK, Meaning, Outside, Plan, SET, Slot, Surroundings, TABLE, entry_len};

/// A relocation, understood.
pub(in super::super) struct Reference {
    pub(in super::super) form: Form,
    pub(in super::super) meaning: Meaning,
    pub(in super::super) offset: usize,
    pub(in super::super) addend: i64,
    pub(in super::super) symbol: usize,
}

impl Plan {
    /// Looks at every relocation for the entries and stubs it needs.
    pub(super) fn count(
        &mut self,
        objects: &[Object],
        around: &dyn Surroundings,
    ) -> Result<(), Error> {
        for (o, object) in objects.iter().enumerate() {
            let mut entries = HashSet::new();
            let mut stubs = HashSet::new();
            for (s, section) in object.sections.iter().enumerate() {
                if self.homes[o][s].is_none() {
                    continue;
                }
                for r in 0..section.relocations.len() {
                    self.note_outside(objects, (o, s, r), around);
                    let Some(reference) = self.reference(objects, (o, s, r))? else {
                        continue;
                    };
                    self.note_fixed(objects, (o, s, r), &reference);
                    let meaning = reference.meaning;
                    let entry = match reference.form.target {
                        Target::Entry(entry) => Some(entry),
                        Target::Callee if self.needs_stub(meaning) => {
                            stubs.insert(meaning);
                            match self.note_stub(meaning, around) {
                                Slot::Own(_) => Some(Entry::Address),
                                Slot::Shared(..) => None,
                            }
                        }
                        _ if meaning == Meaning::Set => Some(Entry::Address),
                        _ => None,
                    };
                    if let Some(entry) = entry {
                        entries.insert(self.note_entry(entry, meaning, around));
                    }
                }
            }
            self.counts.objects.push(ObjectCounts {
                name: object.name.clone(),
                entries: entries.len(),
                stubs: stubs.len(),
            });
        }
        self.counts.shared_entries = self.entries.len() - self.counts.entries;
        self.counts.shared_stubs = self.stubs.len() - self.counts.stubs;
        Ok(())
    }

    /// The stub for a symbol, which there is from now on.
    fn note_stub(&mut self, meaning: Meaning, around: &dyn Surroundings) -> Slot {
        if let Some(&slot) = self.stubs.get(&meaning) {
            return slot;
        }
        let (name, symbol) = self.seen(meaning);
        let slot = match name.and_then(|name| around.stub(name, symbol)) {
            Some((set, address)) => Slot::Shared(set, address),
            None => {
                self.counts.stubs += 1;
                Slot::Own((self.counts.stubs - 1) * arch::STUB_LEN)
            }
        };
        self.stubs.insert(meaning, slot);
        slot
    }

    /// The entry for a symbol, which there is from now on.
    fn note_entry(
        &mut self,
        entry: Entry,
        meaning: Meaning,
        around: &dyn Surroundings,
    ) -> (Entry, Meaning) {
        let key = (entry, if entry == Entry::Block { Meaning::Block } else { meaning });
        if self.entries.contains_key(&key) {
            return key;
        }
        let (name, symbol) = self.seen(meaning);
        let slot = match name.and_then(|name| around.entry(name, entry, symbol)) {
            Some((set, address)) => Slot::Shared(set, address),
            None => {
                self.counts.entries += 1;
                self.counts.table += entry_len(entry);
                Slot::Own(self.counts.table - entry_len(entry))
            }
        };
        self.entries.insert(key, slot);
        key
    }

    /// Notes the first place that wants the set's block at a fixed distance.
    fn note_fixed(&mut self, objects: &[Object], at: (usize, usize, usize), its: &Reference) {
        let own = matches!(its.meaning, Meaning::Here(..) | Meaning::Block);
        let fixed = [Target::FromThread, Target::Entry(Entry::FromThread)];
        if own && fixed.contains(&its.form.target) && self.block.fixed.is_none() {
            self.block.fixed = Some(self.site(objects, at));
        }
    }

    fn note_outside(
        &mut self,
        objects: &[Object],
        (o, s, r): (usize, usize, usize),
        around: &dyn Surroundings,
    ) {
        let symbol = &objects[o].symbols[objects[o].sections[s].relocations[r].symbol];
        if symbol.local || symbol.name.is_empty() || self.names.contains_key(&symbol.name) {
            return;
        }
        let meaning = match symbol.name.as_str() {
            TABLE => Meaning::Table,
            SET => Meaning::Set,
            BLOCK => Meaning::Block,
            name => {
                let found = around.symbol(name);
                let from = found.and_then(|(_, set)| set);
                self.outside.push(Outside {
                    name: name.into(),
                    object: o,
                    weak: true,
                    symbol: found.map(|(symbol, _)| symbol),
                    from,
                    near: from.is_some_and(|set| around.near(set)),
                });
                Meaning::Outside(self.outside.len() - 1)
            }
        };
        self.names.insert(symbol.name.clone(), meaning);
    }

    /// What relocation `r` of section `s` of object `o` refers to; none, if it is left as it is.
    pub(in super::super) fn reference(
        &mut self,
        objects: &[Object],
        at: (usize, usize, usize),
    ) -> Result<Option<Reference>, Error> {
        let (o, s, r) = at;
        let (object, section) = (&objects[o], &objects[o].sections[s]);
        let relocation = section.relocations[r];
        let symbol = &object.symbols[relocation.symbol];
        let meaning = if symbol.local || symbol.name.is_empty() {
            match (relocation.symbol, symbol.home) {
                (0, _) | (_, Home::Undefined) => Meaning::Nothing,
                (_, Home::Section(section)) if !self.is_loaded(o, section) => {
                    if objects[o].sections[s].used == Use::Unwind {
                        // Zeros, which the unwinder takes for a function that is not there.
                        return Ok(None);
                    }
                    return Err(self.not_loaded(objects, at));
                }
                _ => Meaning::Here(o, relocation.symbol),
            }
        } else {
            self.names.get(&symbol.name).copied().unwrap_or(Meaning::Nothing)
        };
        if let Meaning::Outside(outside) = meaning
            && !symbol.weak
        {
            self.outside[outside].weak = false;
        }
        let site = || self.site(objects, at);
        if let Meaning::Here(other, its) = meaning
            && objects[other].symbols[its].ifunc
        {
            let symbol = objects[other].symbols[its].name.clone();
            return Err(Error::Ifunc { object: objects[other].name.clone(), symbol });
        }
        let inside = match meaning {
            Meaning::Here(other, its) => objects[other].symbols[its].home != Home::Absolute,
            Meaning::Outside(outside) => self.outside[outside].near,
            Meaning::Common(_) | Meaning::Set | Meaning::Table => true,
            Meaning::Nothing | Meaning::Block => false,
        };
        let bytes = object.bytes(s);
        let offset = usize::try_from(relocation.offset).unwrap_or(usize::MAX);
        let unsupported = |reason| Error::Unsupported {
            site: site(),
            relocation: arch::name(relocation.kind),
            reason,
        };
        let code = section.used == Use::Code;
        let form = arch::decode(relocation.kind, (bytes, code), offset, relocation.addend, inside)
            .map_err(unsupported)?;
        if offset.checked_add(form.field.len()).is_none_or(|end| end > bytes.len()) {
            let reason = format!("{}: a relocation outside of it", section.name);
            return Err(Error::Malformed { object: object.name.clone(), reason });
        }
        if form.target == Target::Size && self.size(objects, meaning).is_none() {
            return Err(unsupported("the size of what the set does not define is not known"));
        }
        let wants_thread = match form.target {
            Target::Nothing => None,
            Target::InBlock | Target::FromThread => Some(true),
            Target::Entry(Entry::Address) => Some(false),
            Target::Entry(_) => Some(true),
            Target::Symbol | Target::Callee => Some(false),
            Target::Size | Target::Table => None,
        };
        let is_thread = self.is_thread(objects, meaning);
        if let (Some(wants), Some(is)) = (wants_thread, is_thread)
            && wants != is
        {
            let reason = if is {
                "a thread's variable, referred to as if it had one address"
            } else {
                "no thread's variable, referred to as one"
            };
            let symbol = object.symbol_name(relocation.symbol).into();
            return Err(Error::WrongKind { site: site(), symbol, reason });
        }
        let of_block = [Target::InBlock, Target::Entry(Entry::Block)];
        if of_block.contains(&form.target) && matches!(meaning, Meaning::Outside(_)) {
            let symbol = object.symbol_name(relocation.symbol).into();
            let reason = "a thread's variable of the set is expected, but it defines none";
            return Err(Error::WrongKind { site: site(), symbol, reason });
        }
        let (symbol, addend) = (relocation.symbol, relocation.addend);
        Ok(Some(Reference { form, meaning, offset, addend, symbol }))
    }

    /// Whether it is a thread's variable, where that is known.
    fn is_thread(&self, objects: &[Object], meaning: Meaning) -> Option<bool> {
        match meaning {
            Meaning::Here(o, s) => Some(objects[o].symbols[s].thread),
            Meaning::Outside(outside) => {
                self.outside[outside].symbol.map(|s| !matches!(s, Symbol::Address(_)))
            }
            Meaning::Block => Some(true),
            Meaning::Nothing => None,
            Meaning::Common(_) | Meaning::Set | Meaning::Table => Some(false),
        }
    }

    fn needs_stub(&self, meaning: Meaning) -> bool {
        matches!(meaning, Meaning::Outside(outside) if !self.outside[outside].near)
    }

    pub(in super::super) fn site(
        &self,
        objects: &[Object],
        (o, s, r): (usize, usize, usize),
    ) -> Site {
        let section = &objects[o].sections[s];
        Site {
            object: objects[o].name.clone(),
            section: section.name.clone(),
            offset: section.relocations[r].offset,
        }
    }

    fn not_loaded(&self, objects: &[Object], at: (usize, usize, usize)) -> Error {
        let (o, s, r) = at;
        let symbol = objects[o].sections[s].relocations[r].symbol;
        let symbol = objects[o].symbol_name(symbol).into();
        Error::NotLoaded { site: self.site(objects, at), symbol }
    }

    /// The name under which other sets know it, and what it is outside.
    fn seen(&self, meaning: Meaning) -> (Option<&str>, Option<Symbol>) {
        match meaning {
            Meaning::Outside(outside) => {
                let outside = &self.outside[outside];
                (Some(&outside.name), outside.symbol)
            }
            _ => (None, None),
        }
    }
}
