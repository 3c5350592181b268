//! libffi's own suite, out of the crate `libffi-sys`: each program is compiled once, against that
//! libffi, and run with every library.
//!
//! The programs are those that its `.exp` files make of the sources: every file at -O0 and -O2,
//! and once more for the Windows convention where it asks for ABI_NUM; the two files of bhaible
//! for each number of DGTEST.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use regex_lite::Regex;
use vm_fetch::error::{Context, Error, Result};
use vm_fetch::process::{self, output};

use crate::arch::{CONVENTIONS, LIBFFI_PROGRAMS};
use crate::dg;
use crate::places::{Places, list};
use crate::report::{Outcome, Report, Results, passed};
use crate::row::{POLICIES, Suite, Way, binds, rows, stops, under, works};
use crate::work::{self, each};

/// About half of the programs make closures; with a library that writes code these fail where
/// that is forbidden.
const STOPPED: usize = 300;
/// At most so many want a newer libffi than this machine's release has.
const MISSING: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);
const FOLDERS: [&str; 6] = ["call", "closures", "complex", "go", "threads", "bhaible"];
const OPTIMISATIONS: [&str; 2] = ["-O0", "-O2"];
/// File and highest DGTEST.
const NUMBERED: [(&str, u32); 2] = [("test-call.c", 81), ("test-callback.c", 80)];
/// Raised when the way in which programs are built changes.
const RECIPE: u32 = 1;

/// One program, and what it must print.
struct Program {
    name: String,
    source: PathBuf,
    words: Vec<String>,
    expects: Option<Regex>,
    file: PathBuf,
}

impl Program {
    /// Where it says why it could not be compiled.
    fn error(&self) -> PathBuf {
        let mut path = self.file.clone().into_os_string();
        path.push(".error");
        path.into()
    }
}

/// The suite and where its programs run.
struct Programs<'a> {
    places: &'a Places,
    title: String,
    programs: Vec<Program>,
}

/// The crate's libffi, as its authors would build it.
pub struct Vendored {
    pub version: String,
    pub sources: PathBuf,
    pub build: PathBuf,
}

impl Vendored {
    /// Configures and makes it, once.
    pub fn build(places: &Places) -> Result<Vendored> {
        let (package, package_version) = places.crate_sources("libffi-sys")?;
        let sources = package.join("libffi");
        let configure = sources.join("configure");
        let text = fs::read_to_string(&configure).context(|| configure.display().to_string())?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("PACKAGE_VERSION='")?.strip_suffix('\''))
            .ok_or_else(|| Error::new("libffi's configure names no version"))?
            .to_owned();
        let key = format!("{RECIPE} {package_version} {version} {}", compilers()?);
        let build = places.once("libffi-build", &key, |dir| {
            process::run(
                Command::new(&configure)
                    .args(["--disable-static", "--disable-docs", "-q"])
                    .current_dir(dir),
            )?;
            process::run(Command::new("make").args(["-s", "-j4"]).current_dir(dir)).map(drop)
        })?;
        Ok(Vendored { version, sources, build })
    }

    /// Where its shared library lies.
    pub fn libraries(&self) -> PathBuf {
        self.build.join(".libs")
    }
}

/// Runs all rows.
pub fn run(places: &Places, report: &mut Report) -> Result<()> {
    let vendored = Vendored::build(places)?;
    let mut suite = Programs::build(places, &vendored)?;
    let libraries = vendored.libraries();
    let own = Way::found_first("itself", libraries.join("libffi.so.8"));
    works(report, &suite, &own);
    let debian = places.debian()?;
    let theirs = Way::found_first(&debian.title, debian.libffi.clone());
    let with_theirs = stops(report, &suite, &theirs, "strict", STOPPED);

    let drop_in = Way::found_first("drop-in", places.ours("ffi/libffi.so.8"));
    rows(report, &suite, &drop_in, &POLICIES, LIBFFI_PROGRAMS);
    let library = places.ours("libtrampfd-ffi-preload.so");
    let preload = Way::preloaded("preload", library.clone(), Some(&libraries));
    rows(report, &suite, &preload, &POLICIES, LIBFFI_PROGRAMS);

    // Over a library that is older than the suite: what it can load at all.
    let loads = passed(&with_theirs);
    let mut with_theirs = with_theirs.into_iter();
    suite.programs.retain(|_| with_theirs.next().is_some_and(|(_, outcome)| outcome.is_ok()));
    let name = format!("preload over {}", debian.title);
    let preload = Way::preloaded(&name, library, debian.libraries());
    rows(report, &suite, &preload, &["strict"], loads.max(LIBFFI_PROGRAMS - MISSING));
    Ok(())
}

