//! The program that the host matrix runs. It makes closures of every register and both entries,
//! lets something happen to itself (`--event`), makes each table grow by more than three tables
//! while another thread calls through it, drops, makes again, and moves closures between
//! threads. All that time no mapping may be writable and executable.
//!
//! ```text
//! subject [--backend text|kernel] [--growth any|duplicate|file] [--expect TEXT]
//!         [--object PATH] [--event NAME[=VALUE]] [--size small]
//! ```
//!
//! The answer is the exit status, which is there when no fd is: 0 if growing ended as `--expect`
//! says, else what `Fail` lists. Reasons go to standard error.

mod event;
mod lanes;
mod maps;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use trampfd::{Backend, Builder, Error, Growth, Unavailable};
use trampfd_text::arch;

use lanes::Lane;

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Growing ended otherwise than expected. Status 2.
    Otherwise { expected: String, said: String },
    /// A closure gave a wrong answer. Status 3.
    Wrong(String),
    /// A mapping is writable and executable. Status 4.
    WritableText(String),
    /// The test itself could not be done. Status 5.
    Setup(String),
    /// The kernel or its privileges lack what the event needs. Status 77.
    Lacks(String),
}

impl Fail {
    fn status(&self) -> i32 {
        match self {
            Fail::Otherwise { .. } => 2,
            Fail::Wrong(_) => 3,
            Fail::WritableText(_) => 4,
            Fail::Setup(_) => 5,
            Fail::Lacks(_) => 77,
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Otherwise { expected, said } => write!(f, "expected: {expected}; but: {said}"),
            Fail::Wrong(what) | Fail::Setup(what) | Fail::Lacks(what) => f.write_str(what),
            Fail::WritableText(row) => write!(f, "writable and executable: {row}"),
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    builder: Builder,
    backend: Option<Backend>,
    expect: String,
    event: String,
    object: PathBuf,
    /// On a machine that is slow, only as many closures as each way of growing needs.
    small: bool,
}

impl Options {
    fn of(mut words: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options { expect: "grew".into(), ..Options::default() };
        let (mut growth, mut builder) = (Growth::Any, Builder::new());
        while let Some(word) = words.next() {
            let value = words.next()?;
            match (&word[..], &value[..]) {
                ("--backend", "text") => options.backend = Some(Backend::Text),
                ("--backend", "kernel") => options.backend = Some(Backend::Kernel),
                ("--growth", "any") => growth = Growth::Any,
                ("--growth", "duplicate") => growth = Growth::Duplicate,
                ("--growth", "file") => growth = Growth::File,
                ("--expect", _) => options.expect = value,
                ("--size", "small") => options.small = true,
                ("--object", _) => options.object = value.into(),
                ("--event", _) => options.event = value,
                _ => return None,
            }
        }
        if let Some(backend) = options.backend {
            builder = builder.require(backend);
        }
        options.builder = builder.growth(growth);
        Some(options)
    }
}

/// Does it all; the status to exit with.
pub fn run(arguments: impl Iterator<Item = String>) -> i32 {
    let done = match Options::of(arguments) {
        Some(options) => subject(&options),
        None => Err(Fail::Setup("unknown arguments".into())),
    };
    match done {
        Ok(()) => 0,
        Err(fail) => {
            // Where standard error is gone, the status says enough.
            let _ = writeln!(io::stderr(), "subject: {fail}");
            fail.status()
        }
    }
}

/// [`run`] for C.
///
/// # Safety
///
/// `argv` holds `argc` C strings, as for main.
#[cfg(feature = "export")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_subject(argc: i32, argv: *const *const libc::c_char) -> i32 {
    let arguments = (1..argc as usize).map(|n| {
        // SAFETY: by the contract.
        let word = unsafe { std::ffi::CStr::from_ptr(*argv.add(n)) };
        word.to_string_lossy().into_owned()
    });
    run(arguments)
}

fn subject(options: &Options) -> Result<(), Fail> {
    look()?;
    let kernel = options.builder.backend().ok() == Some(Backend::Kernel);
    let mut lanes = lanes::all(kernel, options.small);
    for lane in &mut lanes {
        if let Err(error) = lane.make(&options.builder, 8) {
            return as_expected(&options.expect, &said(&error)?);
        }
    }
    check(&lanes)?;
    let caller = Caller::start(&lanes)?;
    // A child has no thread that calls; both go on with the rest.
    let child = if options.event == "fork" { fork()? } else { None };
    if child == Some(0) {
        std::mem::forget(caller);
        let status = match rest(options, &mut lanes) {
            Ok(()) => 0,
            Err(fail) => {
                let _ = writeln!(io::stderr(), "subject: child: {fail}");
                fail.status()
            }
        };
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(status) };
    }
    let rest = rest(options, &mut lanes);
    caller.stop()?;
    rest?;
    match child {
        Some(pid) => child_ended(pid),
        None => Ok(()),
    }
}

