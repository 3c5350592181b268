//! There is no cap on the number of closures, growing disturbs nobody, and nothing is ever
//! writable and executable.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use trampfd::{Backend, Builder, Closure, Error, Growth};
use trampfd_tests::{
    all_good, alone_cases_on, alone_on, alone_well, mappings, no_writable_code, some,
};
use trampfd_text::arch::TABLE_SLOTS;

type One = unsafe extern "C" fn(usize) -> usize;

/// Slots of the largest table there is, with some to spare.
const TABLE: usize = 16_384;

fn adder(builder: &Builder, n: usize) -> Result<Closure<One>, Error> {
    builder.closure(|a: usize, n: &usize| a + n, n)
}

fn answer(all: &[Closure<One>]) {
    for (n, f) in some(all) {
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(7) }, 7 + n);
    }
}

#[test]
fn closures_have_no_cap() {
    alone_well(|builder| {
        let all: Vec<_> = (0..3 * TABLE + 1).map(|n| adder(builder, n).unwrap()).collect();
        answer(&all);
        no_writable_code();
    });
}

/// The text tables, each way of growing alone.
const WAYS: &[&str] = &["any", "duplicate", "file"];

fn way(name: &str) -> Growth {
    match name {
        "duplicate" => Growth::Duplicate,
        "file" => Growth::File,
        _ => Growth::Any,
    }
}

#[test]
fn text_grows_in_each_way_alone() {
    all_good(&alone_cases_on(&[Backend::Text], WAYS, |builder, name| {
        let builder = builder.growth(way(name));
        let all: Vec<_> = (0..4 * TABLE_SLOTS + 1).map(|n| adder(&builder, n).unwrap()).collect();
        answer(&all);
        // The same for a table that leads to the entry.
        type Seven = unsafe extern "C" fn(u8, u8, u8, u8, u8, u8, usize) -> usize;
        let long: Vec<Closure<Seven>> = (0..2 * TABLE_SLOTS + 1)
            .map(|n| {
                builder
                    .closure(
                        |_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, a: usize, n: &usize| a + n,
                        n,
                    )
                    .unwrap()
            })
            .collect();
        for (n, f) in long.iter().enumerate() {
            // SAFETY: the closure lives.
            assert_eq!(unsafe { f.as_ptr()(0, 0, 0, 0, 0, 0, 7) }, 7 + n);
        }
        answer(&all);
        no_writable_code();
    }));
}

#[test]
fn calls_go_on_while_a_table_grows() {
    alone_well(|builder| {
        let first: Vec<_> = (0..64).map(|n| adder(builder, n).unwrap()).collect();
        let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        answer(&first);
                        calls.fetch_add(first.len(), Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    no_writable_code();
                }
            });
            let mut all = Vec::new();
            while all.len() < 3 * TABLE || calls.load(Ordering::Relaxed) < 1000 {
                all.push(adder(builder, all.len()).unwrap());
            }
            stop.store(true, Ordering::Relaxed);
            answer(&all);
        });
    });
}

#[test]
fn mappings_are_few() {
    alone_well(|builder| {
        let keep = adder(builder, 1).unwrap();
        let count = 8 * TABLE;
        let mut all = Vec::with_capacity(count);
        let before = mappings().len();
        all.extend((0..count).map(|n| adder(builder, n).unwrap()));
        let more = mappings().len() - before;
        assert!(more * 1000 <= count, "{more} mappings for {count} closures");
        answer(&all);
        drop(keep);
    });
}

#[test]
fn prewarmed_closures_need_no_mapping() {
    alone_well(|builder| {
        let handler = |a: usize, n: &usize| a + n;
        builder.prewarm::<One, _, usize, _>(TABLE + 100, handler).unwrap();
        let mut all: Vec<Closure<One>> = Vec::with_capacity(TABLE + 100);
        let before = mappings().len();
        all.extend((0..TABLE + 100).map(|n| builder.closure(handler, n).unwrap()));
        assert_eq!(mappings().len(), before);
        answer(&all);
    });
}

#[test]
fn growth_that_fails_is_an_error_and_changes_nothing() {
    let end = alone_on(Backend::Text, |builder| {
        let mut all: Vec<Closure<One>> = Vec::with_capacity(16 * TABLE_SLOTS);
        all.push(adder(builder, 0).unwrap());
        // No further address space.
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads and lowers a limit of this process.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut old), 0);
            let none = libc::rlimit { rlim_cur: 1 << 20, ..old };
            assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &none), 0);
        }
        let error = loop {
            match adder(builder, all.len()) {
                Ok(f) => all.push(f),
                Err(error) => break error,
            }
            assert!(all.len() <= TABLE_SLOTS, "the limit is no limit");
        };
        let again = adder(builder, 1);
        // SAFETY: as above.
        unsafe { assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &old), 0) };
        assert!(matches!(error, Error::Growth { .. }), "{error:?}");
        assert!(error.to_string().contains("could not be extended"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(again.is_err());
        answer(&all);
        all.extend(
            (all.len()..3 * TABLE_SLOTS).map(|n| adder(builder, n).unwrap()).collect::<Vec<_>>(),
        );
        answer(&all);
    });
    end.is_good();
}
