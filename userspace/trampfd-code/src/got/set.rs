//! A set that is loaded: what is where, who uses it, and how it goes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::arch::Entry;
use super::gdb::Shown;
use super::object::{Home, Object};
use super::plan::{Meaning, Plan, Slot};
use super::relocate::{BlockPlace, Buffers, Places};
use super::tls::Module;
use super::unwind::Registered;
use super::{Counts, Symbol};
use crate::pool::{self, Pool};

/// A set that is loaded. Dropping it does what [`Set::remove_when_unused`] does.
pub struct Set(pub(super) Arc<Loaded>);

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set").field("id", &self.0.id).field("counts", &self.0.counts).finish()
    }
}

/// What [`Set::remove_when_unused`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The set is gone.
    Done,
    /// It goes with the last of these sets, which use it.
    Deferred(Vec<u64>),
}

/// A set was not removed: others use its symbols, table entries or stubs.
#[derive(Debug)]
pub struct InUse {
    /// The set, as it was.
    pub set: Set,
    /// The sets that use it, those not yet loaded included.
    pub by: Vec<u64>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} is used by sets {:?}", self.set.id(), self.by)
    }
}

impl std::error::Error for InUse {}

/// An entry of a set's table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableEntry {
    /// What it is for.
    pub symbol: String,
    /// Where it is.
    pub address: usize,
    /// Words of 8 bytes: 1 or 2.
    pub words: usize,
}

impl Set {
    /// The pool it is in.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The address of a function or variable that the set defines and does not hide.
    pub fn symbol(&self, name: &str) -> Option<usize> {
        match self.0.symbols.get(name)? {
            Symbol::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// What it has taken.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Its sections: those of its objects as `object:section`, and `.got`, `.stubs`, `.eh_frame`,
    /// `.tdata` and `COMMON` where it has them.
    pub fn sections(&self) -> &[pool::Placed] {
        self.0.sections.sections()
    }

    /// The entries of its table, in their order.
    pub fn table(&self) -> &[TableEntry] {
        &self.0.table
    }

    /// The sets that it uses.
    pub fn uses(&self) -> Vec<u64> {
        self.0.claims.iter().map(|claim| claim.of().id).collect()
    }

    /// The sets that use it, those not yet loaded included.
    pub fn used_by(&self) -> Vec<u64> {
        lock(&self.0.users).clone()
    }

    /// Runs what the objects want to run before anything else of them: constructors
    /// (`.init_array`), by priority, then in the order of the objects. Objects that have them in
    /// another form (`.ctors`, `.init`, `.preinit_array`) are not loaded.
    ///
    /// # Safety
    ///
    /// They are what a compiler made, and were not run before.
    pub unsafe fn init(&self) {
        for &function in &self.0.init {
            // SAFETY: an address in `.init_array`, by the caller's contract of such a function.
            let function: extern "C" fn(i32, *const u8, *const u8) =
                unsafe { std::mem::transmute(function) };
            function(0, std::ptr::null(), std::ptr::null());
        }
    }

    /// Runs what the objects want to run last: what they gave to `__cxa_atexit`, and destructors
    /// (`.fini_array`).
    ///
    /// # Safety
    ///
    /// They are what a compiler made, constructors were run, and this was not.
    pub unsafe fn fini(&self) {
        unsafe extern "C" {
            fn __cxa_finalize(set: *mut u8);
        }
        if let Some(handle) = self.0.handle {
            // SAFETY: the handle is this set's alone, and not null, which would mean all.
            unsafe { __cxa_finalize(handle as *mut u8) };
        }
        for &function in self.0.fini.iter().rev() {
            // SAFETY: an address in `.fini_array`, by the caller's contract of such a function.
            let function: extern "C" fn() = unsafe { std::mem::transmute(function) };
            function();
        }
    }

    /// Removes the set, now. Nobody may run its code or use its variables any more. Neither may
    /// the C library: at the end of a thread that used a variable with a destructor (C++'s
    /// `thread_local`), and at the end of the program, if [`Set::fini`] did not call what was
    /// left for it.
    ///
    /// # Errors
    ///
    /// [`InUse`]: other sets use it; it is given back as it was.
    pub fn remove(self) -> Result<(), InUse> {
        let by = self.used_by();
        if by.is_empty() { Ok(()) } else { Err(InUse { set: self, by }) }
    }

    /// Removes the set as soon as no other set uses it. Nobody else may run its code or use its
    /// variables any more; see [`Set::remove`].
    pub fn remove_when_unused(self) -> Removal {
        let by = self.used_by();
        if by.is_empty() { Removal::Done } else { Removal::Deferred(by) }
    }
}

/// A set as others see it.
///
/// # Invariants
///
/// The fields are dropped in their order: what knows addresses of the pool before the pool, and
/// the sets that its addresses are of last.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) unwind: Option<Registered>,
    pub(super) shown: Vec<Shown>,
    pub(super) module: Option<Arc<Module>>,
    pub(super) pool: Option<Pool>,
    pub(super) claims: Vec<Claim>,
    pub(super) sections: pool::Set,
    id: u64,
    counts: Counts,
    symbols: HashMap<String, Symbol>,
    table: Vec<TableEntry>,
    /// What others may use: addresses, and what is there.
    entries: HashMap<(String, Entry), (usize, Option<Symbol>)>,
    stubs: HashMap<String, (usize, Option<Symbol>)>,
    pub(super) init: Vec<usize>,
    pub(super) fini: Vec<usize>,
    handle: Option<usize>,
    users: Arc<Mutex<Vec<u64>>>,
}

/// A set's use of another. The fields are dropped in their order: who finds no user any more
/// finds no other owner of the set either.
#[derive(Debug)]
pub(super) struct Claim {
    of: Arc<Loaded>,
    _user: User,
}

/// A line in the list of a set's users.
#[derive(Debug)]
struct User {
    list: Arc<Mutex<Vec<u64>>>,
    id: u64,
}

impl Claim {
    pub(super) fn new(of: &Arc<Loaded>, by: u64) -> Claim {
        let list = of.users.clone();
        lock(&list).push(by);
        Claim { of: of.clone(), _user: User { list, id: by } }
    }

