//! Programs of others with callbacks in them, on our libraries: each runs a script of `../clients`
//! under each policy that hardened services have. They are packages of this machine's own
//! release, unpacked into a root of their own.
//!
//! ```text
//! ROOT = target/host/clients/root    the packages, nothing of them installed
//! ROOT/clients/                      the scripts
//! ROOT/ours/drop-in, ROOT/ours/preload
//! ```
//!
//! PHP loads its libffi with RTLD_DEEPBIND, so that no preload reaches it: that is a row, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vm_fetch::apt::{self, Apt};
use vm_fetch::error::Result;
use vm_fetch::process::Lock;

use crate::kinds::{self, Places};
use crate::lives;
use crate::policy::{LACKS, NOT_STARTED};
use crate::run::{Kit, Outcome};

const PACKAGES: [&str; 8] = [
    "gir1.2-glib-2.0",
    "guile-3.0",
    "libffi-platypus-perl",
    "php-cli",
    "pypy3",
    "python3",
    "python3-gi",
    "ruby",
];

/// A program and its script, which says `right` last where all was.
#[derive(Clone, Copy, Debug)]
struct Client {
    name: &'static str,
    /// In /usr/bin; `*` is a version.
    program: &'static str,
    words: &'static [&'static str],
    script: &'static str,
    /// A library that is preloaded gets to it.
    preloads: bool,
}

const CTYPES: Client = Client {
    name: "CPython's ctypes",
    program: "python3",
    words: &[],
    script: "ctypes_qsort.py",
    preloads: true,
};

const CLIENTS: [Client; 7] = [
    CTYPES,
    Client { name: "PyGObject", script: "pygobject.py", ..CTYPES },
    // Its compiler writes code, which is no business of ours; as is Guile's.
    Client { name: "PyPy's ctypes", program: "pypy3", words: &["--jit", "off"], ..CTYPES },
    Client { name: "Ruby's fiddle", program: "ruby", script: "fiddle.rb", ..CTYPES },
    Client {
        name: "PHP's FFI",
        program: "php*",
        words: &["-n", "-dextension=ffi.so", "-dffi.enable=1", "-dpcre.jit=0"],
        script: "ffi.php",
        preloads: false,
    },
    Client { name: "Guile", program: "guile-*", script: "foreign.scm", ..CTYPES },
    Client { name: "Perl's FFI::Platypus", program: "perl", script: "platypus.pl", ..CTYPES },
];

const ENVIRONMENT: [(&str, &str); 3] =
    [("VIA_GUILE_JIT_THRESHOLD", "-1"), ("VIA_GUILE_AUTO_COMPILE", "0"), ("VIA_LC_ALL", "C")];

const POLICIES: [&str; 4] = ["none", "mdwe", "nowx", "strict"];

/// Which libffi it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    DropIn,
    Preload,
    /// That of the package: for controls.
    Own,
}

/// One row.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    client: Client,
    library: Library,
    policy: &'static str,
    works: bool,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for client in CLIENTS {
        let mut row = |name: String, library, policy, works| {
            let name = format!("{name}: policy {policy}");
            rows.push(Row { name, client, library, policy, works });
        };
        let name = client.name;
        row(
            format!("control: client {name} fails on its own libffi"),
            Library::Own,
            "strict",
            false,
        );
        for policy in POLICIES {
            row(format!("client {name}: drop-in"), Library::DropIn, policy, true);
            if client.preloads {
                row(format!("client {name}: preload"), Library::Preload, policy, true);
            }
        }
        if !client.preloads {
            let name = format!("control: client {name} is not reached by the preload");
            row(name, Library::Preload, "strict", false);
        }
    }
    rows
}

/// Names of the rows.
pub fn names() -> Vec<String> {
    rows().into_iter().map(|row| row.name).collect()
}

