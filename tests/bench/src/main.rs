//! Figures of trampfd beside its peers.
//!
//! ```text
//! trampfd-bench [--vm FILE] [--only GROUP]   everything on this machine; FILE is what --kernel
//!                                            printed in a test machine
//! trampfd-bench --kernel                     the kernel service's own figures, where it is
//! ```
//!
//! Prints a table and, where all groups ran, writes target/bench/report.json. A row whose figure could not be had has
//! no value, and does not hold.

mod arch;
mod call;
mod clock;
mod code_alloc;
mod code_asmjit;
mod code_cache;
mod code_install;
mod code_pool;
mod dynamic;
mod ffi;
mod kinds;
mod library;
mod make;
mod mapped;
mod memory;
mod nested;
mod peers;
mod process;
mod service;
mod shapes;
mod table;
mod threads;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use trampfd::Backend;

use table::Row;

/// A thread kept on one processor, until this is dropped.
struct Pinned(libc::cpu_set_t);

/// Keeps this thread on the `n`th of the processors that it may use, where there are so many.
fn pin(n: usize) -> Pinned {
    // SAFETY: sets of the size that is given.
    unsafe {
        let mut may: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&may), &mut may);
        let all = 0..libc::CPU_SETSIZE as usize;
        if let Some(cpu) = all.filter(|&cpu| libc::CPU_ISSET(cpu, &may)).nth(n) {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
        Pinned(may)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the set that was there before.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &self.0) };
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--child", ref words @ ..] => child(words),
        ["--kernel"] => {
            service::measure();
            Ok(())
        }
        _ => report(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trampfd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured in a process of its own; prints numbers.
fn child(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let backend = |name: &str| match name {
        "kernel" => Backend::Kernel,
        _ => Backend::Text,
    };
    match *words {
        ["first-million", who] => {
            let _pinned = pin(0);
            memory::first_million(who);
        }
        ["million", name] => memory::million(backend(name)),
        ["kinds", name] => memory::kinds(backend(name)),
        ["threads"] => threads::ratios(),
        ["dynamic-many", word, count] => dynamic::many(word, count.parse()?)?,
        ["dynamic-threads", word, how] => dynamic::ratio(word, how)?,
        ["code-pool", way, modules] => code_pool::run(way, modules.parse()?)?,
        ["code-install", how] => code_install::run(how)?,
        ["calls", what] => service::calls(what)?,
        ["fork"] => service::fork()?,
        ["set"] => service::set()?,
        ["hot"] => service::hot(),
        _ => Err(format!("unknown child {words:?}"))?,
    }
    Ok(())
}

/// The table.
fn report(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut vm = PathBuf::from("target/bench/vm.txt");
    let mut only = None;
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word {
            "--vm" => vm = value()?.into(),
            "--only" => only = Some(value()?),
            _ => Err(format!("unknown option {word}"))?,
        }
    }
    let service = || service::rows(&vm);
    let groups: [(&str, &dyn Fn() -> Vec<Row>); 17] = [
        ("call", &call::hot),
        ("look-up", &call::looking_up),
        ("many", &call::many),
        ("make", &make::hot),
        ("memory", &memory::rows),
        ("threads", &threads::rows),
        ("dynamic-call", &dynamic::calls),
        ("dynamic-make", &dynamic::hot),
        ("dynamic-memory", &dynamic::memory),
        ("dynamic-threads", &dynamic::threads),
        ("nested", &nested::rows),
        ("code-alloc", &code_alloc::rows),
        ("code-pool", &code_pool::rows),
        ("code-cache", &code_cache::rows),
        ("code-threads", &code_alloc::threads),
        ("code-install-threads", &code_install::rows),
        ("kernel", &service),
    ];
    let mut rows = Vec::new();
    for (name, group) in groups {
        if only.is_none_or(|&only| only == name) {
            // What runs in threads of its own chooses its processors itself.
            let _pinned = (!name.ends_with("threads")).then(|| pin(0));
            for row in group() {
                table::print(&row);
                rows.push(row);
            }
        }
    }
    let missed = rows.iter().filter(|row| row.holds() == Some(false)).count();
    let held = rows.iter().filter(|row| row.holds() == Some(true)).count();
    println!("{held} targets hold, {missed} do not");
    if only.is_none() {
        std::fs::create_dir_all("target/bench")?;
        std::fs::write("target/bench/report.json", table::json(&rows))?;
    }
    Ok(())
}
