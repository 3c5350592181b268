//! A compiler for tests: methods are numbers, and add up what they call.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use trampfd_code::cache::{Cache, Code, Compiler, Error, Event, Failure, Happened, Key, Options};

use super::machine;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Returns the value and the results of the methods.
    Sum(i32, Vec<u32>),
    /// Returns what the helper returns.
    Helper(&'static str),
    /// Calls the method in its place.
    PassOn(u32),
    Nothing,
    /// Cannot be compiled.
    Wrong,
    /// Makes the compiler panic.
    Panic,
    /// So many bytes; none: cannot be compiled.
    Long(usize),
}

/// A program and its compiler.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub methods: BTreeMap<u32, Body>,
    pub compiled: Arc<AtomicUsize>,
    pub slow: Duration,
    pub no_helpers: bool,
    pub bad_distance: bool,
}

pub const CONSTANT: i32 = 1000;

extern "C" fn twelve() -> i32 {
    12
}

/// What was called in place of a method that cannot be compiled.
pub extern "C" fn instead() -> i32 {
    -7
}

pub static FAILURES: AtomicU32 = AtomicU32::new(0);

impl Program {
    /// A sum of 1 each: the method, then what it calls.
    pub fn of(methods: &[(u32, &[u32])]) -> Program {
        let sum = |calls: &[u32]| Body::Sum(1, calls.into());
        let methods = methods.iter().map(|(m, calls)| (*m, sum(calls))).collect();
        Program { methods, ..Program::default() }
    }

    pub fn with(mut self, method: u32, body: Body) -> Program {
        self.methods.insert(method, body);
        self
    }

    /// What the method returns.
    pub fn value(&self, method: u32) -> i32 {
        match &self.methods[&method] {
            Body::Sum(value, calls) => {
                value + CONSTANT + calls.iter().map(|&m| self.value(m)).sum::<i32>()
            }
            Body::Helper(_) => 12,
            Body::PassOn(to) => self.value(*to),
            Body::Wrong | Body::Panic | Body::Long(0) => instead(),
            Body::Nothing | Body::Long(_) => 0,
        }
    }

    pub fn key_of(&self, method: u32) -> Key {
        let body = format!("{:?}", self.methods[&method]);
        let mut key = Key::of(&[body.as_bytes()]);
        // So that it is found without a search.
        key.0[..4].copy_from_slice(&method.to_le_bytes());
        key
    }
}

impl Compiler for Program {
    type Method = u32;

    fn key(&self, method: u32) -> Key {
        self.key_of(method)
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let method = u32::from_le_bytes(*key.0.first_chunk()?);
        (self.methods.contains_key(&method) && self.key_of(method) == *key).then_some(method)
    }

    fn helper(&self, name: &str) -> Option<*const u8> {
        (name == "twelve" && !self.no_helpers).then_some(twelve as *const u8)
    }

    fn compile(&mut self, method: u32, code: &mut Code<'_, u32>) -> Result<(), Failure> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.slow);
        match &self.methods[&method] {
            Body::Sum(value, calls) => {
                let slots: Vec<_> = calls.iter().map(|&m| code.call(m)).collect();
                machine::sum(code, *value, CONSTANT, &slots);
            }
            Body::Helper(name) => {
                let slot = code.helper(name);
                machine::pass_on(code, slot);
            }
            Body::PassOn(to) => {
                let slot = code.call(*to);
                machine::pass_on(code, slot);
            }
            Body::Nothing => machine::nothing(code),
            Body::Wrong => {
                // What it has emitted until here must not stay.
                code.call(method);
                code.constant(&[9; 32]);
                code.emit(&[0xcc; 5]);
                return Err("no such thing".into());
            }
            Body::Panic => panic!("a compiler that panics, for a test"),
            Body::Long(0) => {}
            Body::Long(len) => {
                machine::nothing(code);
                code.emit(&vec![0x90; *len - 1]);
            }
        }
        if self.bad_distance {
            let (len, slot) = (code.len(), code.call(method));
            code.fix(len - 3, slot, 0);
        }
        Ok(())
    }

    fn failed(_: Error) -> *const u8 {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        instead as *const u8
    }
}

/// A folder that is gone when it is dropped. Its name does not depend on the process, if asked.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("trampfd-cache-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    pub fn open(&self, program: &Program) -> Cache<Program> {
        open(&self.0, program)
    }

    pub fn file(&self, program: &Program, root: u32) -> PathBuf {
        self.0.join(format!("{}.code", program.key_of(root)))
    }

    /// None of its files was used for long.
    pub fn forget_uses(&self) {
        let times = FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        for name in self.names() {
            File::open(self.0.join(name)).unwrap().set_times(times).unwrap();
        }
    }

    /// Names in it.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn open(dir: &Path, program: &Program) -> Cache<Program> {
    Cache::open(dir, program.clone(), Options::default()).unwrap()
}

/// Compiles or loads a method, and runs it.
pub fn run(cache: &Cache<Program>, method: u32) -> i32 {
    let address = cache.get(method).unwrap();
    call(address)
}

pub fn call(address: *const u8) -> i32 {
    // SAFETY: tests call methods that return numbers, of caches that are there.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(address)() }
}

/// Which of the program's methods are compiled.
pub fn compiled(cache: &Cache<Program>, program: &Program) -> Vec<u32> {
    program.methods.keys().copied().filter(|&m| cache.compiled(m).is_some()).collect()
}

/// Events in short: "loaded", "known", "compiled", "ignored: ..", "evicted" and "untidied: ..".
pub fn events(cache: &Cache<Program>) -> Vec<String> {
    let text = |event: Event| match event.what {
        Happened::Loaded { known: true, .. } => "known".into(),
        Happened::Loaded { .. } => "loaded".into(),
        Happened::Compiled { .. } => "compiled".into(),
        Happened::Ignored(reason) => format!("ignored: {reason}"),
        Happened::Evicted => "evicted".into(),
        Happened::Untidied(error) => format!("untidied: {error}"),
        _ => "?".into(),
    };
    cache.take_events().into_iter().map(text).collect()
}
