//! Closures of signatures known at run time: as libffi, beside two others, and by `DynClosure`.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use trampfd::DynClosure;

use crate::clock::{self, Lane, Times, median};
use crate::ffi::{Cif, Ffi, Made, Who};
use crate::memory::{room, say};
use crate::process::{self, child_or_none};
use crate::shapes::{self, INTS, Shape};
use crate::table::{Row, Target};
use crate::threads;

const ROUNDS: usize = 1_000;
/// Closures made and dropped in a batch.
const PAIRS: usize = 10_048;
/// Closures that are there at once in the other batch.
const AT_ONCE: usize = 64;
const _: () = assert!(PAIRS.is_multiple_of(AT_ONCE));
const MILLION: usize = 1_000_000;
/// What is taken for the beginning and the end of a million.
const PART: usize = MILLION / 10;
const MANY: usize = 5_000_000;
/// Processes over which the median of a million is taken; libffi's static trampolines take a
/// second.
const RUNS: usize = 9;
const RUNS_PEERS: usize = 3;

/// The lane of `DynClosure`, behind those of [`Who::ALL`].
const DYNAMIC: usize = Who::ALL.len();
const OURS: usize = 2;

/// The libraries, in the order of [`Who::ALL`]. One that is not there leaves rows without values.
fn libraries() -> &'static [Option<Ffi>; Who::ALL.len()] {
    static ALL: OnceLock<[Option<Ffi>; Who::ALL.len()]> = OnceLock::new();
    ALL.get_or_init(|| {
        Who::ALL.map(|who| match Ffi::open(who) {
            Ok(ffi) => Some(ffi),
            Err(error) => {
                eprintln!("{} libffi: {error}", who.word());
                None
            }
        })
    })
}

/// The names of the lanes.
fn names() -> Vec<String> {
    let name = |(ffi, who): (&Option<Ffi>, Who)| match ffi {
        Some(ffi) => ffi.name.clone(),
        None => format!("{} libffi", who.word()),
    };
    let libraries = libraries().iter().zip(Who::ALL).map(name);
    libraries.chain(["DynClosure".to_owned()]).collect()
}

fn cif(ffi: &Ffi, shape: &Shape) -> Cif {
    ffi.cif(shape.args, shape.result)
}

/// # Panics
///
/// Where the library gives none.
fn make(ffi: &Ffi, cif: Cif, shape: &Shape, data: usize) -> Made {
    // SAFETY: the shape's own handler and signature.
    let made = unsafe { ffi.make(cif, shape.handler, data) };
    made.unwrap_or_else(|| panic!("{}: ffi_closure_alloc gave nothing", ffi.name))
}

/// How many times as long as ours the better of the other two took.
fn better(times: &Times, ours: usize) -> f64 {
    let of = |lane| times.ratio(lane, ours);
    // Not f64::min, for which a figure that is missing is the larger one.
    if of(0) <= of(1) { of(0) } else { of(1) }
}

/// What calls cost.
pub fn calls() -> Vec<Row> {
    shapes::ALL.into_iter().flat_map(calls_of).collect()
}

fn calls_of(shape: &'static Shape) -> Vec<Row> {
    const DATA: usize = 5;
    let made: Vec<_> = libraries()
        .iter()
        .map(|ffi| {
            let ffi = ffi.as_ref()?;
            Some((ffi, make(ffi, cif(ffi, shape), shape, DATA)))
        })
        .collect();
    let dynamic = (shape.closure)(&shape.signature(), DATA);
    let mut codes: Vec<_> = made.iter().map(|made| Some(made.as_ref()?.1.code)).collect();
    codes.extend([Some(dynamic.as_ptr()), Some(shape.plain)]);
    let names = names().into_iter().chain(["indirect call".to_owned()]);
    let mut rows = Vec::new();
    for (code, name) in codes.iter().zip(names.clone()) {
        // SAFETY: functions of this shape, which live.
        let right = code.is_none_or(|code| unsafe { (shape.answers)(code, DATA) });
        assert!(right, "{}: {name} computes something else", shape.name);
    }
    for (how, batch) in
        [("result fed into the next call", shape.fed), ("calls independent", shape.free)]
    {
        let lane = |&code: &Option<*const ()>| {
            // SAFETY: as above.
            Lane::maybe(code.map(|code| move || unsafe { batch(code) }))
        };
        let mut lanes: Vec<Lane> = codes.iter().map(lane).collect();
        let times = clock::run(ROUNDS, shapes::CALLS, &mut lanes);
        let row = |what: &str, value, unit, target| {
            Row::new(format!("dynamic call {}, {how}: {what}", shape.name), value, unit, target)
        };
        for (lane, name) in names.clone().enumerate() {
            rows.push(row(&name, times.median(lane), "ns", Target::None));
        }
        let target = Target::Least(shape.faster);
        rows.push(row("the better libffi over ours", better(&times, OURS), "ratio", target));
        let value = better(&times, DYNAMIC);
        rows.push(row("the better libffi over DynClosure", value, "ratio", Target::None));
    }
    for (ffi, made) in made.into_iter().flatten() {
        // SAFETY: not used any more.
        unsafe { ffi.free(made) };
    }
    rows
}

