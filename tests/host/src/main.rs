//! The host matrix: trampfd under policies, through process lives and in link kinds.
//!
//! ```text
//! trampfd-host [TEXT]          runs what has TEXT in its name, all without; the last line is
//!                              `N passed, N failed, N skipped`
//! trampfd-host list            says what would be run
//! trampfd-host vm-root DIR     puts static programs for a test machine into DIR
//! trampfd-host machine KIT BACKENDS [TEXT]
//!                              runs there what can be run with the static programs that vm-root
//!                              put into DIR/host, and reports in TAP
//! trampfd-host via POLICY ROOT START PROGRAM ARG..
//!                              the launcher; ROOT is where the policy chroot goes to
//! trampfd-host probe POLICY ROOT
//!                              enters a policy and tries what it forbids
//! trampfd-host attempts POLICY tries that, where the policy is in force already
//! ```
//!
//! Where TRAMPFD_HOST_KIT names the KIT, which test machines set, `machine` is what it does, with
//! TRAMPFD_TEST_BACKENDS and TRAMPFD_HOST_ONLY as BACKENDS and TEXT.
//!
//! | file | knows |
//! |---|---|
//! | `matrix.rs` | what is run, what is expected |
//! | `kinds.rs` | how the subject is built in each link kind |
//! | `policy.rs`, `seccomp.rs` | what the policies are |
//! | `probe.rs` | that they forbid what they say |
//! | `run.rs` | one run |
//! | `set.rs` | the Rust test set under each policy |
//! | `lives.rs`, `../lives/` | drop-in, preload, nested functions and C API |
//! | `clients.rs`, `../clients/` | other people's programs on our libffi |

mod arch;
mod clients;
mod kinds;
mod lives;
mod matrix;
mod policy;
mod probe;
mod run;
mod seccomp;
mod set;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use kinds::{Form, KINDS, Places};
use policy::{LACKS, Lacks, POLICIES};
use run::{Kit, Outcome};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = match words[..] {
        ["via", policy, root, start, program, ref rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|&word| word.to_owned()).collect();
            policy::launch(policy, Path::new(root), start, program, &rest)
        }
        ["probe", policy, root] => match policy::enter(policy, Path::new(root)) {
            Ok(()) => attempts(policy),
            Err(Lacks(what)) => {
                eprintln!("{what}");
                LACKS
            }
        },
        ["attempts", policy] => attempts(policy),
        ["vm-root", dir] => match vm_root(&Places::new(), Path::new(dir)) {
            Ok(()) => 0,
            Err(e) => {
                eprintln!("trampfd-host: {e}");
                1
            }
        },
        ["machine", kit, backends] => in_machine(Path::new(kit), backends, ""),
        ["machine", kit, backends, only] => in_machine(Path::new(kit), backends, only),
        [] | [_] => match std::env::var_os("TRAMPFD_HOST_KIT") {
            Some(kit) => {
                let told = |name| std::env::var(name).unwrap_or_default();
                let backends = told("TRAMPFD_TEST_BACKENDS");
                in_machine(Path::new(&kit), &backends, &told("TRAMPFD_HOST_ONLY"))
            }
            None => on_host(words.first().copied().unwrap_or("")),
        },
        _ => {
            eprintln!("trampfd-host: unknown arguments; see the head of main.rs");
            2
        }
    };
    ExitCode::from(status as u8)
}

fn attempts(policy: &str) -> i32 {
    let surprises = probe::surprises(policy);
    for surprise in &surprises {
        eprintln!("{surprise}");
    }
    i32::from(!surprises.is_empty())
}

/// Results, as they come.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: usize,
    skipped: usize,
    tap: bool,
}

impl Report {
    fn row(&mut self, name: &str, outcome: &Outcome) {
        let flat = |why: &str| why.replace(['\n', '#'], " ");
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
        let n = self.passed + self.failed + self.skipped;
        match (self.tap, outcome) {
            (true, Outcome::Passed) => println!("ok {n} - {name}"),
            (true, Outcome::Failed(why)) => println!("# {}\nnot ok {n} - {name}", flat(why)),
            (true, Outcome::Skipped(why)) => println!("ok {n} - {name} # SKIP {}", flat(why)),
            (false, Outcome::Passed) => println!("ok {name}"),
            (false, Outcome::Failed(why)) => println!("failed {name}: {why}"),
            (false, Outcome::Skipped(why)) => {
                println!("skipped {name}: {why} (runs in the VM lane)");
            }
        }
    }

    /// The last line, and the status to exit with.
    fn end(&self) -> i32 {
        match self.tap {
            true => println!("1..{}", self.passed + self.failed + self.skipped),
            false => {
                println!(
                    "{} passed, {} failed, {} skipped",
                    self.passed, self.failed, self.skipped
                );
            }
        }
        i32::from(self.failed > 0 || self.passed == 0)
    }
}

