//! Bit arrays that one thread changes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = u64::BITS as usize;

/// Words of two cache lines, as processors fetch them: arrays of different threads share none.
#[derive(Debug)]
#[repr(align(128))]
struct Lines([AtomicU64; LINES]);

const LINES: usize = 16;

/// Bits, all clear at first.
#[derive(Debug)]
pub(super) struct Bits {
    words: Box<[Lines]>,
    len: usize,
}

impl Bits {
    pub(super) fn new(len: usize) -> Bits {
        let lines = || Lines([const { AtomicU64::new(0) }; LINES]);
        let count = len.div_ceil(WORD * LINES);
        Bits { words: std::iter::repeat_with(lines).take(count).collect(), len }
    }

    /// Bytes that the bits take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    #[inline(always)]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.words[word / LINES].0[word % LINES]
    }

    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> bool {
        self.word(at / WORD).load(Ordering::Relaxed) >> (at % WORD) & 1 != 0
    }

    /// Sets a bit. Only the thread that owns the array calls this, [`Bits::clear`] or none of
    /// them: no locked instruction is needed then.
    #[inline(always)]
    pub(super) fn set(&self, at: usize) {
        let word = self.word(at / WORD);
        word.store(word.load(Ordering::Relaxed) | 1 << (at % WORD), Ordering::Relaxed);
    }

    /// Clears a bit; see [`Bits::set`].
    #[inline(always)]
    pub(super) fn clear(&self, at: usize) {
        let word = self.word(at / WORD);
        word.store(word.load(Ordering::Relaxed) & !(1 << (at % WORD)), Ordering::Relaxed);
    }

    /// Sets a bit, from any thread, if all threads do it so: whether it was clear.
    pub(super) fn claim(&self, at: usize) -> bool {
        let bit = 1 << (at % WORD);
        self.word(at / WORD).fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Clears what [`Bits::claim`] has set.
    pub(super) fn disclaim(&self, at: usize) {
        self.word(at / WORD).fetch_and(!(1 << (at % WORD)), Ordering::Relaxed);
    }

    /// The first set bit at `from` or after it; else the number of bits.
    #[inline(always)]
    pub(super) fn next(&self, from: usize) -> usize {
        if from >= self.len {
            return self.len;
        }
        let mut word = from / WORD;
        let mut bits = self.word(word).load(Ordering::Relaxed) & !0 << (from % WORD);
        let words = self.len.div_ceil(WORD);
        while bits == 0 {
            word += 1;
            if word == words {
                return self.len;
            }
            bits = self.word(word).load(Ordering::Relaxed);
        }
        word * WORD + bits.trailing_zeros() as usize
    }

    /// The last set bit at `at` or before it.
    #[inline(always)]
    pub(super) fn last(&self, at: usize) -> Option<usize> {
        let mut word = at / WORD;
        let mut bits = self.word(word).load(Ordering::Relaxed) & !0 >> (WORD - 1 - at % WORD);
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.word(word).load(Ordering::Relaxed);
        }
        Some(word * WORD + (WORD - 1 - bits.leading_zeros() as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn neighbours_are_found_across_words_and_lines() {
        let len = 3000;
        let bits = Bits::new(len);
        assert_eq!((bits.next(0), bits.last(len - 1)), (len, None));
        let set = [0, 63, 64, 130, 1023, 1024, 2047, 2500, 2999];
        for at in set {
            bits.set(at);
        }
        for at in 0..len {
            let next = set.iter().copied().find(|&bit| bit >= at).unwrap_or(len);
            let last = set.iter().copied().rev().find(|&bit| bit <= at);
            assert_eq!((bits.next(at), bits.last(at)), (next, last), "at {at}");
            assert_eq!(bits.get(at), set.contains(&at), "at {at}");
        }
        assert_eq!(bits.next(len), len);
        bits.clear(64);
        assert_eq!((bits.next(64), bits.last(64)), (130, Some(63)));
    }

    #[test]
    fn a_bit_is_claimed_once() {
        let bits = Bits::new(100);
        assert!(bits.claim(70));
        assert!(!bits.claim(70));
        assert!(bits.claim(71));
        bits.disclaim(70);
        assert!(bits.get(71) && bits.claim(70));
    }
}
