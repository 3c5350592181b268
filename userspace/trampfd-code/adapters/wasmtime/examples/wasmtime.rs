//! wasmtime on memory of this crate: a module with calls in all directions, linear memory, a table
//! and traps. Says by its status whether it could.

use std::process::ExitCode;
use std::sync::Arc;

use trampfd_code::vm::{Meter, Options};
use trampfd_code_wasmtime::PublishedCodeMemory;
use wasmtime::{Config, Engine, Func, Instance, Module, Store, Trap, WasmBacktrace};

/// How a program under a policy ends, and what it looks at.
#[path = "../../../tests/support/client.rs"]
pub mod client;

use client::Result;

fn main() -> ExitCode {
    client::run(|| {
        let (mut config, _) = config();
        // Not every policy lets wasmtime have the memfd that it wants for that.
        config.memory_init_cow(false);
        let engine = Engine::new(&config)?;
        use_module(&engine, &Module::new(&engine, MODULE)?)
    })
}

/// Recursion, linear memory with first content, an indirect call, a call of the program, traps.
pub const MODULE: &str = r#"
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

/// A configuration with our memory, and what counts its calls.
pub fn config() -> (Config, Meter) {
    let memory = PublishedCodeMemory::new(Options::default());
    let meter = memory.meter().clone();
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(memory)));
    (config, meter)
}

/// All that [`MODULE`] is for.
pub fn use_module(engine: &Engine, module: &Module) -> Result {
    let mut store = Store::new(engine, ());
    let triple = Func::wrap(&mut store, |x: i64| 3 * x);
    let instance = Instance::new(&mut store, module, &[triple.into()])?;
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
    Ok(())
}
