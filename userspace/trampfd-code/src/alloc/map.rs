//! Where blocks of code begin and end in a piece of memory.
//!
//! ```text
//!  granule   0 1 2 3 4 5 6 7 8 9
//!            [code ][free ][code][free
//!  edge      1 . . 1 . . 1 . 1 .    a run begins here
//!  live      1 . . . . . 1 . . .    and it is handed out
//!  back      . . . . . . 1 . . .    and another thread has given it back since
//!  idle      1 . . . . . . . . .    or its own has, and keeps it for a block as long
//!  tag       9     7         2      free runs: which entry of `Runs` it is; idle ones: which
//!                                   is the next of that length
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use super::bits::{Bits, WORD};

/// The arrays of bits.
const EDGE: usize = 0;
const LIVE: usize = 1;
const BACK: usize = 2;
const IDLE: usize = 3;

/// A run of granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Handed out.
    pub(super) live: bool,
}

/// Why a block cannot be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It begins at that granule.
    Interior(usize),
    NotLive,
}

/// Numbers that fill two cache lines, as [`Bits`] has them.
#[derive(Debug)]
#[repr(align(128))]
struct Tags([AtomicU32; TAGS]);

const TAGS: usize = 32;

/// The books of one piece of memory. One thread at a time changes them, any thread reads them.
#[derive(Debug)]
pub(super) struct Map {
    bits: Bits<4>,
    tags: Box<[Tags]>,
}

impl Map {
    /// All of `len` granules one free run.
    pub(super) fn new(len: usize) -> Map {
        let tags = || Tags([const { AtomicU32::new(0) }; TAGS]);
        let map = Map {
            bits: Bits::new(len),
            tags: std::iter::repeat_with(tags).take(len.div_ceil(TAGS)).collect(),
        };
        map.bits.set(EDGE, 0);
        map
    }

    /// Granules.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.bits.len()
    }

    /// Bytes of memory that the books take.
    pub(super) fn bytes(&self) -> usize {
        self.bits.bytes() + size_of_val(&*self.tags)
    }

    /// The run that a granule is in.
    pub(super) fn run(&self, at: usize) -> Run {
        let start = self.bits.last(EDGE, at).unwrap_or(0);
        let [live, back, idle] = [LIVE, BACK, IDLE].map(|n| self.bits.get(n, start));
        let live = live && !back && !idle;
        Run { start, len: self.bits.next(EDGE, start + 1) - start, live }
    }

    /// Each run, in order, free ones joined.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let mut run = (at < self.len()).then(|| self.run(at))?;
            at += run.len;
            // Idle ones have not been joined.
            while !run.live && at < self.len() && !self.run(at).live {
                let more = self.run(at).len;
                (run.len, at) = (run.len + more, at + more);
            }
            Some(run)
        })
    }

    /// Length of the block that begins at a granule, if one does.
    #[inline(always)]
    pub(super) fn check(&self, start: usize) -> Result<usize, Refused> {
        let (index, at) = (start / WORD, start % WORD);
        let word = self.bits.word(index);
        let [edge, live, back, idle] = word.each_ref().map(|bits| bits.load(Ordering::Relaxed));
        if (edge & live & !(back | idle)) >> at & 1 == 0 {
            return Err(self.why_not(start));
        }
        let after = edge >> at >> 1;
        Ok(match after {
            0 => self.bits.next_word(EDGE, index + 1) - start,
            _ => 1 + after.trailing_zeros() as usize,
        })
    }

    #[cold]
    fn why_not(&self, at: usize) -> Refused {
        match self.run(at) {
            Run { start, live: true, .. } => Refused::Interior(start),
            _ => Refused::NotLive,
        }
    }

    /// Another thread gives the block back that begins here: the first to say so.
    pub(super) fn give_back(&self, start: usize) -> Result<(), Refused> {
        if self.bits.claim(BACK, start) { Ok(()) } else { Err(Refused::NotLive) }
    }

    /// The block that was given back is to be freed.
    pub(super) fn accept(&self, start: usize) {
        self.bits.disclaim(BACK, start);
    }

    #[inline(always)]
    pub(super) fn tag(&self, at: usize) -> u32 {
        self.tags[at / TAGS].0[at % TAGS].load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_tag(&self, at: usize, tag: u32) {
        self.tags[at / TAGS].0[at % TAGS].store(tag, Ordering::Relaxed);
    }

    /// A run begins here.
    #[inline(always)]
    pub(super) fn cut(&self, at: usize) {
        self.bits.set(EDGE, at);
    }

    /// No run begins here any more: it belongs to the one before.
    #[inline(always)]
    pub(super) fn join(&self, at: usize) {
        self.bits.clear(EDGE, at);
    }

    /// Hands out the run that begins here.
    #[inline(always)]
    pub(super) fn hand_out(&self, start: usize) {
        self.bits.set(LIVE, start);
    }

    #[inline(always)]
    pub(super) fn take_back(&self, start: usize) {
        self.bits.clear(LIVE, start);
    }

    /// Keeps the block that begins here as it is, handed out to nobody. Its tag can be used.
    #[inline(always)]
    pub(super) fn put_by(&self, start: usize, tag: u32) {
        self.bits.set(IDLE, start);
        self.set_tag(start, tag);
    }

    /// The block that was put by is handed out again: its tag.
    #[inline(always)]
    pub(super) fn take_up(&self, start: usize) -> u32 {
        self.bits.clear(IDLE, start);
        self.tag(start)
    }

    /// The free run that ends before `start`.
    #[inline(always)]
    pub(super) fn free_before(&self, start: usize) -> Option<usize> {
        let before = self.bits.last(EDGE, start.checked_sub(1)?)?;
        (!self.bits.get(LIVE, before)).then_some(before)
    }

    /// A free run begins at `end`.
    #[inline(always)]
    pub(super) fn is_free(&self, end: usize) -> bool {
        end < self.len() && !self.bits.get(LIVE, end)
    }
}
