//! Slots go to closures and come back: a slot belongs to one closure at a time, whichever threads
//! make, call and drop it, and traps when it belongs to none.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use trampfd::{Builder, Closure};
use trampfd_tests::{alone_cases, each};

type One = unsafe extern "C" fn(u64) -> u64;
type Two = unsafe extern "C" fn(f64, u64, u64) -> u64;
type Seven = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64) -> u64;

/// A closure that answers with its number and the argument; the kinds differ in table, target
/// and size.
enum Held {
    One(Closure<One>),
    Two(Closure<Two>),
    Seven(Closure<Seven>),
}

/// What a closure holds: its number, and who counts the living.
struct Number(u64, Arc<AtomicUsize>);

impl Number {
    fn new(number: u64, alive: &Arc<AtomicUsize>) -> Number {
        alive.fetch_add(1, Ordering::SeqCst);
        Number(number, alive.clone())
    }
}

impl Number {
    fn get(&self) -> u64 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

const KINDS: u8 = 4;

impl Held {
    fn new(builder: &Builder, kind: u8, number: u64, alive: &Arc<AtomicUsize>) -> Held {
        let number = Number::new(number, alive);
        match kind {
            0 => Held::One(builder.closure(|a: u64, n: &Number| a ^ n.0, number).unwrap()),
            1 => Held::One(
                builder
                    .closure(|a: u64, n: &([u64; 8], Number)| a ^ n.1.0, ([0; 8], number))
                    .unwrap(),
            ),
            2 => Held::Two(
                builder
                    .closure(|f: f64, a: u64, b: u64, n: &Number| a ^ b ^ f as u64 ^ n.0, number)
                    .unwrap(),
            ),
            _ => Held::Seven(
                builder
                    .closure_from_fn(
                        move |a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64| {
                            a ^ b ^ c ^ d ^ e ^ f ^ g ^ number.get()
                        },
                    )
                    .unwrap(),
            ),
        }
    }

    fn call(&self, a: u64) -> u64 {
        // SAFETY: the closure lives.
        unsafe {
            match self {
                Held::One(f) => f.as_ptr()(a),
                Held::Two(f) => f.as_ptr()(8.0, a, 8),
                Held::Seven(f) => f.as_ptr()(a, 1, 2, 3, 4, 5, 1),
            }
        }
    }

    fn address(&self) -> usize {
        match self {
            Held::One(f) => f.as_ptr() as usize,
            Held::Two(f) => f.as_ptr() as usize,
            Held::Seven(f) => f.as_ptr() as usize,
        }
    }
}

/// One thing to do. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make { kind: u8, count: usize },
    MakeElsewhere { kind: u8, count: usize },
    Drop { first: usize, count: usize },
    DropElsewhere { first: usize, count: usize },
    Call { at: usize },
    CallElsewhere { at: usize },
}

fn step() -> impl Strategy<Value = Step> {
    // Beyond a thread's share, so that slots move between threads.
    let count = || prop_oneof![4 => 1..4usize, 1 => 60..400usize];
    prop_oneof![
        4 => (0..KINDS, count()).prop_map(|(kind, count)| Step::Make { kind, count }),
        1 => (0..KINDS, count()).prop_map(|(kind, count)| Step::MakeElsewhere { kind, count }),
        4 => (any::<usize>(), count()).prop_map(|(first, count)| Step::Drop { first, count }),
        1 => (any::<usize>(), count())
            .prop_map(|(first, count)| Step::DropElsewhere { first, count }),
        2 => any::<usize>().prop_map(|at| Step::Call { at }),
        1 => any::<usize>().prop_map(|at| Step::CallElsewhere { at }),
    ]
}

