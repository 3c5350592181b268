//! What PID 1 itself checks about the module: what a test program cannot,
//! because it is about loading, unloading and what is left behind.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::results::{Outcome, Row};
use crate::sys::{self, Mapping};

const NAME: &str = "trampfd";
const DEVICE: &str = "/dev/trampfd";
const COUNTERS: [&str; 3] = ["live_tables", "live_pages", "live_views"];

/// Bytes of a view: `TRAMPFD_TABLE_SIZE` of the module's header. The data view
/// is at offset 0.
const VIEW: usize = 0x80000;

type Check = Result<(), String>;

/// The module's parameter called `name`.
pub fn parameter(name: &str) -> PathBuf {
    Path::new("/sys/module")
        .join(NAME)
        .join("parameters")
        .join(name)
}

/// Loads the module and looks at the device, before anything uses it.
pub fn load(module: &Path) -> Vec<Row> {
    vec![
        Row::of("the module loads", sys::load_module(module)),
        Row::of(
            "the device is a character device of mode 0444",
            device_mode(),
        ),
        Row::of("nothing is there after loading", nothing_left()),
        Row::of(
            "counters see a view, and unloading is refused meanwhile",
            refuses_to_go(),
        ),
        Row::of("nothing is left of that view", nothing_left()),
    ]
}

/// Unloads, loads and unloads the module again, after everything.
pub fn unload(module: &Path) -> Vec<Row> {
    vec![
        Row::of("nothing is left after all tests", nothing_left()),
        Row::of("the module unloads", sys::unload_module(NAME)),
        Row::of("the device is gone", gone()),
        Row::of("the module loads again", sys::load_module(module)),
        Row::of("nothing is there after loading again", nothing_left()),
        Row::of("the module unloads again", sys::unload_module(NAME)),
        Row::of("only a module from outside taints the kernel", taint()),
    ]
}

/// Without the module only the kernel itself can be looked at.
pub fn without() -> Vec<Row> {
    vec![Row::of(
        "only a module from outside taints the kernel",
        taint(),
    )]
}

fn device_mode() -> Check {
    let meta = fs::metadata(DEVICE).map_err(|e| format!("{DEVICE}: {e}"))?;
    let mode = meta.permissions().mode();
    if !meta.file_type().is_char_device() || mode & 0o7777 != 0o444 {
        return Err(format!("{DEVICE} has mode {mode:o}"));
    }
    Ok(())
}

fn gone() -> Check {
    match fs::metadata(DEVICE) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("{DEVICE}: {e}")),
        Ok(_) => Err(format!("{DEVICE} is still there")),
    }
}

/// A view alone, its fd closed, must keep the module; and an fd alone too.
fn refuses_to_go() -> Check {
    let file = File::open(DEVICE).map_err(|e| format!("{DEVICE}: {e}"))?;
    refused("an open fd")?;
    let view = Mapping::of(&file, VIEW).map_err(|e| format!("mmap: {e}"))?;
    drop(file);
    refused("a view without an fd")?;
    let views = counter("live_views")?;
    drop(view);
    if views != 1 {
        return Err(format!("live_views is {views} with one view"));
    }
    Ok(())
}

fn refused(with: &str) -> Check {
    match sys::unload_module(NAME) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => Ok(()),
        Err(e) => Err(format!("unloading with {with}: {e}")),
        Ok(()) => Err(format!("unloaded with {with}")),
    }
}

fn counter(name: &str) -> Result<u64, String> {
    let path = parameter(name);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.trim()
        .parse()
        .map_err(|e| format!("{name} is {text:?}: {e}"))
}

/// All counters are zero, now or soon: the last close of a file may lag behind
/// the end of the process.
pub fn nothing_left() -> Check {
    const SOON: Duration = Duration::from_secs(2);
    let start = Instant::now();
    loop {
        let mut left = Vec::new();
        for name in COUNTERS {
            match counter(name)? {
                0 => {}
                n => left.push(format!("{name} is {n}")),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > SOON {
            return Err(left.join(", "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bits 12 and 13: a module from outside, and one without a signature.
fn taint() -> Check {
    let path = "/proc/sys/kernel/tainted";
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    match text.trim().parse::<u64>() {
        Ok(bits) if bits & !(1 << 12 | 1 << 13) == 0 => Ok(()),
        _ => Err(format!("tainted is {}", text.trim())),
    }
}

/// Module parameters that a test wants otherwise, until dropped.
#[derive(Debug, Default)]
pub struct Parameters {
    before: Vec<(PathBuf, String)>,
}

impl Parameters {
    /// Writes `settings` (name, value).
    pub fn set(settings: &[(String, String)]) -> Result<Self, Row> {
        let mut held = Self::default();
        for (name, value) in settings {
            let path = parameter(name);
            let failed = |e| Row::failed("parameters", format!("{name}={value}: {e}"));
            let before = fs::read_to_string(&path).map_err(failed)?;
            fs::write(&path, value).map_err(failed)?;
            held.before.push((path, before.trim().to_owned()));
        }
        Ok(held)
    }

    /// Puts back what was there before.
    pub fn restore(self) -> Option<Row> {
        let mut wrong = None;
        for (path, value) in self.before.iter().rev() {
            if let Err(e) = fs::write(path, value) {
                let reason = format!("{} back to {value}: {e}", path.display());
                wrong = Some(Row::new(Outcome::Failed, "parameters", &reason));
            }
        }
        wrong
    }
}