/// Makes and drops one after the other.
#[inline(never)]
fn pairs(ffi: &Ffi, cif: Cif) {
    for n in 0..PAIRS {
        let made = make(ffi, cif, &INTS, n);
        // SAFETY: not used any more.
        unsafe { ffi.free(black_box(made)) };
    }
}

#[inline(never)]
fn pairs_dynamic(signature: &trampfd::Signature) {
    for n in 0..PAIRS {
        drop(black_box((INTS.closure)(signature, n)));
    }
}

/// Makes some, and drops them in this order.
#[inline(never)]
fn batches(ffi: &Ffi, cif: Cif) {
    for first in (0..PAIRS).step_by(AT_ONCE) {
        let made: [Made; AT_ONCE] = std::array::from_fn(|n| make(ffi, cif, &INTS, first + n));
        // SAFETY: not used any more.
        black_box(made).into_iter().for_each(|made| unsafe { ffi.free(made) });
    }
}

#[inline(never)]
fn batches_dynamic(signature: &trampfd::Signature) {
    for first in (0..PAIRS).step_by(AT_ONCE) {
        let made: [DynClosure; AT_ONCE] =
            std::array::from_fn(|n| (INTS.closure)(signature, first + n));
        drop(black_box(made));
    }
}

/// What it costs to make a closure and to drop it, the same few again and again.
pub fn hot() -> Vec<Row> {
    let signature = INTS.signature();
    let mut rows = Vec::new();
    type Batch = (&'static str, fn(&Ffi, Cif), fn(&trampfd::Signature));
    let kinds: [Batch; 2] =
        [("one by one", pairs, pairs_dynamic), ("64 at once", batches, batches_dynamic)];
    for (how, batch, dynamic) in kinds {
        let lane = |ffi: &'static Option<Ffi>| {
            Lane::maybe(ffi.as_ref().map(|ffi| {
                let cif = cif(ffi, &INTS);
                move || batch(ffi, cif)
            }))
        };
        let mut lanes: Vec<Lane> = libraries().iter().map(lane).collect();
        lanes.push(Lane::new(|| dynamic(&signature)));
        let times = clock::run(ROUNDS, PAIRS, &mut lanes);
        let row = |what: &str, value, unit, target| {
            Row::new(format!("alloc + prep + free, {how}: {what}"), value, unit, target)
        };
        for (lane, name) in names().into_iter().enumerate() {
            let target = if lane == OURS { Target::Most(8.0) } else { Target::None };
            rows.push(row(&name, times.median(lane), "ns", target));
            if lane == OURS {
                rows.push(row("ours, best batch", times.min(lane), "ns", Target::None));
            }
        }
        let value = better(&times, OURS);
        rows.push(row("the better libffi over ours", value, "ratio", Target::Least(1.0)));
    }
    rows
}

/// What a child that makes many says.
#[derive(Clone, Copy, Debug)]
struct Many {
    /// Nanoseconds each: all, the first of them, the last.
    all: f64,
    first: f64,
    last: f64,
    bytes: f64,
    mappings: f64,
    right: f64,
    /// Nanoseconds each, to free them.
    free: f64,
}

impl Many {
    /// The medians of children's figures.
    fn of(word: &str, count: usize, runs: usize) -> Many {
        let count = count.to_string();
        let runs: Vec<_> =
            (0..runs).map(|_| child_or_none(&["dynamic-many", word, &count], 7)).collect();
        let nth = |n: usize| median(runs.iter().map(|run| run[n]));
        Many {
            all: nth(0),
            first: nth(1),
            last: nth(2),
            bytes: nth(3),
            mappings: nth(4),
            right: nth(5),
            free: nth(6),
        }
    }
}

/// Child: what `count` closures of `word` take that live at once, page faults included.
pub fn many(word: &str, count: usize) -> Result<(), String> {
    match Who::ALL.into_iter().find(|who| who.word() == word) {
        Some(who) => {
            let ffi = Ffi::open(who)?;
            let cif = cif(&ffi, &INTS);
            // SAFETY: not used any more.
            live(
                count,
                |n| make(&ffi, cif, &INTS, n),
                |made| made.code,
                |made| unsafe {
                    ffi.free(made);
                },
            );
        }
        None => {
            let signature = INTS.signature();
            live(count, |n| (INTS.closure)(&signature, n), DynClosure::as_ptr, drop);
        }
    }
    Ok(())
}

fn live<T>(count: usize, make: impl Fn(usize) -> T, code: fn(&T) -> *const (), free: impl Fn(T)) {
    let mut all: Vec<T> = room(count);
    let (before, mappings) = (process::own_memory(), process::mappings());
    let part = PART.min(count);
    let ends = [part, count - part, count];
    let mut made = 0;
    let start = Instant::now();
    let times = ends.map(|end| {
        all.extend((made..end).map(&make));
        made = end;
        start.elapsed().as_nanos() as f64
    });
    // Each is called, so that what calls need of memory is there.
    let right = all.iter().enumerate().filter(|(n, made)| {
        // SAFETY: it lives.
        unsafe { (INTS.answers)(code(made), *n) }
    });
    let right = right.count();
    let bytes = (process::own_memory() - before) / count as f64;
    let mappings = process::mappings() - mappings;
    let start = Instant::now();
    all.drain(..).for_each(free);
    let freed = start.elapsed().as_nanos() as f64;
    say(&[
        times[2] / count as f64,
        times[0] / part as f64,
        (times[2] - times[1]) / part as f64,
        bytes,
        mappings,
        right as f64,
        freed / count as f64,
    ]);
}