/// Runs the steps beside a model: a list of the closures that live with their numbers.
fn run(builder: &Builder, steps: &[Step]) {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut live: Vec<(u64, Held)> = Vec::new();
    let mut numbers = 1..;
    let make =
        |count: usize, kind: u8, numbers: &mut dyn Iterator<Item = u64>| -> Vec<(u64, Held)> {
            let number = |n| (n, Held::new(builder, kind, n, &alive));
            numbers.take(count).map(number).collect()
        };
    for &step in steps {
        match step {
            Step::Make { kind, count } => live.extend(make(count, kind, &mut numbers)),
            Step::MakeElsewhere { kind, count } => {
                let numbers: Vec<u64> = numbers.by_ref().take(count).collect();
                let made = std::thread::scope(|scope| {
                    scope.spawn(|| make(count, kind, &mut numbers.into_iter())).join().unwrap()
                });
                live.extend(made);
            }
            Step::Drop { first, count } => drop(take(&mut live, first, count)),
            Step::DropElsewhere { first, count } => {
                let away = take(&mut live, first, count);
                std::thread::spawn(move || drop(away)).join().unwrap();
            }
            Step::Call { at } => {
                if let Some((number, f)) = pick(&live, at) {
                    assert_eq!(f.call(at as u64), at as u64 ^ number);
                }
            }
            Step::CallElsewhere { at } => {
                if let Some((number, f)) = pick(&live, at) {
                    let got = std::thread::scope(|scope| {
                        scope.spawn(|| f.call(at as u64)).join().unwrap()
                    });
                    assert_eq!(got, at as u64 ^ number);
                }
            }
        }
        assert_eq!(alive.load(Ordering::SeqCst), live.len(), "what was dropped is dropped, once");
        let addresses: HashSet<usize> = live.iter().map(|(_, f)| f.address()).collect();
        assert_eq!(addresses.len(), live.len(), "no address belongs to two");
    }
    for (number, f) in &live {
        assert_eq!(f.call(77), 77 ^ number);
    }
    drop(live);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

fn take(live: &mut Vec<(u64, Held)>, first: usize, count: usize) -> Vec<(u64, Held)> {
    let first = first.checked_rem(live.len()).unwrap_or(0);
    live.drain(first..(first + count).min(live.len())).collect()
}

fn pick(live: &[(u64, Held)], at: usize) -> Option<&(u64, Held)> {
    live.get(at.checked_rem(live.len())?)
}

#[test]
fn slots_behave_as_a_list_of_closures_does() {
    each(|builder| {
        let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&prop::collection::vec(step(), 1..60), |steps| {
                run(builder, &steps);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{e}"));
    });
}

#[test]
fn threads_make_and_drop_each_others_closures() {
    each(|builder| {
        let alive = Arc::new(AtomicUsize::new(0));
        let (give, take) = std::sync::mpsc::channel::<(u64, Held)>();
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (give, alive) = (give.clone(), &alive);
                scope.spawn(move || {
                    for n in 0..2000u64 {
                        let number = n * 3 + thread;
                        let f = Held::new(builder, (n % KINDS as u64) as u8, number, alive);
                        assert_eq!(f.call(5), 5 ^ number);
                        if n % 2 == 0 {
                            give.send((number, f)).unwrap();
                        }
                    }
                });
            }
            drop(give);
            let mut kept = Vec::new();
            for (number, f) in take {
                assert_eq!(f.call(9), 9 ^ number);
                kept.push((number, f));
                if kept.len() > 500 {
                    kept.drain(..250).for_each(|(number, f)| assert_eq!(f.call(1), 1 ^ number));
                }
            }
        });
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn slots_of_threads_that_ended_are_used_again() {
    each(|builder| {
        let alive = Arc::new(AtomicUsize::new(0));
        let mut addresses = HashSet::new();
        for _ in 0..300 {
            let there = || -> Vec<usize> {
                let all: Vec<_> = (0..128).map(|n| Held::new(builder, 0, n, &alive)).collect();
                all.iter().map(Held::address).collect()
            };
            addresses.extend(std::thread::scope(|scope| scope.spawn(there).join().unwrap()));
        }
        // Some are in the hands of other tests' threads, and more are bound than are asked for.
        assert!(addresses.len() < 300 * 128 / 4, "{} slots for 128", addresses.len());
    });
}

#[test]
fn a_closure_may_be_made_and_dropped_while_its_thread_ends() {
    struct AtEnd(std::cell::RefCell<Vec<Held>>, Arc<AtomicUsize>, Builder);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            // The library's own thread-local data may be gone by now.
            for number in 0..300 {
                let f = Held::new(&self.2, 0, number, &self.1);
                assert_eq!(f.call(3), 3 ^ number);
                self.0.get_mut().push(f);
            }
            self.0.get_mut().clear();
        }
    }
    thread_local! {
        static FIRST: std::cell::OnceCell<AtEnd> = const { std::cell::OnceCell::new() };
    }
    each(|builder| {
        let alive = Arc::new(AtomicUsize::new(0));
        for order in 0..4 {
            let (builder, alive) = (*builder, alive.clone());
            let thread = std::thread::spawn(move || {
                let early = (order % 2 == 0).then(|| Held::new(&builder, 0, 7, &alive));
                FIRST.with(|first| {
                    let kept =
                        (0..200).map(|n| Held::new(&builder, n % KINDS, 1, &alive)).collect();
                    first.get_or_init(|| {
                        AtEnd(std::cell::RefCell::new(kept), alive.clone(), builder)
                    });
                });
                drop(early);
            });
            thread.join().unwrap();
        }
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_freed_closure_traps() {
    let ends =
        alone_cases(&["at once", "the first of 257", "its thread has ended"], |builder, case| {
            let make = |n: usize| -> Closure<One> {
                builder
                    .clear_at_once(case == "at once")
                    .closure(|a: u64, n: &usize| a + *n as u64, n)
                    .unwrap()
            };
            let stale = match case {
                "at once" => make(1).as_ptr(),
                "the first of 257" => {
                    let all: Vec<_> = (0..257).map(make).collect();
                    let first = all[0].as_ptr();
                    drop(all);
                    first
                }
                _ => std::thread::scope(|scope| scope.spawn(|| make(1).as_ptr()).join().unwrap()),
            };
            // SAFETY: it traps, which is what is tested.
            let got = unsafe { stale(1) };
            eprintln!("it answered {got}");
        });
    for (case, end) in ends {
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&end.status),
            Some(libc::SIGILL),
            "{case}: {} {}",
            end.status,
            end.stderr
        );
        if end.backend == trampfd::Backend::Text {
            assert!(end.stderr.contains("a freed closure was called, stub 0x"), "{}", end.stderr);
        }
    }
}

#[test]
fn a_freed_closure_of_every_table_says_so() {
    let cases = &["0", "1", "2", "3", "4", "5", "6", "stack"];
    let ends = alone_cases(cases, |builder, case| {
        let builder = builder.clear_at_once(true);
        macro_rules! freed {
            ($($case:literal ($($t:ty),*);)*) => {
                match case {
                    $($case => {
                        let f: Closure<unsafe extern "C" fn($($t),*)> =
                            builder.closure_from_fn(|$(_: $t),*| ()).unwrap();
                        let stale = f.as_ptr();
                        eprintln!("stub {:#018x}", stale as usize);
                        drop(f);
                        // SAFETY: it traps, which is what is tested.
                        unsafe { stale($(std::mem::zeroed::<$t>()),*) };
                    })*
                    _ => panic!("no case {case}"),
                }
            };
        }
        freed! {
            "0" ();
            "1" (i32);
            "2" (i32, i32);
            "3" (i32, i32, f64, i32);
            "4" (i32, i32, i32, i32);
            "5" (i32, i32, i32, i32, i32);
            "6" (i32, i32, i32, i32, i32, i32);
            "stack" (f64, f64, f64, f64, f64, f64, f64, f64, f64, f64, i32);
        }
        eprintln!("it answered");
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGILL);
        if end.backend == trampfd::Backend::Text {
            let stub = end.stderr.lines().next().unwrap().to_owned();
            let says = format!("trampfd: a freed closure was called, {stub}");
            assert!(end.stderr.contains(&says), "{case}: {}", end.stderr);
        }
    }
}
