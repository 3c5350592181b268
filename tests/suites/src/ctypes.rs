//! CPython's tests of `ctypes`: the interpreter and the tests are this machine's release's own,
//! unpacked. `_ctypes` is loaded RTLD_LOCAL, which is why it is here.
//!
//! What a test of this set says of itself with Debian's libffi and without a policy is what it
//! must say with ours: those that it skips there (Windows, disabled ones) say nothing about us,
//! and one that is skipped only with ours has failed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vm_fetch::error::{Context, Error, Result};

use crate::places::{Places, list};
use crate::report::{self, Report, Results};
use crate::row::{POLICIES, Suite, Way, binds, ours_over, rows, stops, under, works};
use crate::work;

/// Python 3.11 has 409 that are run on Linux, 3.13 some more.
const FLOOR: usize = 380;
/// Without closures at least so many fail.
const STOPPED: usize = 40;
const LIMIT: Duration = Duration::from_secs(300);

/// What a test says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failed(String),
    /// Planned, and the interpreter ended before.
    Missing(String),
}

/// Each test with its outcome, in the order of the plan.
type Outcomes = Vec<(String, Outcome)>;

struct Tests<'a> {
    places: &'a Places,
    title: String,
    python: PathBuf,
    script: PathBuf,
    /// What they say with Debian's libffi.
    expected: Outcomes,
}

/// Runs all rows.
pub fn run(places: &Places, report: &mut Report) -> Result<()> {
    let debian = places.debian()?;
    let script = places.said("ctypes.py");
    fs::write(&script, include_str!("ctypes.py")).context(|| script.display().to_string())?;
    let title = format!("ctypes {}", debian.python_version);
    let python = python_in(&debian.tree)?;
    let mut suite = Tests { places, title, python, script, expected: Vec::new() };
    let theirs = Way::found_first(&debian.title, debian.libffi.clone());
    suite.expected = suite.outcomes(&theirs, "none").map_err(Error::new)?;
    let skipped = suite.expected.iter().filter(|(_, outcome)| *outcome == Outcome::Skipped).count();
    report.note(&format!(
        "{}: {} tests, and {skipped} that say themselves that they are not for here",
        suite.title,
        suite.expected.len() - skipped,
    ));

    works(report, &suite, &theirs);
    stops(report, &suite, &theirs, "strict", STOPPED);
    for way in ours_over(&debian, places) {
        rows(report, &suite, &way, &POLICIES, FLOOR);
    }
    Ok(())
}

impl Suite for Tests<'_> {
    fn title(&self) -> &str {
        &self.title
    }

    fn results(&self, way: &Way, policy: &str) -> Results {
        match self.outcomes(way, policy) {
            Ok(outcomes) => compare(&self.expected, &outcomes),
            Err(e) => vec![("the interpreter".to_owned(), Err(e))],
        }
    }

    fn in_use(&self, way: &Way, policy: &str) -> report::Outcome {
        const SYMBOLS: [&str; 3] =
            ["ffi_closure_alloc", "ffi_prep_closure_loc", "ffi_closure_free"];
        const CALL: &str = "import ctypes; ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)()";
        let mut command = under(self.places, policy, way, &self.python);
        command.args(["-I", "-S", "-B", "-c", CALL]);
        binds(&mut command, "/_ctypes.", &SYMBOLS, way, &self.places.said("bindings"))
    }
}

impl Tests<'_> {
    fn outcomes(&self, way: &Way, policy: &str) -> std::result::Result<Outcomes, String> {
        let results = self.places.said("ctypes.results");
        let said = |e: std::io::Error| format!("{}: {e}", results.display());
        fs::write(&results, "").map_err(said)?;
        let mut command = under(self.places, policy, way, &self.python);
        // Nothing of the user's, nothing written beside the sources.
        command.args(["-I", "-S", "-B"]).arg(&self.script).arg(&results);
        let ended = work::run(&mut command, &self.places.said("ctypes"), LIMIT)?;
        let text = fs::read_to_string(&results).map_err(said)?;
        read(&text, &ended.well().err().unwrap_or_else(|| "nothing".into()))
    }
}

