//! Boots each kernel and reports what its machine said.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::initramfs;
use crate::kernel::{Kernel, Kernels, Recipe};
use crate::module;
use crate::options::Options;
use crate::process::Lock;
use crate::qemu::Machine;
use crate::verdict::{Outcome, Report, Row};
use crate::{Places, source_of};

/// Runs every kernel of `recipes` and prints and stores each test's result.
/// False where any test failed.
pub fn run_all(
    places: &Places,
    kernels: &Kernels,
    recipes: &[&Recipe],
    options: &Options,
) -> Result<bool> {
    let init = {
        let _lock = Lock::of(&places.cache)?;
        initramfs::build_init(&places.repository, &places.cache)?
    };
    let mut table = String::from("kernel\ttest\toutcome\treason\n");
    let mut totals = String::new();
    let mut good = true;
    for recipe in recipes {
        let name = &recipe.name;
        let (release, report) = match run_one(places, kernels, recipe, options, &init) {
            Ok(ran) => ran,
            Err(e) => {
                let row = Row::machine("run", e.to_string());
                ("not run".to_owned(), Report { rows: vec![row], lines: Vec::new() })
            }
        };
        for line in &report.lines {
            println!("{line}");
        }
        for Row { outcome, program, test, reason } in &report.rows {
            let word = outcome.word();
            let mark = if reason.is_empty() { "" } else { " # " };
            println!("{word} {name} {program}: {test}{mark}{reason}");
            let flat = reason.replace(['\t', '\n', '\r'], " ");
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name}\t{program}: {test}\t{word}\t{flat}");
        }
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|o| report.count(o));
        good &= failed == 0;
        let _ = writeln!(
            totals,
            "vm {name} {release}: {passed} passed, {failed} failed, {skipped} skipped"
        );
    }
    let results = options.results.clone().unwrap_or_else(|| places.cache.join("results.tsv"));
    fs::write(&results, table).context(|| results.display().to_string())?;
    print!("{totals}");
    Ok(good)
}

/// Runs one kernel in a folder of its own, and returns its release and report.
fn run_one(
    places: &Places,
    kernels: &Kernels,
    recipe: &Recipe,
    options: &Options,
    init: &Path,
) -> Result<(String, Report)> {
    let lock = Lock::of(&places.cache.join(&recipe.name))?;
    let kernel = kernels.prepare(recipe, &places.cache, false)?;
    let archive = pack(places, &kernel, options, init)?;
    drop(lock);
    let (dir, _own) = free_folder(&kernel.dir)?;
    let initramfs = dir.join("initramfs");
    fs::write(&initramfs, archive).context(|| initramfs.display().to_string())?;
    let machine = Machine {
        kernel: &kernel.image()?,
        initramfs: &initramfs,
        dir: &dir,
        append: &options.append,
        icount: options.icount,
        limit: Duration::from_secs(options.timeout.unwrap_or(1800)),
        show_console: options.console,
    };
    let start = Instant::now();
    let report = machine.run()?;
    let seconds = start.elapsed().as_secs_f32();
    println!("# {}: {seconds:.1} s, console in {}", recipe.name, machine.console().display());
    Ok((kernel.release, report))
}

/// The first of `run-1`, `run-2`, .. that no other run holds.
fn free_folder(kernel: &Path) -> Result<(PathBuf, Lock)> {
    for number in 1.. {
        let dir = kernel.join(format!("run-{number}"));
        if let Some(lock) = Lock::try_of(&dir)? {
            return Ok((dir, lock));
        }
    }
    Err(Error::new("no number left for a run"))
}

/// PID 1, the module, the stock modules and the tests; `vm.conf` tells PID 1
/// which of them this run is about.
fn pack(places: &Places, kernel: &Kernel, options: &Options, init: &Path) -> Result<Vec<u8>> {
    let mut archive = initramfs::Archive::new();
    let read = |path: &Path| fs::read(path).context(|| path.display().to_string());
    archive.file("init", 0o755, &read(init)?);
    let mut conf = String::new();
    let mut set = |key: &str, value: &str| {
        if value.contains('\n') {
            return Err(Error::new(format!("{key} is one line")));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(conf, "{key}={value}");
        Ok(())
    };
    set("limit", &options.limit.unwrap_or(300).to_string())?;
    for (key, value) in [("filter", &options.filter), ("exec", &options.exec)] {
        if let Some(value) = value {
            set(key, value)?;
        }
    }
    if options.init_only {
        set("init-only", "1")?;
    }
    if !options.no_module {
        let module = match &options.module {
            Some(module) => module.clone(),
            None => {
                let module = kernel.dir.join("trampfd.ko");
                if let Some(newer) = module::newer_source(&source_of(places, options), &module) {
                    eprintln!("note: {} is newer than {}", newer.display(), module.display());
                }
                module
            }
        };
        archive.file("trampfd.ko", 0o644, &read(&module)?);
        set("module", "/trampfd.ko")?;
    }
    archive.folder("modules", 0o755);
    for (name, data) in initramfs::modules(kernel)? {
        let path = format!("modules/{name}.ko");
        archive.file(&path, 0o644, &data);
        set("stock-module", &format!("/{path}"))?;
    }
    archive.file("vm.conf", 0o644, conf.as_bytes());
    let tree = options.tree.clone().unwrap_or_else(|| places.cache.join("guest"));
    if tree.is_dir() {
        archive.tree(&tree, "")?;
    }
    Ok(archive.finish())
}
