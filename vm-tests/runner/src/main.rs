//! Boots stock kernels in QEMU with the module and the tests, and reads their
//! verdict.
//!
//! | file | knows |
//! |---|---|
//! | `kernel.rs` | where kernels come from, by the crate `vm-fetch` |
//! | `module.rs` | how the module is built for one |
//! | `initramfs.rs` | what the machine starts with |
//! | `qemu.rs` | how it is started and stopped |
//! | `verdict.rs` | what it said |
//! | `run.rs` | all of that, one kernel after the other |

mod initramfs;
mod kernel;
mod module;
mod options;
mod qemu;
mod run;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use vm_fetch::{apt, error, files, process};

use error::{Context, Error, Result};
use kernel::{Kernels, Recipe};
use options::{Options, USAGE};
use process::Lock;

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
            let _lock = Lock::of(&places.cache.join(&recipe.name))?;
            let kernel = kernels.prepare(recipe, &places.cache, options.refresh)?;
            println!("kernel {} is {} ({})", recipe.name, kernel.release, kernel.version);
            Ok(())
        })),
        "module" => Ok(each(&recipes, |recipe| {
            let _lock = Lock::of(&places.cache.join(&recipe.name))?;
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
        "run" => run::run_all(&places, &kernels, &recipes, &options),
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
