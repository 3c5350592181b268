//! Running other programs, and keeping runs apart.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
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
    Err(Error::new(format!("{name}: {}\n{tail}", done.status)))
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
        if let Some(lock) = Self::try_of(dir)? {
            return Ok(lock);
        }
        eprintln!("waiting for another run in {}", dir.display());
        let (file, path) = Self::file(dir)?;
        flock(&file, libc::LOCK_EX).context(|| path.display().to_string())?;
        Ok(Self(file))
    }

    /// `None` where somebody holds `dir`.
    pub fn try_of(dir: &Path) -> Result<Option<Self>> {
        let (file, path) = Self::file(dir)?;
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => Ok(Some(Self(file))),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e).context(|| path.display().to_string()),
        }
    }

    fn file(dir: &Path) -> Result<(File, PathBuf)> {
        fs::create_dir_all(dir).context(|| dir.display().to_string())?;
        let path = dir.join("lock");
        Ok((File::create(&path).context(|| path.display().to_string())?, path))
    }
}

fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: flock touches no memory of ours, and `file` keeps the number open.
    match unsafe { libc::flock(file.as_raw_fd(), operation) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
