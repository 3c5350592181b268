//! Which methods are compiled, and which slots wait for one that is not.

use std::hash::Hash;

use rustc_hash::FxHashMap as HashMap;

use super::Key;

/// A slot: number of the batch, and of the slot in it.
pub(super) type Place = (usize, u32);

/// A method that a slot waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<M> {
    pub(super) method: M,
    /// Whose batch had it when the caller was compiled.
    pub(super) home: Option<Key>,
}

/// The main table.
#[derive(Debug)]
pub(super) struct Table<M> {
    compiled: HashMap<M, Compiled>,
    /// By the slots' addresses.
    waiting: HashMap<usize, Waiting<M>>,
    places: HashMap<M, Vec<(usize, Place)>>,
}

/// A method that is compiled.
#[derive(Clone, Copy, Debug)]
struct Compiled {
    address: usize,
    /// Whose batch it is in.
    root: Key,
}

impl<M: Copy + Eq + Hash> Table<M> {
    pub(super) fn new() -> Table<M> {
        Table {
            compiled: HashMap::default(),
            waiting: HashMap::default(),
            places: HashMap::default(),
        }
    }

    /// Forgets everything, but keeps the room for as much.
    pub(super) fn clear(&mut self) {
        self.compiled.clear();
        self.waiting.clear();
        self.places.clear();
    }

    pub(super) fn address(&self, method: M) -> Option<usize> {
        self.compiled.get(&method).map(|compiled| compiled.address)
    }

    pub(super) fn root(&self, method: M) -> Option<Key> {
        self.compiled.get(&method).map(|compiled| compiled.root)
    }

    /// Methods of the batch of `root`. One that is compiled already stays where it is.
    pub(super) fn add(&mut self, methods: impl ExactSizeIterator<Item = (M, usize)>, root: Key) {
        self.compiled.reserve(methods.len());
        for (method, address) in methods {
            self.compiled.entry(method).or_insert(Compiled { address, root });
        }
    }

    pub(super) fn wait(&mut self, slot: usize, place: Place, method: M, home: Option<Key>) {
        self.waiting.insert(slot, Waiting { method, home });
        self.places.entry(method).or_default().push((slot, place));
    }

    /// What the slot at this address waits for.
    pub(super) fn awaited(&self, slot: usize) -> Option<Waiting<M>> {
        self.waiting.get(&slot).copied()
    }

    /// The slots that wait for this method, which wait no longer.
    pub(super) fn arrived(&mut self, method: M) -> Vec<Place> {
        let slots = self.places.remove(&method).unwrap_or_default();
        slots
            .into_iter()
            .map(|(slot, place)| {
                self.waiting.remove(&slot);
                place
            })
            .collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
