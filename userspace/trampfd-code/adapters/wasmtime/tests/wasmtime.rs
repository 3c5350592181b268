//! wasmtime itself, its code in memory that was never writable where it is executable.

use std::sync::Arc;
use std::{fs, thread};

use trampfd_code::vm::{Meter, Options, Source};
use trampfd_code_wasmtime::PublishedCodeMemory;
use wasmtime::{Config, Engine, Func, Instance, Module, Store, Trap, WasmBacktrace};

#[path = "../../../tests/support/mod.rs"]
mod support;

use support::alone::alone;
use support::policy::refuse_exec_gain;

/// Recursion, linear memory with first content, an indirect call, a call of the program, traps.
const MODULE: &str = r#"
(module
  (import "" "triple" (func $triple (param i64) (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\2a\00\00\00")
  (table 2 funcref)
  (elem (i32.const 0) $fib $callback)
  (type $unary (func (param i64) (result i64)))
  (func $fib (export "fib") (param i64) (result i64)
    (if (result i64) (i64.lt_s (local.get 0) (i64.const 2))
      (then (local.get 0))
      (else (i64.add
        (call $fib (i64.sub (local.get 0) (i64.const 1)))
        (call $fib (i64.sub (local.get 0) (i64.const 2)))))))
  (func $callback (export "callback") (param i64) (result i64)
    (call $triple (local.get 0)))
  (func (export "through_table") (param i32 i64) (result i64)
    (call_indirect (type $unary) (local.get 1) (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func $divide (export "divide") (param i32 i32) (result i32)
    (i32.div_s (local.get 0) (local.get 1)))
  (func $outer (export "outer") (param i32) (result i32)
    (i32.add (i32.const 1) (call $divide (i32.const 7) (local.get 0)))))
"#;

/// An engine on our memory, and what counts its calls.
fn engine() -> (Engine, Meter) {
    let memory = PublishedCodeMemory::new(Options::default());
    let meter = memory.meter().clone();
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(memory)));
    (Engine::new(&config).unwrap(), meter)
}

fn use_module(engine: &Engine, module: &Module) {
    let mut store = Store::new(engine, ());
    let triple = Func::wrap(&mut store, |x: i64| 3 * x);
    let instance = Instance::new(&mut store, module, &[triple.into()]).unwrap();
    let fib = instance.get_typed_func::<i64, i64>(&mut store, "fib").unwrap();
    assert_eq!(fib.call(&mut store, 20).unwrap(), 6765);
    let callback = instance.get_typed_func::<i64, i64>(&mut store, "callback").unwrap();
    assert_eq!(callback.call(&mut store, 14).unwrap(), 42);
    let through = instance.get_typed_func::<(i32, i64), i64>(&mut store, "through_table").unwrap();
    assert_eq!(through.call(&mut store, (0, 10)).unwrap(), 55);
    assert_eq!(through.call(&mut store, (1, 10)).unwrap(), 30);

    let load = instance.get_typed_func::<i32, i32>(&mut store, "load").unwrap();
    assert_eq!(load.call(&mut store, 8).unwrap(), 42);
    // A fault of the memory's guard pages, caught by a signal handler that knows the code.
    let error = load.call(&mut store, -8).unwrap_err();
    assert_eq!(*error.downcast_ref::<Trap>().unwrap(), Trap::MemoryOutOfBounds);

    // A fault of the processor, with the frames of those who called.
    let outer = instance.get_typed_func::<i32, i32>(&mut store, "outer").unwrap();
    assert_eq!(outer.call(&mut store, 7).unwrap(), 2);
    let error = outer.call(&mut store, 0).unwrap_err();
    assert_eq!(*error.downcast_ref::<Trap>().unwrap(), Trap::IntegerDivisionByZero);
    let frames = error.downcast_ref::<WasmBacktrace>().unwrap().frames();
    let names: Vec<_> = frames.iter().map(|frame| frame.func_name().unwrap()).collect();
    assert_eq!(names, ["divide", "outer"]);

    for row in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        assert!(!row.contains(" rwx"), "{row}");
    }
}

#[test]
fn functions_memories_tables_and_traps_work() {
    let (engine, meter) = engine();
    use_module(&engine, &Module::new(&engine, MODULE).unwrap());
    assert!(meter.stats().system_calls > 0, "wasmtime never asked for code memory");
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        let (engine, _) = engine();
        use_module(&engine, &Module::new(&engine, MODULE).unwrap());
    });
}

