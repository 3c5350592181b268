//! Running other programs, and keeping runs apart.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// Runs `command` and returns what it wrote to stdout and stderr, in that
/// order. A failure is an error that holds the end of it.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().context(|| &name)?;
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    text += &String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(30)..].join("\n");
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    Err(Error::new(format!("{name} {}: {}\n{tail}", args.join(" "), done.status)))
}

/// Runs `command` and returns its stdout only; stderr goes to ours.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context(|| &name)?;
    if !done.status.success() {
        return Err(Error::new(format!("{name}: {}", done.status)));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Holds a folder for one run at a time, until dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file ends the lock")] File);

impl Lock {
    /// Waits for whoever holds `dir`, and says so.
    pub fn of(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let file = File::create(&path).context(|| path.display().to_string())?;
        if !flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            eprintln!("waiting for another run in {}", dir.display());
            if !flock(&file, libc::LOCK_EX) {
                return Err(std::io::Error::last_os_error()).context(|| path.display().to_string());
            }
        }
        Ok(Self(file))
    }
}

fn flock(file: &File, operation: libc::c_int) -> bool {
    // SAFETY: flock touches no memory of ours, and `file` keeps the number open.
    unsafe { libc::flock(file.as_raw_fd(), operation) == 0 }
}
