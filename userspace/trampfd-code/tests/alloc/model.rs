//! The idea of AsmJit's test of its allocator: sets of options, 100,000 operations each, against
//! a model that knows what lies where.

use std::collections::BTreeMap;

use trampfd_code::alloc::{Error, Granularity, JitAllocator, Options};
use trampfd_code::vm::Write;

use crate::{Draw, bytes};

const OPERATIONS: usize = 100_000;
/// Blocks at once.
const LIVE: usize = 200;

/// What a block should be: bytes asked for, bytes it takes, and the pattern it holds.
#[derive(Clone, Copy, Debug)]
struct Span {
    len: usize,
    whole: usize,
    large: bool,
    pattern: u32,
}

impl Span {
    fn code(self) -> Vec<u8> {
        let word = |n: usize| self.pattern.wrapping_mul(n as u32 | 1).to_le_bytes();
        (0..self.len.div_ceil(4)).flat_map(word).take(self.len).collect()
    }
}

struct Run {
    allocator: JitAllocator,
    live: BTreeMap<usize, Span>,
    draw: Draw,
}

impl Run {
    /// What the lengths of a block are rounded up to.
    fn step(&self, large: bool) -> usize {
        if large { 4096 } else { self.allocator.options().granularity.bytes() }
    }

    fn alloc(&mut self) {
        let len = match self.draw.below(100) {
            0 => 1 + self.draw.below(100_000),
            1..10 => 1 + self.draw.below(9_000),
            _ => 1 + self.draw.below(1_100),
        };
        let rx = self.allocator.alloc_block(len).expect("memory");
        let large = len > self.allocator.options().block / 4;
        let whole = len.next_multiple_of(self.step(large));
        let span = Span { len, whole, large, pattern: self.draw.below(1 << 30) as u32 };
        let start = rx.addr();
        assert!(start.is_multiple_of(self.step(large)));
        let before = self.live.range(..start + span.whole).next_back();
        if let Some((&other, there)) = before {
            assert!(
                other + there.whole <= start,
                "{start:#x} {span:?} lies over {other:#x} {there:?}"
            );
        }
        // SAFETY: allocated above.
        unsafe { self.allocator.write(rx, 0, &span.code()) }.expect("a block");
        self.live.insert(start, span);
    }

    fn pick(&mut self) -> Option<(usize, Span)> {
        let nth = self.draw.below(self.live.len().max(1));
        self.live.iter().nth(nth).map(|(&start, &span)| (start, span))
    }

    fn check(&self, start: usize, span: Span) {
        assert_eq!(bytes(start as *const u8, span.len), span.code(), "{start:#x} {span:?}");
    }

    fn release(&mut self) {
        let Some((start, span)) = self.pick() else { return };
        self.check(start, span);
        // SAFETY: a block of this test, which forgets it.
        unsafe { self.allocator.release(start as *const u8) }.expect("a block");
        self.live.remove(&start);
        // SAFETY: nothing is released.
        let again = unsafe { self.allocator.release(start as *const u8) };
        assert!(matches!(again, Err(Error::AlreadyReleased(at)) if at == start), "{again:?}");
    }

    fn shrink(&mut self) {
        let Some((start, mut span)) = self.pick() else { return };
        self.check(start, span);
        span.len = 1 + self.draw.below(span.len);
        span.whole = span.len.next_multiple_of(self.step(span.large));
        // SAFETY: a block of this test.
        unsafe { self.allocator.shrink(start as *const u8, span.len) }.expect("a block");
        self.check(start, span);
        self.live.insert(start, span);
    }

    fn query(&mut self) {
        let Some((start, span)) = self.pick() else { return };
        for at in [0, self.draw.below(span.whole), span.whole - 1] {
            let info = self.allocator.query((start + at) as *const u8).expect("a block");
            assert_eq!((info.start.addr(), info.len), (start, span.whole), "at {at} of {span:?}");
        }
        let at = 1 + self.draw.below(span.whole - 1);
        // SAFETY: nothing is released.
        let interior = unsafe { self.allocator.release((start + at) as *const u8) };
        let right = matches!(interior, Err(Error::Interior { address, start: begin })
            if (address, begin) == (start + at, start));
        assert!(right, "{interior:?} at {at} of {span:?}");
    }

    fn check_all(&self) {
        let statistics = self.allocator.statistics();
        assert_eq!(statistics.live, self.live.len());
        assert_eq!(statistics.used, self.live.values().map(|span| span.whole).sum::<usize>());
        assert!(statistics.reserved >= statistics.used, "{statistics:?}");
        for (&start, &span) in &self.live {
            self.check(start, span);
        }
    }
}

fn run(options: Options, seed: u64) {
    println!("{options:?} seed {seed}");
    let allocator = JitAllocator::with(&options).expect("memory for code");
    let mut run = Run { allocator, live: BTreeMap::new(), draw: Draw(seed) };
    for step in 0..OPERATIONS {
        // It grows to the full number of blocks, and is emptied, in turns.
        let growing = (step / 10_000).is_multiple_of(2);
        match run.draw.below(100) {
            0..45 if growing && run.live.len() < LIVE => run.alloc(),
            0..45 if !growing => run.release(),
            45..65 if run.live.len() < LIVE => run.alloc(),
            65..85 => run.release(),
            85..90 => run.shrink(),
            _ => run.query(),
        }
        if step % 5_000 == 0 {
            run.check_all();
        }
    }
    run.check_all();
    while let Some((&start, _)) = run.live.first_key_value() {
        // SAFETY: a block of this test, which forgets it.
        unsafe { run.allocator.release(start as *const u8) }.expect("a block");
        run.live.remove(&start);
    }
    run.check_all();
    let statistics = run.allocator.statistics();
    let kept =
        if options.immediate_release { 0 } else { (512 << 10).max(options.block) + options.block };
    assert!(statistics.reserved <= kept, "{statistics:?}");
}

/// Granularity, write path, fill, immediate release, KiB of a unit.
type Set = (Granularity, Write, bool, bool, usize);

fn sets(sets: &[Set]) {
    for (seed, &(granularity, write, fill, immediate_release, block)) in (1..).zip(sets) {
        let mut options = Options::default();
        options.memory.write = write;
        options.granularity = granularity;
        options.fill = fill;
        options.immediate_release = immediate_release;
        options.block = block << 10;
        run(options, seed);
    }
}

#[test]
fn blocks_never_overlap_written_through_the_alias() {
    sets(&[
        (Granularity::B64, Write::Alias, false, false, 64),
        (Granularity::B64, Write::Alias, true, false, 64),
        (Granularity::B64, Write::Alias, false, true, 128),
        (Granularity::B128, Write::Alias, true, true, 64),
        (Granularity::B128, Write::Alias, false, false, 1024),
        (Granularity::B256, Write::Alias, false, true, 64),
    ]);
}

#[test]
fn blocks_never_overlap_written_by_calls() {
    sets(&[
        (Granularity::B64, Write::Pwrite, false, false, 64),
        (Granularity::B64, Write::Pwrite, true, true, 64),
        (Granularity::B64, Write::Pwrite, false, false, 4096),
        (Granularity::B128, Write::Pwrite, true, false, 256),
        (Granularity::B256, Write::Pwrite, false, false, 64),
        (Granularity::B256, Write::Pwrite, true, true, 128),
    ]);
}
