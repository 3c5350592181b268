//! What closures take: memory, mappings, and time for the first of each place.

use std::sync::Barrier;
use std::time::Instant;

use trampfd::{Backend, Builder, Closure, Error};

use crate::kinds;
use crate::peers::{self, Bare};
use crate::process::{self, Cgroup, child_or_none};
use crate::table::{Row, Target};

/// Closures that live at once.
const MILLION: usize = 1_000_000;
const KINDS: usize = 1_000;
const THREADS: usize = 4;
/// Processes over which the median of the first million is taken; libffi-rs takes seconds.
const RUNS: usize = 9;
const RUNS_LIBFFI: usize = 1;

/// Room for the closures' values themselves, whose pages are there already.
pub fn room<T>(count: usize) -> Vec<T> {
    let mut room = Vec::<T>::with_capacity(count);
    // SAFETY: any bytes in spare capacity.
    unsafe { room.as_mut_ptr().cast::<u8>().write_bytes(1, count * size_of::<T>()) };
    room
}

/// Child: prints its numbers.
pub fn say(numbers: &[f64]) {
    for number in numbers {
        println!("{number}");
    }
}

/// Child: nanoseconds each, of the first million of `who`.
pub fn first_million(who: &str) {
    fn time<T>(make: impl Fn(u64) -> T) -> f64 {
        let mut all = room(MILLION);
        let start = Instant::now();
        for n in 0..MILLION as u64 {
            all.push(make(n));
        }
        let took = start.elapsed();
        std::mem::forget(all);
        took.as_nanos() as f64 / MILLION as f64
    }
    let took = match who {
        "ours" => time(|n| peers::ours::<1>([n, 7])),
        "closure-ffi" => time(|n| peers::closure_ffi::<1>([n, 7])),
        _ => time(|n| {
            // It borrows what it calls, which therefore must be somewhere.
            let f = Box::leak(Box::new(move |a, b| peers::compute::<1>(a, b, &[n, 7])));
            peers::libffi(f)
        }),
    };
    say(&[took]);
}

/// Where memory is counted.
enum Scale {
    Process,
    Cgroup(Cgroup),
}

impl Scale {
    /// The kernel service's memory is not the process's own: it shows in the cgroup only.
    fn of(backend: Backend) -> Scale {
        match backend {
            Backend::Text => Scale::Process,
            _ => Scale::Cgroup(Cgroup::enter().expect("a cgroup")),
        }
    }

    fn weigh(&self) -> f64 {
        match self {
            Scale::Process => process::own_memory(),
            Scale::Cgroup(cgroup) => cgroup.charged(),
        }
    }
}

/// Child: bytes each, and mappings for 100, of a million that live, their stubs' pages in use.
pub fn million(backend: Backend) {
    let builder = Builder::new().require(backend);
    let mut all: Vec<Closure<Bare>> = room(MILLION);
    let scale = Scale::of(backend);
    let (before, mappings) = (scale.weigh(), process::mappings());
    for n in 0..MILLION as u64 {
        let make = |a: i32, b: i32, data: &[u64; 2]| peers::compute::<1>(a, b, data);
        all.push(builder.closure(make, [n, 7]).expect("a closure"));
    }
    // In each page of stubs, at least. Not all of them in a test machine: QEMU keeps translated code
    // for each stub that ran, all of it on the one page of memory behind them, and takes the square
    // of their number to drop it when that page is freed.
    let step = if backend == Backend::Text { 1 } else { 64 };
    for (n, closure) in all.iter().enumerate().step_by(step) {
        // SAFETY: it lives.
        let result = unsafe { closure.as_ptr()(1, 2) };
        assert_eq!(result, peers::compute::<1>(1, 2, &[n as u64, 7]));
    }
    let bytes = (scale.weigh() - before) / MILLION as f64;
    let mappings = (process::mappings() - mappings) / (MILLION as f64 / 100.0);
    say(&[bytes, mappings]);
    std::mem::forget(all);
}

/// Child: bytes each, of one closure of each kind, made by several threads.
pub fn kinds(backend: Backend) {
    let scale = Scale::of(backend);
    let (ready, go, done) =
        (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let numbers = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ready, go, done) = (&ready, &go, &done);
            scope.spawn(move || {
                let mut all: Vec<Closure<kinds::Bare>> = room(KINDS);
                warm_stack();
                ready.wait();
                go.wait();
                let made = some(thread, &Builder::new().require(backend), &mut all);
                done.wait();
                // Until the other thread has weighed.
                done.wait();
                made.expect("closures");
            });
        }
        ready.wait();
        let before = scale.weigh();
        go.wait();
        done.wait();
        let after = scale.weigh();
        done.wait();
        [(after - before) / KINDS as f64]
    });
    say(&numbers);
}

/// This thread's share of the kinds.
fn some(
    thread: usize,
    builder: &Builder,
    all: &mut Vec<Closure<kinds::Bare>>,
) -> Result<(), Error> {
    for (n, make) in kinds::ALL.iter().flatten().flatten().enumerate() {
        if n % THREADS == thread {
            let closure = make(builder, [n as u32, 1, 2, 3])?;
            // SAFETY: it lives.
            let result = unsafe { closure.as_ptr()(5) };
            assert_eq!(result, kinds::result(n, 5, n as u32));
            all.push(closure);
        }
    }
    Ok(())
}

/// Has the pages that a thread's stack will need.
#[inline(never)]
fn warm_stack() {
    let pages = std::hint::black_box([1u8; 64 * 1024]);
    std::hint::black_box(&pages);
}

/// The text backend's rows.
pub fn rows() -> Vec<Row> {
    let median = |who: &str, runs| {
        let runs = (0..runs).map(|_| child_or_none(&["first-million", who], 1)[0]);
        crate::clock::median(runs)
    };
    let first = |what: &str, value, target| {
        let name = format!("create the first 1,000,000, page faults included: {what}");
        Row::new(name, value, "ns each", target)
    };
    let mut rows = vec![
        first("text, 16 bytes captured", median("ours", RUNS), Target::Most(35.0)),
        first("closure-ffi", median("closure-ffi", RUNS), Target::None),
        first("libffi-rs", median("libffi-rs", RUNS_LIBFFI), Target::None),
    ];
    let million = child_or_none(&["million", "text"], 2);
    let kinds = child_or_none(&["kinds", "text"], 1);
    let text =
        |what: &str, value, unit, target| Row::new(format!("text: {what}"), value, unit, target);
    rows.extend([
        text("1,000,000 live, 16 bytes captured", million[0], "B each", Target::Most(40.0)),
        text("1,000,000 live: mappings", million[1], "per 100", Target::Most(0.1)),
        text("1,000 of 1,000 kinds, 4 threads", kinds[0], "B each", Target::Most(256.0)),
    ]);
    rows
}
