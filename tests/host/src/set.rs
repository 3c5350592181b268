//! The Rust test set (`tests/tests/it`) under each policy.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kinds::{self, Places};
use crate::policy::POLICIES;
use crate::run::{Kit, Outcome};

const NO_PROCESS: &str = "reads the source tree or runs the compiler, and asks no kernel";
const LOOKS: &str = "looks into /proc/self/maps; the subject does what it does";

/// Tests that a policy leaves out: (policy, or "" for all; part of the name; why).
const LEFT_OUT: [(&str, &str, &str); 11] = [
    ("", "stub::", NO_PROCESS),
    ("", "tidy::", NO_PROCESS),
    ("", "uapi::", NO_PROCESS),
    ("", "compile_fail::", NO_PROCESS),
    ("no-proc", "growth::calls_go_on_while_a_table_grows", LOOKS),
    ("no-proc", "growth::closures_have_no_cap", LOOKS),
    ("no-proc", "growth::mappings_are_few", LOOKS),
    ("no-proc", "growth::prewarmed_closures_need_no_mapping", LOOKS),
    ("no-proc", "growth::text_grows_in_each_way_alone", LOOKS),
    ("no-proc", "raw::a_million_blocks_are_few_mappings_and_100_bytes_each", LOOKS),
    ("strict", "target::what_is_no_text_is_refused", "makes executable memory that is no file's"),
];

/// Builds the test set and runs it under each policy that it can be run under.
pub fn under_policies(
    kit: &Kit,
    places: &Places,
    only: &str,
    report: &mut dyn FnMut(&str, &Outcome),
) {
    // In a chroot the set would find neither /tmp nor /proc, which its own checks need; and with
    // landlock no /tmp.
    let policies = POLICIES.iter().filter(|policy| !["chroot", "landlock"].contains(policy));
    let named: Vec<_> = policies
        .map(|policy| (policy, format!("policy {policy}: the Rust test set on text")))
        .filter(|(_, name)| name.contains(only))
        .collect();
    if named.is_empty() {
        return;
    }
    let program = build(places);
    for (policy, name) in named {
        let outcome = match &program {
            Ok(program) => under(kit, policy, program),
            Err(e) => Outcome::Failed(e.clone()),
        };
        report(&name, &outcome);
    }
}

fn build(places: &Places) -> Result<PathBuf, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command
        .args(["test", "-p", "trampfd-tests", "--test", "it", "--no-run"])
        .arg("--message-format=json")
        .current_dir(&places.repository);
    let said = kinds::run(&mut command)?;
    said.lines()
        .filter(|line| line.contains("\"name\":\"it\""))
        .find_map(|line| {
            let (_, rest) = line.split_once("\"executable\":\"")?;
            Some(PathBuf::from(rest.split_once('"')?.0))
        })
        .ok_or_else(|| "cargo made no test set".to_owned())
}

fn under(kit: &Kit, policy: &str, program: &Path) -> Outcome {
    let mut command = Command::new(&kit.launcher);
    command.args(["via", policy]).arg(&kit.scratch).arg("direct").arg(program);
    for (_, test, _) in LEFT_OUT.iter().filter(|(of, _, _)| of.is_empty() || *of == policy) {
        command.args(["--skip", test]);
    }
    command.env("TRAMPFD_TEST_BACKENDS", "text").current_dir(&kit.scratch);
    kit.ended(&mut command, 0)
}
