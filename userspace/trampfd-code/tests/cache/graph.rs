//! Which methods one batch has.

use trampfd_code::cache::{Error, parse};

use crate::program::{Body, Folder, Program, compiled, events, run};

/// The mail's example: M calls N3, compiled before, which calls L2; and N4, which calls L3, which
/// calls Z12.
const M: u32 = 1;
const N3: u32 = 3;
const N4: u32 = 4;
const L2: u32 = 12;
const L3: u32 = 13;
const Z12: u32 = 112;

#[test]
fn two_levels_of_methods_that_are_not_compiled_are_one_batch() {
    let folder = Folder::new("mail");
    // N3 is compiled while what it calls cannot be: so it is compiled alone.
    let early = Program::of(&[(M, &[N3, N4]), (N3, &[L2]), (N4, &[L3]), (L3, &[Z12]), (Z12, &[])]);
    let program = early.clone().with(L2, Body::Sum(1, vec![]));
    let cache = folder.open(&early.with(L2, Body::Wrong));
    cache.get(N3).unwrap();
    cache.with_compiler(|compiler| *compiler = program.clone()).unwrap();
    assert_eq!(compiled(&cache, &program), [N3]);
    cache.get(M).unwrap();
    assert_eq!(compiled(&cache, &program), [M, N3, N4, L3]);

    let contents = parse(&std::fs::read(folder.file(&program, M)).unwrap()).unwrap();
    let keys = [M, N4, L3].map(|m| program.key_of(m));
    assert_eq!(contents.root(), keys[0]);
    assert_eq!(contents.methods().collect::<Vec<_>>(), keys);
    let calls = [N3, Z12].map(|m| program.key_of(m));
    assert_eq!(contents.calls().collect::<Vec<_>>(), calls);
}

#[test]
fn calls_are_followed_two_levels_and_no_further() {
    let folder = Folder::new("depth");
    let program = Program::of(&[(0, &[1]), (1, &[2]), (2, &[3]), (3, &[4]), (4, &[5]), (5, &[])]);
    let cache = folder.open(&program);
    cache.get(0).unwrap();
    assert_eq!(compiled(&cache, &program), [0, 1, 2]);
    assert_eq!(run(&cache, 0), program.value(0));
    assert_eq!(compiled(&cache, &program), [0, 1, 2, 3, 4, 5]);
    assert_eq!(cache.stats().compiled, 2);
    assert_eq!(cache.stats().waiting, 0);
}

#[test]
fn a_method_called_by_the_root_and_by_another_counts_as_called_by_the_root() {
    let folder = Folder::new("both");
    let program = Program::of(&[(0, &[1, 2]), (1, &[2]), (2, &[3]), (3, &[4]), (4, &[])]);
    let cache = folder.open(&program);
    cache.get(0).unwrap();
    assert_eq!(compiled(&cache, &program), [0, 1, 2, 3]);
}

#[test]
fn methods_that_call_each_other_are_compiled_once() {
    let folder = Folder::new("cycle");
    let program = Program::of(&[(0, &[1, 0]), (1, &[0, 2]), (2, &[1, 2])]);
    let cache = folder.open(&program);
    cache.get(0).unwrap();
    cache.get(2).unwrap();
    assert_eq!(compiled(&cache, &program), [0, 1, 2]);
    assert_eq!(cache.stats().methods_compiled, 3);
    assert_eq!(cache.stats().waiting, 0);
    assert_eq!(events(&cache), ["compiled"]);
}

#[test]
fn a_method_that_cannot_be_compiled_fails_when_it_is_called_and_no_sooner() {
    let folder = Folder::new("wrong");
    let program = Program::of(&[(0, &[1, 2]), (2, &[])]).with(1, Body::Wrong);
    let cache = folder.open(&program);
    assert_eq!(run(&cache, 0), program.value(0));
    assert_eq!(compiled(&cache, &program), [0, 2]);
    assert!(
        matches!(cache.get(1), Err(Error::Compiler { method, .. }) if method == program.key_of(1))
    );
    // Mended, it is compiled by the next call.
    let mended = Program::of(&[(0, &[1, 2]), (1, &[]), (2, &[])]);
    cache.with_compiler(|compiler| *compiler = mended.clone()).unwrap();
    assert_eq!(run(&cache, 0), mended.value(0));
}

#[test]
fn a_method_without_code_is_refused_and_not_what_follows_it() {
    let folder = Folder::new("no-code");
    let program = Program::of(&[(0, &[1, 2]), (2, &[])]).with(1, Body::Long(0));
    let cache = folder.open(&program);
    assert_eq!(run(&cache, 0), program.value(0));
    assert_eq!(compiled(&cache, &program), [0, 2]);
    for _ in 0..2 {
        let Err(Error::Compiler { method, error }) = cache.get(1) else { panic!("it has code") };
        assert_eq!((method, &*error.to_string()), (program.key_of(1), "its code has no bytes"));
    }
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn a_distance_outside_of_the_method_is_refused() {
    let folder = Folder::new("distance");
    let mut program = Program::of(&[(0, &[])]);
    program.bad_distance = true;
    let cache = folder.open(&program);
    assert!(matches!(cache.get(0), Err(Error::Fixup { .. })));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_helper_that_is_not_there_is_an_error_and_leaves_no_file() {
    let folder = Folder::new("helper");
    let program = Program::default().with(0, Body::Helper("thirteen"));
    assert!(matches!(folder.open(&program).get(0), Err(Error::Helper(name)) if name == "thirteen"));
    assert_eq!(folder.names(), [""; 0]);
    let program = Program::default().with(0, Body::Helper("twelve"));
    assert_eq!(run(&folder.open(&program), 0), 12);
}

#[test]
fn a_got_of_many_groups_works() {
    let folder = Folder::new("many");
    let calls: Vec<u32> = (1..1500).collect();
    let mut program = Program::default().with(0, Body::Sum(1, calls.clone()));
    for &m in &calls {
        program = program.with(m, Body::Sum(m as i32, vec![5000 + m]));
        program = program.with(5000 + m, Body::Sum(m as i32, vec![9000 + m]));
        program = program.with(9000 + m, Body::Sum(3, vec![]));
    }
    let cache = folder.open(&program);
    cache.get(0).unwrap();
    assert_eq!(cache.stats().waiting, calls.len());
    // One of each group is compiled when it is called.
    for m in [1, 600, 1200] {
        assert_eq!(run(&cache, m), program.value(m));
    }
    assert_eq!(cache.stats().waiting, calls.len() - 3);
}
