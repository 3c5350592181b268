//! cranelift-jit itself, on memory that was never writable where it is executable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use cranelift_jit::{
    ArenaMemoryProvider, BranchProtection, JITMemoryKind, JITMemoryProvider, JITModule,
};
use cranelift_module::{FuncOrDataId, Linkage, Module};
use trampfd_code::stage::Stage;
use trampfd_code::vm::Options;
use trampfd_code_cranelift::StagedMemoryProvider;

#[path = "../../../tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // main
#[path = "../examples/cranelift.rs"]
mod example;

use example::{client, define, function, module, staged, unary, use_module};
use support::alone::alone;
use support::maps::{access, in_use};
use support::policy::refuse_exec_gain;

#[test]
fn functions_call_each_other_and_the_program_and_have_their_data() {
    use_module(&mut staged().unwrap().0).unwrap();
    client::nothing_is_writable_and_executable().unwrap();
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        use_module(&mut staged().unwrap().0).unwrap();
    });
}

#[test]
fn cranelifts_own_providers_do_not_work_there() {
    alone(|| {
        refuse_exec_gain();
        let works = |mut module: JITModule| {
            let signature = unary(&module);
            let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
            define(&mut module, "first", import, 10);
            module.finalize_definitions().is_ok()
        };
        assert!(!works(module(None)));
        let arena = ArenaMemoryProvider::new_with_size(1 << 20).unwrap();
        let arena = module(Some(Box::new(arena)));
        assert!(catch_unwind(AssertUnwindSafe(|| works(arena))).is_err());
    });
}

#[test]
fn a_set_takes_three_system_calls_and_no_mapping_of_its_own() {
    let (mut module, meter) = staged().unwrap();
    let signature = unary(&module);
    let mut callee = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let mut before = None;
    for i in 0..100 {
        callee = define(&mut module, &format!("f{i}"), callee, i);
        module.finalize_definitions().unwrap();
        let now = meter.stats();
        if let Some((calls, mappings)) = before {
            assert_eq!((now.system_calls, now.mappings), (calls + 3, mappings));
        }
        before = Some((now.system_calls, now.mappings));
    }
    let numbers: i64 = (0..100).sum();
    assert_eq!(function(&module, callee)(1), 3 + numbers + 100 * 1000);
}

#[test]
fn memory_is_what_it_is_for_and_no_more() {
    let (mut module, _) = staged().unwrap();
    let signature = unary(&module);
    let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let id = define(&mut module, "first", import, 10);
    module.finalize_definitions().unwrap();
    assert_eq!(access(module.get_finalized_function(id)), "r-xs");
    for (name, want) in [("first number", "r--p"), ("first counter", "rw-p")] {
        let Some(FuncOrDataId::Data(id)) = module.get_name(name) else { panic!("{name}") };
        assert_eq!(access(module.get_finalized_data(id).0), want, "{name}");
    }
}

#[test]
fn code_stays_when_its_module_is_dropped_but_not_when_it_is_freed() {
    for free in [false, true] {
        let (mut module, meter) = staged().unwrap();
        let signature = unary(&module);
        let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
        let id = define(&mut module, "first", import, 10);
        module.finalize_definitions().unwrap();
        let first = function(&module, id);
        assert_eq!(first(1), 3 + 10 + 1000);
        assert!(meter.stats().reserved > 0);
        if free {
            // SAFETY: nothing of it is called after this.
            unsafe { module.free_memory() };
            assert_eq!(meter.stats().reserved, 0);
        } else {
            drop(module);
            assert_eq!(first(1), 3 + 10 + 2000);
            assert!(meter.stats().reserved <= 16 << 10, "{:?}", meter.stats());
        }
    }
}

#[test]
fn modules_in_threads_come_and_go_and_leave_nothing() {
    alone(|| {
        refuse_exec_gain();
        // SAFETY: nothing of it is called.
        unsafe { staged().unwrap().0.free_memory() };
        let before = in_use();
        let come_and_go = || {
            for _ in 0..20 {
                let (mut module, _) = staged().unwrap();
                use_module(&mut module).unwrap();
                // SAFETY: nothing of it is called after this.
                unsafe { module.free_memory() };
            }
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(come_and_go))));
        assert_eq!(in_use(), before);
    });
}

#[test]
fn a_thousand_functions_of_one_set_call_each_other() {
    let (mut module, meter) = staged().unwrap();
    let signature = unary(&module);
    let mut callee = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let before = meter.stats().system_calls;
    for i in 0..1000 {
        callee = define(&mut module, &format!("f{i}"), callee, i);
    }
    module.finalize_definitions().unwrap();
    // For pages to write to, and the set.
    assert!(meter.stats().system_calls - before <= 3 + 3, "{:?}", meter.stats());
    let numbers: i64 = (0..1000).sum();
    assert_eq!(function(&module, callee)(1), 3 + numbers + 1000 * 1000);
    client::nothing_is_writable_and_executable().unwrap();
}

#[test]
fn code_that_was_never_finalised_is_given_back() {
    let (mut module, meter) = staged().unwrap();
    let signature = unary(&module);
    let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    define(&mut module, "first", import, 10);
    drop(module);
    assert_eq!(meter.stats().reserved, 0);
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let stage = Stage::with_room(Options::default(), 1 << 20).unwrap();
    let mut memory = StagedMemoryProvider::from(stage);
    memory.allocate(1 << 40, 16, JITMemoryKind::Executable).unwrap_err();
    memory.allocate(16, 3, JITMemoryKind::ReadOnly).unwrap_err();
    memory.finalize(BranchProtection::BTI).unwrap_err();
    memory.allocate(16, 16, JITMemoryKind::Writable).unwrap();
    memory.finalize(BranchProtection::None).unwrap();
    // SAFETY: nothing of it is used after this.
    unsafe { memory.free_memory() };
    memory.allocate(16, 16, JITMemoryKind::Writable).unwrap_err();
    memory.finalize(BranchProtection::None).unwrap_err();
}