/// A million and five million that live at once.
pub fn memory() -> Vec<Row> {
    let row = |what: &str, name: &str, value, unit, target| {
        Row::new(format!("dynamic, 1,000,000 live, {what}: {name}"), value, unit, target)
    };
    let mut rows = Vec::new();
    let words = Who::ALL.map(Who::word).into_iter().chain(["DynClosure"]);
    for (lane, (word, name)) in words.zip(names()).enumerate() {
        let runs = if lane < OURS { RUNS_PEERS } else { RUNS };
        let million = Many::of(word, MILLION, runs);
        let target = |target| if lane == OURS { target } else { Target::None };
        let figures = [
            ("create", million.all, "ns each", target(Target::Most(35.0))),
            ("create the first 100,000", million.first, "ns each", Target::None),
            ("create the last 100,000", million.last, "ns each", target(Target::Most(35.0))),
            ("drop", million.free, "ns each", Target::None),
            ("memory", million.bytes, "B each", target(Target::Most(100.0))),
            ("mappings", million.mappings, "", target(Target::Most(500.0))),
            ("right answers", million.right, "", target(Target::Least(MILLION as f64))),
        ];
        rows.extend(
            figures.map(|(what, value, unit, target)| row(what, &name, value, unit, target)),
        );
        if lane == OURS {
            let flat = million.last / million.first;
            rows.push(row("last over first 100,000", &name, flat, "ratio", Target::Most(1.25)));
        }
    }
    let many = Many::of("ours", MANY, 1);
    let row = |what: &str, value, unit, target| {
        Row::new(format!("dynamic, 5,000,000 live, {what}: ours"), value, unit, target)
    };
    rows.extend([
        row("right answers", many.right, "", Target::Least(MANY as f64)),
        row("create", many.all, "ns each", Target::None),
        row("create the last 100,000", many.last, "ns each", Target::None),
        row("memory", many.bytes, "B each", Target::None),
        row("mappings", many.mappings, "", Target::None),
    ]);
    rows
}

/// Rounds of the rates, and of closures a thread has at once: more than it keeps for itself when
/// it drops them.
const RATES: usize = 21;
const AT_ONCE_THREADS: usize = 1_000;

/// Child: the rate of two threads over that of one, with few closures or with many at once; and
/// of pure computing meanwhile.
pub fn ratio(word: &str, how: &str) -> Result<(), String> {
    let who = Who::ALL.into_iter().find(|who| who.word() == word).ok_or("unknown library")?;
    let ffi = Ffi::open(who)?;
    let cif = cif(&ffi, &INTS);
    let few = || {
        || {
            pairs(&ffi, cif);
            PAIRS as u64
        }
    };
    let many = || {
        let mut all: Vec<Made> = Vec::with_capacity(AT_ONCE_THREADS);
        let ffi = &ffi;
        move || {
            all.extend((0..AT_ONCE_THREADS).map(|n| make(ffi, cif, &INTS, n)));
            // SAFETY: not used any more.
            black_box(&mut all).drain(..).for_each(|made| unsafe { ffi.free(made) });
            AT_ONCE_THREADS as u64
        }
    };
    let (mut ratios, mut computing) = (Vec::new(), Vec::new());
    for _ in 0..RATES {
        ratios.push(match how {
            "few" => threads::rate(2, few) / threads::rate(1, few),
            _ => threads::rate(2, many) / threads::rate(1, many),
        });
        let compute = || threads::compute;
        computing.push(threads::rate(2, compute) / threads::rate(1, compute));
    }
    say(&[median(ratios.into_iter()), median(computing.into_iter())]);
    Ok(())
}

/// Two threads. Each library in processes of its own: libffi 3.6.0 looks through its list of
/// segments without its lock (`ffi_tramp_is_present`), and crashes where another thread gives one
/// back meanwhile.
pub fn threads() -> Vec<Row> {
    let names = names();
    let mut rows = Vec::new();
    for (how, what) in [("few", "alloc + prep + free a second"), ("many", "1,000, then free them")]
    {
        for (lane, who) in Who::ALL.into_iter().enumerate() {
            let ratios = child_or_none(&["dynamic-threads", who.word(), how], 2);
            let target = if who == Who::Ours { Target::Least(1.8) } else { Target::None };
            let name = format!("2 threads over 1, {what}: {}", names[lane]);
            rows.push(Row::new(name, ratios[0], "ratio", target));
            if who == Who::Ours {
                let name = format!("2 threads over 1, {what}: pure computing meanwhile");
                rows.push(Row::new(name, ratios[1], "ratio", Target::None));
            }
        }
    }
    rows
}
