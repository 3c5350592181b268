//! Lives of dynamic closures: dropped, called too late, forked, made and dropped by many threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use trampfd::{Builder, DynCall, DynClosure, Signature, Type};
use trampfd_tests::{alone, alone_cases, alone_well, each, fork_well};

type One = unsafe extern "C" fn(usize) -> usize;

/// A closure that adds `n`.
fn adder(builder: &Builder, n: usize) -> DynClosure {
    static SIGNATURE: OnceLock<Signature> = OnceLock::new();
    let signature = SIGNATURE.get_or_init(|| Signature::new(&[Type::SIZE], Type::SIZE).unwrap());
    let add = |call: &mut DynCall<'_>, n: &usize| {
        let a = call.arg::<usize>(0).unwrap_or(usize::MAX);
        let _ = call.set(a.wrapping_add(*n));
    };
    builder.dynamic(signature, add, n).unwrap()
}

fn adders(builder: &Builder, from: usize, count: usize) -> Vec<DynClosure> {
    (from..from + count).map(|n| adder(builder, n)).collect()
}

fn one(f: &DynClosure) -> One {
    // SAFETY: of this signature in these tests; called while the closure lives, or to see it trap.
    unsafe { std::mem::transmute(f.as_ptr()) }
}

/// Each answers with its number; of the kernel service's some are called, as
/// [`trampfd_tests::some`] says.
fn answer(all: &[DynClosure], from: usize) {
    let kernel = all.first().is_some_and(|f| f.backend() == trampfd::Backend::Kernel);
    for (n, f) in all.iter().enumerate().step_by(if kernel { 61 } else { 1 }) {
        // SAFETY: the closure lives.
        assert_eq!(unsafe { one(f)(1000) }, 1000 + from + n);
    }
}

#[test]
fn a_dropped_dynamic_closure_traps() {
    let cases = &["few", "ints", "floats", "none", "memory", "its thread has ended", "257"];
    let ends = alone_cases(cases, |builder, case| {
        let none = |_: &mut DynCall<'_>, _: &usize| ();
        let large = Type::structure(&[Type::array(&Type::U64, 40).unwrap()]).unwrap();
        let make = |args: &[Type], result: Type| {
            builder.dynamic(&Signature::new(args, result).unwrap(), none, 7).unwrap()
        };
        let f = match case {
            "ints" => make(&vec![Type::I64; 8], Type::I8),
            "floats" => make(&[Type::F64], Type::F64),
            "none" => make(&[], Type::F64),
            "memory" => make(std::slice::from_ref(&large), large.clone()),
            "its thread has ended" => {
                std::thread::scope(|scope| scope.spawn(|| adder(builder, 1)).join().unwrap())
            }
            _ => adder(builder, 1),
        };
        let stale = one(&f);
        eprintln!("stub {:#018x}", stale as usize);
        let others = if case == "257" { adders(builder, 0, 256) } else { Vec::new() };
        drop(f);
        drop(others);
        // SAFETY: it traps, which is what is tested.
        let got = unsafe { stale(1) };
        eprintln!("it answered {got}");
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGILL);
        assert!(!end.stderr.contains("it answered"), "{case}");
        if end.backend == trampfd::Backend::Text {
            let stub = end.stderr.lines().next().unwrap().to_owned();
            let says = format!("trampfd: a freed closure was called, {stub}");
            assert!(end.stderr.contains(&says), "{case}: {}", end.stderr);
        }
    }
}

/// What a closure holds is there until nobody can reach it by the stub.
#[test]
fn a_closure_traps_before_its_data_is_dropped() {
    struct Calls(OnceLock<One>);
    impl Drop for Calls {
        fn drop(&mut self) {
            // SAFETY: it traps, which is what is tested.
            let got = unsafe { self.0.get().unwrap()(1) };
            eprintln!("it answered {got}");
        }
    }
    let ends = alone(|builder| {
        let signature = Signature::new(&[Type::SIZE], Type::SIZE).unwrap();
        let calls = Arc::new(Calls(OnceLock::new()));
        let f = builder.dynamic(&signature, |_, _: &Arc<Calls>| (), calls.clone()).unwrap();
        let _ = calls.0.set(one(&f));
        drop(calls);
        drop(f);
    });
    for end in ends {
        end.is_killed_by(libc::SIGILL);
        assert!(!end.stderr.contains("it answered"), "{}", end.stderr);
    }
}

