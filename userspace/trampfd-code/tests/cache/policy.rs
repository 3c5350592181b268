//! Caches where the system forbids much.

use trampfd_code::vm::{self, Meter};

use crate::processes::{Child, role};
use crate::program::{Body, Folder, Program, events, run};
use crate::support::maps::{self, row_of, rows};
use crate::support::policy::{refuse_exec_gain, strict};

/// How the page at `address` is mapped: "r-xp", for instance.
pub fn access(address: usize) -> String {
    maps::access(address as *const u8)
}

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[2]), (2, &[3]), (3, &[4, 5]), (4, &[])])
        .with(5, Body::Helper("twelve"))
}

#[test]
fn only_code_is_executable_and_nothing_is_writable_too() {
    let folder = Folder::new("rows");
    let program = program();
    for start in ["compiled", "loaded"] {
        let cache = folder.open(&program);
        assert_eq!(run(&cache, 0), program.value(0));
        let address = cache.get(0).unwrap() as usize;
        let page = vm::page_size();
        // Code, constants, GOT.
        assert_eq!([0, 1, 2].map(|n| access(address + n * page)), ["r-xp", "r--p", "rw-p"]);
        // None can be written and executed.
        rows();
        assert!(events(&cache).iter().all(|event| event == start));
    }
}

/// Whether something is mapped at this address.
fn mapped(address: usize) -> bool {
    row_of(address as *const u8).is_some()
}

/// What a cache that is dropped leaves mapped: nothing.
#[test]
fn a_cache_that_is_dropped_leaves_nothing_mapped() {
    let folder = Folder::new("dropped");
    let program = program();
    let cache = folder.open(&program);
    assert_eq!(run(&cache, 0), program.value(0));
    let of_folder = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(folder.0.to_str().unwrap())).count()
    };
    // Code and constants of two batches.
    assert_eq!(of_folder(), 4);
    assert_eq!(cache.stats().memory.mappings, 6);
    let code = cache.get(0).unwrap() as usize;
    // SAFETY: nobody runs it.
    unsafe { cache.unload() };
    assert_eq!(of_folder(), 0);
    // What is kept for the next batch is memory in one piece.
    assert_eq!(cache.stats().memory.mappings, 1);
    assert!(mapped(code));
    drop(cache);
    assert!(!mapped(code));
}

/// Compiles, and loads what was compiled, each in a process of its own under the policy.
fn works_under(test: &str, policy: impl FnOnce()) {
    let program = program();
    if let Some((start, dir)) = role() {
        policy();
        let options = vm::Options::default();
        assert!(vm::Region::new(1, &options, &Meter::new()).is_err(), "the policy has no teeth");
        let cache = crate::program::open(&dir, &program);
        assert_eq!(run(&cache, 0), program.value(0));
        assert_eq!(events(&cache), [start.as_str(), &start]);
        return;
    }
    let folder = Folder::new(test);
    for start in ["compiled", "loaded"] {
        Child::new(&format!("policy::{test}"), start, &folder.0).succeeds();
    }
}

#[test]
fn a_cache_works_where_only_private_file_mappings_may_be_executable() {
    works_under("a_cache_works_where_only_private_file_mappings_may_be_executable", strict);
}

#[test]
fn a_cache_works_where_what_was_writable_may_not_be_executable_either() {
    works_under("a_cache_works_where_what_was_writable_may_not_be_executable_either", || {
        refuse_exec_gain();
        strict();
    });
}
