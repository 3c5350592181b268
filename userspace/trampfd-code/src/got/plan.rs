//! What a set of objects needs, before anything has an address: which sections are loaded, what
//! each name means, and which entries and stubs there will be, counted.

mod need;

use std::collections::{HashMap, HashSet};

pub(super) use need::Reference;

use super::arch::{self, Entry};
use super::object::{Home, Object, Use};
use super::{Counts, Error, Site, Symbol, unwind_table};

/// Names that mean something of the set that refers to them, whichever it is.
const TABLE: &str = "_GLOBAL_OFFSET_TABLE_";
const SET: &str = "__dso_handle";
const BLOCK: &str = "_TLS_MODULE_BASE_";

/// The parts of a set that get memory, and what every relocation of it refers to.
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    /// Part and offset, by object and section.
    homes: Vec<Vec<Option<(usize, usize)>>>,
    pub(super) names: HashMap<String, Meaning>,
    pub(super) outside: Vec<Outside>,
    commons: Vec<Common>,
    pub(super) entries: HashMap<(Entry, Meaning), Slot>,
    pub(super) stubs: HashMap<Meaning, Slot>,
    pub(super) block: Block,
    pub(super) counts: Counts,
    pub(super) table: Option<usize>,
    pub(super) stub_part: Option<usize>,
    pub(super) common_part: Option<usize>,
}

/// A common symbol: of all that have the name, the largest size and alignment.
struct Common {
    name: String,
    size: u64,
    align: u64,
    /// Its offset in the part of common symbols.
    at: usize,
}

/// What becomes one section of the pool.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: Use,
    pub(super) len: usize,
    pub(super) align: usize,
    /// Object, section, offset in the part.
    pub(super) of: Vec<(usize, usize, usize)>,
}

/// What a symbol means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Meaning {
    Nothing,
    /// `_GLOBAL_OFFSET_TABLE_`: the table.
    Table,
    /// `__dso_handle`: what tells this set from others.
    Set,
    /// `_TLS_MODULE_BASE_`: the start of the set's block.
    Block,
    /// Object and symbol.
    Here(usize, usize),
    Common(usize),
    Outside(usize),
}

/// A name that the set does not define.
pub(super) struct Outside {
    pub(super) name: String,
    /// The first object that refers to it.
    pub(super) object: usize,
    pub(super) weak: bool,
    pub(super) symbol: Option<Symbol>,
    /// Which of the sets that are shared with defines it.
    pub(super) from: Option<usize>,
    /// Whether that set is taken to be in reach.
    near: bool,
}

/// An entry or a stub.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// The set's own: bytes from the start of the table, or of the stubs.
    Own(usize),
    /// The address of another set's: which of those that are shared with.
    Shared(usize, usize),
}

/// The variables each thread has a block of.
#[derive(Clone, Default)]
pub(super) struct Block {
    pub(super) len: usize,
    pub(super) align: usize,
    /// Bytes that do not begin as zeros, and their part.
    pub(super) image: usize,
    pub(super) image_part: Option<usize>,
    /// Offset in the block, by object and section.
    homes: HashMap<(usize, usize), usize>,
    /// The first place that needs it at a fixed distance from the thread pointer.
    pub(super) fixed: Option<Site>,
}

/// What other sets offer, and what the program does.
pub(super) trait Surroundings {
    /// What a name means, and which set says so.
    fn symbol(&self, name: &str) -> Option<(Symbol, Option<usize>)>;
    /// An entry for the same symbol with the same contents: set and address.
    fn entry(&self, name: &str, entry: Entry, symbol: Option<Symbol>) -> Option<(usize, usize)>;
    /// A stub for the same symbol and address: set and address.
    fn stub(&self, name: &str, symbol: Option<Symbol>) -> Option<(usize, usize)>;
    /// Whether what a set has is taken to be in reach.
    fn near(&self, set: usize) -> bool;
}

/// Bytes of an entry.
pub(super) fn entry_len(entry: Entry) -> usize {
    match entry {
        Entry::Address | Entry::FromThread => 8,
        Entry::Variable | Entry::Block => 16,
    }
}

