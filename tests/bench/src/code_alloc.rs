//! Blocks of code from an allocator, beside AsmJit's with two mappings, which does the same in a
//! process of its own, batch by batch in turn with ours.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use trampfd_code::alloc::{JitAllocator, Options};
use trampfd_code::vm::Write;

use crate::clock::{self, Times};
use crate::code_asmjit::Asmjit;
use crate::table::{Row, Target};

/// Bytes of a block, and nanoseconds that one may take through an alias.
const SIZES: [(usize, f64); 3] = [(64, 15.0), (256, 18.0), (4096, 50.0)];
const MOST_PWRITE: f64 = 600.0;
const ROUNDS: usize = 200;
/// Blocks of one batch.
const BATCH: usize = 4_096;
/// Blocks of one batch, where each takes a system call.
const BATCH_PWRITE: usize = 256;
/// Blocks of one batch of each of several threads: long beside what starting them together takes.
const BATCH_OF_THREADS: usize = 20_480;
const BATCH_OF_THREADS_PWRITE: usize = 2_048;
/// Blocks of one batch that are replaced.
const REPLACED: usize = 5_000;
/// Blocks at once, where they are not freed one by one.
const DEPTH: usize = 64;
const LIVE: usize = 10_000;
/// What is written.
static CODE: [u8; 4096] = [0x90; 4096];

/// Figures to be taken in turn, each with what it must reach.
#[derive(Default)]
struct Lanes<'a> {
    rows: Vec<(String, Target)>,
    lanes: Vec<Box<dyn FnMut() -> f64 + 'a>>,
}

/// A row for what two threads take over one.
struct Both {
    name: String,
    target: Target,
    /// Places in the times.
    one: usize,
    two: usize,
}

impl<'a> Lanes<'a> {
    /// Its place in the times.
    fn add(&mut self, name: String, target: Target, lane: impl FnMut() -> f64 + 'a) -> usize {
        self.rows.push((format!("code: {name}"), target));
        self.lanes.push(Box::new(lane));
        self.lanes.len() - 1
    }

    /// One thread, and each of two.
    fn both(
        &mut self,
        what: String,
        target: Target,
        count: usize,
        work: impl Fn(usize) + Sync + Copy + 'a,
    ) -> Both {
        let one = format!("{what}, 1 thread");
        let one = self.add(one, Target::None, move || timed(count, work));
        let two = format!("{what}, 2 threads, each");
        let two = self.add(two, Target::None, move || timed_twice(count, work));
        Both { name: format!("code: {what}, 2 threads over 1"), target, one, two }
    }

    /// The medians, and the times behind them.
    fn run(mut self) -> (Vec<Row>, Times) {
        let times = clock::turns(ROUNDS, &mut self.lanes);
        let rows = self.rows.into_iter().enumerate();
        let row = |(n, (name, target))| Row::new(name, times.median(n), "ns", target);
        (rows.map(row).collect(), times)
    }
}

fn allocator(write: Write) -> JitAllocator {
    let mut options = Options::default();
    options.memory.write = write;
    JitAllocator::with(&options).expect("an allocator")
}

/// Allocates, writes and frees, `depth` blocks at a time.
fn pairs(allocator: &JitAllocator, size: usize, depth: usize, count: usize) {
    let mut spans = Vec::with_capacity(depth);
    for _ in 0..count / depth {
        for _ in 0..depth {
            let mut span = allocator.alloc(size).expect("a block");
            span.write(0, &CODE[..size]).expect("a block of ours");
            black_box(span.rx());
            if depth > 1 {
                spans.push(span);
            }
        }
        while spans.pop().is_some() {}
    }
}

/// The same as C programs do it.
fn pairs_raw(allocator: &JitAllocator, size: usize, count: usize) {
    for _ in 0..count {
        let (rx, rw) = allocator.alloc_raw(size).expect("a block");
        // SAFETY: a block of this size, of this function alone.
        unsafe {
            rw.copy_from_nonoverlapping(CODE.as_ptr(), size);
            allocator.release(black_box(rx)).expect("a block of ours");
        }
    }
}

