//! Programs that are clients of the library: the examples of its adapters, each with the compiler
//! that it is for, and calc, with its cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// One of them.
pub struct Program {
    pub name: &'static str,
    /// The example that it is, of whatever crate.
    pub example: &'static str,
    pub words: &'static [&'static str],
    /// It needs executable memory that is no private mapping of a file.
    pub anonymous: bool,
    /// What each of its starts says, one after the other.
    pub starts: &'static [&'static str],
}

const fn adapter(name: &'static str, example: &'static str) -> Program {
    Program { name, example, words: &[], anonymous: true, starts: &[""] }
}

pub const PROGRAMS: &[Program] = &[
    adapter("LLVM", "llvm"),
    adapter("cranelift", "cranelift"),
    adapter("wasmtime", "wasmtime"),
    adapter("closure-ffi", "closure_ffi"),
    adapter("dynasm", "dynasm"),
    Program {
        name: "calc",
        example: "calc",
        words: &["--cache", CACHE, "fib.calc", "10"],
        anonymous: false,
        starts: &["calc: 2 functions compiled; 0 batches", "calc: 0 functions compiled; 1 batches"],
    },
];

/// Where calc keeps its code, in the folder that programs are started in.
const CACHE: &str = "calc-cache";

/// What calc is given, in the repository.
const FIB: &str = "userspace/trampfd-code/examples/calc/programs/fib.calc";

/// Builds them all: as the tests of the workspace do, so that what those have built is used.
pub fn build(cargo: &mut Command) -> Result {
    let words = ["build", "-q", "--workspace", "--exclude", "trampfd-bench", "--examples"];
    match cargo.args(words).status()?.success() {
        true => Ok(()),
        false => Err("the examples were not built".into()),
    }
}

/// Where an example lies if `this` program lies where cargo puts it.
pub fn path(this: &Path, program: &Program) -> PathBuf {
    this.with_file_name("examples").join(program.example)
}

/// Puts what programs read into the folder that they are started in.
pub fn fill(root: &Path) -> Result {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::copy(repository.join(FIB), root.join("fib.calc"))?;
    Ok(())
}

/// As if none of them had been started there before.
pub fn forget(root: &Path) -> Result {
    let cache = root.join(CACHE);
    if cache.exists() {
        std::fs::remove_dir_all(cache)?;
    }
    Ok(())
}