/// Counts the living.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn handler_data_and_signature_are_dropped_once() {
    each(|builder| {
        let alive = Arc::new(AtomicUsize::new(0));
        let signature = Signature::new(&[Type::SIZE], Type::SIZE).unwrap();
        let make = || {
            let captured = Counted::new(&alive);
            let handler = move |call: &mut DynCall<'_>, data: &Counted| {
                let _ = call.set(captured.0.load(Ordering::SeqCst) + data.0.load(Ordering::SeqCst));
            };
            builder.dynamic(&signature, handler, Counted::new(&alive)).unwrap()
        };
        let all: Vec<_> = (0..300).map(|_| make()).collect();
        assert_eq!(alive.load(Ordering::SeqCst), 600);
        // SAFETY: the closure lives.
        assert_eq!(unsafe { one(&all[299])(1) }, 1200);
        drop(all);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        let leaked = make().leak();
        assert_eq!(alive.load(Ordering::SeqCst), 2);
        // SAFETY: it lives for ever.
        let got = unsafe { std::mem::transmute::<*const (), One>(leaked)(1) };
        assert_eq!(got, 4);
    });
}

#[test]
fn a_panic_of_a_handler_ends_the_process() {
    let cases = &["few", "ints", "floats", "memory"];
    let ends = alone_cases(cases, |builder, case| {
        let large = Type::structure(&[Type::array(&Type::U64, 40).unwrap()]).unwrap();
        let (args, result) = match case {
            "few" => (vec![Type::I64], Type::I64),
            "ints" => (vec![Type::I64; 9], Type::I64),
            "floats" => (vec![Type::F64], Type::F64),
            _ => (vec![], large),
        };
        let signature = Signature::new(&args, result).unwrap();
        let f = builder
            .dynamic(&signature, |_, text: &&str| panic!("{text}"), "out of the closure")
            .unwrap();
        let mut room = [0u64; 40];
        let f = one(&f);
        let call = std::panic::AssertUnwindSafe(|| {
            // SAFETY: the closure lives, and looks at no argument but the place of its result.
            unsafe { f(room.as_mut_ptr() as usize) }
        });
        let _ = std::panic::catch_unwind(call);
        eprintln!("still here");
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGABRT);
        assert!(end.stderr.contains("out of the closure"), "{case}: {}", end.stderr);
        assert!(end.stderr.contains("cannot unwind"), "{case}: {}", end.stderr);
        assert!(!end.stderr.contains("still here"), "{case}: {}", end.stderr);
    }
}

#[test]
fn what_a_child_of_fork_drops_and_makes_is_its_own() {
    each(|builder| {
        let mut all = adders(builder, 5, 1000);
        fork_well(|| {
            answer(&all, 5);
            all.drain(..900);
            answer(&all, 905);
            // In the slots that were just given back, among others.
            let more = adders(builder, 7000, 2000);
            answer(&more, 7000);
            answer(&all, 905);
            fork_well(|| {
                drop(more);
                answer(&adders(builder, 20_000, 1500), 20_000);
            });
            answer(&all, 905);
            all.clear();
        });
        answer(&all, 5);
        let more = adders(builder, 9000, 1000);
        answer(&more, 9000);
        answer(&all, 5);
    });
}

