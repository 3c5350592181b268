//! Calls of methods that are not compiled yet.

use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trampfd_code::cache::{Cache, Code, Compiler, Error, Failure, Key, Options};

use crate::machine::{Arguments, registers_after};
use crate::program::{
    Body, CONSTANT, FAILURES, Folder, Program, call, compiled, events, instead, run,
};

/// 0 calls 1 calls .. calls `n`.
fn chain(n: u32) -> Program {
    let mut program = Program::default().with(n, Body::Sum(1, vec![]));
    for m in 0..n {
        program = program.with(m, Body::Sum(1, vec![m + 1]));
    }
    program
}

#[test]
fn arguments_survive_the_compilation_of_what_is_called() {
    let folder = Folder::new("arguments");
    let program = Program::default()
        .with(0, Body::PassOn(1))
        .with(1, Body::PassOn(2))
        .with(2, Body::PassOn(3))
        .with(3, Body::Nothing);
    let cache = folder.open(&program);
    let start = cache.get(0).unwrap();
    assert_eq!(compiled(&cache, &program), [0, 1, 2]);
    let arguments = Arguments::new();
    for _ in 0..2 {
        // SAFETY: a chain of methods that return at once.
        let after = unsafe { registers_after(start, &arguments) };
        assert_eq!(after, arguments);
        assert_eq!(compiled(&cache, &program), [0, 1, 2, 3]);
    }
}

#[test]
fn threads_compile_a_method_once_and_all_get_it() {
    for round in 0..20 {
        let folder = Folder::new(&format!("threads-{round}"));
        let mut program = chain(9);
        program.slow = Duration::from_micros(300);
        let cache = folder.open(&program);
        cache.get(0).unwrap();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(run(&cache, 0), program.value(0));
                });
            }
        });
        assert_eq!(program.compiled.load(Ordering::Relaxed), 10);
        assert_eq!(cache.stats().waiting, 0);
    }
}

#[test]
fn a_call_after_the_first_asks_nobody() {
    let folder = Folder::new("direct");
    let program = chain(3);
    let cache = folder.open(&program);
    let start = cache.get(0).unwrap();
    assert_eq!(call(start), program.value(0));
    // The compiler is taken: the resolver could not be asked.
    cache.with_compiler(|_| assert_eq!(call(start), program.value(0))).unwrap();
}

#[test]
fn what_compiles_is_told_that_it_must_not_ask_for_code() {
    let folder = Folder::new("nested");
    let program = chain(3);
    let cache = folder.open(&program);
    let start = cache.get(0).unwrap();
    cache
        .with_compiler(|_| {
            assert!(matches!(cache.get(3), Err(Error::Nested)));
            assert!(matches!(cache.clear(), Err(Error::Nested)));
            assert_eq!(call(start), 3 * (1 + CONSTANT) + instead());
        })
        .unwrap();
    assert_eq!(call(start), program.value(0));
}

#[test]
fn a_compiler_that_panics_harms_nobody() {
    let folder = Folder::new("panic");
    let program = chain(2).with(2, Body::Sum(1, vec![3])).with(3, Body::Panic);
    let cache = folder.open(&program);
    let before = FAILURES.load(Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(run(&cache, 0), program.value(0));
    }
    assert!(FAILURES.load(Ordering::Relaxed) >= before + 2);
    let mended = chain(3);
    cache.with_compiler(|compiler| *compiler = mended.clone()).unwrap();
    assert_eq!(run(&cache, 0), mended.value(0));
}

#[test]
fn the_got_is_read_only_where_that_is_asked_for() {
    let folder = Folder::new("protect");
    let program = chain(9);
    for start in ["compiled", "loaded"] {
        let mut options = Options::default();
        options.protect_got = true;
        let cache = Cache::open(&folder.0, program.clone(), options).unwrap();
        let address = cache.get(0).unwrap() as usize;
        assert_eq!(crate::policy::access(address), "r-xp");
        assert_eq!(crate::policy::access(address + 2 * 4096), "r--p");
        assert_eq!(run(&cache, 0), program.value(0));
        assert_eq!(crate::policy::access(address + 2 * 4096), "r--p");
        assert!(events(&cache).iter().all(|event| event == start));
    }
    let cache = folder.open(&program);
    let address = cache.get(0).unwrap() as usize;
    assert_eq!(crate::policy::access(address + 2 * 4096), "rw-p");
}

/// All methods have the same key.
#[derive(Debug)]
struct Same;

impl Compiler for Same {
    type Method = u8;

    fn key(&self, _: u8) -> Key {
        Key([1; 32])
    }

    fn find(&self, _: &Key) -> Option<u8> {
        Some(0)
    }

    fn helper(&self, _: &str) -> Option<*const u8> {
        None
    }

    fn compile(&mut self, _: u8, code: &mut Code<'_, u8>) -> Result<(), Failure> {
        crate::machine::nothing(code);
        Ok(())
    }

    fn failed(_: Error) -> *const u8 {
        instead as *const u8
    }
}

#[test]
fn two_methods_of_one_key_are_refused() {
    let folder = Folder::new("same");
    let cache = Cache::open(&folder.0, Same, Options::default()).unwrap();
    cache.get(0).unwrap();
    assert!(matches!(cache.get(1), Err(Error::Keys(Key(key))) if key == [1; 32]));
}
