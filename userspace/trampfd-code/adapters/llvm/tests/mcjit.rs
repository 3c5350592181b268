//! MCJIT itself, on memory that was never writable where it is executable.

use std::ffi::{CStr, c_void};
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, resume_unwind};
use std::{mem, thread};

use llvm_sys::execution_engine::*;
use llvm_sys::support::LLVMAddSymbol;
use llvm_sys::target_machine::LLVMCodeModel;
use trampfd_code::stage::Stage;
use trampfd_code::vm::{Options, Place};
use trampfd_code_llvm::{MemoryManager, low_addresses};

#[path = "../../../tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // main
#[path = "../examples/llvm.rs"]
mod example;

use example::{DEFAULT, Engine, client, host, module, staged, use_engine};
use support::alone::{alone, output_of};
use support::maps::{access, in_use};
use support::policy::refuse_exec_gain;

const SMALL: LLVMCodeModel = LLVMCodeModel::LLVMCodeModelSmall;

#[test]
fn modules_call_each_other_and_the_program_and_have_their_data() {
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    use_engine(&engine, Some(&watch)).unwrap();
    client::nothing_is_writable_and_executable().unwrap();
}

#[test]
fn sections_are_what_they_are_for_and_no_more() {
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    use_engine(&engine, Some(&watch)).unwrap();
    // SAFETY: an engine that is there.
    let data = |name: &CStr| unsafe { LLVMGetGlobalValueAddress(engine.engine, name.as_ptr()) };
    assert_eq!(access(engine.address("f0") as *const u8), "r-xs");
    assert_eq!(access(data(c"table0") as *const u8), "r--p");
    assert_eq!(access(data(c"count0") as *const u8), "rw-p");
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
        use_engine(&engine, Some(&watch)).unwrap();
    });
}

#[test]
fn llvms_own_memory_does_not_work_there() {
    let output = output_of(|| {
        // Works, without the policy.
        use_engine(&Engine::new(None, DEFAULT), None).unwrap();
        println!("works without");
        refuse_exec_gain();
        use_engine(&Engine::new(None, DEFAULT), None).unwrap();
    });
    assert!(String::from_utf8_lossy(&output.stdout).contains("works without"));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", output.status);
}

#[test]
fn the_small_code_model_works_at_low_addresses() {
    alone(|| {
        refuse_exec_gain();
        let (engine, watch) = staged(low_addresses(Options::default()), SMALL).unwrap();
        use_engine(&engine, Some(&watch)).unwrap();
        let address = engine.address("f0");
        assert!(address < 1 << 31, "{address:#x}");
        assert!((host as *const () as u64).abs_diff(address) > 1 << 31, "the program is not far");
    });
}

#[test]
fn a_module_takes_three_system_calls_and_no_mapping_of_its_own() {
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    let mut before = None;
    for number in 0..100 {
        engine.add(&module(number));
        let function = engine.function(&format!("f{number}"));
        watch.check().unwrap();
        let now = watch.stats();
        if let Some((calls, mappings)) = before {
            assert_eq!((now.system_calls, now.mappings), (calls + 3, mappings));
        }
        before = Some((now.system_calls, now.mappings));
        if number == 99 {
            // Each is called once now.
            assert_eq!(function(1), 100 * (3 + 11 + 1));
        }
    }
}

#[test]
fn a_panic_of_the_program_passes_through() {
    extern "C-unwind" fn refuse(x: i32) -> i32 {
        resume_unwind(Box::new(x))
    }
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    // SAFETY: a function of the type that is declared below.
    unsafe { LLVMAddSymbol(c"refuse".as_ptr(), refuse as *mut c_void) };
    engine.add(
        "declare i32 @refuse(i32)
         define i32 @ask(i32 %x) uwtable {
           %y = call i32 @refuse(i32 %x)
           %z = add i32 %y, 1
           ret i32 %z
         }",
    );
    let address = engine.address("ask");
    watch.check().unwrap();
    // SAFETY: its type.
    let ask = unsafe { mem::transmute::<u64, extern "C-unwind" fn(i32) -> i32>(address) };
    let thrown = catch_unwind(|| ask(8)).unwrap_err();
    assert_eq!(thrown.downcast_ref(), Some(&8));
}

#[test]
fn modules_that_are_finalised_at_once_take_three_system_calls() {
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    engine.add(&module(0));
    engine.address("f0");
    let before = watch.stats();
    (1..50).for_each(|number| engine.add(&module(number)));
    let function = engine.function("f49");
    watch.check().unwrap();
    assert_eq!(watch.stats().system_calls - before.system_calls, 3);
    assert_eq!(function(1), 50 * (3 + 11 + 1));
}

#[test]
fn an_engine_gives_its_memory_back() {
    let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
    use_engine(&engine, Some(&watch)).unwrap();
    assert!(watch.stats().reserved > 0);
    drop(engine);
    assert_eq!(watch.stats().reserved, 0);
    // The unwinder does not look for what is not there any more.
    assert!(catch_unwind(|| resume_unwind(Box::new(()))).is_err());
    let memory = MemoryManager::new(Options::default()).unwrap();
    let watch = memory.watch();
    drop(memory);
    assert_eq!(watch.stats().reserved, 0);
}

#[test]
fn engines_in_threads_come_and_go_and_leave_nothing() {
    alone(|| {
        refuse_exec_gain();
        drop(staged(Options::default(), DEFAULT).unwrap());
        let before = in_use();
        let come_and_go = || {
            for _ in 0..10 {
                let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
                (0..20).for_each(|number| engine.add(&module(number)));
                let function = engine.function("f19");
                watch.check().unwrap();
                assert_eq!(function(1), 20 * (3 + 11 + 1));
            }
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(come_and_go))));
        assert_eq!(in_use(), before);
    });
}

#[test]
fn memory_that_cannot_be_had_is_told_and_does_not_end_the_process() {
    let mut options = Options::default();
    options.place = Place::Near { address: 1 << 30, within: 256 << 10 };
    let stage = Stage::with_room(options, 64 << 10).unwrap();
    let memory = MemoryManager::from(stage);
    let watch = memory.watch();
    let engine = Engine::new(Some(memory), DEFAULT);
    engine.add(
        "@all = internal global [1048576 x i8] zeroinitializer
         define i32 @large(i32 %x) {
           %place = getelementptr [1048576 x i8], [1048576 x i8]* @all, i32 0, i32 %x
           store volatile i8 1, i8* %place
           ret i32 %x
         }",
    );
    let address = engine.address("large");
    let failure = watch.check().unwrap_err();
    let cause = std::error::Error::source(&failure).expect("a cause");
    assert!(cause.to_string().contains("no memory"), "{failure}: {cause}");
    assert!(!is_executable(address));
    // Nor what comes after it.
    engine.add(&module(0));
    assert!(!is_executable(engine.address("f0")));
    watch.check().unwrap_err();
}

#[test]
fn code_that_cannot_be_made_executable_is_told() {
    alone(|| {
        let (engine, watch) = staged(Options::default(), DEFAULT).unwrap();
        engine.add(&module(0));
        let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a limit on what this process writes to files, which is no signal's business.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &none), 0);
        }
        let address = engine.address("f0");
        let failure = watch.check().unwrap_err();
        assert_eq!(failure.to_string(), "LLVM's code could not be made executable");
        assert!(!is_executable(address));
    });
}

fn is_executable(address: u64) -> bool {
    access(address as *const u8).starts_with("r-x")
}
