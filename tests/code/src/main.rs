//! Each part of code memory under each policy: it works, or says by error why it cannot.
//!
//! ```text
//! trampfd-code-rows [TEXT]     runs what has TEXT in its name, all without; the last line is
//!                              `N passed, N failed, N skipped`
//! trampfd-code-rows list       says what would be run
//! trampfd-code-rows room ROOM  in a process that is under a policy: makes code there, and runs it
//! trampfd-code-rows tries      says what the policy answers to the calls that code memory needs
//! ```
//!
//! Policies are those of `trampfd-host`, and some of them together.
//!
//! | file | knows |
//! |---|---|
//! | `guard.rs` | what no part of the library may even ask for |
//! | `policies.rs` | under what rooms are run, and what must come out |
//! | `rooms.rs` | how each part makes code and runs it |
//! | `tries.rs` | what a policy answers, asked past the library |

mod arch;
mod guard;
mod policies;
mod rooms;
mod tries;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use policies::{LACKS, POLICIES, Policy};

/// Exit status of a room that says that there is no executable memory.
const NO_MEMORY: i32 = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = match words[..] {
        ["room", name] => room(name),
        ["tries"] => {
            println!("{}", tries::answers());
            0
        }
        ["list"] => {
            for policy in POLICIES {
                rooms::ROOMS.iter().for_each(|room| println!("{}", name(policy, room.name)));
            }
            0
        }
        [] | [_] => match Driver::new() {
            Ok(mut driver) => driver.all(words.first().copied().unwrap_or("")),
            Err(e) => {
                eprintln!("trampfd-code-rows: {e}");
                1
            }
        },
        _ => {
            eprintln!("trampfd-code-rows: unknown arguments; see the head of main.rs");
            2
        }
    };
    ExitCode::from(status)
}

fn room(name: &str) -> u8 {
    let Some(room) = rooms::ROOMS.iter().find(|room| room.name == name) else {
        eprintln!("there is no room {name}");
        return 2;
    };
    if !room.asks
        && let Err(error) = guard::no_writable_code_for_a_moment()
    {
        eprintln!("seccomp: {error}");
        return 2;
    }
    match (room.run)().and_then(|()| rooms::nothing_is_writable_and_executable()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("because: {error}");
                cause = error.source();
            }
            if rooms::says_no_memory(error.as_ref()) { NO_MEMORY as u8 } else { 1 }
        }
    }
}

fn name(policy: &Policy, room: &str) -> String {
    format!("{}: {room}", policy.layers.join(" and "))
}

/// Runs rooms under policies.
struct Driver {
    launcher: PathBuf,
    this: PathBuf,
    /// What the launcher calls ROOT: the root under chroot, writable under landlock.
    root: PathBuf,
    counts: [usize; 3],
}

impl Driver {
    fn new() -> Result<Driver, Box<dyn std::error::Error>> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "-q", "-p", "trampfd-host"]).status()?;
        if !built.success() {
            return Err("trampfd-host was not built".into());
        }
        let this = std::env::current_exe()?;
        let launcher = this.with_file_name("trampfd-host");
        let root = this.with_file_name(format!("code-rows-{}", std::process::id()));
        fill(&root, &this)?;
        Ok(Driver { launcher, this, root, counts: [0; 3] })
    }

    fn all(&mut self, only: &str) -> u8 {
        for policy in POLICIES {
            let title = name(policy, "forbids what it says");
            if title.contains(only) {
                let outcome = self.tried(policy);
                self.row(&title, outcome);
            }
            for room in rooms::ROOMS {
                let title = name(policy, room.name);
                if title.contains(only) {
                    let outcome = self.run(policy, room);
                    self.row(&title, outcome);
                }
            }
        }
        // What is left of it harms nobody.
        let _ = std::fs::remove_dir_all(&self.root);
        let [passed, failed, skipped] = self.counts;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        u8::from(failed > 0 || passed == 0)
    }

    fn row(&mut self, name: &str, outcome: Outcome) {
        // A colon ends the name where results are read.
        let name = name.replace(": ", ", ");
        match outcome {
            Outcome::Passed => {
                self.counts[0] += 1;
                println!("ok {name}");
            }
            Outcome::Failed(why) => {
                self.counts[1] += 1;
                println!("failed {name}: {}", why.trim().replace('\n', "; "));
            }
            Outcome::Skipped(why) => {
                self.counts[2] += 1;
                println!("skipped {name}: {}", why.trim().replace('\n', "; "));
            }
        }
    }

    /// This program under a policy: its exit status and what it said.
    fn under(&self, policy: &Policy, words: &[&str]) -> Result<(i32, String, String), String> {
        let inside = policy.layers.contains(&"chroot");
        let program: &OsStr = if inside { "/rows".as_ref() } else { self.this.as_os_str() };
        let mut command = Command::new(&self.launcher);
        for (n, layer) in policy.layers.iter().enumerate() {
            if n > 0 {
                command.arg(&self.launcher);
            }
            command.args(["via", layer]).arg(&self.root).arg("direct");
        }
        let output = command
            .arg(program)
            .args(words)
            .current_dir(&self.root)
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("TMPDIR")
            .output()
            .map_err(|e| format!("{}: {e}", self.launcher.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        match output.status.code() {
            Some(code) => Ok((code, said, errors)),
            None => Err(format!("{}: {errors}", output.status)),
        }
    }

    fn tried(&self, policy: &Policy) -> Outcome {
        match self.under(policy, &["tries"]) {
            Ok((LACKS, _, why)) => Outcome::Skipped(why),
            Ok((0, said, _)) if said.trim() == policy.answers => Outcome::Passed,
            Ok((_, said, why)) => Outcome::Failed(format!(
                "{} {why}, not {}: of {}",
                said.trim(),
                policy.answers,
                tries::NAMES
            )),
            Err(why) => Outcome::Failed(why),
        }
    }

    fn run(&self, policy: &Policy, room: &rooms::Room) -> Outcome {
        let expected = if policy.files_only && room.anonymous { NO_MEMORY } else { 0 };
        match self.under(policy, &["room", room.name]) {
            Ok((LACKS, _, why)) => Outcome::Skipped(why),
            Ok((code, ..)) if code == expected => Outcome::Passed,
            Ok((code, said, why)) => {
                Outcome::Failed(format!("status {code}, not {expected}: {said} {why}"))
            }
            Err(why) => Outcome::Failed(why),
        }
    }
}

enum Outcome {
    Passed,
    Failed(String),
    /// The machine lacks something.
    Skipped(String),
}

/// A root in which this program can be started: itself, and the libraries that it has loaded.
fn fill(root: &Path, this: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::copy(this, root.join("rows"))?;
    for folder in ["lib", "lib64"] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)?;
        for path in maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        {
            let name = path.file_name().unwrap_or_default();
            let library = name.to_string_lossy().contains(".so") && !folder.join(name).exists();
            if library {
                std::fs::copy(path, folder.join(name))?;
            }
        }
    }
    Ok(())
}