/// Fetches what is needed and runs the rows that have `only` in their name.
pub fn run(kit: &Kit, places: &Places, only: &str, report: &mut dyn FnMut(&str, &Outcome)) {
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(only)).collect();
    if rows.is_empty() {
        return;
    }
    let root = places.target.join("clients/root");
    let ready = lives::libraries(places)
        .and_then(|()| fetch(&places.target.join("clients"), &root).map_err(|e| e.to_string()))
        .and_then(|()| furnish(places, &root));
    let outcome = ready.as_ref().err().map_or(Outcome::Passed, |e| Outcome::Failed(e.clone()));
    report("the clients and the libraries are there", &outcome);
    for row in &rows {
        let outcome = match &ready {
            Ok(()) => one(kit, &root, row).unwrap_or_else(Outcome::Failed),
            Err(_) => Outcome::Failed("not run: it is not there".into()),
        };
        report(&row.name, &outcome);
    }
}

/// Unpacks the packages into `root`, if that has not been done.
fn fetch(folder: &Path, root: &Path) -> Result<()> {
    let _lock = Lock::of(folder)?;
    let suites = apt::own_suites()?;
    let stamp = folder.join("stamp");
    let want = format!("{suites:?} {PACKAGES:?}");
    if fs::read_to_string(&stamp).is_ok_and(|is| is == want) {
        return Ok(());
    }
    apt::new_root(root)?;
    let packages = PACKAGES.map(str::to_owned);
    Apt::open(&folder.join("apt"), &suites, None)?.unpack_root(&packages, root)?;
    // A stamp that cannot be written only means that it is fetched once more.
    let _ = fs::write(&stamp, want);
    Ok(())
}

/// Puts scripts and libraries into `root`.
fn furnish(places: &Places, root: &Path) -> std::result::Result<(), String> {
    let scripts = places.repository.join("tests/host/clients");
    let ours = places.repository.join("target/lib");
    let mut files: Vec<(PathBuf, PathBuf)> = CLIENTS
        .iter()
        .map(|client| (scripts.join(client.script), root.join("clients").join(client.script)))
        .collect();
    for (from, to) in [
        ("ffi/libffi.so.8", "drop-in/libffi.so.8"),
        ("libtrampfd-ffi-preload.so", "preload/libtrampfd-ffi-preload.so"),
    ] {
        files.push((ours.join(from), root.join("ours").join(to)));
    }
    for (from, to) in files {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        kinds::copy(&from, &to)?;
    }
    Ok(())
}

/// The path, inside, of a program that may have a version in its name.
fn program(root: &Path, pattern: &str) -> std::result::Result<String, String> {
    let folder = root.join("usr/bin");
    let Some(start) = pattern.strip_suffix('*') else { return Ok(format!("/usr/bin/{pattern}")) };
    let is_version = |name: &str| {
        name.strip_prefix(start).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.contains("phar")
        })
    };
    fs::read_dir(&folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| is_version(name))
        .map(|name| format!("/usr/bin/{name}"))
        .ok_or_else(|| format!("{}: there is no {pattern}", folder.display()))
}

fn one(kit: &Kit, root: &Path, row: &Row) -> std::result::Result<Outcome, String> {
    let client = &row.client;
    let mut command = Command::new(&kit.launcher);
    command
        .args(["via", row.policy])
        .arg(root)
        .args(["inside", &program(root, client.program)?])
        .args(client.words)
        .arg(format!("/clients/{}", client.script))
        .envs(ENVIRONMENT);
    match row.library {
        Library::Own => &mut command,
        Library::DropIn => command.env("VIA_LD_LIBRARY_PATH", "/ours/drop-in"),
        Library::Preload => {
            command.env("VIA_LD_PRELOAD", "/ours/preload/libtrampfd-ffi-preload.so")
        }
    };
    let (ended, said) = kit.output(&mut command)?;
    let right = ended.success() && (said == "right" || said.ends_with("; right"));
    Ok(match ended.code() {
        Some(LACKS) => Outcome::Skipped(said),
        Some(NOT_STARTED) => Outcome::Failed(said),
        _ if right == row.works => Outcome::Passed,
        _ if right => Outcome::Failed("it works".into()),
        _ => Outcome::Failed(format!("{ended}: {said}")),
    })
}
