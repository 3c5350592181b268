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

use crate::dg;
use crate::places::{Places, debian_version, find, list};
use crate::report::Report;
use crate::row::{POLICIES, Way, binds, under};
use crate::work::{self, each};

/// libffi 3.6.0 has 1126 programs on x86-64; a version that has fewer is looked at by a person.
const FLOOR: usize = 1126;
/// Of these about half make closures; with a library that writes code they fail where it is
/// forbidden.
const STOPPED: usize = 300;

const LIMIT: Duration = Duration::from_secs(60);
const FOLDERS: [&str; 6] = ["call", "closures", "complex", "go", "threads", "bhaible"];
const OPTIMISATIONS: [&str; 2] = ["-O0", "-O2"];
/// Suffix and definitions of each convention.
const CONVENTIONS: [(&str, &[&str]); 2] =
    [("", &[]), (" gnuw64", &["-DABI_NUM=FFI_GNUW64", "-DABI_ATTR=__MSABI__"])];
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

type Results = Vec<(String, std::result::Result<(), String>)>;

/// The suite and where its programs run.
struct Suite<'a> {
    places: &'a Places,
    programs: Vec<Program>,
    scratch: PathBuf,
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
    let version = &vendored.version;
    let suite = Suite::build(places, &vendored)?;
    let vendored_libraries = vendored.libraries();
    let debian = places.debian()?;
    let debian_libffi = find(&debian.join("tree"), "libffi.so.8")?;
    let debian_version = debian_version(&debian, "libffi")?;
    let debian_libraries = debian_libffi.parent().unwrap_or(&debian).to_owned();

    // Controls: the suite and the policies are what they should be.
    let own = Way::found_first("vendored", vendored_libraries.join("libffi.so.8"), &[]);
    let passed = suite.count(&suite.run(&own, "none", |_| true));
    let all = suite.programs.len();
    report.note(&format!("libffi {version}, control: itself, none: {passed} of {all}"));
    let control = if passed == all { Ok(()) } else { Err(format!("only {passed} of {all}")) };
    report.result("libffi control, its own library passes", &control);

    let theirs = Way::found_first("Debian's", debian_libffi, &[]);
    let loaded = suite.run(&theirs, "none", |_| true);
    let passed = suite.count(&loaded);
    report.note(&format!("libffi {version}, control: {debian_version}, none: {passed} of {all}"));
    let strict = suite.run(&theirs, "strict", |_| true);
    let stopped = passed.saturating_sub(suite.count(&strict));
    report.note(&format!("libffi {version}, control: {debian_version}, strict: {stopped} stopped"));
    let control = if stopped >= STOPPED { Ok(()) } else { Err(format!("only {stopped}")) };
    report.result("libffi control, strict stops a library that writes code", &control);

    let over_vendored = [&*vendored_libraries];
    let preload = places.ours("libtrampfd-ffi-preload.so");
    let ways = [
        Way::found_first("drop-in", places.ours("ffi/libffi.so.8"), &[]),
        Way::preloaded("preload", preload.clone(), &over_vendored),
    ];
    for way in &ways {
        for policy in POLICIES {
            suite.row(
                report,
                &format!("libffi {version}, {}, {policy}:", way.name),
                way,
                policy,
                |_| true,
                FLOOR,
            );
        }
    }
    // Over a library that is older than the suite: what it can load at all.
    let way = Way::preloaded("preload", preload, &[&debian_libraries]);
    let name = format!("libffi {version}, preload over {debian_version}, strict:");
    let can_load = |n: usize| loaded[n].1.is_ok();
    suite.row(report, &name, &way, "strict", can_load, passed.max(FLOOR - 50));
    Ok(())
}

impl<'a> Suite<'a> {
    fn build(places: &'a Places, vendored: &Vendored) -> Result<Suite<'a>> {
        let tests = vendored.sources.join("testsuite");
        let kept = places.kept.join("libffi-programs");
        let programs = programs(&tests, &kept)?;
        let names: Vec<&str> = programs.iter().map(|program| &*program.name).collect();
        let key = format!("{RECIPE} {} {}\n{}", vendored.version, compilers()?, names.join("\n"));
        places.once("libffi-programs", &key, |_| {
            each(&programs, |program, _| compile(program, vendored)).into_iter().collect()
        })?;
        let scratch = places.kept.join("said");
        fs::create_dir_all(&scratch).context(|| scratch.display().to_string())?;
        Ok(Suite { places, programs, scratch })
    }

    /// The results of the programs whose number is wanted.
    fn run(&self, way: &Way, policy: &str, wanted: impl Fn(usize) -> bool) -> Results {
        let programs = self.programs.iter().enumerate();
        let jobs: Vec<&Program> =
            programs.filter(|(n, _)| wanted(*n)).map(|(_, program)| program).collect();
        each(&jobs, |program, thread| {
            (program.name.clone(), self.one(program, way, policy, thread))
        })
    }

    fn one(
        &self,
        program: &Program,
        way: &Way,
        policy: &str,
        thread: usize,
    ) -> std::result::Result<(), String> {
        if !program.file.exists() {
            let why = fs::read_to_string(program.error()).unwrap_or_default();
            return Err(format!("not run: it does not compile: {why}"));
        }
        let mut command = under(self.places, policy, way, &program.file);
        let ended = work::run(&mut command, &self.scratch.join(thread.to_string()), LIMIT)?;
        ended.well()?;
        match &program.expects {
            Some(regex) if !regex.is_match(&ended.said) => {
                Err(format!("printed {:?}, not {regex}", ended.said))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, results: &Results) -> usize {
        results.iter().filter(|(_, outcome)| outcome.is_ok()).count()
    }

    /// A row of the report: that the library is in use, and every program.
    fn row(
        &self,
        report: &mut Report,
        name: &str,
        way: &Way,
        policy: &str,
        wanted: impl Fn(usize) -> bool,
        floor: usize,
    ) {
        let name = name.trim_end_matches(':');
        let in_use = self.in_use(way, policy);
        report.result(&format!("{name}, the library in use is ours"), &in_use);
        if way.library.exists() {
            report.row(name, &self.run(way, policy, wanted), floor);
        } else {
            report.failed(name, &format!("not run: there is no {}", way.library.display()));
        }
    }

    fn in_use(&self, way: &Way, policy: &str) -> std::result::Result<(), String> {
        const WITNESS: &str = "closures/closure_loc_fn0.c -O2";
        const SYMBOLS: [&str; 2] = ["ffi_closure_alloc", "ffi_prep_closure_loc"];
        let program = self.programs.iter().find(|program| program.name == WITNESS);
        let program = program.ok_or_else(|| format!("there is no program {WITNESS}"))?;
        let mut command = under(self.places, policy, way, &program.file);
        let object = program.file.to_string_lossy();
        binds(&mut command, &object, &SYMBOLS, way, &self.scratch.join("bindings"))
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
            let conventions = if text.contains("ABI_NUM") { 2 } else { 1 };
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