#[test]
fn precompiled_modules_work_there_from_memory_and_from_a_file() {
    alone(|| {
        refuse_exec_gain();
        let (engine, _) = engine();
        let bytes = engine.precompile_module(MODULE.as_bytes()).unwrap();
        // SAFETY: what this engine made, and nobody else writes to the file.
        unsafe {
            use_module(&engine, &Module::deserialize(&engine, &bytes).unwrap());
            let path = std::env::temp_dir().join(format!("module-{}.cwasm", std::process::id()));
            fs::write(&path, &bytes).unwrap();
            let module = Module::deserialize_file(&engine, &path);
            fs::remove_file(&path).unwrap();
            use_module(&engine, &module.unwrap());
        }
    });
}

#[test]
fn wasmtimes_own_memory_does_not_work_there() {
    alone(|| {
        refuse_exec_gain();
        let own = Engine::new(&Config::new()).unwrap();
        Module::new(&own, MODULE).unwrap_err();
        let bytes = own.precompile_module(MODULE.as_bytes()).unwrap();
        let path = std::env::temp_dir().join(format!("own-{}.cwasm", std::process::id()));
        fs::write(&path, &bytes).unwrap();
        // SAFETY: what this engine made, and nobody else writes to the file.
        let module = unsafe { Module::deserialize_file(&own, &path) };
        fs::remove_file(&path).unwrap();
        module.unwrap_err();
    });
}

/// Mappings that can be executed and descriptors there are.
fn in_use() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let executable = maps.lines().filter(|row| row.contains(" r-xs ")).count();
    (executable, fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
fn modules_that_are_gone_leave_nothing_behind() {
    alone(|| {
        let (engine, _) = engine();
        let kept = Module::new(&engine, MODULE).unwrap();
        use_module(&engine, &kept);
        let before = in_use();
        assert!(before.0 > 0);
        let come_and_go = || {
            for i in 0..50 {
                let text = format!(
                    r#"(module (func (export "f") (param i64) (result i64)
                         (i64.add (local.get 0) (i64.const {i}))))"#
                );
                let module = Module::new(&engine, text).unwrap();
                let mut store = Store::new(&engine, ());
                let instance = Instance::new(&mut store, &module, &[]).unwrap();
                let f = instance.get_typed_func::<i64, i64>(&mut store, "f").unwrap();
                assert_eq!(f.call(&mut store, 100).unwrap(), 100 + i);
            }
        };
        thread::scope(|scope| {
            scope.spawn(come_and_go);
            scope.spawn(come_and_go);
        });
        use_module(&engine, &kept);
        assert_eq!(in_use(), before);
    });
}

#[test]
fn without_a_source_of_code_memory_a_module_is_an_error() {
    let mut options = Options::default();
    options.sources = vec![Source::Folder("/proc".into())];
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(PublishedCodeMemory::new(options))));
    let engine = Engine::new(&config).unwrap();
    let error = Module::new(&engine, MODULE).unwrap_err();
    assert!(error.downcast_ref::<trampfd_code::stage::Error>().is_some(), "{error:?}");
}

#[test]
fn a_module_without_code_comes_and_goes() {
    let (engine, meter) = engine();
    for text in ["(module)", "(module (memory 1))"] {
        let module = Module::new(&engine, text).unwrap();
        let mut store = Store::new(&engine, ());
        Instance::new(&mut store, &module, &[]).unwrap();
    }
    assert_eq!(meter.stats().system_calls, 0);
}