#[test]
fn what_a_parent_drops_and_makes_is_its_own() {
    use std::io::{Read, Write, pipe};
    each(|builder| {
        let mut all = adders(builder, 5, 1000);
        let childs: Vec<One> = all.iter().map(one).collect();
        let (mut wait, mut go) = pipe().unwrap();
        let (mut started, mut start) = pipe().unwrap();
        std::thread::scope(|scope| {
            let builder_there = *builder;
            let child = scope.spawn(move || {
                fork_well(|| {
                    start.write_all(&[1]).unwrap();
                    wait.read_exact(&mut [0]).unwrap();
                    for (n, f) in childs.iter().enumerate().step_by(61) {
                        // SAFETY: the child's copy of the closure lives.
                        assert_eq!(unsafe { f(1000) }, 1005 + n);
                    }
                    answer(&adders(&builder_there, 50_000, 1500), 50_000);
                });
            });
            started.read_exact(&mut [0]).unwrap();
            all.clear();
            let more = adders(builder, 70_000, 2000);
            answer(&more, 70_000);
            go.write_all(&[1]).unwrap();
            child.join().unwrap();
            answer(&more, 70_000);
        });
    });
}

#[test]
fn fork_does_not_wait_for_threads_that_make_plans_and_closures() {
    alone_well(|builder| {
        let mine = adders(builder, 40, 100);
        let (stop, made) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let running = std::sync::Barrier::new(3);
        let running = &running;
        std::thread::scope(|scope| {
            for thread in 0..2 {
                scope.spawn(move || {
                    running.wait();
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) != 0 {
                            break;
                        }
                        // A plan of its own each time.
                        let bytes =
                            Type::array(&Type::U64, 3 + (2 * n + thread) % 100_000).unwrap();
                        let bytes = Type::structure(&[bytes]).unwrap();
                        Signature::new(&[bytes], Type::VOID).unwrap();
                        answer(&adders(builder, n, 20), n);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            running.wait();
            for round in 0..60 {
                let before = made.load(Ordering::Relaxed);
                fork_well(|| {
                    answer(&mine, 40);
                    answer(&adders(builder, 500, 500), 500);
                    let args = vec![Type::F32; 20 + round];
                    Signature::new(&args, Type::I32).unwrap();
                });
                while made.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
            }
            stop.store(1, Ordering::Relaxed);
        });
        answer(&mine, 40);
    });
}

#[test]
fn threads_make_call_and_drop_each_others_closures() {
    each(|builder| {
        let (give, take) = std::sync::mpsc::channel::<(usize, DynClosure)>();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let give = give.clone();
                scope.spawn(move || {
                    for n in 0..3000 {
                        let number = n * 3 + thread;
                        let f = adder(builder, number);
                        if n % 61 == 0 {
                            // SAFETY: the closure lives.
                            assert_eq!(unsafe { one(&f)(5) }, 5 + number);
                        }
                        if n % 2 == 0 {
                            give.send((number, f)).unwrap();
                        }
                    }
                });
            }
            drop(give);
            let mut kept = Vec::new();
            for (number, f) in take {
                kept.push((number, f));
                if kept.len() > 500 {
                    for (number, f) in kept.drain(..250).step_by(61) {
                        // SAFETY: the closure lives.
                        assert_eq!(unsafe { one(&f)(9) }, 9 + number);
                    }
                }
            }
            let addresses: HashSet<_> = kept.iter().map(|(_, f)| f.as_ptr()).collect();
            assert_eq!(addresses.len(), kept.len(), "no address belongs to two");
        });
    });
}

#[test]
fn a_signature_outlives_its_makers_and_tells_what_it_is() {
    each(|builder| {
        let pair = Type::structure(&[Type::I8, Type::F64]).unwrap();
        let signature = Signature::new(&[Type::SIZE, pair.clone()], Type::SIZE).unwrap();
        assert_eq!(format!("{signature:?}"), "(uint64_t, struct {int8_t, double}) -> uint64_t");
        assert_eq!((signature.args(), signature.result()), (&[Type::SIZE, pair][..], &Type::SIZE));
        let f = builder
            .dynamic(
                &signature,
                |call, n: &usize| {
                    let a = call.arg::<usize>(0).unwrap_or(0);
                    let _ = call.set(a + call.len() + n);
                },
                1,
            )
            .unwrap();
        drop(signature);
        // SAFETY: the closure lives, and does not look at the second argument.
        assert_eq!(unsafe { one(&f)(10) }, 13);
    });
}
