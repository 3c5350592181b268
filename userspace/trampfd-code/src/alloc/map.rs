//! Where blocks of code begin and end in a piece of memory.
//!
//! ```text
//!  granule   0 1 2 3 4 5 6 7 8 9
//!            [code ][free ][code][free
//!  edge      1 . . 1 . . 1 . 1 .    a run begins here
//!  live      1 . . . . . 1 . . .    and it is handed out
//!  back      . . . . . . 1 . . .    and another thread has given it back since
//!  tag             7         2      free runs: which entry of `Runs` it is
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use super::bits::Bits;

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

/// Numbers of two cache lines, as [`Bits`] has them.
#[derive(Debug)]
#[repr(align(128))]
struct Tags([AtomicU32; TAGS]);

const TAGS: usize = 32;

/// The books of one piece of memory. One thread at a time changes them, any thread reads them.
#[derive(Debug)]
pub(super) struct Map {
    edge: Bits,
    live: Bits,
    back: Bits,
    tags: Box<[Tags]>,
    len: usize,
}

impl Map {
    /// All of `len` granules one free run.
    pub(super) fn new(len: usize) -> Map {
        let tags = || Tags([const { AtomicU32::new(0) }; TAGS]);
        let map = Map {
            edge: Bits::new(len),
            live: Bits::new(len),
            back: Bits::new(len),
            tags: std::iter::repeat_with(tags).take(len.div_ceil(TAGS)).collect(),
            len,
        };
        map.edge.set(0);
        map
    }

    /// Granules.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the books take.
    pub(super) fn bytes(&self) -> usize {
        self.edge.bytes() + self.live.bytes() + self.back.bytes() + size_of_val(&*self.tags)
    }

    /// The run that a granule is in.
    pub(super) fn run(&self, at: usize) -> Run {
        let start = self.edge.last(at).unwrap_or(0);
        let live = self.live.get(start) && !self.back.get(start);
        Run { start, len: self.edge.next(start + 1) - start, live }
    }

    /// Each run, in order.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let run = (at < self.len).then(|| self.run(at))?;
            at = run.start + run.len;
            Some(run)
        })
    }

    /// Length of the block that begins at a granule, if one does.
    #[inline(always)]
    pub(super) fn check(&self, start: usize) -> Result<usize, Refused> {
        if !(self.edge.get(start) && self.live.get(start) && !self.back.get(start)) {
            return Err(self.why_not(start));
        }
        Ok(self.edge.next(start + 1) - start)
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
        if self.back.claim(start) { Ok(()) } else { Err(Refused::NotLive) }
    }

    /// The block that was given back is to be freed.
    pub(super) fn accept(&self, start: usize) {
        self.back.disclaim(start);
    }

    /// The one free run, if nothing is handed out.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        !self.live.get(0) && self.edge.next(1) == self.len
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
        self.edge.set(at);
    }

    /// No run begins here any more: it belongs to the one before.
    #[inline(always)]
    pub(super) fn join(&self, at: usize) {
        self.edge.clear(at);
    }

    /// Hands out the run that begins here.
    #[inline(always)]
    pub(super) fn hand_out(&self, start: usize) {
        self.live.set(start);
    }

    #[inline(always)]
    pub(super) fn take_back(&self, start: usize) {
        self.live.clear(start);
    }

    /// The free run that ends before `start`.
    #[inline(always)]
    pub(super) fn free_before(&self, start: usize) -> Option<usize> {
        let before = self.edge.last(start.checked_sub(1)?)?;
        (!self.live.get(before)).then_some(before)
    }

    /// A free run begins at `end`.
    #[inline(always)]
    pub(super) fn is_free(&self, end: usize) -> bool {
        end < self.len && !self.live.get(end)
    }
}
