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

/// What did not hold, in words.
pub type Check = Result<(), String>;

/// The module's parameter called `name`.
pub fn parameter(name: &str) -> PathBuf {
    Path::new("/sys/module").join(NAME).join("parameters").join(name)
}

/// A name, and what must hold of the module in the file.
pub type Step = (&'static str, fn(&Path) -> Check);

/// Loading, and looking at the device before anything uses it; in this order.
pub const LOAD: [Step; 5] = [
    ("the module loads", load),
    ("the device is a character device of mode 0444", |_| device_mode()),
    ("nothing is there after loading", |_| nothing_left()),
    ("counters see a view, and unloading is refused meanwhile", |_| refuses_to_go()),
    ("nothing is left of that view", |_| nothing_left()),
];

/// Unloading, loading and unloading again, after everything.
pub const UNLOAD: [Step; 6] = [
    ("nothing is left after all tests", |_| nothing_left()),
    ("the module unloads", |_| unload()),
    ("the device is gone", |_| gone()),
    ("the module loads again", load),
    ("nothing is there after loading again", |_| nothing_left()),
    ("the module unloads again", |_| unload()),
];

fn load(module: &Path) -> Check {
    sys::load_module(module).map_err(|e| e.to_string())
}

fn unload() -> Check {
    sys::unload_module(NAME).map_err(|e| e.to_string())
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
    text.trim().parse().map_err(|e| format!("{name} is {text:?}: {e}"))
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

/// Nothing taints the kernel but a module from outside (bit 12) without a
/// signature (bit 13).
pub fn taint() -> Check {
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
