//! What is mapped, and what happened.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use super::batch::Batch;
use super::format::Contents;
use super::table::Table;
use super::{Error, Event, Happened, Key, Stats};
use crate::vm::Meter;

/// Whose address a slot gets.
#[derive(Clone, Copy, Debug)]
pub(super) enum To<M> {
    Inside(u32),
    Outside { method: M, home: Option<Key>, stub: u32 },
    Helper(usize),
}

/// The methods and slots of a file, as this process names them.
#[derive(Debug)]
pub(super) struct Resolved<M> {
    pub(super) methods: Vec<M>,
    pub(super) slots: Vec<To<M>>,
}

#[derive(Debug)]
pub(super) struct State<M> {
    pub(super) table: Table<M>,
    batches: Vec<Batch>,
    /// Their roots.
    roots: HashSet<Key>,
    pub(super) events: VecDeque<Event>,
    stats: Stats,
    protect_got: bool,
    pub(super) meter: Meter,
}

impl<M: Copy + Eq + Hash> State<M> {
    /// Events that are kept for who does not ask.
    const EVENTS: usize = 1024;

    pub(super) fn new(protect_got: bool) -> State<M> {
        State {
            table: Table::new(),
            batches: Vec::new(),
            roots: HashSet::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            protect_got,
            meter: Meter::new(),
        }
    }

    /// Whether the batch of `root` is mapped.
    pub(super) fn has(&self, root: &Key) -> bool {
        self.roots.contains(root)
    }

    /// Enters a batch: its slots are filled, then others' that wait for its methods.
    pub(super) fn install(
        &mut self,
        mut batch: Batch,
        contents: &Contents,
        resolved: &Resolved<M>,
    ) -> Result<(), Error> {
        let rows = contents.methods.iter().zip(&resolved.methods);
        let addresses: Vec<usize> = rows
            .map(|(row, &method)| {
                self.table.address(method).unwrap_or_else(|| batch.address(row.at))
            })
            .collect();
        let mut waiting = Vec::new();
        for (slot, to) in (0..).zip(&resolved.slots) {
            let address = match *to {
                Inside(n) => addresses[n as usize],
                Outside { method, home, stub } => self.table.address(method).unwrap_or_else(|| {
                    waiting.push((slot, method, home));
                    batch.address(stub)
                }),
                Helper(address) => address,
            };
            batch.set(slot, address);
        }
        if self.protect_got {
            batch.protect(true)?;
        }
        let (number, root) = (self.batches.len(), contents.root());
        for (slot, method, home) in waiting {
            self.table.wait(batch.slot(slot), (number, slot), method, home);
        }
        self.table.add(resolved.methods.iter().copied().zip(addresses), root);
        self.stats.bytes += batch.bytes();
        self.batches.push(batch);
        self.roots.insert(root);
        if self.table.waiting() > 0 {
            resolved.methods.iter().for_each(|&method| self.arrive(method));
        }
        Ok(())
    }

    fn arrive(&mut self, method: M) {
        let Some(address) = self.table.address(method) else { return };
        for (number, slot) in self.table.arrived(method) {
            let batch = &mut self.batches[number];
            if self.protect_got && batch.protect(false).is_err() {
                // Calls through it go on asking the resolver, which knows the method.
                self.table.wait(batch.slot(slot), (number, slot), method, None);
                continue;
            }
            batch.set(slot, address);
            if self.protect_got {
                // It could be made writable, and is split from no neighbour: so it can be made
                // what it was.
                let _ = batch.protect(true);
            }
        }
    }

    pub(super) fn happened(&mut self, root: Key, what: Happened) {
        match &what {
            Happened::Loaded { .. } => self.stats.loaded += 1,
            Happened::Compiled { methods } => {
                self.stats.compiled += 1;
                self.stats.methods_compiled += *methods as u64;
            }
            Happened::Ignored(_) => self.stats.ignored += 1,
            Happened::Evicted | Happened::Untidied(_) => {}
        }
        if self.events.len() == State::<M>::EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { root, what });
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { waiting: self.table.waiting(), memory: self.meter.stats(), ..self.stats }
    }

    pub(super) fn unload(&mut self) {
        self.table.clear();
        self.batches.clear();
        self.roots.clear();
        self.stats.bytes = 0;
    }
}

use To::{Helper, Inside, Outside};
