//! One run of one machine: QEMU as our child, watched until it ends, complains
//! or has had its time.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::verdict::{self, Report, Row};

/// How long a machine that has panicked may go on printing why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What to boot and how.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel image.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// Where console and verdict are written.
    pub dir: &'a Path,
    /// Added to the kernel's command line.
    pub append: &'a str,
    /// Count instructions instead of time, on one CPU.
    pub icount: bool,
    /// Time for everything.
    pub limit: Duration,
    /// Copy the console to stdout as it comes.
    pub show_console: bool,
}

/// Kills QEMU when dropped, so that no way out of here leaves it running.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only where the child is gone, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Where the console's text of the last run is.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Runs the machine to its end and returns what it said; whatever went
    /// wrong with the machine itself is a failed row. Only what is wrong with
    /// this side (no QEMU, no disk space) is an error.
    pub fn run(&self) -> Result<Report> {
        let verdict = self.dir.join("verdict");
        for file in [&verdict, &self.console()] {
            // Empty rather than missing, so that they can be read at once.
            File::create(file).context(|| file.display().to_string())?;
        }
        let trouble = self.watch(self.start(&verdict)?)?;
        let said = fs::read(&verdict).context(|| verdict.display().to_string())?;
        let mut report = verdict::parse(&String::from_utf8_lossy(&said));
        report.rows.extend(trouble);
        let console = fs::read(self.console()).context(|| self.console().display().to_string())?;
        let console = String::from_utf8_lossy(&console);
        let splats = verdict::splats(&console);
        if !splats.is_empty() {
            let first = splats[..splats.len().min(3)].join("; ");
            report.rows.push(Row::machine("console", first));
        }
        Ok(report)
    }

    fn start(&self, verdict: &Path) -> Result<Guard> {
        // QEMU dies with us, whatever ends us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // One thread for all CPUs: QEMU 7.2 with a thread each was seen to
        // break the guest's patching of its own text.
        command.args(["-machine", "pc", "-accel", "tcg,thread=single", "-cpu", "max", "-m", "1G"]);
        command.args(["-smp", if self.icount { "1" } else { "2" }]);
        if self.icount {
            command.args(["-icount", "shift=0"]);
        }
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        command.arg("-serial").arg(format!("file:{}", verdict.display()));
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        let fixed = "console=ttyS0 panic_on_warn=1 oops=panic panic=-1 softlockup_panic=1 \
                     watchdog_thresh=30 log_buf_len=4M";
        command.arg("-append").arg(format!("{fixed} {}", self.append));
        let child = command.stdin(Stdio::null()).spawn().context(|| "qemu-system-x86_64")?;
        Ok(Guard(child))
    }

    fn watch(&self, mut qemu: Guard) -> Result<Vec<Row>> {
        let mut console = Console::open(&self.console(), self.show_console)?;
        let start = Instant::now();
        let mut panicked = None;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let ended = qemu.0.try_wait().context(|| "qemu-system-x86_64")?;
            if console.read()? {
                panicked.get_or_insert_with(Instant::now);
            }
            if let Some(status) = ended {
                return Ok(end_of(status));
            }
            if panicked.is_some_and(|since| since.elapsed() > LAST_WORDS) {
                return Ok(vec![Row::machine("end", "stopped after a panic")]);
            }
            if start.elapsed() > self.limit {
                let reason = format!("stopped after {} seconds", self.limit.as_secs());
                return Ok(vec![Row::machine("end", reason)]);
            }
        }
    }
}

fn end_of(status: ExitStatus) -> Vec<Row> {
    if status.success() {
        return Vec::new();
    }
    vec![Row::machine("end", format!("QEMU: {status}"))]
}

/// The console log, followed while it grows.
struct Console {
    file: File,
    show: bool,
    /// The end of what was read: a word may lie across two reads.
    tail: Vec<u8>,
}

impl Console {
    fn open(path: &Path, show: bool) -> Result<Self> {
        let mut file = File::open(path).context(|| path.display().to_string())?;
        file.seek(SeekFrom::Start(0)).context(|| path.display().to_string())?;
        Ok(Self { file, show, tail: Vec::new() })
    }

    /// Reads on; true where the kernel has panicked in it.
    fn read(&mut self) -> Result<bool> {
        const PANIC: &[u8] = b"] Kernel panic - ";
        let mut new = Vec::new();
        self.file.read_to_end(&mut new).context(|| "console")?;
        if self.show && !new.is_empty() {
            // Showing is a courtesy; a closed pipe must not end the run.
            let _ = std::io::stdout().write_all(&new);
        }
        self.tail.extend_from_slice(&new);
        let seen = self.tail.windows(PANIC.len()).any(|window| window == PANIC);
        let keep = self.tail.len().saturating_sub(PANIC.len() - 1);
        self.tail.drain(..keep);
        Ok(seen)
    }
}