    pub(super) fn of(&self) -> &Loaded {
        &self.of
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = lock(&self.list);
        if let Some(at) = users.iter().position(|&user| user == self.id) {
            users.remove(at);
        }
    }
}

fn lock(users: &Mutex<Vec<u64>>) -> MutexGuard<'_, Vec<u64>> {
    users.lock().unwrap_or_else(|e| e.into_inner())
}

impl Loaded {
    pub(super) fn new(
        id: u64,
        plan: &Plan,
        objects: &[Object],
        places: &Places<'_>,
        block: BlockPlace,
        sections: pool::Set,
    ) -> Loaded {
        let mut loaded = Loaded {
            unwind: None,
            shown: Vec::new(),
            module: None,
            pool: None,
            claims: Vec::new(),
            sections,
            id,
            counts: plan.counts.clone(),
            symbols: HashMap::new(),
            table: Vec::new(),
            entries: HashMap::new(),
            stubs: HashMap::new(),
            init: Vec::new(),
            fini: Vec::new(),
            handle: places.address(Meaning::Set),
            users: Arc::default(),
        };
        for (name, &meaning) in &plan.names {
            if let Some(symbol) = symbol(plan, objects, places, block, meaning) {
                loaded.symbols.insert(name.clone(), symbol);
            }
        }
        loaded.note_table(plan, objects, places);
        loaded
    }

    fn note_table(&mut self, plan: &Plan, objects: &[Object], places: &Places<'_>) {
        for (&(entry, meaning), slot) in &plan.entries {
            let (Slot::Own(_), Some(address)) = (slot, places.entry(entry, meaning)) else {
                continue;
            };
            let name = plan.meaning_name(objects, meaning);
            let words = super::plan::entry_len(entry) / 8;
            match meaning {
                Meaning::Outside(outside) => {
                    let symbol = plan.outside[outside].symbol;
                    self.entries.insert((name.clone(), entry), (address, symbol));
                }
                Meaning::Here(..) | Meaning::Common(_)
                    if plan.names.get(&name) == Some(&meaning) =>
                {
                    if let Some(&symbol) = self.symbols.get(&name) {
                        self.entries.insert((name.clone(), entry), (address, Some(symbol)));
                    }
                }
                _ => {}
            }
            self.table.push(TableEntry { symbol: name, address, words });
        }
        self.table.sort_by_key(|entry| entry.address);
        for (&meaning, slot) in &plan.stubs {
            let (Slot::Own(_), Meaning::Outside(outside)) = (slot, meaning) else { continue };
            let outside = &plan.outside[outside];
            if let Some(address) = places.stub(meaning) {
                self.stubs.insert(outside.name.clone(), (address, outside.symbol));
            }
        }
    }

    /// What a name of this set means to others.
    pub(super) fn lookup(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    /// An entry for a name that has what one for `symbol` would have.
    pub(super) fn entry(&self, name: &str, entry: Entry, symbol: Option<Symbol>) -> Option<usize> {
        let &(address, what) = self.entries.get(&(name.to_owned(), entry))?;
        (what == symbol).then_some(address)
    }

    /// A stub for a name that leads to `symbol`.
    pub(super) fn stub(&self, name: &str, symbol: Option<Symbol>) -> Option<usize> {
        let &(address, what) = self.stubs.get(name)?;
        (what == symbol).then_some(address)
    }
}

/// What a definition of the set is to others; nothing, if they do not see it.
fn symbol(
    plan: &Plan,
    objects: &[Object],
    places: &Places<'_>,
    block: BlockPlace,
    meaning: Meaning,
) -> Option<Symbol> {
    match meaning {
        Meaning::Here(o, s) => {
            let symbol = &objects[o].symbols[s];
            if symbol.hidden || symbol.ifunc {
                return None;
            }
            let Home::Section(section) = symbol.home else {
                return places.address(meaning).map(Symbol::Address);
            };
            if !symbol.thread {
                return places.address(meaning).map(Symbol::Address);
            }
            let offset = plan.in_block(o, section)? + symbol.value as usize;
            Some(match block {
                BlockPlace::Module(module) => Symbol::ThreadModule { module, offset },
                BlockPlace::Fixed(start) => Symbol::Thread(start + offset as isize),
            })
        }
        Meaning::Common(_) => places.address(meaning).map(Symbol::Address),
        _ => None,
    }
}

/// Which functions run at the start and which at the end, read from parts that are filled.
pub(super) fn calls(
    plan: &Plan,
    objects: &[Object],
    buffers: &mut impl Buffers,
) -> (Vec<usize>, Vec<usize>) {
    let mut read = |name| {
        let mut found = Vec::new();
        for (part, its) in plan.parts.iter().enumerate() {
            let Some(&(o, s, _)) = its.of.first() else { continue };
            if let Some(order) = objects[o].sections[s].order(name) {
                found.push((order, part));
            }
        }
        found.sort();
        let mut calls = Vec::new();
        for (_, part) in found {
            let words = buffers.bytes(part).chunks_exact(size_of::<usize>());
            let words = words.filter_map(|word| Some(usize::from_ne_bytes(word.try_into().ok()?)));
            calls.extend(words.filter(|&word| word != 0));
        }
        calls
    };
    (read(".init_array"), read(".fini_array"))
}
