//! Creations a second of two threads over one.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trampfd::{Backend, Builder, Closure};

use crate::clock::median;
use crate::peers::Bare;
use crate::process::child_or_none;
use crate::table::{Row, Target};

const ROUNDS: usize = 21;
const TIME: Duration = Duration::from_millis(50);
/// Closures that a thread has at once: more than it keeps for itself when it drops them.
const AT_ONCE: usize = 1_000;

/// Makes `AT_ONCE` closures and drops them; how many.
fn create(all: &mut Vec<Closure<Bare>>) -> u64 {
    let builder = Builder::new().require(Backend::Text);
    for n in 0..AT_ONCE as u64 {
        let make = |a: i32, b: i32, data: &[u64; 2]| a + b + data[0] as i32;
        all.push(builder.closure(make, [n, 7]).expect("a closure"));
    }
    black_box(&mut *all).clear();
    AT_ONCE as u64
}

/// Makes and drops one closure after the other; how many.
fn pairs() -> u64 {
    let builder = Builder::new().require(Backend::Text);
    for n in 0..AT_ONCE as u64 {
        let make = |a: i32, b: i32, data: &[u64; 2]| a + b + data[0] as i32;
        let closure: Closure<Bare> = builder.closure(make, [n, 7]).expect("a closure");
        black_box(closure.as_ptr());
    }
    AT_ONCE as u64
}

/// As much work that touches no memory.
pub fn compute() -> u64 {
    let mut x = black_box(1u64);
    for _ in 0..AT_ONCE * 8 {
        x = x.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (x >> 29);
    }
    black_box(x);
    AT_ONCE as u64
}

/// What `threads` threads do in the time, each on its own processor. Each calls `begin` for what
/// it then does again and again, which returns how much was done.
pub fn rate<W: FnMut() -> u64>(threads: usize, begin: impl Fn() -> W + Sync) -> f64 {
    let start = Barrier::new(threads + 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, stop, begin) = (&start, &stop, &begin);
                scope.spawn(move || {
                    let _pinned = crate::pin(thread);
                    let mut work = begin();
                    work();
                    start.wait();
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        done += work();
                    }
                    done
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker") as f64).sum()
    })
}

/// Child: three ratios, of creations with few and with many closures at once, and of pure
/// computing.
pub fn ratios() {
    let begin_pairs = || pairs;
    let begin_create = || {
        let mut all = Vec::with_capacity(AT_ONCE);
        move || create(&mut all)
    };
    let begin_compute = || compute;
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        ratios[0].push(rate(2, begin_pairs) / rate(1, begin_pairs));
        ratios[1].push(rate(2, begin_create) / rate(1, begin_create));
        ratios[2].push(rate(2, begin_compute) / rate(1, begin_compute));
    }
    for ratios in ratios {
        println!("{}", median(ratios.into_iter()));
    }
}

/// The rows.
pub fn rows() -> Vec<Row> {
    let ratios = child_or_none(&["threads"], 3);
    let row = |what: &str, value, target| {
        Row::new(format!("2 threads over 1, text: {what}"), value, "ratio", target)
    };
    vec![
        row("create + drop a second", ratios[0], Target::Least(1.8)),
        row("create 1,000, then drop them", ratios[1], Target::Least(1.8)),
        row("pure computing, for comparison", ratios[2], Target::None),
    ]
}