impl Plan {
    /// `limit`: most bytes of memory. `unwind`: whether tables for the unwinder are loaded.
    pub(super) fn new(
        objects: &[Object],
        around: &dyn Surroundings,
        limit: u64,
        unwind: bool,
    ) -> Result<Plan, Error> {
        // Of all lengths together, none has more bits than an address.
        let limit = limit.min(isize::MAX as u64);
        let mut plan = Plan {
            parts: Vec::new(),
            homes: Vec::new(),
            names: HashMap::new(),
            outside: Vec::new(),
            commons: Vec::new(),
            entries: HashMap::new(),
            stubs: HashMap::new(),
            block: Block { align: 1, ..Block::default() },
            counts: Counts::default(),
            table: None,
            stub_part: None,
            common_part: None,
        };
        plan.place(objects, limit, unwind)?;
        let commons = plan.define(objects, limit)?;
        plan.count(objects, around)?;
        plan.add_own_parts(commons);
        let len = plan.parts.iter().fold(0, |len: u64, part| len.saturating_add(part.len as u64));
        if len > limit {
            let (object, section) = ("the set".into(), "all of it".into());
            return Err(Error::TooLarge { object, section, len, limit });
        }
        Ok(plan)
    }

    /// Gives each section that is loaded a place in a part.
    fn place(&mut self, objects: &[Object], limit: u64, unwind: bool) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut total = 0u64;
        let mut tables = Vec::new();
        let (mut images, mut zeros) = (Vec::new(), Vec::new());
        for (o, object) in objects.iter().enumerate() {
            let mut homes = vec![None; object.sections.len()];
            let mut other_copy = vec![false; object.sections.len()];
            for group in &object.groups {
                if !seen.insert(&group.signature) {
                    group.members.iter().for_each(|&member| other_copy[member] = true);
                }
            }
            for (s, section) in object.sections.iter().enumerate() {
                let skip = section.used == Use::Nothing || section.used == Use::Unwind && !unwind;
                if skip || other_copy[s] {
                    continue;
                }
                total = total.saturating_add(section.len).saturating_add(section.align as u64);
                if total > limit {
                    let (object, section) = (object.name.clone(), section.name.clone());
                    return Err(Error::TooLarge { object, section, len: total, limit });
                }
                match section.used {
                    Use::Unwind => {
                        unwind_table::check(object.bytes(s)).map_err(|reason| Error::Unwind {
                            object: object.name.clone(),
                            reason,
                        })?;
                        tables.push((o, s));
                    }
                    Use::Thread if section.data.is_empty() => zeros.push((o, s)),
                    Use::Thread => images.push((o, s)),
                    _ => {
                        homes[s] = Some((self.parts.len(), 0));
                        self.parts.push(Part {
                            name: format!("{}:{}", object.name, section.name),
                            kind: section.used,
                            len: section.len as usize,
                            align: section.align,
                            of: vec![(o, s, 0)],
                        });
                    }
                }
            }
            self.homes.push(homes);
        }
        let block = &mut self.block;
        for &(o, s) in images.iter().chain(&zeros) {
            let section = &objects[o].sections[s];
            let at = block.len.next_multiple_of(section.align);
            block.homes.insert((o, s), at);
            block.len = at + section.len as usize;
            block.align = block.align.max(section.align);
            if !section.data.is_empty() {
                block.image = block.len;
            }
        }
        if block.image > 0 {
            block.image_part = Some(self.parts.len());
            let of: Vec<_> = images.iter().map(|&(o, s)| (o, s, block.homes[&(o, s)])).collect();
            let (len, align) = (block.image, block.align);
            self.add(Part { name: ".tdata".into(), kind: Use::ReadOnly, len, align, of });
        }
        if !tables.is_empty() {
            // One table, without gaps, which would end it, and with an end.
            let mut len = 0;
            let mut of = Vec::new();
            for (o, s) in tables {
                of.push((o, s, len));
                len += objects[o].sections[s].len as usize;
            }
            len += unwind_table::END;
            self.add(Part { name: ".eh_frame".into(), kind: Use::Unwind, len, align: 8, of });
        }
        Ok(())
    }

    fn add(&mut self, part: Part) -> usize {
        for &(o, s, at) in &part.of {
            self.homes[o][s] = Some((self.parts.len(), at));
        }
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// Decides which definition each name means. Bytes and alignment of common symbols are
    /// returned.
    fn define(&mut self, objects: &[Object], limit: u64) -> Result<(usize, usize), Error> {
        for (o, object) in objects.iter().enumerate() {
            for (s, symbol) in object.symbols.iter().enumerate() {
                if symbol.local || symbol.name.is_empty() {
                    continue;
                }
                match symbol.home {
                    Home::Undefined => continue,
                    Home::Section(section) if !self.is_loaded(o, section) => continue,
                    Home::Common if symbol.thread => {
                        let reason = format!("{}: thread-local and common", symbol.name);
                        return Err(Error::Malformed { object: object.name.clone(), reason });
                    }
                    _ => {}
                }
                let old = self.names.get(&symbol.name).copied();
                let new = match (old, symbol.home) {
                    (Some(Meaning::Common(c)), Home::Common) => {
                        let common = &mut self.commons[c];
                        common.size = common.size.max(symbol.size);
                        common.align = common.align.max(symbol.value);
                        continue;
                    }
                    (Some(Meaning::Here(other, its)), Home::Common)
                        if !objects[other].symbols[its].weak =>
                    {
                        continue;
                    }
                    (_, Home::Common) => {
                        let (name, align) = (symbol.name.clone(), symbol.value);
                        self.commons.push(Common { name, size: symbol.size, align, at: 0 });
                        Meaning::Common(self.commons.len() - 1)
                    }
                    (Some(_), _) if symbol.weak => continue,
                    (Some(Meaning::Here(other, its)), _) if !objects[other].symbols[its].weak => {
                        return Err(Error::Duplicate {
                            symbol: symbol.name.clone(),
                            first: objects[other].name.clone(),
                            second: object.name.clone(),
                        });
                    }
                    _ => Meaning::Here(o, s),
                };
                self.names.insert(symbol.name.clone(), new);
            }
        }
        let (mut len, mut most) = (0u64, 1);
        for (c, common) in self.commons.iter_mut().enumerate() {
            if self.names.get(&common.name) != Some(&Meaning::Common(c)) {
                continue;
            }
            let at = len.next_multiple_of(common.align);
            common.at = at as usize;
            len = at.saturating_add(common.size);
            most = most.max(common.align);
            if len > limit {
                let (object, section) = ("the set".into(), "COMMON".into());
                return Err(Error::TooLarge { object, section, len, limit });
            }
        }
        Ok((len as usize, most as usize))
    }

    fn is_loaded(&self, object: usize, section: usize) -> bool {
        self.homes[object][section].is_some() || self.block.homes.contains_key(&(object, section))
    }

    /// The table, the stubs and the common symbols.
    fn add_own_parts(&mut self, (len, align): (usize, usize)) {
        let part = |name: &str, kind, len, align| Part {
            name: name.into(),
            kind,
            len,
            align,
            of: Vec::new(),
        };
        if len > 0 {
            self.common_part = Some(self.add(part("COMMON", Use::ReadWrite, len, align)));
        }
        // There is a place for the table also where only its address is asked for.
        self.table = Some(self.add(part(".got", Use::ReadOnly, self.counts.table, 16)));
        if self.counts.stubs > 0 {
            let len = self.counts.stubs * arch::STUB_LEN;
            self.stub_part = Some(self.add(part(".stubs", Use::Code, len, arch::STUB_ALIGN)));
        }
    }

    /// Which of the sets that are shared with are used.
    pub(super) fn used_sets(&self) -> HashSet<usize> {
        let slots = self.entries.values().chain(self.stubs.values());
        let shared = slots.filter_map(|slot| match slot {
            Slot::Own(_) => None,
            Slot::Shared(set, _) => Some(*set),
        });
        shared.chain(self.outside.iter().filter_map(|outside| outside.from)).collect()
    }

    /// How errors and the list of the table call it.
    pub(super) fn meaning_name(&self, objects: &[Object], meaning: Meaning) -> String {
        match meaning {
            Meaning::Here(o, s) => objects[o].symbol_name(s).into(),
            Meaning::Outside(outside) => self.outside[outside].name.clone(),
            Meaning::Common(common) => self.commons[common].name.clone(),
            Meaning::Table => TABLE.into(),
            Meaning::Set => SET.into(),
            Meaning::Block => BLOCK.into(),
            Meaning::Nothing => String::new(),
        }
    }

    /// Part and offset of a section.
    pub(super) fn home(&self, object: usize, section: usize) -> Option<(usize, usize)> {
        self.homes[object][section]
    }

    /// Offset of a section's variables in the thread's block.
    pub(super) fn in_block(&self, object: usize, section: usize) -> Option<usize> {
        self.block.homes.get(&(object, section)).copied()
    }

    /// Offset of a common symbol in its part.
    pub(super) fn common(&self, common: usize) -> usize {
        self.commons[common].at
    }

    /// Bytes of what the set defines.
    pub(super) fn size(&self, objects: &[Object], meaning: Meaning) -> Option<u64> {
        match meaning {
            Meaning::Here(o, s) => Some(objects[o].symbols[s].size),
            Meaning::Common(common) => Some(self.commons[common].size),
            _ => None,
        }
    }
}
