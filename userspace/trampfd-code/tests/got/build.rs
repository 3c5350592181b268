//! Objects from the sources beside this file, and what they are loaded with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use trampfd_code::got::{Loader, Options, Set, Symbol};
use trampfd_code::pool::Pools;

/// An object of one of the sources.
pub struct Built {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// Compiles `source` with gcc, or g++ for C++.
pub fn build(source: &str, flags: &[&str]) -> Built {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/got");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("got-{}-{number}-{source}.o", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let compiler = if source.ends_with(".cpp") { "g++" } else { "gcc" };
    let output = Command::new(compiler)
        .args(["-c", "-w", "-o"])
        .arg(&path)
        .arg(folder.join(source))
        .args(flags)
        .output()
        .expect("gcc is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{source} {flags:?}: {said}");
    let bytes = std::fs::read(&path).unwrap();
    Built { path, bytes }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub static OUTER: i32 = 1000;

// One address in all of the program.
#[unsafe(export_name = "trampfd_test_twice")]
pub extern "C" fn twice(x: i32) -> i32 {
    2 * x
}

/// What the sources want of the program.
pub fn program(name: &str) -> Option<Symbol> {
    match name {
        "twice" => Some(Symbol::Address(twice as *const () as usize)),
        "outer" => Some(Symbol::Address(&raw const OUTER as usize)),
        _ => None,
    }
}

pub fn loader() -> Loader {
    Loader::new(Pools::new().unwrap(), Options::default()).unwrap()
}

/// Loads objects with what [`program`] has.
pub fn load(loader: &Loader, id: u64, objects: &[(&str, &Built)]) -> Set {
    let mut set = loader.set(id);
    for (name, object) in objects {
        set.add(name, &object.bytes).unwrap();
    }
    set.resolve(program);
    // SAFETY: objects of gcc.
    unsafe { set.load() }.unwrap()
}

/// A function `int f(int)` of a set.
pub fn function(set: &Set, name: &str) -> extern "C" fn(i32) -> i32 {
    let address = set.symbol(name).unwrap_or_else(|| panic!("{name}"));
    // SAFETY: the sources have such a function of this name.
    unsafe { std::mem::transmute(address) }
}
