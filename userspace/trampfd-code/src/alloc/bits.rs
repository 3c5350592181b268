//! Bit arrays that one thread changes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const WORD: usize = u64::BITS as usize;

/// The same 64 bits of `N` arrays.
pub(super) type Word<const N: usize> = [AtomicU64; N];

/// Words that fill two cache lines, as processors fetch them: those of different threads share
/// none.
#[derive(Debug)]
#[repr(align(128))]
struct Lines<const N: usize>([Word<N>; LINES]);

const LINES: usize = 4;

/// `N` arrays of bits, all clear at first. Which array is meant is the first argument.
#[derive(Debug)]
pub(super) struct Bits<const N: usize> {
    words: Box<[Lines<N>]>,
    len: usize,
}

impl<const N: usize> Bits<N> {
    pub(super) fn new(len: usize) -> Bits<N> {
        let lines = || Lines([const { [const { AtomicU64::new(0) }; N] }; LINES]);
        let count = len.div_ceil(WORD * LINES);
        Bits { words: std::iter::repeat_with(lines).take(count).collect(), len }
    }

    /// Bits of each array.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the bits take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Those of the bits from `word * 64` on.
    #[inline(always)]
    pub(super) fn word(&self, word: usize) -> &Word<N> {
        &self.words[word / LINES].0[word % LINES]
    }

    #[inline(always)]
    fn load(&self, array: usize, word: usize) -> u64 {
        self.word(word)[array].load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn get(&self, array: usize, at: usize) -> bool {
        self.load(array, at / WORD) >> (at % WORD) & 1 != 0
    }

    /// Sets a bit. Only the thread that owns the array calls this and [`Bits::clear`]: no locked
    /// instruction is needed then.
    #[inline(always)]
    pub(super) fn set(&self, array: usize, at: usize) {
        let word = &self.word(at / WORD)[array];
        word.store(word.load(Ordering::Relaxed) | 1 << (at % WORD), Ordering::Relaxed);
    }

    /// Clears a bit; see [`Bits::set`].
    #[inline(always)]
    pub(super) fn clear(&self, array: usize, at: usize) {
        let word = &self.word(at / WORD)[array];
        word.store(word.load(Ordering::Relaxed) & !(1 << (at % WORD)), Ordering::Relaxed);
    }

    /// Sets a bit, from any thread, if all threads do it so: whether it was clear.
    pub(super) fn claim(&self, array: usize, at: usize) -> bool {
        let bit = 1 << (at % WORD);
        self.word(at / WORD)[array].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Clears what [`Bits::claim`] has set.
    pub(super) fn disclaim(&self, array: usize, at: usize) {
        self.word(at / WORD)[array].fetch_and(!(1 << (at % WORD)), Ordering::Relaxed);
    }

    /// The first set bit at `from` or after it; else the number of bits.
    #[inline(always)]
    pub(super) fn next(&self, array: usize, from: usize) -> usize {
        if from >= self.len {
            return self.len;
        }
        let bits = self.load(array, from / WORD) >> (from % WORD);
        if bits != 0 {
            return from + bits.trailing_zeros() as usize;
        }
        self.next_word(array, from / WORD + 1)
    }

    /// The first set bit of that word and those after it; else the number of bits.
    pub(super) fn next_word(&self, array: usize, word: usize) -> usize {
        for word in word..self.len.div_ceil(WORD) {
            let bits = self.load(array, word);
            if bits != 0 {
                return word * WORD + bits.trailing_zeros() as usize;
            }
        }
        self.len
    }

    /// The last set bit at `at` or before it.
    #[inline(always)]
    pub(super) fn last(&self, array: usize, at: usize) -> Option<usize> {
        let bits = self.load(array, at / WORD) << (WORD - 1 - at % WORD);
        if bits != 0 {
            return Some(at - bits.leading_zeros() as usize);
        }
        self.last_word(array, at / WORD)
    }

    /// The last set bit of the words before that one.
    fn last_word(&self, array: usize, word: usize) -> Option<usize> {
        (0..word).rev().find_map(|word| {
            let last = self.load(array, word).checked_ilog2()?;
            Some(word * WORD + last as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn neighbours_are_found_across_words_and_lines() {
        let len = 3000;
        let bits = Bits::<3>::new(len);
        assert_eq!((bits.next(1, 0), bits.last(1, len - 1)), (len, None));
        let set = [0, 63, 64, 130, 1023, 1024, 2047, 2500, 2999];
        for at in set {
            bits.set(1, at);
        }
        for at in 0..len {
            let next = set.iter().copied().find(|&bit| bit >= at).unwrap_or(len);
            let last = set.iter().copied().rev().find(|&bit| bit <= at);
            assert_eq!((bits.next(1, at), bits.last(1, at)), (next, last), "at {at}");
            assert_eq!(bits.get(1, at), set.contains(&at), "at {at}");
        }
        assert_eq!(bits.next(1, len), len);
        assert_eq!((bits.next(0, 0), bits.last(2, len - 1)), (len, None), "another array");
        bits.clear(1, 64);
        assert_eq!((bits.next(1, 64), bits.last(1, 64)), (130, Some(63)));
    }

    #[test]
    fn a_bit_is_claimed_once() {
        let bits = Bits::<3>::new(100);
        assert!(bits.claim(1, 70));
        assert!(!bits.claim(1, 70));
        assert!(bits.claim(1, 71));
        bits.disclaim(1, 70);
        assert!(bits.get(1, 71) && bits.claim(1, 70));
    }
}
