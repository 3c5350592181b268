//! Boots stock kernels in QEMU with the module and the tests, and reads their
//! verdict.
//!
//! | file | knows |
//! |---|---|
//! | `kernel.rs`, `apt.rs` | where kernels come from |
//! | `module.rs` | how the module is built for one |
//! | `initramfs.rs` | what the machine starts with |
//! | `qemu.rs` | how it is started and stopped |
//! | `verdict.rs` | what it said |

mod apt;
mod error;
mod files;
mod initramfs;
mod kernel;
mod module;
mod process;
mod qemu;
mod verdict;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use error::{Context, Error, Result};
use kernel::{Kernel, Kernels, Recipe};
use process::Lock;
use verdict::{Outcome, Report, Row};

const USAGE: &str = "\
vm-runner prepare [NAME..] [--refresh]
    fetch the kernels of kernels.toml (all, or those named here or in VM_KERNELS)
vm-runner module [NAME..] [--source DIR] [--out FILE]
    build the kernel module for each, into target/vm/NAME/trampfd.ko
vm-runner run [NAME..] [options]
    boot each and run the programs of target/vm/root/tests in it
        --filter TEXT    only programs whose name contains TEXT
        --exec 'CMD ARG..'  run this instead of the tests and show what it says
        --init-only      only what PID 1 itself checks
        --no-module      without the module (policy tests of the text backend)
        --module FILE    this module instead of target/vm/NAME/trampfd.ko
        --tree DIR       this instead of target/vm/root
        --append TEXT    add to the kernel's command line
        --icount         one instruction is one nanosecond
        --limit SECONDS  for one program (300)
        --timeout SECONDS  for one machine (1800)
        --console        show the console as it comes
";

#[derive(Debug, Default)]
struct Options {
    names: Vec<String>,
    refresh: bool,
    source: Option<PathBuf>,
    out: Option<PathBuf>,
    filter: Option<String>,
    exec: Option<String>,
    init_only: bool,
    no_module: bool,
    module: Option<PathBuf>,
    tree: Option<PathBuf>,
    append: String,
    icount: bool,
    limit: Option<u64>,
    timeout: Option<u64>,
    console: bool,
}

impl Options {
    fn of(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or_else(|| Error::new(format!("{word} wants a value\n\n{USAGE}")))
            };
            let seconds = |text: String| text.parse().context(|| format!("{word} {text}"));
            match word.as_str() {
                "--refresh" => options.refresh = true,
                "--source" => options.source = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                "--filter" => options.filter = Some(value()?),
                "--exec" => options.exec = Some(value()?),
                "--init-only" => options.init_only = true,
                "--no-module" => options.no_module = true,
                "--module" => options.module = Some(value()?.into()),
                "--tree" => options.tree = Some(value()?.into()),
                "--append" => options.append = value()?,
                "--icount" => options.icount = true,
                "--limit" => options.limit = Some(seconds(value()?)?),
                "--timeout" => options.timeout = Some(seconds(value()?)?),
                "--console" => options.console = true,
                name if name.starts_with('-') => {
                    return Err(Error::new(format!("unknown option {name}\n\n{USAGE}")));
                }
                name => options.names.push(name.to_owned()),
            }
        }
        if options.names.is_empty() {
            let named = std::env::var("VM_KERNELS").unwrap_or_default();
            options
                .names
                .extend(named.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()));
        }
        Ok(options)
    }
}

/// Where things are; all of it follows from the repository's place.
#[derive(Debug)]
struct Places {
    repository: PathBuf,
    cache: PathBuf,
}

impl Places {
    fn new() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let repository = here.canonicalize().context(|| here.display().to_string())?;
        let cache = repository.join("target/vm");
        fs::create_dir_all(&cache).context(|| cache.display().to_string())?;
        Ok(Self { repository, cache })
    }
}

fn main() -> ExitCode {
    match try_main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("vm-runner: {e}");
            ExitCode::FAILURE
        }
    }
}