/// Writes only, each thread to memory of its own.
fn copies(size: usize, count: usize) {
    let mut to = [0; 4096];
    for _ in 0..count {
        black_box(&mut to)[..size].copy_from_slice(black_box(&CODE[..size]));
    }
}

/// Writes only, by a system call.
fn pwrites(file: &File, size: usize, count: usize) {
    for _ in 0..count {
        file.write_all_at(&CODE[..size], 0).expect("a file of ours");
    }
}

/// An empty file in memory.
fn memory() -> File {
    // SAFETY: a C string, and a new descriptor.
    unsafe {
        let fd = libc::memfd_create(c"trampfd-bench".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        File::from_raw_fd(fd)
    }
}

/// Nanoseconds for each of `count`, after a few that do not count.
fn timed(count: usize, work: impl Fn(usize)) -> f64 {
    work(4 * DEPTH);
    let start = Instant::now();
    work(count);
    start.elapsed().as_nanos() as f64 / count as f64
}

/// The same of two threads that begin together, each on its own processor: the mean.
fn timed_twice(count: usize, work: impl Fn(usize) + Sync) -> f64 {
    let waiting = AtomicUsize::new(2);
    std::thread::scope(|scope| {
        let both = [0, 1].map(|thread| {
            let (waiting, work) = (&waiting, &work);
            scope.spawn(move || {
                let _pinned = crate::pin(thread);
                work(4 * DEPTH);
                waiting.fetch_sub(1, Ordering::AcqRel);
                while waiting.load(Ordering::Acquire) > 0 {
                    std::thread::yield_now();
                }
                timed(count, work)
            })
        });
        both.into_iter().map(|thread| thread.join().expect("a thread")).sum::<f64>() / 2.0
    })
}

/// What is replaced next, and by how many bytes: as tests/bench/peers/asmjit.cpp draws.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> (usize, usize) {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as usize % LIVE, 8 + (self.0 >> 20 & 1023) as usize)
    }
}

/// Blocks of many sizes, one of which is replaced by another again and again.
struct Replaced {
    allocator: JitAllocator,
    live: Vec<(*const u8, usize)>,
    draw: Draw,
}

impl Replaced {
    fn new() -> Replaced {
        let (allocator, mut draw) = (allocator(Write::Alias), Draw(1));
        let new = |_| {
            let size = draw.next().1;
            (allocator.alloc_block(size).expect("a block"), size)
        };
        let live = (0..LIVE).map(new).collect();
        Replaced { allocator, live, draw }
    }

