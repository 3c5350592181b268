//! A cached batch of 64 KiB, loaded and called, beside what mapping its file takes.

use std::collections::HashMap;
use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use trampfd_code::cache::{self, Cache, Code, Compiler, Event, Failure, Happened, Key, Options};

use crate::arch;
use crate::clock;
use crate::table::{Row, Target};

const ROUNDS: usize = 2_000;
/// Methods of the batch: one that calls 7, which call 8 each.
const METHODS: usize = 64;
/// Bytes of code of a method.
const METHOD: usize = 1_024;
/// What the first of them returns.
const RESULT: u32 = 0x7e57_c0de;

/// Compiles those methods.
struct Sample {
    keys: Vec<Key>,
    methods: HashMap<Key, usize>,
}

impl Sample {
    fn new() -> Sample {
        let keys: Vec<_> =
            (0..METHODS).map(|method| Key::of(&[b"sample", &method.to_le_bytes()])).collect();
        let methods = keys.iter().enumerate().map(|(method, key)| (*key, method)).collect();
        Sample { keys, methods }
    }
}

impl Compiler for Sample {
    type Method = usize;

    fn key(&self, method: usize) -> Key {
        self.keys[method]
    }

    fn find(&self, key: &Key) -> Option<usize> {
        self.methods.get(key).copied()
    }

    fn helper(&self, _: &str) -> Option<*const u8> {
        None
    }

    fn compile(&mut self, method: usize, code: &mut Code<'_, usize>) -> Result<(), Failure> {
        code.emit(&arch::returns(RESULT + method as u32));
        let called = match method {
            0 => 1..8,
            1..8 => method * 8..method * 8 + 8,
            _ => 0..0,
        };
        for method in called {
            code.call(method);
        }
        // No two methods, and no two batches, have the same bytes.
        while code.len() + 8 <= METHOD {
            code.emit(&((method * METHOD + code.len()) as u64).to_le_bytes());
        }
        let rest = METHOD - code.len();
        code.emit(&[0; 8][..rest]);
        Ok(())
    }

    fn failed(_: cache::Error) -> *const u8 {
        std::process::abort()
    }
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn call(code: *const u8) {
    // SAFETY: code of `Sample`'s first method.
    let f = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> u32>(code) };
    assert_eq!(f(), RESULT);
}

/// Maps a file of `len` bytes and calls what is at `at` in it: the least that there is to do.
fn floor(path: &CString, len: usize, at: usize) {
    // SAFETY: a file of ours, and a mapping that nobody else knows.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let mut stat = std::mem::zeroed();
        assert_eq!(libc::fstat(fd, &mut stat), 0);
        assert_eq!(stat.st_size as usize, len);
        let prot = libc::PROT_READ | libc::PROT_EXEC;
        let map = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE, fd, 0);
        assert_ne!(map, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        libc::close(fd);
        call(map.cast::<u8>().add(at));
        libc::munmap(map, len);
    }
}

/// Microseconds.
fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / 1e3
}

fn open(folder: &Path, sample: Sample) -> Cache<Sample> {
    Cache::open(folder, sample, Options::default()).expect("a cache")
}

/// Has the batch mapped, calls its first method, and unmaps it.
fn load(cache: &Cache<Sample>) {
    call(cache.get(0).expect("a method"));
    // SAFETY: nothing of it runs, and what did will not be called again.
    unsafe { cache.unload() };
}

/// Whether all that happened is that files were mapped that were there, and were known or not.
fn loaded(cache: &Cache<Sample>, known: bool) -> bool {
    let events = cache.take_events();
    let as_wanted =
        |event: &Event| matches!(event.what, Happened::Loaded { known: it, .. } if it == known);
    !events.is_empty() && events.iter().all(as_wanted)
}

/// The file of the batch, and where its first method is.
fn file(folder: &Path) -> Result<(PathBuf, usize, usize), Box<dyn Error>> {
    let code = arch::returns(RESULT);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        if let Some(at) = bytes.windows(code.len()).position(|window| window == code) {
            return Ok((path, bytes.len(), at));
        }
    }
    Err("no file has the batch".into())
}

fn measure() -> Result<Vec<Row>, Box<dyn Error>> {
    let folder = Folder(std::env::temp_dir().join(format!("trampfd-bench-{}", std::process::id())));
    let path = &folder.0;
    load(&open(path, Sample::new()));
    let (file, len, at) = file(path)?;
    let name = CString::new(file.as_os_str().as_bytes())?;

    let known = open(path, Sample::new());
    load(&known);
    known.take_events();
    let times = clock::turns(
        ROUNDS,
        &mut [
            Box::new(|| time(|| floor(&name, len, at))),
            Box::new(|| time(|| load(&known))),
            Box::new(|| {
                let cache = open(path, Sample::new());
                let took = time(|| load(&cache));
                assert!(loaded(&cache, false));
                took
            }),
            Box::new(|| {
                let sample = Sample::new();
                time(|| load(&open(path, sample)))
            }),
        ],
    );
    if !loaded(&known, true) {
        return Err("the file was not known".into());
    }
    let row = |what: &str, value, unit, target| {
        Row::new(
            format!("code: load a cached batch of 64 KiB and call it: {what}"),
            value,
            unit,
            target,
        )
    };
    Ok(vec![
        row("map the file and call, the floor", times.median(0), "us", Target::None),
        row("a known file", times.median(1), "us", Target::None),
        row("a known file, over the floor", times.ratio(1, 0), "ratio", Target::Most(1.5)),
        row("a file to be hashed", times.median(2), "us", Target::Most(60.0)),
        row("the same, opening the cache too", times.median(3), "us", Target::None),
        row("bytes of its file", len as f64, "B", Target::None),
    ])
}

/// The rows.
pub fn rows() -> Vec<Row> {
    measure().unwrap_or_else(|error| {
        eprintln!("code: cache: {error}");
        let name = "code: load a cached batch of 64 KiB and call it: ";
        let row =
            |what: &str, unit, target| Row::new(format!("{name}{what}"), f64::NAN, unit, target);
        vec![
            row("a known file, over the floor", "ratio", Target::Most(1.5)),
            row("a file to be hashed", "us", Target::Most(60.0)),
        ]
    })
}
