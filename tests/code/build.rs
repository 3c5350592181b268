//! Compiles the object that the loader is given.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/object.c");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fPIC", "-c", "src/object.c", "-o"]).arg(Path::new(&out).join("object.o"));
    assert!(cc.status().expect("cc").success(), "cc failed");
}