/// From the event on.
fn rest(options: &Options, lanes: &mut [Box<dyn Lane>]) -> Result<(), Fail> {
    let event = event::happen(&options.event, &options.object)?;
    let mut grown = Vec::new();
    for lane in &mut *lanes {
        let more = lane.more_than_three_tables();
        grown.push(lane.make(&options.builder, more));
    }
    drop(event);
    let mut words = Vec::new();
    for result in grown {
        words.push(match result {
            Ok(()) => "grew".to_owned(),
            Err(error) => said(&error)?,
        });
    }
    words.dedup();
    as_expected(&options.expect, &words.join(", "))?;
    let made: usize = lanes.iter().map(|lane| lane.count()).sum();
    // The table of signatures known at run time needs memory beside its own slots.
    let tables = arch::TABLES - usize::from(words.iter().any(|word| word == "NoMemory"));
    let own: usize = (0..tables).map(|n| arch::static_table(n).len).sum();
    if words.iter().any(|word| word.starts_with("growth ")) && made < own {
        return Err(Fail::Wrong(format!("only {made} of the {own} slots of the static tables")));
    }
    look()?;
    check(lanes)?;
    if options.event == "lie" {
        lanes[0].lie();
    }
    // What was freed can be had again, whatever growing said; some lanes share a table.
    let freed: Vec<usize> = lanes.iter_mut().map(|lane| lane.halve()).collect();
    lanes.iter().try_for_each(|lane| lane.cross_threads(&options.builder))?;
    for (lane, freed) in lanes.iter_mut().zip(freed) {
        lane.make(&options.builder, freed).map_err(|error| {
            Fail::Wrong(format!("{}: a freed slot cannot be had: {error:?}", lane.name()))
        })?;
    }
    check(lanes)?;
    look()
}

fn look() -> Result<(), Fail> {
    match maps::writable_text() {
        Ok(None) => Ok(()),
        Ok(Some(row)) => Err(Fail::WritableText(row)),
        Err(e) => Err(Fail::Setup(format!("cannot look at the mappings: {e}"))),
    }
}

fn check(lanes: &[Box<dyn Lane>]) -> Result<(), Fail> {
    lanes.iter().try_for_each(|lane| lane.check())
}

fn as_expected(expected: &str, said: &str) -> Result<(), Fail> {
    if said == expected {
        return Ok(());
    }
    Err(Fail::Otherwise { expected: expected.into(), said: said.into() })
}

/// An error in the words of the matrix. Each must have a text and, where the kernel refused
/// something, a source.
fn said(error: &Error) -> Result<String, Fail> {
    use std::error::Error as _;
    let io = |error: &Option<io::Error>| match error {
        None => "-".to_owned(),
        Some(e) => match e.raw_os_error() {
            Some(libc::EPERM) => "EPERM".into(),
            Some(libc::ENOENT) => "ENOENT".into(),
            Some(libc::EMFILE) => "EMFILE".into(),
            Some(libc::ENOMEM) => "ENOMEM".into(),
            Some(number) => format!("errno {number}"),
            None => format!("({e})"),
        },
    };
    let (words, has_source) = match error {
        Error::Growth { duplicate, file } => {
            (format!("growth duplicate={} file={}", io(duplicate), io(file)), true)
        }
        Error::Unavailable { reason: Unavailable::NotPresent, .. } => {
            ("unavailable NotPresent".into(), true)
        }
        Error::Unavailable { reason: Unavailable::NoexecMount, .. } => {
            ("unavailable NoexecMount".into(), true)
        }
        Error::NotText { .. } => ("NotText".into(), false),
        other => (format!("{other:?}"), false),
    };
    if error.to_string().is_empty() || has_source && error.source().is_none() {
        return Err(Fail::Wrong(format!("an error without a text: {error:?}")));
    }
    Ok(words)
}

/// The pid of the child, 0 in the child.
fn fork() -> Result<Option<i32>, Fail> {
    // SAFETY: the child uses what the library and the C library promise to a child.
    match unsafe { libc::fork() } {
        -1 => Err(Fail::Setup(format!("fork: {}", io::Error::last_os_error()))),
        pid => Ok(Some(pid)),
    }
}

fn child_ended(pid: i32) -> Result<(), Fail> {
    let mut status = 0;
    // SAFETY: waits for the child and writes its status.
    let ended = unsafe { libc::waitpid(pid, &mut status, 0) };
    if ended == pid && status == 0 {
        return Ok(());
    }
    Err(Fail::Wrong(format!("the child of fork ended with status {status:#x}")))
}

/// A thread that calls closures and looks at the mappings, all the time.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Fail>>,
}

impl Caller {
    fn start(lanes: &[Box<dyn Lane>]) -> Result<Caller, Fail> {
        let calls: Vec<_> = lanes.iter().map(|lane| lane.caller()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (started, has_started) = std::sync::mpsc::channel();
        let work = move || {
            let _ = started.send(());
            // One round at least, however busy the machine is.
            loop {
                for _ in 0..64 {
                    if !calls.iter().all(|right| right()) {
                        return Err(Fail::Wrong("a wrong answer while the table grew".into()));
                    }
                }
                // It cannot look while there is no fd to be had.
                if let Ok(Some(row)) = maps::writable_text() {
                    return Err(Fail::WritableText(row));
                }
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // On a machine with one processor the others want to get on.
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let thread = std::thread::Builder::new()
            .spawn(work)
            .map_err(|e| Fail::Setup(format!("thread: {e}")))?;
        // While a thread starts it holds a lock of Rust's standard library, without which a child
        // of fork could never start one.
        let _ = has_started.recv();
        Ok(Caller { stop, thread })
    }

    fn stop(self) -> Result<(), Fail> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(done) => done,
            Err(_) => Err(Fail::Wrong("the calling thread panicked".into())),
        }
    }
}
