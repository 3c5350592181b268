//! Runs many programs, as many at a time as there are processors, each within a time limit.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::report::Outcome;

/// What a program wrote to both its outputs, and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

impl Ended {
    /// Exit status 0, or why that is not so.
    pub fn well(&self) -> Outcome {
        let lines: Vec<&str> = self.said.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(4)..].join("; ");
        match (self.status.success(), self.status.signal()) {
            (true, _) => Ok(()),
            (false, Some(signal)) => Err(format!("signal {signal}: {tail}")),
            (false, None) => Err(format!("{}: {tail}", self.status)),
        }
    }
}

/// Runs a command; what it says goes through the file `scratch`. `Err` where it was not started or
/// took too long; then nothing that it started is left.
pub fn run(command: &mut Command, scratch: &Path, limit: Duration) -> Result<Ended, String> {
    let said = |e: std::io::Error| format!("{}: {e}", scratch.display());
    let file = File::create(scratch).map_err(said)?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(said)?).stderr(file);
    let mut child = command.process_group(0).spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_micros(300)),
            other => {
                // SAFETY: the group is the child's, which was not waited for yet.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                // It was just killed.
                let _ = child.wait();
                return Err(match other {
                    Err(e) => e.to_string(),
                    Ok(_) => format!("stopped after {limit:?}"),
                });
            }
        }
    };
    let bytes = fs::read(scratch).map_err(said)?;
    Ok(Ended { status, said: String::from_utf8_lossy(&bytes).into_owned() })
}

/// `work(job, n)` for each job, in their order; `n` is the number of the thread that does it.
pub fn each<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J, usize) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let done = |n: usize| {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            done.push((at, work(job, n)));
        }
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let done = &done;
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || done(n))).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.expect("a worker panicked")).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("trampfd-suites-{name}-{}", std::process::id()))
    }

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let jobs: Vec<u32> = (0..1000).collect();
        assert_eq!(each(&jobs, |job, _| job * 2), jobs.iter().map(|j| j * 2).collect::<Vec<_>>());
    }

    #[test]
    fn each_end_is_told() {
        let path = scratch("ends");
        let sh = |script: &str, limit| {
            let mut command = Command::new("sh");
            run(command.args(["-c", script]), &path, Duration::from_millis(limit))
        };
        let ended = sh("echo out; echo err >&2", 10_000).unwrap();
        assert!(ended.well().is_ok());
        assert_eq!(ended.said, "out\nerr\n");
        assert!(sh("exit 3", 10_000).unwrap().well().unwrap_err().contains("3"));
        assert!(sh("kill -SEGV $$", 10_000).unwrap().well().unwrap_err().contains("signal 11"));
        assert!(sh("sleep 60 & wait", 50).unwrap_err().contains("stopped"));
        assert!(run(&mut Command::new("/nonexistent"), &path, Duration::from_secs(1)).is_err());
        fs::remove_file(path).unwrap();
    }
}
