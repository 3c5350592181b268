//! Runs one row of the matrix in a folder of its own.
//!
//! ```text
//! DIR/subject, DIR/libsubject.so   hard links to the kind, so that they can be replaced
//! DIR/data, DIR/executable-data    what closed fds become
//! DIR/elsewhere/subject            another file of that name
//! DIR/lib..                        with the policy chroot: the libraries of the C program
//! ```

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::kinds;
use crate::matrix::Run;
use crate::policy::LACKS;

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// The machine lacks something.
    Skipped(String),
}

/// The subject links that there are, and where runs may be.
#[derive(Debug)]
pub struct Kit {
    /// Of each kind its folder, or why it could not be built.
    pub kinds: HashMap<&'static str, Result<PathBuf, String>>,
    /// Where runs may leave files, one at a time.
    pub scratch: PathBuf,
    /// This program, which is also the launcher.
    pub launcher: PathBuf,
    pub limit: Duration,
    /// A machine that is emulated.
    pub slow: bool,
}

impl Kit {
    /// Runs one row.
    pub fn run(&self, run: &Run) -> Outcome {
        let kind = match self.kinds.get(run.kind) {
            Some(Ok(kind)) => kind,
            Some(Err(_)) => return Outcome::Failed("it was not built".into()),
            None => return Outcome::Failed(format!("there is no link kind {}", run.kind)),
        };
        let dir = self.scratch.join("run");
        if let Err(e) = prepare(&dir, kind, run.policy == "chroot") {
            return Outcome::Failed(e);
        }
        if run.start == "set-uid" {
            // A file of its own, since the mode is the file's.
            let path = dir.join("subject");
            let made = fs::remove_file(&path)
                .and_then(|()| fs::copy(kind.join("subject"), &path))
                .and_then(|_| fs::set_permissions(&path, Permissions::from_mode(0o4755)));
            if let Err(e) = made {
                return Outcome::Failed(format!("{}: {e}", path.display()));
            }
        }
        let mut command = Command::new(&self.launcher);
        let at = dir.to_string_lossy();
        let root = if run.policy == "chroot" { "" } else { &*at };
        let (start, program) = match run.start {
            "relative" => ("direct", "./subject".to_owned()),
            start => (start, format!("{root}/subject")),
        };
        let library = kind.join("libsubject.so").exists();
        let object = if library { "libsubject.so" } else { "subject" };
        command
            .args(["via", run.policy, &at, start, &program])
            .args(["--object", &format!("{root}/{object}")])
            .args(["--event", &run.event.replace("{dir}", &at)])
            .args(["--expect", run.expect])
            .args(run.way.words())
            .args(if self.slow { &["--size", "small"][..] } else { &[] })
            .current_dir(&dir);
        self.ended(&mut command, run.status)
    }

    /// Runs a command that is to end with `status`.
    pub fn ended(&self, command: &mut Command, status: i32) -> Outcome {
        let (ended, said) = match self.output(command) {
            Ok(ended) => ended,
            Err(e) => return Outcome::Failed(e),
        };
        match ended.code() {
            Some(code) if code == status => Outcome::Passed,
            Some(LACKS) => Outcome::Skipped(said),
            _ => Outcome::Failed(format!("{ended}, not {status}: {said}")),
        }
    }

    /// How a command ended within the limit, and the end of what it said.
    pub fn output(&self, command: &mut Command) -> Result<(ExitStatus, String), String> {
        let path = self.scratch.join("said");
        let said = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = File::create(&path).map_err(said)?;
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(said)?).stderr(file);
        let mut child =
            command.process_group(0).spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let start = Instant::now();
        let ended = loop {
            match child.try_wait() {
                Ok(Some(ended)) => break Ok(ended),
                Ok(None) if start.elapsed() < self.limit => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => {
                    // SAFETY: the group is the child's, which was not waited for yet.
                    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                    // It was just killed.
                    let _ = child.wait();
                    break Err(match other {
                        Err(e) => e.to_string(),
                        Ok(_) => format!("stopped after {:?}", self.limit),
                    });
                }
            }
        };
        let bytes = fs::read(&path).map_err(said)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(6)..].join("; ");
        ended.map(|ended| (ended, last.clone())).map_err(|e| format!("{e}: {last}"))
    }
}

/// A fresh folder with what a run needs.
fn prepare(dir: &Path, kind: &Path, libraries: bool) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(said)?;
    }
    fs::create_dir_all(dir.join("elsewhere")).map_err(said)?;
    for name in ["subject", "libsubject.so"] {
        let from = kind.join(name);
        if from.exists() {
            fs::hard_link(&from, dir.join(name)).map_err(said)?;
        }
    }
    for (name, mode) in [("data", 0o644), ("executable-data", 0o755)] {
        let kept = dir.with_file_name(name);
        if !kept.exists() {
            fs::write(&kept, vec![0xccu8; 1 << 20]).map_err(said)?;
            fs::set_permissions(&kept, Permissions::from_mode(mode)).map_err(said)?;
        }
        fs::hard_link(&kept, dir.join(name)).map_err(said)?;
    }
    fs::hard_link(dir.join("executable-data"), dir.join("elsewhere/subject")).map_err(said)?;
    if libraries {
        for object in ["subject", "libsubject.so"] {
            if dir.join(object).exists() {
                copy_libraries(&dir.join(object), dir)?;
            }
        }
    }
    Ok(())
}

/// Copies the libraries of a program to the same places under `root`; a static one has none.
pub fn copy_libraries(program: &Path, root: &Path) -> Result<(), String> {
    // It fails for a static program, which the empty output says as well. A machine without it
    // has static programs only.
    let Ok(said) = Command::new("ldd").arg(program).output() else { return Ok(()) };
    let text = String::from_utf8_lossy(&said.stdout);
    for word in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(&word[1..]);
        if to.exists() || Path::new(word).starts_with(root) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        kinds::copy(Path::new(word), &to)?;
    }
    Ok(())
}
