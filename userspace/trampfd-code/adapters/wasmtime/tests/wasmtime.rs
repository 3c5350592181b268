//! wasmtime itself, its code in memory that was never writable where it is executable.

use std::sync::Arc;
use std::{fs, thread};

use trampfd_code::vm::{Meter, Options, Source};
use trampfd_code_wasmtime::PublishedCodeMemory;
use wasmtime::{Config, Engine, Instance, Module, Store};

#[path = "../../../tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // main
#[path = "../examples/wasmtime.rs"]
mod example;

use example::{MODULE, client, config, use_module};
use support::alone::alone;
use support::maps::in_use;
use support::policy::refuse_exec_gain;

fn engine() -> (Engine, Meter) {
    let (config, meter) = config();
    (Engine::new(&config).unwrap(), meter)
}

#[test]
fn functions_memories_tables_and_traps_work() {
    let (engine, meter) = engine();
    use_module(&engine, &Module::new(&engine, MODULE).unwrap()).unwrap();
    client::nothing_is_writable_and_executable().unwrap();
    assert!(meter.stats().system_calls > 0, "wasmtime never asked for code memory");
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        let (engine, _) = engine();
        use_module(&engine, &Module::new(&engine, MODULE).unwrap()).unwrap();
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
            use_module(&engine, &Module::deserialize(&engine, &bytes).unwrap()).unwrap();
            let path = std::env::temp_dir().join(format!("module-{}.cwasm", std::process::id()));
            fs::write(&path, &bytes).unwrap();
            let module = Module::deserialize_file(&engine, &path);
            fs::remove_file(&path).unwrap();
            use_module(&engine, &module.unwrap()).unwrap();
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

#[test]
fn modules_that_are_gone_leave_nothing_behind() {
    alone(|| {
        let (engine, _) = engine();
        let kept = Module::new(&engine, MODULE).unwrap();
        use_module(&engine, &kept).unwrap();
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
        use_module(&engine, &kept).unwrap();
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
