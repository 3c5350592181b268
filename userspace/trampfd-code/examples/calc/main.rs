//! calc: a small language, compiled to machine code where nothing that is or was writable may be
//! executed, and compiled once: the next start finds the code in files.
//!
//! ```text
//! cargo run --release -p trampfd-code --example calc -- [OPTION] FILE [NUMBER..]
//!     --cache DIR      where code is kept; without it, calc-cache below the user's caches
//!     --no-cache       code is kept nowhere: compiled anew in each start
//!     --interpret      no code is made
//! ```
//!
//! Programs are in `programs`; the grammar is in `parser`. All values are integers of 64 bits.
//!
//! ```text
//!  FILE ─► lexer ─► parser ─► checker ─► tree ─┬─► interpreter
//!                                              └─► compiler ─► trampfd_code::cache ─► files
//!                                                     │               │
//!                                                   arch: dynasm    mapped R-X, called
//! ```
//!
//! How the cache is used is in [`compiled`] below, and in `compiler`.

mod arch;
mod checker;
mod compiler;
mod interpreter;
mod lexer;
mod parser;
mod runtime;
#[cfg(test)]
mod tests;
mod tree;

use std::error::Error;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use compiler::Calc;
use runtime::Fault;
use trampfd_code::cache::{self, Cache, Event, Happened, Stats};
use tree::Program;

fn main() -> ExitCode {
    // Before anything else, and it cannot be taken back.
    if let Err(error) = refuse_exec_gain() {
        eprintln!("calc: this system does not keep writable memory from being executed: {error}");
    }
    match command(env::args_os().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("calc: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  {error}");
                source = error.source();
            }
            ExitCode::from(2)
        }
    }
}

/// From now on no memory of this process that is or was writable becomes executable.
fn refuse_exec_gain() -> io::Result<()> {
    const PR_SET_MDWE: i32 = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: takes rights away, nothing else.
    match unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn command(
    arguments: impl Iterator<Item = std::ffi::OsString>,
) -> Result<ExitCode, Box<dyn Error>> {
    const USAGE: &str = "usage: calc [--cache DIR | --no-cache | --interpret] FILE [NUMBER..]";
    let mut arguments = arguments.peekable();
    let option = arguments.next_if(|word| word.to_string_lossy().starts_with("--"));
    let mut folder = usual_folder();
    let (mut keep, mut interpret) = (true, false);
    match option.as_ref().map(|word| word.to_string_lossy()).as_deref() {
        None => (),
        Some("--cache") => folder = arguments.next().map(PathBuf::from).ok_or(USAGE)?,
        Some("--no-cache") => {
            keep = false;
            folder = env::temp_dir().join(format!("calc-{}", std::process::id()));
        }
        Some("--interpret") => interpret = true,
        Some(_) => return Err(USAGE.into()),
    }
    let file = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let numbers: Result<Vec<i64>, _> =
        arguments.map(|word| word.to_string_lossy().parse::<i64>()).collect();
    let numbers = numbers.map_err(|error| format!("{error}\n{USAGE}"))?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let program = program(&text).map_err(|error| format!("{}, {error}", file.display()))?;
    let (main, program) = (entry(&program, &numbers)?, Arc::new(program));

    let mut output = io::BufWriter::new(io::stdout());
    let result = if interpret {
        let result = interpreter::run(&program, main, &numbers, u64::MAX, &mut output);
        result.expect("nobody waits for so many steps")
    } else {
        make_folder(&folder)?;
        let ran = compiled(&program, main, &numbers, &folder, &mut output);
        let removed = if keep { Ok(()) } else { fs::remove_dir_all(&folder) };
        let ran = ran?;
        removed.map_err(|error| format!("{}: {error}", folder.display()))?;
        report(&ran, &mut io::stderr())?;
        ran.result
    };
    output.flush()?;
    Ok(match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("calc: {}", place(&program, &fault));
            ExitCode::FAILURE
        }
    })
}

fn program(text: &str) -> Result<Program, lexer::Error> {
    let mut program = parser::parse(text)?;
    checker::check(&mut program)?;
    Ok(program)
}

/// The function main, if it takes these numbers.
fn entry(program: &Program, numbers: &[i64]) -> Result<usize, String> {
    let main = program.find("main").expect("the checker has seen main");
    let (want, have) = (program.functions[main].parameters.len(), numbers.len());
    if want == have { Ok(main) } else { Err(format!("main takes {want} numbers, not {have}")) }
}

/// What came out of a program, and of the cache.
struct Ran {
    result: Result<i64, Fault>,
    /// What happened to each batch, with the name of the function that it begins with.
    events: Vec<(String, Event)>,
    stats: Stats,
    /// Until the code of main was there, and of the whole run.
    times: [Duration; 2],
}

/// Runs a program from the cache in `folder`. What is not in there is compiled when it is called
/// first, with what it calls, two levels deep; what is there is mapped and called.
fn compiled(
    program: &Arc<Program>,
    main: usize,
    numbers: &[i64],
    folder: &Path,
    output: &mut (dyn Write + Send),
) -> Result<Ran, cache::Error> {
    let start = Instant::now();
    let mut options = cache::Options::default();
    options.version = compiler::version();
    let cache = Cache::open(folder, Calc::new(program.clone()), options)?;

    let code = cache.get(main)?;
    let until_main = start.elapsed();
    // SAFETY: code of main, by our compiler; the caller has counted its arguments.
    let result = unsafe { runtime::run(code, numbers, output) };
    let times = [until_main, start.elapsed()];

    let stats = cache.stats();
    let events = cache.take_events();
    let events = cache.with_compiler(|calc| {
        events.into_iter().map(|event| (calc.name(&event.root).to_owned(), event)).collect()
    })?;
    Ok(Ran { result, events, stats, times })
}

fn report(ran: &Ran, to: &mut dyn Write) -> io::Result<()> {
    for (name, event) in &ran.events {
        match &event.what {
            Happened::Loaded { methods, .. } => {
                writeln!(to, "calc: loaded {name} and {} more", methods - 1)?;
            }
            Happened::Compiled { methods } => {
                writeln!(to, "calc: compiled {name} and {} more", methods - 1)?;
            }
            Happened::Ignored(reason) => writeln!(to, "calc: file of {name}: {reason}")?,
            other => writeln!(to, "calc: {name}: {other:?}")?,
        }
    }
    let (stats, [main, all]) = (&ran.stats, ran.times);
    writeln!(
        to,
        "calc: {} functions compiled; {} batches loaded, {} compiled; main was there after \
         {main:.1?}, everything took {all:.1?}",
        stats.methods_compiled, stats.loaded, stats.compiled
    )
}

/// A fault, with its line in the file.
fn place(program: &Program, fault: &Fault) -> String {
    match program.find(&fault.function) {
        Some(index) => {
            let line = program.functions[index].line + fault.line as usize;
            format!("line {line}, in {}: {}", fault.function, fault.what)
        }
        None => fault.what.to_string(),
    }
}

/// Variables that are no absolute paths count as not set.
fn usual_folder() -> PathBuf {
    let path = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
    caches.unwrap_or_else(env::temp_dir).join("calc-cache")
}

/// The cache makes its own folder, but not those it is in.
fn make_folder(folder: &Path) -> Result<(), String> {
    let parents = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(parents) = parents else { return Ok(()) };
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(parents);
    made.map_err(|error| format!("{}: {error}", parents.display()))
}
