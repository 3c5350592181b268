//! Blocks of code from an allocator, beside AsmJit's with two mappings.

use crate::clock::{self, Times};
use crate::code_asmjit::Asmjit;
use crate::table::{Row, Target};

const SIZES: [usize; 3] = [64, 256, 4096];
const ROUNDS: usize = 200;
/// Blocks of one batch.
const BATCH: usize = 4_096;
/// Blocks of one batch of each of several threads: long beside what starting them together takes.
const BATCH_OF_THREADS: usize = 20_480;
/// Blocks of one batch that are replaced.
const REPLACED: usize = 20_000;
/// Blocks at once, where they are not freed one by one.
const DEPTH: usize = 64;

/// Figures to be taken in turn, each with what it must reach.
#[derive(Default)]
struct Lanes<'a> {
    rows: Vec<(String, Target)>,
    lanes: Vec<Box<dyn FnMut() -> f64 + 'a>>,
}

impl<'a> Lanes<'a> {
    fn add(&mut self, name: String, target: Target, lane: impl FnMut() -> f64 + 'a) {
        self.rows.push((name, target));
        self.lanes.push(Box::new(lane));
    }

    /// The medians, and the times behind them.
    fn run(mut self) -> (Vec<Row>, Times) {
        let times = clock::turns(ROUNDS, &mut self.lanes);
        let rows = self.rows.into_iter().enumerate();
        let row = |(n, (name, target))| Row::new(name, times.median(n), "ns", target);
        (rows.map(row).collect(), times)
    }
}

/// One thread.
pub fn rows() -> Vec<Row> {
    let asmjit = Asmjit::start();
    let task = format!("replace {REPLACED}");
    let mut lanes = Lanes::default();
    for size in SIZES {
        for depth in [1, DEPTH] {
            let what = if depth == 1 { "" } else { ", 64 at a time" };
            let task = format!("pairs 1 {size} {depth} {BATCH}");
            let name = format!("code: alloc + write + free of {size} B{what}: AsmJit");
            let asmjit = &asmjit;
            lanes.add(name, Target::None, move || asmjit.ask(&task, 1)[0]);
        }
    }
    let name = "code: replace one of 10,000 live blocks: AsmJit".to_owned();
    lanes.add(name, Target::None, || asmjit.ask(&task, 1)[0]);
    let (mut rows, _) = lanes.run();

    let [used, reserved, side] = asmjit.ask("memory", 3)[..] else { unreachable!() };
    let memory = |what: &str, value, unit| {
        Row::new(format!("code: 10,000 live blocks, AsmJit: {what}"), value, unit, Target::None)
    };
    rows.push(memory("used of reserved", used / reserved * 100.0, "%"));
    rows.push(memory("side data", side, "B"));
    rows
}

/// Two threads that share an allocator, each on its own processor.
pub fn threads() -> Vec<Row> {
    let asmjit = Asmjit::start();
    let mut lanes = Lanes::default();
    for size in SIZES {
        for threads in [1, 2] {
            let task = format!("pairs {threads} {size} 1 {BATCH_OF_THREADS}");
            let name =
                format!("code: alloc + write + free of {size} B, {threads} threads, each: AsmJit");
            let asmjit = &asmjit;
            lanes.add(name, Target::None, move || asmjit.ask(&task, 1)[0]);
        }
    }
    let (rows, _) = lanes.run();
    rows
}
