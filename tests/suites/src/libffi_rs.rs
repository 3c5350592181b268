//! The tests of the crate `libffi`, whose feature `system` links whatever libffi there is: its test
//! program, and the examples of its documentation, which are kept as programs.
//!
//! ```text
//! rustdoc --test-runtool cp ..     each example, once it is compiled, is not run but copied
//! ```

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use vm_fetch::error::{Context, Error, Result};
use vm_fetch::files::remake;
use vm_fetch::process::{output, run as run_to_end};

use crate::libffi::Vendored;
use crate::places::{Places, cargo, list};
use crate::report::{Outcome, Report, Results};
use crate::row::{POLICIES, Suite, Way, binds, ours_over, rows, stops, under, works};
use crate::work::{self, each};

/// libffi 5.2.0 has 25 tests and 20 examples.
const FLOOR: usize = 45;
/// Without closures at least so many fail.
const STOPPED: usize = 10;
const LIMIT: Duration = Duration::from_secs(120);

struct Crate<'a> {
    places: &'a Places,
    title: String,
    /// The test program.
    tests: PathBuf,
    /// Examples: name, program.
    examples: Vec<(String, PathBuf)>,
}

/// Runs all rows.
pub fn run(places: &Places, report: &mut Report) -> Result<()> {
    let vendored = Vendored::build(places)?;
    let (sources, version) = places.crate_sources("libffi")?;
    let suite = Crate::build(places, &vendored, &sources, &version)?;
    let debian = places.debian()?;
    let theirs = Way::found_first(&debian.title, debian.libffi.clone());
    works(report, &suite, &theirs);
    stops(report, &suite, &theirs, "strict", STOPPED);
    for way in ours_over(&debian, places) {
        rows(report, &suite, &way, &POLICIES, FLOOR);
    }
    Ok(())
}

impl Suite for Crate<'_> {
    fn title(&self) -> &str {
        &self.title
    }

    /// Every test and every example.
    fn results(&self, way: &Way, policy: &str) -> Results {
        let mut results = match self.tests(way, policy) {
            Ok(results) => results,
            Err(e) => vec![("the test program".to_owned(), Err(e))],
        };
        results.extend(each(&self.examples, |(name, program), thread| {
            let mut command = under(self.places, policy, way, program);
            let said = self.places.said(&thread.to_string());
            (name.clone(), work::run(&mut command, &said, LIMIT).and_then(|e| e.well()))
        }));
        results
    }

    fn in_use(&self, way: &Way, policy: &str) -> Outcome {
        const SYMBOLS: [&str; 4] =
            ["ffi_closure_alloc", "ffi_prep_closure_loc", "ffi_closure_free", "ffi_call"];
        // What a preload leaves to the library that it goes over.
        let symbols = if way.name == "preload" { &SYMBOLS[..3] } else { &SYMBOLS };
        let mut command = under(self.places, policy, way, &self.tests);
        command.arg("--list");
        let object = self.tests.to_string_lossy();
        binds(&mut command, &object, symbols, way, &self.places.said("bindings"))
    }
}

impl<'a> Crate<'a> {
    fn build(
        places: &'a Places,
        vendored: &Vendored,
        sources: &Path,
        version: &str,
    ) -> Result<Crate<'a>> {
        let rustc = output(cargo(sources).arg("--version"))?;
        let key = format!("1 {version} {} {}", vendored.version, rustc.trim());
        let dir = places.once("libffi-rs", &key, |dir| build(dir, sources, vendored))?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).context(|| path.display().to_string())
        };
        let names = read("examples.names")?;
        let example = |(n, name): (usize, &str)| (name.to_owned(), example(&dir, n));
        Ok(Crate {
            places,
            title: format!("libffi-rs {version}"),
            tests: PathBuf::from(read("tests.path")?),
            examples: names.lines().enumerate().map(example).collect(),
        })
    }

    /// The tests of the test program, by its list of them.
    fn tests(&self, way: &Way, policy: &str) -> std::result::Result<Results, String> {
        let scratch = self.places.said("libffi-rs");
        let run = |words: &[&str]| {
            let mut command = under(self.places, policy, way, &self.tests);
            command.args(words);
            work::run(&mut command, &scratch, LIMIT)
        };
        let listed = run(&["--list", "--format=terse"])?;
        listed.well()?;
        let ended = run(&[])?;
        let end = ended.well().err();
        Ok(names_listed(&listed.said)
            .map(|name| (name.to_owned(), outcome(&ended.said, name, end.as_deref())))
            .collect())
    }
}