impl Suite for Programs<'_> {
    fn title(&self) -> &str {
        &self.title
    }

    fn results(&self, way: &Way, policy: &str) -> Results {
        each(&self.programs, |program, thread| {
            (program.name.clone(), self.one(program, way, policy, thread))
        })
    }

    fn in_use(&self, way: &Way, policy: &str) -> Outcome {
        const WITNESS: &str = "closures/closure_loc_fn0.c -O2";
        const SYMBOLS: [&str; 2] = ["ffi_closure_alloc", "ffi_prep_closure_loc"];
        let program = self.programs.iter().find(|program| program.name == WITNESS);
        let program = program.ok_or_else(|| format!("there is no program {WITNESS}"))?;
        let mut command = under(self.places, policy, way, &program.file);
        let object = program.file.to_string_lossy();
        binds(&mut command, &object, &SYMBOLS, way, &self.places.said("bindings"))
    }
}

impl<'a> Programs<'a> {
    fn build(places: &'a Places, vendored: &Vendored) -> Result<Programs<'a>> {
        let tests = vendored.sources.join("testsuite");
        let kept = places.kept.join("libffi-programs");
        let programs = programs(&tests, &kept)?;
        let names: Vec<&str> = programs.iter().map(|program| &*program.name).collect();
        let key = format!("{RECIPE} {} {}\n{}", vendored.version, compilers()?, names.join("\n"));
        places.once("libffi-programs", &key, |_| {
            each(&programs, |program, _| compile(program, vendored)).into_iter().collect()
        })?;
        Ok(Programs { places, title: format!("libffi {}", vendored.version), programs })
    }

    fn one(&self, program: &Program, way: &Way, policy: &str, thread: usize) -> Outcome {
        if !program.file.exists() {
            let why = fs::read_to_string(program.error()).unwrap_or_default();
            return Err(format!("not run: it does not compile: {why}"));
        }
        let mut command = under(self.places, policy, way, &program.file);
        let ended = work::run(&mut command, &self.places.said(&thread.to_string()), LIMIT)?;
        ended.well()?;
        match &program.expects {
            Some(regex) if !regex.is_match(&ended.said) => {
                Err(format!("printed {:?}, not {regex}", ended.said))
            }
            _ => Ok(()),
        }
    }
}

/// The compilers' own words of who they are.
fn compilers() -> Result<String> {
    let mut said = String::new();
    for compiler in ["cc", "c++"] {
        let text = output(Command::new(compiler).arg("--version"))?;
        said += text.lines().next().unwrap_or_default();
        said += "; ";
    }
    Ok(said)
}

/// All programs of the suite in `tests`, whose files are to be in `kept`.
fn programs(tests: &Path, kept: &Path) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for folder in FOLDERS {
        let place = tests.join(format!("libffi.{folder}"));
        for source in list(&place)? {
            let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let numbered = NUMBERED.iter().find(|(file, _)| *file == name);
            let is_program = if folder == "bhaible" {
                numbered.is_some()
            } else {
                name.ends_with(".c") || name.ends_with(".cc")
            };
            if !is_program {
                continue;
            }
            let said = || source.display().to_string();
            let text = fs::read(&source).context(said)?;
            let text = String::from_utf8_lossy(&text);
            let expects = dg::output(&text).context(said)?;
            let conventions = if text.contains("ABI_NUM") { CONVENTIONS.len() } else { 1 };
            let highest = numbered.map_or(0, |(_, highest)| *highest);
            for optimisation in OPTIMISATIONS {
                for (suffix, definitions) in &CONVENTIONS[..conventions] {
                    for number in highest.min(1)..=highest {
                        let mut words = vec![optimisation.to_owned()];
                        words.extend(definitions.iter().map(|&word| word.to_owned()));
                        let mut title = format!("{folder}/{name}");
                        if number > 0 {
                            words.push(format!("-DDGTEST={number}"));
                            title += &format!(" {number}");
                        }
                        title += &format!(" {optimisation}{suffix}");
                        let file = kept.join(title.replace(['/', ' '], "_"));
                        programs.push(Program {
                            name: title,
                            source: source.clone(),
                            words,
                            expects: expects.clone(),
                            file,
                        });
                    }
                }
            }
        }
    }
    Ok(programs)
}

/// Makes the program's file, or one that says why not.
fn compile(program: &Program, vendored: &Vendored) -> Result<()> {
    let cpp = program.source.extension().is_some_and(|ending| ending == "cc");
    let mut command = Command::new(if cpp { "c++" } else { "cc" });
    command.args(["-w", "-Wno-psabi", "-pthread"]).args(&program.words);
    for folder in
        [vendored.build.join("include"), vendored.build.clone(), vendored.sources.join("include")]
    {
        command.arg("-I").arg(folder);
    }
    command.arg(&program.source).arg("-o").arg(&program.file);
    command.arg("-L").arg(vendored.libraries()).arg("-lffi");
    if let Err(e) = process::run(&mut command) {
        let path = program.error();
        fs::write(&path, e.to_string()).context(|| path.display().to_string())?;
    }
    Ok(())
}
