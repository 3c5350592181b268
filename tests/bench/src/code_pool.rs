//! Sections of 100 modules, in pools: system calls, mappings and bytes, beside LLVM's
//! SectionMemoryManager (tests/bench/peers/llvm.cpp, which scripts/bench compiles).

use std::io;
use std::process::Command;

use crate::table::{Row, Target};

const LLVM: &str = "target/bench/llvm";
const MODULES: usize = 100;
/// Bytes of code, read-only data and read-write data of a module.
const SECTIONS: [usize; 3] = [1000, 300, 200];

/// System calls, mappings, bytes mapped: all at once, one at a time, each in a manager of its own.
fn llvm() -> io::Result<Vec<[f64; 3]>> {
    let output = Command::new(LLVM).output()?;
    let numbers: Result<Vec<f64>, _> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(|word| word.parse().map_err(io::Error::other))
        .collect();
    let lines: Vec<[f64; 3]> = numbers?.as_chunks().0.to_vec();
    match (output.status.success(), lines.len()) {
        (true, 3) => Ok(lines),
        _ => Err(io::Error::other(format!("{}: {} lines", output.status, lines.len()))),
    }
}

/// The rows.
pub fn rows() -> Vec<Row> {
    let llvm = llvm().unwrap_or_else(|error| {
        eprintln!("{LLVM}: {error}");
        vec![[f64::NAN; 3]; 3]
    });
    let payload = (MODULES * SECTIONS.iter().sum::<usize>()) as f64;
    let mut rows = Vec::new();
    let ways = ["one set", "one at a time", "a manager each"];
    for (way, [calls, mappings, bytes]) in ways.into_iter().zip(llvm) {
        let row = |what: &str, value, unit| {
            let name = format!("code: 100 modules of 3 sections, {way}: {what}, LLVM");
            Row::new(name, value, unit, Target::None)
        };
        rows.push(row("system calls", calls, "calls"));
        rows.push(row("mappings", mappings, "mappings"));
        rows.push(row("bytes over payload", bytes / payload, "ratio"));
    }
    rows
}