/// The one interpreter in a tree.
fn python_in(tree: &Path) -> Result<PathBuf> {
    let bin = tree.join("usr/bin");
    let is_python = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix("python3."))
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    list(&bin)?
        .into_iter()
        .find(is_python)
        .ok_or_else(|| Error::new(format!("no python3 in {}", bin.display())))
}

/// Reads what `ctypes.py` wrote; `end` is how the interpreter ended.
fn read(text: &str, end: &str) -> std::result::Result<Outcomes, String> {
    let mut seen: HashMap<&str, Outcome> = HashMap::new();
    let mut plan = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(name)) = (words.next(), words.next()) else {
            return Err(format!("no result: {line}"));
        };
        let outcome = match kind {
            "plan" => {
                plan.push(name);
                continue;
            }
            "ok" => Outcome::Passed,
            "skipped" => Outcome::Skipped,
            "failed" => Outcome::Failed(words.next().unwrap_or("no reason").to_owned()),
            _ => return Err(format!("no result: {line}")),
        };
        if !plan.contains(&name) {
            plan.push(name);
        }
        seen.insert(name, outcome);
    }
    if plan.is_empty() {
        return Err(format!("no test was planned: {end}"));
    }
    let missing = || Outcome::Missing(format!("not run; Python said at its end: {end}"));
    let outcome = |name: &str| seen.get(name).cloned().unwrap_or_else(missing);
    Ok(plan.into_iter().map(|name| (name.to_owned(), outcome(name))).collect())
}

/// Each test that says something here, as it should and as it did.
fn compare(expected: &Outcomes, outcomes: &Outcomes) -> Results {
    let now: HashMap<&str, &Outcome> =
        outcomes.iter().map(|(name, outcome)| (&**name, outcome)).collect();
    let known = |name: &String| expected.iter().any(|(n, _)| n == name);
    // What failed around the tests has no row in the plan.
    let others = outcomes.iter().filter(|(name, _)| !known(name));
    let planned = expected.iter().filter_map(|(name, before)| {
        let result = match (before, now.get(&**name)) {
            (Outcome::Skipped, Some(Outcome::Skipped | Outcome::Passed)) => return None,
            (_, Some(Outcome::Passed)) => Ok(()),
            (_, Some(Outcome::Skipped)) => Err("skipped, though not with Debian's libffi".into()),
            (_, Some(Outcome::Failed(why) | Outcome::Missing(why))) => Err(why.clone()),
            (_, None) => Err("not planned".into()),
        };
        Some((name.clone(), result))
    });
    let others = others.map(|(name, outcome)| (name.clone(), Err(format!("{outcome:?}"))));
    planned.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planned_and_not_run_is_missing() {
        let outcomes = read("plan a\nplan b\nok a\n", "signal 11").unwrap();
        assert_eq!(outcomes[0].1, Outcome::Passed);
        assert!(matches!(&outcomes[1].1, Outcome::Missing(why) if why.contains("signal 11")));
        assert!(read("", "signal 11").is_err());
        assert!(read("nonsense a\n", "").is_err());
    }

    #[test]
    fn a_test_must_say_what_it_said_before() {
        let expected = read("plan a\nplan b\nplan w\nok a\nok b\nskipped w\n", "").unwrap();
        let good = compare(&expected, &expected);
        assert_eq!(good, [("a".into(), Ok(())), ("b".into(), Ok(()))]);
        let now =
            "plan a\nplan b\nplan w\nskipped a\nfailed b why not\nfailed w x\nfailed setUp y\n";
        let bad = compare(&expected, &read(now, "").unwrap());
        assert_eq!(bad.iter().filter(|(_, result)| result.is_err()).count(), 4);
        assert!(compare(&expected, &read("plan a\nok a\n", "").unwrap())[1].1.is_err());
    }
}
