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

use crate::places::Places;
use crate::work;

/// The policies that every library of ours must work under.
pub const POLICIES: [&str; 3] = ["none", "mdwe", "strict"];

/// How a library gets into a program.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: String,
    pub variables: Vec<(String, OsString)>,
    /// The library that the program's calls must go to.
    pub library: PathBuf,
}

impl Way {
    /// The library stands first in the search.
    pub fn found_first(name: &str, library: PathBuf, then: &[&Path]) -> Way {
        let folder = library.parent().unwrap_or(Path::new("/")).to_owned();
        let folders: Vec<&Path> = [&*folder].into_iter().chain(then.iter().copied()).collect();
        let variables = vec![work::paths("LD_LIBRARY_PATH", &folders)];
        Way { name: name.to_owned(), variables, library }
    }

    /// The library is preloaded; the one it goes over is in a folder.
    pub fn preloaded(name: &str, library: PathBuf, over: &[&Path]) -> Way {
        let variables =
            vec![work::paths("LD_LIBRARY_PATH", over), work::paths("LD_PRELOAD", &[&library])];
        Way { name: name.to_owned(), variables, library }
    }
}

/// A command under a policy; arguments and more are to be added.
pub fn under(places: &Places, policy: &str, way: &Way, program: &Path) -> Command {
    let mut command = Command::new(&places.launcher);
    command.args(["via", policy, ".", "direct"]).arg(program);
    for name in ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_DEBUG"] {
        command.env_remove(name);
    }
    command.envs(way.variables.iter().map(|(name, value)| (name, value)));
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
) -> Result<(), String> {
    if !way.library.exists() {
        return Err(format!("not run: there is no {}", way.library.display()));
    }
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