fn names_listed(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| line.strip_suffix(": test"))
}

/// What the test program said of a test; `end` is how it ended, if not well.
fn outcome(said: &str, name: &str, end: Option<&str>) -> Outcome {
    let line = format!("test {name} ... ");
    match said.lines().find_map(|l| l.strip_prefix(&line)) {
        Some("ok") => Ok(()),
        Some(other) => Err(other.to_owned()),
        None => Err(format!("not run: {}", end.unwrap_or("the program said nothing of it"))),
    }
}

/// The file of the nth example, as `cp --backup=numbered` calls it: the last has the name itself.
fn example(dir: &Path, n: usize) -> PathBuf {
    dir.join("examples").join(n.to_string())
}

/// Builds a copy of the crate in `dir`, and leaves there the names of what is to be run.
fn build(dir: &Path, sources: &Path, vendored: &Vendored) -> Result<()> {
    let copy = dir.join("crate");
    run_to_end(std::process::Command::new("cp").args(["-r", "--"]).arg(sources).arg(&copy))?;
    // Not a member of the workspace that it lies in.
    let manifest = copy.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).context(|| manifest.display().to_string())?;
    fs::write(&manifest, text + "\n[workspace]\n").context(|| manifest.display().to_string())?;

    let mut libraries = OsString::from("-Lnative=");
    libraries.push(vendored.libraries());
    let cargo = |words: &[&str]| {
        let mut command = cargo(&copy);
        command.args(["test", "-q", "--features", "system", "--target-dir"]);
        command.arg(dir.join("target")).args(words);
        command.env("RUSTFLAGS", &libraries).env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    };
    let said = output(&mut cargo(&["--lib", "--no-run", "--message-format=json"]))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_test = |message: &Value| message["profile"]["test"] == true;
    let program = messages
        .filter(is_test)
        .find_map(|message| message["executable"].as_str().map(str::to_owned))
        .ok_or_else(|| Error::new("cargo built no test program of libffi-rs"))?;
    let path = dir.join("tests.path");
    fs::write(&path, program).context(|| path.display().to_string())?;

    // One example after the other, so that the copies come in the order of the list.
    let copies = dir.join("copies");
    remake(&copies)?;
    let mut flags = libraries.clone();
    for word in ["cp", "--backup=numbered", "-t"] {
        flags.push(if word == "cp" { " --test-runtool=" } else { " --test-runtool-arg=" });
        flags.push(word);
    }
    flags.push(" --test-runtool-arg=");
    flags.push(&copies);
    let mut command = cargo(&["--doc", "--", "--test-threads=1", "--format=pretty"]);
    let said = output(command.env("RUSTDOCFLAGS", flags))?;
    let names: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"))
        .filter(|name| !name.ends_with(" - compile") && !name.ends_with(" - compile fail"))
        .collect();
    let made = list(&copies)?.len();
    if made != names.len() {
        let why = format!("{} examples of libffi-rs and {made} programs:\n{said}", names.len());
        return Err(Error::new(why));
    }
    let examples = dir.join("examples");
    remake(&examples)?;
    for n in 0..names.len() {
        let last = n + 1 == names.len();
        let name = if last { "rust_out".into() } else { format!("rust_out.~{}~", n + 1) };
        let from = copies.join(name);
        fs::rename(&from, example(dir, n)).context(|| from.display().to_string())?;
    }
    let path = dir.join("examples.names");
    fs::write(&path, names.join("\n")).context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_without_a_result_has_failed() {
        let said = "running 3 tests\ntest a ... ok\ntest b ... FAILED\n";
        assert_eq!(outcome(said, "a", None), Ok(()));
        assert_eq!(outcome(said, "b", None), Err("FAILED".into()));
        assert!(outcome(said, "c", Some("signal 11")).unwrap_err().contains("signal 11"));
        assert!(outcome(said, "c", None).is_err());
        assert_eq!(names_listed("a: test\nb: benchmark\n").collect::<Vec<_>>(), ["a"]);
    }
}
