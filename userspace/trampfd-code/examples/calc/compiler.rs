//! The language, as the cache of `trampfd_code` sees it.

use std::collections::HashMap;
use std::sync::Arc;

use trampfd_code::cache::{self, Code, Compiler, Failure, Key};

use crate::arch;
use crate::runtime;
use crate::tree::Program;

/// Compiles functions of one program, which it names by their index.
pub struct Calc {
    program: Arc<Program>,
    keys: Vec<Key>,
    indices: HashMap<Key, usize>,
}

impl Calc {
    pub fn new(program: Arc<Program>) -> Calc {
        // A function's code is made from its own source and nothing else: a function that it
        // calls may change without it.
        let key = |source: &str| Key::of(&[source.as_bytes()]);
        let keys: Vec<Key> =
            program.functions.iter().map(|function| key(&function.source)).collect();
        let indices = keys.iter().enumerate().map(|(index, &key)| (key, index)).collect();
        Calc { program, keys, indices }
    }

    pub fn name(&self, key: &Key) -> &str {
        self.indices.get(key).map_or("?", |&index| &self.program.functions[index].name)
    }
}

/// For [`cache::Options::version`]: a file with code of another generator is not used.
pub fn version() -> Vec<u8> {
    Key::of(&[arch::GENERATOR]).0.into()
}

impl Compiler for Calc {
    type Method = usize;

    fn key(&self, function: usize) -> Key {
        self.keys[function]
    }

    fn find(&self, key: &Key) -> Option<usize> {
        self.indices.get(key).copied()
    }

    fn helper(&self, name: &str) -> Option<*const u8> {
        runtime::helper(name)
    }

    fn compile(&mut self, function: usize, code: &mut Code<'_, usize>) -> Result<(), Failure> {
        arch::compile(&self.program.functions[function], code)
    }

    fn failed(error: cache::Error) -> *const u8 {
        runtime::not_compiled(&error)
    }
}
