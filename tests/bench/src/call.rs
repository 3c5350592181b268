//! What a call costs.

use std::hint::black_box;

use crate::clock::{self, Lane};
use crate::mapped;
use crate::peers::{self, Bare, WithContext, with_context};
use crate::table::{Row, Target};

/// Calls in a batch.
const CALLS: usize = 20_000;
const ROUNDS: usize = 1_000;

/// Each result goes into the next call.
#[inline(never)]
pub fn fed(f: Bare) {
    let f = black_box(f);
    let mut x = 1;
    for _ in 0..CALLS {
        // SAFETY: whatever it is, its owner lives.
        x = unsafe { f(x, 3) };
    }
    black_box(x);
}

#[inline(never)]
fn fed_context(f: WithContext, data: *const [u64; 2]) {
    let (f, data) = (black_box(f), black_box(data));
    let mut x = 1;
    for _ in 0..CALLS {
        // SAFETY: `data` is the context of `f`.
        x = unsafe { f(x, 3, data) };
    }
    black_box(x);
}

/// No call waits for another.
#[inline(never)]
pub fn free(f: Bare) {
    let f = black_box(f);
    let mut x = 0i32;
    for n in 0..CALLS as i32 {
        // SAFETY: whatever it is, its owner lives.
        x ^= unsafe { f(n, 3) };
    }
    black_box(x);
}

#[inline(never)]
fn free_context(f: WithContext, data: *const [u64; 2]) {
    let (f, data) = (black_box(f), black_box(data));
    let mut x = 0i32;
    for n in 0..CALLS as i32 {
        // SAFETY: `data` is the context of `f`.
        x ^= unsafe { f(n, 3, data) };
    }
    black_box(x);
}

/// Hot calls of one closure.
pub fn hot() -> Vec<Row> {
    let data = [5, 7];
    let ours = peers::ours::<1>(data);
    let theirs = peers::closure_ffi::<1>(data);
    let f = move |a: i32, b: i32| peers::compute::<1>(a, b, &data);
    let ffi = peers::libffi(&f);
    let (ours, theirs, ffi) = (ours.as_ptr(), theirs.bare(), peers::libffi_pointer(&ffi));
    let layout = mapped::Table::new(1);
    let mapped = layout.bind(0, peers::with_context::<1>, &raw const data);
    let context: WithContext = peers::with_context::<1>;
    let wanted = peers::compute::<1>(20, 22, &data);
    // SAFETY: all live.
    for (name, got) in unsafe {
        [
            ("ours", ours(20, 22)),
            ("closure-ffi", theirs(20, 22)),
            ("libffi-rs", ffi(20, 22)),
            ("the kernel's layout", mapped(20, 22)),
        ]
    } {
        assert_eq!(got, wanted, "{name} computes something else");
    }
    let mut rows = Vec::new();
    type ByContext = fn(WithContext, *const [u64; 2]);
    type How = (&'static str, fn(Bare), ByContext, f64);
    let kinds: [How; 2] = [
        ("result fed into the next call", fed, fed_context, 1.15),
        ("calls independent", free, free_context, 1.5),
    ];
    for (how, bare, with_context, limit) in kinds {
        let times = clock::run(
            ROUNDS,
            CALLS,
            &mut [
                Lane::new(|| with_context(context, &data)),
                Lane::new(|| bare(ours)),
                Lane::new(|| bare(theirs)),
                Lane::new(|| bare(ffi)),
                Lane::new(|| bare(mapped)),
            ],
        );
        let lanes = [
            "indirect call that passes a context",
            "closure, text",
            "closure-ffi",
            "libffi-rs",
            "layout of the kernel's views",
        ];
        for (lane, name) in lanes.into_iter().enumerate() {
            let name = format!("call int(int,int), {how}: {name}");
            rows.push(Row::new(name, times.median(lane), "ns", Target::None));
        }
        let mut ratio = |name: &str, a, b, target| {
            rows.push(Row::new(
                format!("call int(int,int), {how}: {name}"),
                times.ratio(a, b),
                "ratio",
                target,
            ));
        };
        ratio("closure, text, over context call", 1, 0, Target::Most(limit));
        ratio("layout of the kernel's views over context call", 4, 0, Target::Most(limit));
        ratio("closure-ffi over ours", 2, 1, Target::Least(2.0));
        ratio("libffi-rs over ours", 3, 1, Target::Least(6.0));
    }
    rows
}

/// Hot calls, each result fed into the next call, of a function whose own work takes longer than
/// its call: what it looks up depends on its argument.
pub fn looking_up() -> Vec<Row> {
    let data = [5, 7];
    let ours: trampfd::Closure<Bare> = trampfd::Builder::new()
        .require(trampfd::Backend::Text)
        .closure(peers::look_up, data)
        .expect("a closure");
    let layout = mapped::Table::new(1);
    let mapped = layout.bind(0, peers::look_up_context, &raw const data);
    let times = clock::run(
        ROUNDS,
        CALLS,
        &mut [
            Lane::new(|| fed_context(peers::look_up_context, &data)),
            Lane::new(|| fed(ours.as_ptr())),
            Lane::new(|| fed(mapped)),
        ],
    );
    let row = |what: &str, value, unit, target| {
        Row::new(
            format!("call int(int,int) that looks up by its argument, fed: {what}"),
            value,
            unit,
            target,
        )
    };
    vec![
        row("indirect call that passes a context", times.median(0), "ns", Target::None),
        row("closure, text, over context call", times.ratio(1, 0), "ratio", Target::Most(1.15)),
        row(
            "layout of the kernel's views over context call",
            times.ratio(2, 0),
            "ratio",
            Target::Most(1.15),
        ),
    ]
}

/// Closures in the row of many.
const MANY: usize = 10_000;

macro_rules! sixteen {
    ($f:ident) => {
        [
            $f::<0>, $f::<1>, $f::<2>, $f::<3>, $f::<4>, $f::<5>, $f::<6>, $f::<7>, $f::<8>,
            $f::<9>, $f::<10>, $f::<11>, $f::<12>, $f::<13>, $f::<14>, $f::<15>,
        ]
    };
}

fn ours_n<const N: i32>(data: [u64; 2]) -> trampfd::Closure<Bare> {
    peers::ours::<N>(data)
}
fn closure_ffi_n<const N: i32>(data: [u64; 2]) -> closure_ffi::BareFnSync<'static, Bare> {
    peers::closure_ffi::<N>(data)
}