/// False where something was found wrong that has been said already.
fn try_main() -> Result<bool> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let options = Options::of(words)?;
    let places = Places::new()?;
    let kernels = Kernels::read(&places.repository.join("vm-tests/kernels.toml"))?;
    let recipes = kernels.named(&options.names)?;
    match verb.as_str() {
        "prepare" => Ok(each(&recipes, |recipe| {
            let _lock = lock(&places, recipe)?;
            let kernel = kernels.prepare(recipe, &places.cache, options.refresh)?;
            println!("kernel {} is {} ({})", recipe.name, kernel.release, kernel.version);
            Ok(())
        })),
        "module" => Ok(each(&recipes, |recipe| {
            let _lock = lock(&places, recipe)?;
            let kernel = kernels.prepare(recipe, &places.cache, false)?;
            let out = options.out.clone().unwrap_or_else(|| kernel.dir.join("trampfd.ko"));
            // Where the build fails, no run may take an older module for it.
            files::remove_if_any(&out)?;
            let start = Instant::now();
            let built = module::build(&kernel, &source_of(&places, &options))?;
            fs::copy(&built, &out).context(|| out.display().to_string())?;
            let seconds = start.elapsed().as_secs_f32();
            println!("module for {}: {} ({seconds:.1} s)", kernel.release, out.display());
            Ok(())
        })),
        "run" => run_all(&places, &kernels, &recipes, &options),
        _ => Err(Error::new(format!("what to do?\n\n{USAGE}"))),
    }
}

fn source_of(places: &Places, options: &Options) -> PathBuf {
    options.source.clone().unwrap_or_else(|| places.repository.join("kernel-module"))
}

/// Does `work` for every kernel, also after one has failed.
fn each(recipes: &[&Recipe], work: impl Fn(&Recipe) -> Result<()>) -> bool {
    let mut good = true;
    for recipe in recipes {
        if let Err(e) = work(recipe) {
            eprintln!("vm-runner: {e}");
            good = false;
        }
    }
    good
}

fn lock(places: &Places, recipe: &Recipe) -> Result<Lock> {
    let dir = places.cache.join(&recipe.name);
    fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
    Lock::of(&dir)
}

fn run_all(
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
        let start = Instant::now();
        let mut release = "not there".to_owned();
        let report =
            run_one(places, kernels, recipe, options, &init, &mut release).unwrap_or_else(|e| {
                Report { rows: vec![Row::machine("run", e.to_string())], lines: Vec::new() }
            });
        let name = &recipe.name;
        for line in &report.lines {
            println!("{line}");
        }
        for row in &report.rows {
            let reason = if row.reason.is_empty() { "" } else { " # " };
            println!(
                "{} {name} {}: {}{reason}{}",
                row.outcome.word(),
                row.program,
                row.test,
                row.reason
            );
            let flat = row.reason.replace(['\t', '\n', '\r'], " ");
            let word = row.outcome.word();
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name}\t{}: {}\t{word}\t{flat}", row.program, row.test);
        }
        let count = |outcome| report.count(outcome);
        let failed = count(Outcome::Failed);
        good &= failed == 0;
        let _ = writeln!(
            totals,
            "vm {name} {release}: {} passed, {failed} failed, {} skipped",
            count(Outcome::Passed),
            count(Outcome::Skipped),
        );
        let console = places.cache.join(name).join("console.log");
        println!(
            "# {name}: {:.1} s, console in {}",
            start.elapsed().as_secs_f32(),
            console.display()
        );
    }
    let results = places.cache.join("results.tsv");
    fs::write(&results, table).context(|| results.display().to_string())?;
    print!("{totals}");
    Ok(good)
}

fn run_one(
    places: &Places,
    kernels: &Kernels,
    recipe: &Recipe,
    options: &Options,
    init: &Path,
    release: &mut String,
) -> Result<Report> {
    let _lock = lock(places, recipe)?;
    let kernel = kernels.prepare(recipe, &places.cache, false)?;
    release.clone_from(&kernel.release);
    let initramfs = kernel.dir.join("initramfs");
    let archive = pack(places, &kernel, options, init)?;
    fs::write(&initramfs, archive).context(|| initramfs.display().to_string())?;
    let machine = qemu::Machine {
        kernel: &kernel.image()?,
        initramfs: &initramfs,
        dir: &kernel.dir,
        append: &options.append,
        icount: options.icount,
        limit: Duration::from_secs(options.timeout.unwrap_or(1800)),
        show_console: options.console,
    };
    machine.run()
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
    let tree = options.tree.clone().unwrap_or_else(|| places.cache.join("root"));
    if tree.is_dir() {
        archive.tree(&tree, "")?;
    }
    Ok(archive.finish())
}
