//! Which ranges of an area are free.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free ranges.
///
/// # Invariants
///
/// From first byte to past the last; none is empty, none touches another.
#[derive(Debug)]
pub(crate) struct Extents {
    free: BTreeMap<usize, usize>,
}

impl Extents {
    /// One range, all of it free.
    pub(crate) fn new(all: Range<usize>) -> Extents {
        let free = if all.is_empty() { None } else { Some((all.start, all.end)) };
        Extents { free: free.into_iter().collect() }
    }

    /// `len` bytes, not 0, of the lowest free range that has as many: what is in use stays close
    /// together.
    pub(crate) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= len)?;
        self.free.remove(&start);
        if start + len < end {
            self.free.insert(start + len, end);
        }
        Some(start..start + len)
    }

    /// Takes a range back that was taken.
    pub(crate) fn put(&mut self, range: Range<usize>) {
        let Range { mut start, mut end } = range;
        let before = self.free.range(..start).next_back().map(|(&start, &end)| (start, end));
        if let Some((low, _)) = before.filter(|&(_, high)| high == start) {
            self.free.remove(&low);
            start = low;
        }
        if let Some(high) = self.free.remove(&end) {
            end = high;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_joins_its_neighbours() {
        let mut extents = Extents::new(10..110);
        let ranges: Vec<_> = (0..10).map(|_| extents.take(10).unwrap()).collect();
        assert_eq!(ranges[9], 100..110);
        assert_eq!(extents.take(1), None);
        for i in [1, 3, 2, 0, 9, 5, 7, 6, 8] {
            extents.put(ranges[i].clone());
        }
        assert_eq!(extents.take(60), None);
        assert_eq!(extents.take(41), Some(60..101));
        assert_eq!(extents.take(40), Some(10..50));
    }

    #[test]
    fn nothing_is_taken_twice() {
        let mut extents = Extents::new(0..64);
        let mut owner = [None; 64];
        let mut taken: Vec<Range<usize>> = Vec::new();
        let mut random = 1u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (random >> 33) as usize;
            if number.is_multiple_of(2) && !taken.is_empty() {
                let range = taken.swap_remove(number / 2 % taken.len());
                range.clone().for_each(|at| owner[at] = None);
                extents.put(range);
            } else if let Some(range) = extents.take(number / 2 % 9 + 1) {
                assert!(range.clone().all(|at| owner[at].replace(step).is_none()), "{range:?}");
                taken.push(range);
            } else {
                let need = number / 2 % 9 + 1;
                let longest = owner.split(Option::is_some).map(<[_]>::len).max().unwrap();
                assert!(longest < need, "{need} bytes were there");
            }
        }
    }
}
