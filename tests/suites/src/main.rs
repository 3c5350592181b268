//! Foreign test suites, run with our libraries in the place of the ones they were written for.
//!
//! ```text
//! trampfd-suites [NAME..]   libffi, ctypes, libffi-rs, nested; all without
//! ```
//!
//! Each suite is fetched by the name of its package, built and kept under `target/suites`; nothing
//! of it is in this repository. A row is one way to bring our library to the programs, under one
//! policy of `trampfd-host`; each program of a row is one result:
//!
//! ```text
//! ok ROW PROGRAM
//! failed ROW PROGRAM: WHY
//! # ROW: 1126 of 1126               for people
//! N passed, N failed, 0 skipped     the last line
//! ```
//!
//! | file | knows |
//! |---|---|
//! | `libffi.rs`, `dg.rs` | libffi's own suite, and what its programs expect to print |
//! | `ctypes.rs`, `ctypes.py` | CPython's tests of `ctypes` |
//! | `libffi_rs.rs` | the tests of the crate `libffi` |
//! | `nested.rs` | GCC's programs with nested functions |
//! | `row.rs` | how a library gets into a program, and that it is the one in use |
//! | `work.rs` | running many programs, each within a time limit |
//! | `arch` | what differs by architecture |
//! | `places.rs`, `report.rs` | where things are, what came out |
//!
//! Every suite has *controls*: the libraries that everybody has, under the same policies. They
//! show that the programs work at all, and that the policy does stop what it should.

mod arch;
mod ctypes;
mod dg;
mod libffi;
mod libffi_rs;
mod nested;
mod places;
mod report;
mod row;
mod work;

use std::process::ExitCode;

use places::Places;
use report::Report;
use vm_fetch::error::Result;

type Run = fn(&Places, &mut Report) -> Result<()>;

const SUITES: [(&str, Run); 4] = [
    ("libffi", libffi::run),
    ("ctypes", ctypes::run),
    ("libffi-rs", libffi_rs::run),
    ("nested", nested::run),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| SUITES.iter().all(|(s, _)| s != name)) {
        let names = SUITES.map(|(name, _)| name).join(" ");
        eprintln!("trampfd-suites: no suite {unknown}; there are {names}");
        return ExitCode::from(2);
    }
    let mut report = Report::default();
    match Places::new() {
        Ok(places) => {
            let built = places.build_ours().map_err(|e| e.to_string());
            report.result("our libraries can be built", &built);
            for (name, run) in SUITES {
                let is_wanted = wanted.is_empty() || wanted.iter().any(|w| w == name);
                if is_wanted && let Err(e) = run(&places, &mut report) {
                    report.failed(name, &format!("not run: {e}"));
                }
            }
        }
        Err(e) => report.failed("all suites", &format!("not run: {e}")),
    }
    report.end()
}
