//! Memory for wasmtime's code on systems where nothing that is or was writable may be executed.
//!
//! Modules are compiled to private memory as ever. When wasmtime publishes one, what it compiled
//! goes into a file for code, and a view of it that can only be read and executed takes the
//! memory's place. Precompiled modules, from memory or from a file, go the same way.
//!
//! ```
//! use std::sync::Arc;
//! use trampfd_code::vm::Options;
//! use trampfd_code_wasmtime::PublishedCodeMemory;
//! use wasmtime::{Config, Engine, Instance, Module, Store};
//!
//! # fn main() -> wasmtime::Result<()> {
//! let mut config = Config::new();
//! let memory = PublishedCodeMemory::new(Options::default());
//! config.with_custom_code_memory(Some(Arc::new(memory)));
//! let engine = Engine::new(&config)?;
//!
//! let text = r#"(module (func (export "answer") (result i32) i32.const 42))"#;
//! let module = Module::new(&engine, text)?;
//! let mut store = Store::new(&engine, ());
//! let instance = Instance::new(&mut store, &module, &[])?;
//! let answer = instance.get_typed_func::<(), i32>(&mut store, "answer")?;
//! assert_eq!(answer.call(&mut store, ())?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! [`Config::memory_init_cow`](wasmtime::Config::memory_init_cow), wasmtime's use of a file for
//! the first content of linear memories, has nothing to do with this, and stays as it is: where
//! memfd_create(2) is refused, modules with such memories are an error until it is turned off.

use trampfd_code::stage::{publish_in_place, unpublish_in_place};
use trampfd_code::vm::{self, Meter, Options};
use wasmtime::{CustomCodeMemory, Result};

/// What [`Config::with_custom_code_memory`](wasmtime::Config::with_custom_code_memory) takes.
/// One may serve many engines, and all their threads.
#[derive(Clone, Debug, Default)]
pub struct PublishedCodeMemory {
    options: Options,
    meter: Meter,
}

impl PublishedCodeMemory {
    /// With what [`publish_in_place`] makes of `options`.
    pub fn new(options: Options) -> PublishedCodeMemory {
        PublishedCodeMemory { options, meter: Meter::new() }
    }

    /// Counts what is asked of the kernel: a clone of it can be kept when an engine has the
    /// memory.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl CustomCodeMemory for PublishedCodeMemory {
    fn required_alignment(&self) -> usize {
        vm::page_size()
    }

    fn publish_executable(&self, ptr: *const u8, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: wasmtime's own pages, mapped for nobody else, which it has written, and whose
        // protection it leaves to this trait until it unpublishes them.
        unsafe { publish_in_place(ptr.cast_mut(), len, &self.options, &self.meter) }?;
        Ok(())
    }

    fn unpublish_executable(&self, ptr: *const u8, len: usize) -> Result<()> {
        // A module without code, which wasmtime has not published; it panics if this fails.
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the pages that were given to `publish_executable`, whether it succeeded or
        // not; no code runs there any more, by the trait's contract.
        unsafe { unpublish_in_place(ptr.cast_mut(), len, &self.meter) }?;
        Ok(())
    }
}
