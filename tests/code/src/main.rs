//! Each part of code memory under each policy: it works, or says by error why it cannot.
//!
//! ```text
//! trampfd-code-rows [TEXT]     runs what has TEXT in its name, all without; the last line is
//!                              `N passed, N failed, N skipped`. What is run are rooms, that is
//!                              parts of the library, and programs that are its clients
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
//! | `programs.rs` | the clients: the examples of the adapters, and calc |
//! | `tries.rs` | what a policy answers, asked past the library |

mod arch;
mod guard;
mod policies;
mod programs;
mod rooms;
mod tries;

#[path = "../../../userspace/trampfd-code/tests/support/client.rs"]
mod client;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use policies::{LACKS, POLICIES, Policy};
use programs::{PROGRAMS, Program};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = match words[..] {
        ["room", name] => return room(name),
        ["tries"] => {
            println!("{}", tries::answers());
            0
        }
        ["list"] => {
            for policy in POLICIES {
                let rooms = rooms::ROOMS.iter().map(|room| room.name);
                let all = rooms.chain(PROGRAMS.iter().map(|program| program.name));
                all.for_each(|what| println!("{}", name(policy, what)));
            }
            0
        }
        [] => rows(""),
        [only] => rows(only),
        _ => {
            eprintln!("trampfd-code-rows: unknown arguments; see the head of main.rs");
            2
        }
    };
    ExitCode::from(status)
}

fn rows(only: &str) -> u8 {
    match Driver::new(only) {
        Ok(mut driver) => driver.all(only),
        Err(e) => {
            eprintln!("trampfd-code-rows: {e}");
            1
        }
    }
}

fn room(name: &str) -> ExitCode {
    let Some(room) = rooms::ROOMS.iter().find(|room| room.name == name) else {
        eprintln!("there is no room {name}");
        return ExitCode::from(2);
    };
    client::run(|| {
        if !room.asks {
            guard::no_writable_code_for_a_moment()?;
        }
        (room.run)()
    })
}

fn name(policy: &Policy, what: &str) -> String {
    format!("{}: {what}", policy.layers.join(" and "))
}

/// Runs rooms and programs under policies.
struct Driver {
    launcher: PathBuf,
    this: PathBuf,
    /// What the launcher calls ROOT: the root under chroot, writable under landlock.
    root: PathBuf,
    counts: [usize; 3],
}

impl Driver {
    /// For what has `only` in its name.
    fn new(only: &str) -> Result<Driver> {
        let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        if !cargo().args(["build", "-q", "-p", "trampfd-host"]).status()?.success() {
            return Err("trampfd-host was not built".into());
        }
        let this = std::env::current_exe()?;
        let launcher = this.with_file_name("trampfd-host");
        let root = this.with_file_name(format!("code-rows-{}", std::process::id()));
        std::fs::create_dir_all(root.join("tmp"))?;
        install(&this, &root, "rows")?;
        let wanted = |program: &Program| {
            POLICIES.iter().any(|policy| name(policy, program.name).contains(only))
        };
        if PROGRAMS.iter().any(wanted) {
            programs::build(&mut cargo())?;
            programs::fill(&root)?;
            for program in PROGRAMS {
                install(&programs::path(&this, program), &root, program.example)?;
            }
        }
        Ok(Driver { launcher, this, root, counts: [0; 3] })
    }

    fn all(&mut self, only: &str) -> u8 {
        for policy in POLICIES {
            self.row(policy, "forbids what it says", only, |driver| driver.tried(policy));
            for room in rooms::ROOMS {
                self.row(policy, room.name, only, |driver| driver.room(policy, room));
            }
            for program in PROGRAMS {
                self.row(policy, program.name, only, |driver| driver.program(policy, program));
            }
        }
        // What is left of it harms nobody.
        let _ = std::fs::remove_dir_all(&self.root);
        let [passed, failed, skipped] = self.counts;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        u8::from(failed > 0 || passed == 0)
    }

    fn row(
        &mut self,
        policy: &Policy,
        what: &str,
        only: &str,
        run: impl FnOnce(&Driver) -> Outcome,
    ) {
        let name = name(policy, what);
        if !name.contains(only) {
            return;
        }
        let outcome = run(self);
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

    /// A program under a policy: its exit status and what it said. In another root it has a name
    /// of its own.
    fn under(
        &self,
        policy: &Policy,
        (program, inside): (&Path, &str),
        words: &[&str],
    ) -> Result<(i32, String, String), String> {
        let mut command = Command::new(&self.launcher);
        for (n, layer) in policy.layers.iter().enumerate() {
            if n > 0 {
                command.arg(&self.launcher);
            }
            command.args(["via", layer]).arg(&self.root).arg("direct");
        }
        match policy.layers.contains(&"chroot") {
            true => command.arg(Path::new("/").join(inside)),
            false => command.arg(program),
        };
        let output = command
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
        match self.under(policy, (&self.this, "rows"), &["tries"]) {
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

    fn room(&self, policy: &Policy, room: &rooms::Room) -> Outcome {
        let ran = self.under(policy, (&self.this, "rows"), &["room", room.name]);
        ended(ran, policy, room.anonymous, "")
    }

    fn program(&self, policy: &Policy, program: &Program) -> Outcome {
        if let Err(why) = programs::forget(&self.root) {
            return Outcome::Failed(why.to_string());
        }
        let path = programs::path(&self.this, program);
        for says in program.starts {
            let ran = self.under(policy, (&path, program.example), program.words);
            match ended(ran, policy, program.anonymous, says) {
                Outcome::Passed => {}
                other => return other,
            }
        }
        Outcome::Passed
    }
}

/// What to think of how something ended under a policy, if it said `says` where it works.
fn ended(
    ran: Result<(i32, String, String), String>,
    policy: &Policy,
    anonymous: bool,
    says: &str,
) -> Outcome {
    let refused = policy.files_only && anonymous;
    let expected = if refused { client::NO_MEMORY.into() } else { 0 };
    match ran {
        Ok((LACKS, _, why)) => Outcome::Skipped(why),
        Ok((code, _, why)) if code == expected && (refused || why.contains(says)) => {
            Outcome::Passed
        }
        Ok((code, said, why)) => {
            Outcome::Failed(format!("status {code}, not {expected}: {said} {why}"))
        }
        Err(why) => Outcome::Failed(why),
    }
}

enum Outcome {
    Passed,
    Failed(String),
    /// The machine lacks something.
    Skipped(String),
}

/// Puts a program into a root so that it can be started there: with what its loader says that it
/// loads.
fn install(program: &Path, root: &Path, name: &str) -> Result {
    let output = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    std::fs::copy(program, root.join(name))?;
    // `NAME => PATH (ADDRESS)`, for the loader itself `PATH (ADDRESS)`.
    for line in text.lines() {
        let path = line.rsplit_once(" (").map_or(line, |(path, _)| path).trim();
        let (path, to) = match path.split_once(" => ") {
            Some((name, path)) => (path, root.join("lib").join(name)),
            None => (path, root.join(path.trim_start_matches('/'))),
        };
        if path.starts_with('/') && !to.exists() {
            std::fs::create_dir_all(to.parent().unwrap_or(root))?;
            std::fs::copy(path, to)?;
        }
    }
    Ok(())
}
