//! A closure gets what its C caller passed and returns what it is asked for, for every type,
//! number and mixture of arguments. The callers are C, written by `tests/build.rs` with the
//! closures that they call.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use trampfd::{Builder, Closure};
use trampfd_tests::each;

/// The bits of an argument, without what the calling convention leaves open.
trait Word: Copy {
    fn word(self) -> u64;
    fn of(word: u64) -> Self;
}

macro_rules! word {
    ($($t:ty, $bits:ty;)*) => {$(
        impl Word for $t {
            fn word(self) -> u64 {
                self as $bits as u64
            }
            fn of(word: u64) -> Self {
                word as Self
            }
        }
    )*};
}
word! {
    i8, u8; u8, u8; i16, u16; u16, u16; i32, u32; u32, u32;
    i64, u64; u64, u64; isize, usize; usize, usize;
    *const u8, usize; *mut c_void, usize;
}

impl Word for () {
    fn word(self) -> u64 {
        0
    }
    fn of(_: u64) {}
}

impl Word for bool {
    fn word(self) -> u64 {
        self.into()
    }
    fn of(word: u64) -> Self {
        word != 0
    }
}

impl Word for f32 {
    fn word(self) -> u64 {
        self.to_bits().into()
    }
    fn of(word: u64) -> Self {
        f32::from_bits(word as u32)
    }
}

impl Word for f64 {
    fn word(self) -> u64 {
        self.to_bits()
    }
    fn of(word: u64) -> Self {
        f64::from_bits(word)
    }
}

macro_rules! function {
    ($($t:ty)*) => {$(
        impl Word for Option<$t> {
            fn word(self) -> u64 {
                self.map_or(0, |f| f as usize as u64)
            }
            fn of(word: u64) -> Self {
                // SAFETY: a nullable function pointer is a word; nobody calls this one.
                unsafe { std::mem::transmute::<usize, Self>(word as usize) }
            }
        }
    )*};
}
function! { extern "C" fn() unsafe extern "C" fn(i32) -> i32 }

/// What a closure saw: the arguments of each call.
type Log = Arc<Mutex<Vec<Vec<u64>>>>;

/// What C was told by a closure, as words: one for each call.
type Told = Vec<u64>;

/// A way to reach a closure: makes it, has C call it.
type Way = fn(&Builder, Log) -> Told;

/// A signature with its callers, and what they pass and want back.
struct Case {
    name: &'static str,
    passed: &'static [u64],
    answer: u64,
    by_closure: Way,
    by_pointer: Way,
    by_large: Way,
    by_unwind: Way,
    by_local: Way,
}

