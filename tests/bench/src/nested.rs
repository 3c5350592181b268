//! Pointers to GCC's nested functions: our runtime beside libgcc's, which is taken from a newer
//! release than this machine's may be.

use std::ffi::c_void;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use vm_fetch::apt::Apt;
use vm_fetch::error::{Context, Error};

use crate::arch;
use crate::clock::{self, Lane};
use crate::library::Library;
use crate::table::{Row, Target};

const ROUNDS: usize = 1_000;
const PAIRS: usize = 10_000;
/// Where `scripts/libs` puts ours.
const OURS: &str = "target/lib/libtrampfd.so.0";
/// A release whose libgcc has the functions (GCC 14), and the package.
const RELEASE: [&str; 2] = ["trixie", "trixie-security"];
const PACKAGE: &str = "libgcc-s1";

type Created = unsafe extern "C" fn(*mut c_void, *const c_void, *mut *const c_void);
type Deleted = unsafe extern "C" fn();

/// A runtime of nested functions.
#[derive(Clone, Copy)]
struct Runtime {
    created: Created,
    deleted: Deleted,
}

impl Runtime {
    fn open(path: &Path) -> Result<Runtime, String> {
        let witness = c"__gcc_nested_func_ptr_created";
        let library = Library::open(path, witness)?;
        let wanted = path.canonicalize().map_err(|e| e.to_string())?;
        if library.file != wanted {
            return Err(format!("{} is in use instead", library.file.display()));
        }
        // SAFETY: GCC's functions by their names.
        unsafe {
            Ok(Runtime {
                created: std::mem::transmute::<*mut c_void, Created>(library.symbol(witness)?),
                deleted: std::mem::transmute::<*mut c_void, Deleted>(
                    library.symbol(c"__gcc_nested_func_ptr_deleted")?,
                ),
            })
        }
    }

    /// What a function does, `PAIRS` times, whose nested function's address is taken; with
    /// `CALL` it also calls it, twice, or `0` where it does not.
    #[inline(never)]
    fn pairs<const CALL: bool>(self) -> i32 {
        let mut sum = 0;
        for n in 0..PAIRS as i32 {
            let mut variable = n;
            let mut pointer: *const c_void = std::ptr::null();
            // SAFETY: the variable and the pointer are in this frame, as GCC's are; dropped before
            // it is left.
            unsafe {
                let code: *const c_void = arch::nested as *const () as *const c_void;
                (self.created)((&raw mut variable).cast(), code, &mut pointer);
                let pointer = black_box(pointer);
                if CALL {
                    let f: unsafe extern "C" fn(i32) -> i32 = std::mem::transmute(pointer);
                    sum ^= f(3);
                }
                (self.deleted)();
            }
            black_box(&variable);
        }
        sum
    }
}

/// GCC's own runtime, fetched if it was not before.
fn libgcc() -> Result<PathBuf, Error> {
    let here = Path::new("target/bench/libgcc");
    let dir = std::path::absolute(here).context(|| here.display().to_string())?;
    let tree = dir.join("tree");
    let find = || {
        let folders = ["usr/lib", "lib"].map(|lib| tree.join(lib));
        let folders = folders.iter().filter_map(|lib| fs::read_dir(lib).ok()).flatten().flatten();
        folders.map(|folder| folder.path().join("libgcc_s.so.1")).find(|file| file.exists())
    };
    if let Some(file) = find() {
        return Ok(file);
    }
    let apt = Apt::open(&dir.join("apt"), &RELEASE.map(str::to_owned), None)?;
    let part = dir.join("part");
    vm_fetch::files::remake(&part)?;
    apt.unpack(&[apt.candidate(PACKAGE)?], &part)?;
    // Under its name only when it is whole.
    fs::rename(&part, &tree).context(|| tree.display().to_string())?;
    find().ok_or_else(|| Error::new(format!("no libgcc_s.so.1 in {PACKAGE}")))
}

/// Pointers made and dropped.
pub fn rows() -> Vec<Row> {
    let libgcc = libgcc().map_err(|e| e.to_string()).and_then(|file| Runtime::open(&file));
    let runtimes =
        [("libgcc", libgcc), ("ours", Runtime::open(Path::new(OURS)))].map(|(name, runtime)| {
            runtime.inspect_err(|error| eprintln!("nested functions, {name}: {error}")).ok()
        });
    let wanted = (0..PAIRS as i32).fold(0, |sum, n| sum ^ (n + 3));
    for runtime in runtimes.into_iter().flatten() {
        assert_eq!(runtime.pairs::<true>(), wanted, "the nested function computes something else");
    }
    let batch = |n: usize, batch: fn(Runtime) -> i32| {
        Lane::maybe(runtimes[n].map(|runtime| move || _ = black_box(batch(runtime))))
    };
    let times = clock::run(
        ROUNDS,
        PAIRS,
        &mut [
            batch(0, Runtime::pairs::<false>),
            batch(1, Runtime::pairs::<false>),
            batch(0, Runtime::pairs::<true>),
            batch(1, Runtime::pairs::<true>),
        ],
    );
    let row = |what: &str, value, unit, target| {
        Row::new(format!("GCC's nested pointer {what}"), value, unit, target)
    };
    vec![
        row("made + dropped: libgcc", times.median(0), "ns", Target::None),
        row("made + dropped: ours", times.median(1), "ns", Target::Most(20.0)),
        row("made + called + dropped: libgcc", times.median(2), "ns", Target::None),
        row("made + called + dropped: ours", times.median(3), "ns", Target::Most(20.0)),
        row(
            "made + called + dropped: libgcc over ours",
            times.ratio(2, 3),
            "ratio",
            Target::Least(1.0),
        ),
    ]
}