    fn replace(&mut self, count: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..count {
            let (index, size) = self.draw.next();
            let block = &mut self.live[index];
            // SAFETY: a block of this value, which forgets it.
            unsafe { self.allocator.release(block.0) }.expect("a block of ours");
            *block = (self.allocator.alloc_block(size).expect("a block"), size);
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }

    /// Percent of the reserved bytes that blocks take, and bytes of side data. Counts itself what
    /// blocks take.
    fn memory(&self) -> (f64, f64) {
        let used: usize = self.live.iter().map(|(_, size)| size.next_multiple_of(64)).sum();
        let statistics = self.allocator.statistics();
        assert_eq!(used, statistics.used);
        (used as f64 / statistics.reserved as f64 * 100.0, statistics.side_data as f64)
    }
}

/// One thread.
pub fn rows() -> Vec<Row> {
    let asmjit = &Asmjit::start();
    let (alias, pwrite) = (&allocator(Write::Alias), &allocator(Write::Pwrite));
    let memory = &memory();
    let mut replaced = Replaced::new();
    let mut lanes = Lanes::default();
    for (size, most) in SIZES {
        let name = |what: &str| format!("alloc + write + free of {size} B: {what}");
        lanes.add(name("alias"), Target::Most(most), move || {
            timed(BATCH, |count| pairs(alias, size, 1, count))
        });
        lanes.add(name("alias, raw pointers"), Target::None, move || {
            timed(BATCH, |count| pairs_raw(alias, size, count))
        });
        let task = format!("pairs 1 {size} 1 {BATCH}");
        lanes.add(name("AsmJit"), Target::None, move || asmjit.ask(&task, 1)[0]);
        lanes.add(name("alias, 64 at a time"), Target::None, move || {
            timed(BATCH, |count| pairs(alias, size, DEPTH, count))
        });
        let task = format!("pairs 1 {size} {DEPTH} {BATCH}");
        lanes.add(name("AsmJit, 64 at a time"), Target::None, move || asmjit.ask(&task, 1)[0]);
        lanes.add(name("pwrite"), Target::Most(MOST_PWRITE), move || {
            timed(BATCH_PWRITE, |count| pairs(pwrite, size, 1, count))
        });
        let name = format!("only copying {size} B, for comparison");
        lanes.add(name, Target::None, move || timed(BATCH, |count| copies(size, count)));
        let name = format!("only pwrite of {size} B, for comparison");
        lanes.add(name, Target::None, move || {
            timed(BATCH_PWRITE, |count| pwrites(memory, size, count))
        });
    }
    let name =
        |what: &str| format!("release and allocate one of 10,000 blocks of 8 to 1031 B{what}");
    lanes.add(name(""), Target::Most(60.0), || replaced.replace(REPLACED));
    let task = format!("replace {REPLACED}");
    lanes.add(name(": AsmJit"), Target::None, move || asmjit.ask(&task, 1)[0]);
    let (mut rows, _) = lanes.run();

    let (used, side) = replaced.memory();
    let peer = asmjit.ask("memory", 3);
    let mut row = |what: &str, value, unit, target| {
        let name = format!("code: 10,000 blocks of 8 to 1031 B: {what}");
        rows.push(Row::new(name, value, unit, target));
    };
    row("used of reserved", used, "%", Target::Least(88.0));
    row("used of reserved, AsmJit", peer[0] / peer[1] * 100.0, "%", Target::None);
    row("side data", side, "B", Target::None);
    row("side data, AsmJit", peer[2], "B", Target::None);
    rows
}

/// Two threads that share an allocator, each on its own processor.
pub fn threads() -> Vec<Row> {
    let asmjit = &Asmjit::start();
    let (alias, pwrite) = (&allocator(Write::Alias), &allocator(Write::Pwrite));
    let mut lanes = Lanes::default();
    let mut ratios = Vec::new();
    let most = Target::Most(1.2);
    for (size, _) in SIZES {
        let name = format!("alloc + write + free of {size} B: alias");
        let work = move |count| pairs(alias, size, 1, count);
        ratios.push(lanes.both(name, most, BATCH_OF_THREADS, work));
    }
    let name = "alloc + write + free of 256 B: pwrite".to_owned();
    let work = move |count| pairs(pwrite, 256, 1, count);
    ratios.push(lanes.both(name, most, BATCH_OF_THREADS_PWRITE, work));
    let name = "only copying 4096 B, for comparison".to_owned();
    let work = |count| copies(4096, count);
    ratios.push(lanes.both(name, Target::None, BATCH_OF_THREADS, work));
    let name = "only pwrite of 256 B, each to a file of its own, for comparison".to_owned();
    let work = |count| pwrites(&memory(), 256, count);
    ratios.push(lanes.both(name, Target::None, BATCH_OF_THREADS_PWRITE, work));
    for (size, _) in SIZES {
        for (threads, what) in [(1, "1 thread"), (2, "2 threads, each")] {
            let task = format!("pairs {threads} {size} 1 {BATCH_OF_THREADS}");
            let name = format!("alloc + write + free of {size} B: AsmJit, {what}");
            lanes.add(name, Target::None, move || asmjit.ask(&task, 1)[0]);
        }
    }
    let (mut rows, times) = lanes.run();
    for Both { name, target, one, two } in ratios {
        rows.push(Row::new(name, times.ratio(two, one), "ratio", target));
    }
    rows
}
