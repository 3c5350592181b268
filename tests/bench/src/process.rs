//! What must be measured in a process of its own, and what the kernel says about a process.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

/// Runs this program again as `--child words`; the numbers that it printed, one on each line.
pub fn child(words: &[&str]) -> io::Result<Vec<f64>> {
    let output = Command::new("/proc/self/exe").arg("--child").args(words).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{words:?}: {}: {said}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| line.parse().map_err(io::Error::other)).collect()
}

/// The same where the figures of a child that failed are none.
pub fn child_or_none(words: &[&str], count: usize) -> Vec<f64> {
    match child(words) {
        Ok(numbers) if numbers.len() == count => numbers,
        Ok(numbers) => {
            eprintln!("{words:?}: {} numbers, not {count}", numbers.len());
            vec![f64::NAN; count]
        }
        Err(error) => {
            eprintln!("{error}");
            vec![f64::NAN; count]
        }
    }
}

/// A line `NAME:  n kB` of a file of /proc/self, in bytes.
fn bytes(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    number.map_or(f64::NAN, |kb| kb * 1024.0)
}

/// Bytes of memory that only this process has: pages written to, and page tables.
pub fn own_memory() -> f64 {
    bytes("/proc/self/smaps_rollup", "Private_Dirty") + bytes("/proc/self/status", "VmPTE")
}

/// Number of mappings.
pub fn mappings() -> f64 {
    fs::read_to_string("/proc/self/maps").map_or(f64::NAN, |maps| maps.lines().count() as f64)
}

/// A cgroup that this process alone is in.
pub struct Cgroup(&'static str);

impl Cgroup {
    /// Makes the cgroup and moves this process into it.
    pub fn enter() -> io::Result<Cgroup> {
        let place = "/sys/fs/cgroup/trampfd-bench";
        match fs::create_dir(place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(format!("{place}/cgroup.procs"), std::process::id().to_string())?;
        Ok(Cgroup(place))
    }

    /// Bytes charged to it, memory of the kernel included. Asks memory.stat, which counts pages:
    /// memory.current counts in batches of 64. The kernel brings it up to date every 2 seconds.
    pub fn charged(&self) -> f64 {
        std::thread::sleep(Duration::from_secs(5));
        let text = fs::read_to_string(format!("{}/memory.stat", self.0)).unwrap_or_default();
        let field = |wanted: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            let value = lines.filter(|(name, _)| *name == wanted).map(|(_, value)| value).next();
            value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        field("anon") + field("file") + field("kernel")
    }
}
