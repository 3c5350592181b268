//! Free runs, in bins by length: the shortest that is long enough is found without a search.

/// No run.
pub(super) const NONE: u32 = u32::MAX;
/// Lengths up to this have a bin each.
pub(super) const EXACT: u32 = 64;
/// Bins for each doubling of the length after that.
const STEPS: u32 = 8;
const BINS: usize = (EXACT + STEPS * (u32::BITS - EXACT.ilog2())) as usize;
/// Runs of a bin of unequal lengths that are looked at before a longer run is taken.
const TRIES: usize = 32;

/// The bin of runs of `len` granules.
#[inline(always)]
fn bin(len: u32) -> usize {
    if len <= EXACT {
        return len as usize - 1;
    }
    let log = len.ilog2();
    let step = len >> (log - STEPS.ilog2()) & (STEPS - 1);
    (EXACT + (log - EXACT.ilog2()) * STEPS + step) as usize
}

/// A free run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    /// Which piece of memory it is in.
    pub(super) piece: u32,
    pub(super) start: u32,
    pub(super) len: u32,
    /// Neighbours in the bin. Of entries that are not in use, `next` is another such.
    prev: u32,
    next: u32,
}

/// Lists of free runs, by length.
#[derive(Debug)]
pub(super) struct Runs {
    entries: Vec<Free>,
    /// First entry not in use.
    unused: u32,
    heads: [u32; BINS],
    /// A bit for each bin that has runs.
    some: [u64; BINS.div_ceil(64)],
}

impl Runs {
    pub(super) fn new() -> Runs {
        Runs {
            entries: Vec::new(),
            unused: NONE,
            heads: [NONE; BINS],
            some: [0; BINS.div_ceil(64)],
        }
    }

    /// Bytes of memory that the lists take.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Runs>() + self.entries.capacity() * size_of::<Free>()
    }

    #[inline(always)]
    pub(super) fn get(&self, run: u32) -> Free {
        self.entries[run as usize]
    }

    #[inline(always)]
    fn first(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.some.get(word)? & !0 << (from % 64);
        while bits == 0 {
            word += 1;
            bits = *self.some.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// A run of `len` granules at least, and hardly more than need be.
    #[inline(always)]
    pub(super) fn find(&self, len: u32) -> Option<u32> {
        let mut bin = bin(len);
        if len > EXACT {
            if let Some(run) = self.try_bin(bin, len) {
                return Some(run);
            }
            bin += 1;
        }
        self.first(bin).map(|bin| self.heads[bin])
    }

    fn try_bin(&self, bin: usize, len: u32) -> Option<u32> {
        let mut run = self.heads[bin];
        for _ in 0..TRIES {
            let free = self.entries.get(run as usize)?;
            if free.len >= len {
                return Some(run);
            }
            run = free.next;
        }
        None
    }

    /// A new run: its number.
    #[inline(always)]
    pub(super) fn insert(&mut self, piece: u32, start: u32, len: u32) -> u32 {
        let free = Free { piece, start, len, prev: NONE, next: NONE };
        let run = self.unused;
        if let Some(entry) = self.entries.get_mut(run as usize) {
            self.unused = entry.next;
            *entry = free;
            self.link(run, bin(len));
            return run;
        }
        let run = self.entries.len() as u32;
        self.entries.push(free);
        self.link(run, bin(len));
        run
    }

    /// The run is free no more.
    #[inline(always)]
    pub(super) fn remove(&mut self, run: u32) {
        self.unlink(run, bin(self.entries[run as usize].len));
        self.entries[run as usize].next = self.unused;
        self.unused = run;
    }

    /// The run is now elsewhere in its piece.
    #[inline(always)]
    pub(super) fn change(&mut self, run: u32, start: u32, len: u32) {
        let entry = &mut self.entries[run as usize];
        let (old, new) = (bin(entry.len), bin(len));
        (entry.start, entry.len) = (start, len);
        if old != new {
            self.unlink(run, old);
            self.link(run, new);
        }
    }

    #[inline(always)]
    fn link(&mut self, run: u32, bin: usize) {
        let head = std::mem::replace(&mut self.heads[bin], run);
        let entry = &mut self.entries[run as usize];
        (entry.prev, entry.next) = (NONE, head);
        match self.entries.get_mut(head as usize) {
            Some(head) => head.prev = run,
            None => self.some[bin / 64] |= 1 << (bin % 64),
        }
    }

    #[inline(always)]
    fn unlink(&mut self, run: u32, bin: usize) {
        let Free { prev, next, .. } = self.entries[run as usize];
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.prev = prev;
        }
        match self.entries.get_mut(prev as usize) {
            Some(entry) => entry.next = next,
            None => {
                self.heads[bin] = next;
                if next == NONE {
                    self.some[bin / 64] &= !(1 << (bin % 64));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BINS, EXACT, Runs, bin};

    #[test]
    fn bins_are_in_order_of_length() {
        let mut lens: Vec<u32> = (1..4095).collect();
        lens.extend((12..32).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1]));
        lens.push(u32::MAX);
        for pair in lens.windows(2) {
            let (a, b) = (bin(pair[0]), bin(pair[1]));
            assert!(a <= b && b < BINS, "{pair:?}");
            assert!(pair[1] > EXACT || a < b, "{pair:?}: one bin for two lengths");
        }
    }

    #[test]
    fn the_shortest_run_that_fits_is_found() {
        let mut runs = Runs::new();
        let many: Vec<u32> = (1..=64).map(|len| runs.insert(0, len * 100, len)).collect();
        for len in 1..=64 {
            assert_eq!(runs.find(len), Some(many[len as usize - 1]));
        }
        assert_eq!(runs.find(65), None);
        for len in (1..=64).step_by(2) {
            runs.remove(many[len as usize - 1]);
        }
        for len in 1..=64 {
            let run = runs.get(runs.find(len).unwrap());
            assert_eq!(run.len, len.next_multiple_of(2));
        }
    }

    #[test]
    fn a_longer_run_is_taken_where_its_bin_has_none_that_fits() {
        let mut runs = Runs::new();
        let short = runs.insert(0, 0, 102);
        assert_eq!(bin(102), bin(103));
        assert_eq!((runs.find(102), runs.find(103)), (Some(short), None));
        let long = runs.insert(0, 1000, 5000);
        assert_eq!((runs.find(102), runs.find(103)), (Some(short), Some(long)));
        runs.change(short, 0, 103);
        assert_eq!(runs.find(103), Some(short));
        runs.change(long, 1000, 10);
        assert_eq!(runs.find(1), Some(long));
        assert_eq!(runs.find(104), None);
    }
}