/// The Rust half of one signature of `tests/build.rs`.
macro_rules! generated {
    (
        $name:literal, [$($t:ty),*] $r:ty, $call:ident $dirty:ident,
        ($($typed:tt)*), [$($word:expr),*], [$($passed:expr),*], $answer:expr, ($($blank:tt)*)
    ) => {
        type S = unsafe extern "C" fn($($t),*) -> $r;

        #[allow(improper_ctypes, reason = "the same pointers under another ABI name")]
        unsafe extern "C" {
            fn $call(f: S) -> $r;
            fn $dirty(f: S) -> $r;
        }

        extern "C" fn handler($($typed)* log: &Log) -> $r {
            log.lock().unwrap().push(vec![$($word),*]);
            <$r>::of($answer)
        }

        pub(super) fn signature() -> Case {
            Case {
                name: $name,
                passed: &[$($passed),*],
                answer: $answer,
                by_closure: |builder, log| {
                    let f: Closure<S> = builder
                        .closure(
                            |$($typed)* log: &Log| -> $r {
                                log.lock().unwrap().push(vec![$($word),*]);
                                <$r>::of($answer)
                            },
                            log,
                        )
                        .unwrap();
                    // SAFETY: the closure lives.
                    unsafe { vec![$call(f.as_ptr()).word(), $dirty(f.as_ptr()).word()] }
                },
                by_pointer: |builder, log| {
                    let f: Closure<S> =
                        builder.closure(handler as extern "C" fn($($blank)* &_) -> _, log).unwrap();
                    // SAFETY: the closure lives.
                    unsafe { vec![$call(f.as_ptr()).word()] }
                },
                by_large: |builder, log| {
                    let large = [log.clone(), log.clone(), log];
                    let f: Closure<S> = builder
                        .closure_from_fn(move |$($typed)*| -> $r {
                            large[2].lock().unwrap().push(vec![$($word),*]);
                            <$r>::of($answer)
                        })
                        .unwrap();
                    // SAFETY: the closure lives.
                    unsafe { vec![$call(f.as_ptr()).word(), $dirty(f.as_ptr()).word()] }
                },
                by_unwind: |builder, log| {
                    let f = builder
                        .closure_unwind::<S, _, _, _>(
                            |$($typed)* log: &Log| -> $r {
                                log.lock().unwrap().push(vec![$($word),*]);
                                <$r>::of($answer)
                            },
                            log,
                        )
                        .unwrap();
                    // SAFETY: the same pointer under another ABI name; nothing panics.
                    let f = unsafe { std::mem::transmute::<unsafe extern "C-unwind" fn($($t),*) -> $r, S>(f.as_ptr()) };
                    // SAFETY: the closure lives.
                    unsafe { vec![$call(f).word(), $dirty(f).word()] }
                },
                by_local: |builder, log| {
                    let mut calls = 0;
                    let mut f = builder
                        .local_mut::<S, _>(|$($typed)*| -> $r {
                            calls += 1;
                            log.lock().unwrap().push(vec![$($word),*]);
                            <$r>::of($answer)
                        })
                        .unwrap();
                    // SAFETY: the closure lives.
                    let told = unsafe { vec![$call(f.as_ptr()).word(), $dirty(f.as_ptr()).word()] };
                    drop(f);
                    assert_eq!(calls, 2);
                    told
                },
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/signatures.rs"));

fn check(way: fn(&Case) -> Way) {
    each(|builder| {
        for case in all() {
            let log = Log::default();
            let told = way(&case)(builder, log.clone());
            let seen = log.lock().unwrap();
            assert!(!told.is_empty());
            assert_eq!(seen.len(), told.len(), "{}", case.name);
            for (seen, told) in seen.iter().zip(told) {
                assert_eq!(seen, case.passed, "arguments of {}", case.name);
                assert_eq!(told, case.answer, "result of {}", case.name);
            }
        }
    });
}

#[test]
fn c_callers_reach_closures_with_data() {
    check(|case| case.by_closure);
}

#[test]
fn c_callers_reach_c_functions_with_data() {
    check(|case| case.by_pointer);
}

#[test]
fn c_callers_reach_closures_that_capture_much() {
    check(|case| case.by_large);
}

#[test]
fn c_callers_reach_closures_that_may_unwind() {
    check(|case| case.by_unwind);
}

#[test]
fn c_callers_reach_closures_that_change_what_they_hold() {
    check(|case| case.by_local);
}

#[test]
fn every_kind_of_signature_is_among_them() {
    let count = |case: &Case| {
        let list = case.name.split(") -> ").next().unwrap().trim_start_matches("fn(");
        let floats = list.matches("f32").count() + list.matches("f64").count();
        (case.passed.len() - floats, floats)
    };
    let all: Vec<_> = all().iter().map(count).collect();
    for n in 0..=12 {
        assert!(all.iter().any(|(ints, floats)| ints + floats == n), "{n} arguments");
        assert!(all.contains(&(n, 0)) && all.contains(&(0, n)), "{n} of a kind");
    }
    // Floats on the stack beside a data register, and integers on it beside floats in registers.
    for mixture in [(1, 9), (2, 10), (3, 9), (6, 6), (7, 5), (8, 4)] {
        assert!(all.contains(&mixture), "{mixture:?} integers and floats");
    }
}
