//! Compiles the object that the objects of the fuzzer are linked with.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=targets/partner.c");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fPIC", "-c", "targets/partner.c", "-o"]);
    assert!(cc.arg(Path::new(&out).join("partner.o")).status().expect("cc").success(), "cc failed");
}