/// Numbers below `limit` in an order without a pattern, the same for the same seed.
pub fn shuffled(limit: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..limit as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed;
    for n in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(n, (state % (n as u64 + 1)) as usize);
    }
    order
}

#[inline(never)]
pub fn each(order: &[u32], all: &[Bare]) -> i32 {
    let mut x = 0i32;
    for &n in order {
        // SAFETY: whatever it is, its owner lives.
        x ^= unsafe { all[n as usize](n as i32, 3) };
    }
    black_box(x)
}

#[inline(never)]
fn each_context(order: &[u32], all: &[(WithContext, Box<[u64; 2]>)]) -> i32 {
    let mut x = 0i32;
    for &n in order {
        let (f, data) = &all[n as usize];
        // SAFETY: `data` is the context of `f`.
        x ^= unsafe { f(n as i32, 3, &**data) };
    }
    black_box(x)
}

/// 10,000 closures over 16 functions, in random order.
pub fn many() -> Vec<Row> {
    let data = |n: usize| [n as u64, 7];
    // Which of the 16 functions: random too, or the branch predictor would know.
    let kind: Vec<usize> = shuffled(MANY, 1).into_iter().map(|n| n as usize % 16).collect();
    let order = shuffled(MANY, 2);

    let contexts: [WithContext; 16] = sixteen!(with_context);
    let contexts: Vec<(WithContext, Box<[u64; 2]>)> =
        (0..MANY).map(|n| (contexts[kind[n]], Box::new(data(n)))).collect();
    let make: [fn([u64; 2]) -> trampfd::Closure<Bare>; 16] = sixteen!(ours_n);
    let ours: Vec<_> = (0..MANY).map(|n| make[kind[n]](data(n))).collect();
    let ours: (Vec<Bare>, _) = (ours.iter().map(|c| c.as_ptr()).collect(), ours);
    let make: [fn([u64; 2]) -> closure_ffi::BareFnSync<'static, Bare>; 16] =
        sixteen!(closure_ffi_n);
    let theirs: Vec<_> = (0..MANY).map(|n| make[kind[n]](data(n))).collect();
    let theirs: (Vec<Bare>, _) = (theirs.iter().map(|c| c.bare()).collect(), theirs);

    let layout = mapped::Table::new(MANY);
    let mapped: Vec<Bare> =
        (0..MANY).map(|n| layout.bind(n, contexts[n].0, &raw const *contexts[n].1)).collect();

    let wanted = each_context(&order, &contexts);
    assert_eq!(each(&order, &mapped), wanted, "the kernel's layout computes something else");
    assert_eq!(each(&order, &ours.0), wanted, "ours computes something else");
    assert_eq!(each(&order, &theirs.0), wanted, "closure-ffi computes something else");
    let times = clock::run(
        ROUNDS,
        MANY,
        &mut [
            Lane::new(|| _ = each_context(&order, &contexts)),
            Lane::new(|| _ = each(&order, &ours.0)),
            Lane::new(|| _ = each(&order, &theirs.0)),
            Lane::new(|| _ = each(&order, &mapped)),
        ],
    );
    let row = |what: &str, value, unit, target| {
        Row::new(format!("10,000 over 16 functions, random order: {what}"), value, unit, target)
    };
    vec![
        row("indirect call that passes a context", times.median(0), "ns", Target::None),
        row("closure, text", times.median(1), "ns", Target::None),
        row("closure-ffi", times.median(2), "ns", Target::None),
        row("layout of the kernel's views", times.median(3), "ns", Target::None),
        row("closure, text, over context call", times.ratio(1, 0), "ratio", Target::Most(1.35)),
        row("closure, text, over closure-ffi", times.ratio(1, 2), "ratio", Target::Most(1.0)),
        row(
            "layout of the kernel's views over context call",
            times.ratio(3, 0),
            "ratio",
            Target::Most(1.35),
        ),
        row(
            "layout of the kernel's views over closure-ffi",
            times.ratio(3, 2),
            "ratio",
            Target::Most(1.0),
        ),
    ]
}