/// That each policy forbids what it says, once for a process that enters it, and once for a
/// program that is started under it.
fn probes(kit: &Kit, report: &mut Report, only: &str) {
    for policy in POLICIES {
        let name = format!("policy {policy} forbids what it says");
        if name.contains(only) {
            let mut command = Command::new(&kit.launcher);
            command.args(["probe", policy]).arg(&kit.scratch);
            report.row(&name, &kit.ended(&mut command, 0));
        }
        let name = format!("policy {policy} holds in a program started under it");
        // Its root has no such program.
        if policy != "chroot" && name.contains(only) {
            let mut command = Command::new(&kit.launcher);
            command.args(["via", policy]).arg(&kit.scratch).arg("direct").arg(&kit.launcher);
            command.args(["attempts", policy]);
            report.row(&name, &kit.ended(&mut command, 0));
        }
    }
}

fn kit(scratch: PathBuf, limit: Duration) -> Result<Kit, String> {
    std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let launcher = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    Ok(Kit { kinds: HashMap::new(), scratch, launcher, limit, slow: false })
}

fn on_host(only: &str) -> i32 {
    let places = Places::new();
    let scratch = places.target.join(format!("run-{}", std::process::id()));
    let mut kit = match kit(scratch, Duration::from_secs(60)) {
        Ok(kit) => kit,
        Err(e) => {
            eprintln!("trampfd-host: {e}");
            return 1;
        }
    };
    let mut report = Report::default();
    let runs = matrix::host();
    let wanted = |name: &str| name.contains(only);
    if only == "list" {
        runs.iter().for_each(|run| println!("{}: {}", run.name, run.expect));
        lives::names().iter().chain(&clients::names()).for_each(|name| println!("{name}"));
        return 0;
    }
    for kind in &KINDS {
        if runs.iter().any(|run| run.kind == kind.name && wanted(&run.name)) {
            let built = kinds::build(kind, &places);
            let outcome =
                built.as_ref().err().map_or(Outcome::Passed, |e| Outcome::Failed(e.clone()));
            report.row(&format!("link kind {}: it can be built", kind.name), &outcome);
            kit.kinds.insert(kind.name, built);
        }
    }
    probes(&kit, &mut report, only);
    for run in runs.iter().filter(|run| wanted(&run.name)) {
        report.row(&run.name, &kit.run(run));
    }
    set::under_policies(&kit, &places, only, &mut |name, outcome| report.row(name, outcome));
    lives::run(&kit, &places, only, &mut |name, outcome| report.row(name, outcome));
    clients::run(&kit, &places, only, &mut |name, outcome| report.row(name, outcome));
    // What is left of a scratch folder harms nobody.
    let _ = std::fs::remove_dir_all(&kit.scratch);
    report.end()
}

fn in_machine(folder: &Path, backends: &str, only: &str) -> i32 {
    let mut report = Report { tap: true, ..Report::default() };
    let mut kit = match kit(folder.join("scratch"), Duration::from_secs(120)) {
        Ok(kit) => kit,
        Err(e) => {
            println!("Bail out! {e}");
            return 1;
        }
    };
    let backends: Vec<&str> = backends.split(',').collect();
    kit.slow = true;
    kit.kinds.insert("static-pie", Ok(folder.join("static-pie")));
    probes(&kit, &mut report, only);
    for run in matrix::machine(&backends).iter().filter(|run| run.name.contains(only)) {
        report.row(&run.name, &kit.run(run));
    }
    report.end()
}

/// DIR/tests/host-.. are this program, built static, one for each part of the matrix; DIR/host
/// holds the subject.
fn vm_root(places: &Places, dir: &Path) -> Result<(), String> {
    // Separate programs, since a test machine has a time limit for each.
    const PARTS: [(&str, &str); 3] =
        [("controls", "control:"), ("policies", "policy "), ("lives", "life:")];
    let kind = kinds::named("static-pie").filter(|kind| kind.form == Form::Program);
    let built = kinds::build(kind.ok_or("there is no link kind static-pie")?, places)?;
    let this = kinds::build_static(places, "trampfd-host")?;
    for folder in ["tests", "host/static-pie"] {
        let folder = dir.join(folder);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let strip = |from: &Path, to: &Path| {
        kinds::run(Command::new("strip").arg("--strip-debug").arg("-o").args([to, from])).map(drop)
    };
    strip(&built.join("subject"), &dir.join("host/static-pie/subject"))?;
    for (name, only) in PARTS {
        strip(&this, &dir.join(format!("tests/host-{name}")))?;
        let path = dir.join(format!("tests/host-{name}.env"));
        let settings = format!(
            "TRAMPFD_HOST_KIT=/host\nTRAMPFD_HOST_ONLY={only}\nTRAMPFD_TEST_BACKENDS=kernel,text\n"
        );
        std::fs::write(&path, settings).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
