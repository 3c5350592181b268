//! How a library gets into a program, and that it is the one in use.
//!
//! ```text
//! trampfd-host via POLICY . direct PROGRAM ARG..     LD_LIBRARY_PATH, LD_PRELOAD as the way says
//! ```
//!
//! Which library a program's calls go to is asked of the dynamic loader (`LD_DEBUG=bindings`), in
//! each row: a row that passes because the program found another library has failed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::places::{Debian, Places};
use crate::report::{Outcome, Report, Results, passed};
use crate::work;

/// The policies that every library of ours must work under.
pub const POLICIES: [&str; 3] = ["none", "mdwe", "strict"];

/// How a library gets into a program.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: String,
    pub variables: Vec<(&'static str, OsString)>,
    /// The library that the program's calls must go to.
    pub library: PathBuf,
}

impl Way {
    /// The library stands first in the search.
    pub fn found_first(name: &str, library: PathBuf) -> Way {
        let folder = library.parent().unwrap_or(Path::new("/")).as_os_str().to_owned();
        let variables = vec![("LD_LIBRARY_PATH", folder)];
        Way { name: name.to_owned(), variables, library }
    }

    /// The library is preloaded, and the one it goes over is in a folder, if it is not the
    /// program's own.
    pub fn preloaded(name: &str, library: PathBuf, over: Option<&Path>) -> Way {
        let over = over.map(|folder| ("LD_LIBRARY_PATH", folder.as_os_str().to_owned()));
        let preload = ("LD_PRELOAD", library.as_os_str().to_owned());
        Way {
            name: name.to_owned(),
            variables: over.into_iter().chain([preload]).collect(),
            library,
        }
    }
}

/// The drop-in, and the preload library over the machine's own libffi.
pub fn ours_over(debian: &Debian, places: &Places) -> [Way; 2] {
    let preload = places.ours("libtrampfd-ffi-preload.so");
    [
        Way::found_first("drop-in", places.ours("ffi/libffi.so.8")),
        Way::preloaded("preload", preload, debian.libraries()),
    ]
}

/// Programs that are run with one library after the other.
pub trait Suite {
    /// What the name of each row begins with.
    fn title(&self) -> &str;
    /// How each program ends.
    fn results(&self, way: &Way, policy: &str) -> Results;
    /// That the library of `way` is the one that the programs use.
    fn in_use(&self, way: &Way, policy: &str) -> Outcome;
}

/// A control: without a policy everything passes with a library that everybody has.
pub fn works(report: &mut Report, suite: &impl Suite, way: &Way) {
    let results = suite.results(way, "none");
    let (passed, all) = (passed(&results), results.len());
    let title = format!("{}, control with {}", suite.title(), way.name);
    report.note(&format!("{title}, none: {passed} of {all}"));
    let control = match results.into_iter().find(|(_, outcome)| outcome.is_err()) {
        Some((name, Err(why))) => Err(format!("{passed} of {all}; {name}: {why}")),
        _ => Ok(()),
    };
    report.result(&format!("{title} passes"), &control);
}

/// A control: with such a library the policy makes at least `fewest` programs fail. Returns what
/// came out without the policy.
pub fn stops(
    report: &mut Report,
    suite: &impl Suite,
    way: &Way,
    policy: &str,
    fewest: usize,
) -> Results {
    let free = suite.results(way, "none");
    let stopped = passed(&free).saturating_sub(passed(&suite.results(way, policy)));
    let title = format!("{}, control with {}", suite.title(), way.name);
    let numbers = format!("stops {stopped} of the {} that pass without it", passed(&free));
    report.note(&format!("{title}, {policy} {numbers}"));
    let control = if stopped >= fewest { Ok(()) } else { Err(numbers) };
    report.result(&format!("{title}, {policy} stops it"), &control);
    free
}

/// A row for each policy: that the library in use is this one, and every program.
pub fn rows(report: &mut Report, suite: &impl Suite, way: &Way, policies: &[&str], floor: usize) {
    for policy in policies {
        let name = format!("{}, {}, {policy}", suite.title(), way.name);
        if !way.library.exists() {
            report.failed(&name, &format!("not run: there is no {}", way.library.display()));
            continue;
        }
        report.result(&format!("{name}, the library in use is ours"), &suite.in_use(way, policy));
        report.row(&name, &suite.results(way, policy), floor);
    }
}

/// A command under a policy; arguments and more are to be added.
pub fn under(places: &Places, policy: &str, way: &Way, program: &Path) -> Command {
    let mut command = Command::new(&places.launcher);
    command.args(["via", policy, ".", "direct"]).arg(program);
    for name in ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_DEBUG"] {
        command.env_remove(name);
    }
    command.envs(way.variables.iter().cloned());
    command
}

/// That the calls of `object`, a program or a library that it loads, to each of `symbols` go to
/// the library of this way. `command` comes from [`under`].
pub fn binds(
    command: &mut Command,
    object: &str,
    symbols: &[&str],
    way: &Way,
    scratch: &Path,
) -> Outcome {
    command.env("LD_DEBUG", "bindings").env("LD_BIND_NOW", "1");
    let ended = work::run(command, scratch, Duration::from_secs(60))?;
    let wanted = way.library.canonicalize().map_err(|e| e.to_string())?;
    for &symbol in symbols {
        let to = bound_to(&ended.said, object, symbol).ok_or_else(|| {
            let end = ended.well().err().unwrap_or_default();
            format!("{object} was never bound to any {symbol}; {end}")
        })?;
        let found = Path::new(to).canonicalize().map_err(|e| format!("{to}: {e}"))?;
        if found != wanted {
            let (wanted, found) = (wanted.display(), found.display());
            return Err(format!("{symbol} of {object} is that of {found}, not of {wanted}"));
        }
    }
    Ok(())
}

/// Where the loader said that it bound a symbol of an object, the last time.
fn bound_to<'a>(said: &'a str, object: &str, symbol: &str) -> Option<&'a str> {
    let quoted = format!("symbol `{symbol}'");
    said.lines().rev().filter(|line| line.contains(&quoted)).find_map(|line| {
        let (_, line) = line.split_once("binding file ")?;
        let (from, rest) = line.split_once(" [")?;
        let (_, rest) = rest.split_once("] to ")?;
        let (to, _) = rest.split_once(" [")?;
        from.contains(object).then_some(to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_loader_says() {
        let said = "  77:\tbinding file ./p [0] to /old/libffi.so.8 [0]: normal symbol `f' [V_8]\n\
                    \x20 77:\tbinding file ./p [0] to /new/libffi.so.8 [0]: normal symbol `f' [V_8]\n\
                    \x20 77:\tbinding file ./q [0] to /else/libffi.so.8 [0]: normal symbol `f'\n";
        assert_eq!(bound_to(said, "./p", "f"), Some("/new/libffi.so.8"));
        assert_eq!(bound_to(said, "./q", "f"), Some("/else/libffi.so.8"));
        assert_eq!(bound_to(said, "./p", "g"), None);
        assert_eq!(bound_to(said, "./r", "f"), None);
    }
}
