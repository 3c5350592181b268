//! New code in a page that another thread is executing: whether the program lives through it.

use std::hint::black_box;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use trampfd_code::vm::{Meter, Options, Region, Write};

use crate::arch;
use crate::clock::median;
use crate::table::{Row, Target};

const RUNS: usize = 10;
const INSTALLS: usize = 20_000;
/// Bytes from one function to the next.
const STEP: usize = 64;

/// A page of code, and a way to put more into it.
trait Page: Sync {
    fn start(&self) -> *const u8;
    fn install(&self, at: usize, code: &[u8]);
}

impl Page for Region {
    fn start(&self) -> *const u8 {
        self.rx()
    }

    fn install(&self, at: usize, code: &[u8]) {
        // SAFETY: nothing runs there, and nothing else writes there.
        unsafe { self.write(at, code) }.expect("a page of ours");
    }
}

/// A page whose protection is changed for each write, as most of the peers do.
struct Flipped(*mut u8);

// SAFETY: an address.
unsafe impl Sync for Flipped {}

impl Flipped {
    fn new() -> Flipped {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        Flipped(page.cast())
    }
}

impl Page for Flipped {
    fn start(&self) -> *const u8 {
        self.0
    }

    fn install(&self, at: usize, code: &[u8]) {
        let protect = |prot| {
            // SAFETY: a page of this value.
            let ret = unsafe { libc::mprotect(self.0.cast(), 4096, prot) };
            assert_eq!(ret, 0, "{}", io::Error::last_os_error());
        };
        protect(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: within the page, which can be written now.
        unsafe { self.0.add(at).copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        protect(libc::PROT_READ | libc::PROT_EXEC);
    }
}

/// Child: installs function after function in a page whose first function another thread calls
/// all the time; nanoseconds for each.
pub fn run(how: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    options.write = if how == "alias" { Write::Alias } else { Write::Pwrite };
    let took = match how {
        "mprotect" => beside(&Flipped::new()),
        "pwrite" | "alias" => beside(&Region::new(4096, &options, &Meter::new())?),
        _ => return Err(format!("no way to write: {how}").into()),
    };
    println!("{took}");
    Ok(())
}

fn beside(page: &dyn Page) -> f64 {
    page.install(0, &arch::returns(7));
    let function = |at: usize| {
        // SAFETY: a function was installed there.
        unsafe {
            std::mem::transmute::<*const u8, extern "C" fn() -> u32>(page.start().wrapping_add(at))
        }
    };
    let (start, stop) = (Barrier::new(2), AtomicBool::new(false));
    let running = function(0);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            let _pinned = crate::pin(1);
            start.wait();
            let mut calls = 0u64;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(black_box(running)(), 7);
                calls += 1;
            }
            calls
        });
        let _pinned = crate::pin(0);
        start.wait();
        let begin = Instant::now();
        for n in 0..INSTALLS {
            let at = STEP + n * STEP % (4096 - STEP);
            page.install(at, &arch::returns(n as u32));
            assert_eq!(function(at)(), n as u32);
        }
        let took = begin.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert!(runner.join().expect("the other thread") > 0);
        took.as_nanos() as f64 / INSTALLS as f64
    })
}

/// How many of the runs live, and nanoseconds for an installation in those. A run that ends by
/// anything but a fault leaves no figure.
fn runs(how: &str) -> io::Result<(f64, f64)> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut child = Command::new("/proc/self/exe");
        let output = child.args(["--child", "code-install", how]).output()?;
        match output.status.signal() {
            None if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                times.push(text.trim().parse().map_err(io::Error::other)?);
            }
            Some(libc::SIGSEGV) => {}
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(io::Error::other(format!("{how}: {}: {said}", output.status)));
            }
        }
    }
    Ok((times.len() as f64, median(times.into_iter())))
}

/// The rows.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (how, target) in [
        ("pwrite", Target::Least(RUNS as f64)),
        ("alias", Target::Least(RUNS as f64)),
        ("mprotect", Target::None),
    ] {
        let (survived, took) = runs(how).unwrap_or_else(|error| {
            eprintln!("{error}");
            (f64::NAN, f64::NAN)
        });
        let name = |what: &str| {
            format!("code: install in a page that another thread executes, {how}: {what}")
        };
        rows.push(Row::new(name("runs that live"), survived, "of 10", target));
        if survived > 0.0 {
            rows.push(Row::new(name("each, 20,000 a run"), took, "ns", Target::None));
        }
    }
    rows
}
