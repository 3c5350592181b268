//! Where things are, and what is looked up there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vm_fetch::apt::{Apt, own_suites};
use vm_fetch::error::{Context, Error, Result};
use vm_fetch::files::{remake, remove_if_any};
use vm_fetch::process::{Lock, output, run};

/// The folders.
#[derive(Debug)]
pub struct Places {
    /// This repository.
    pub repository: PathBuf,
    /// What is fetched and built here, kept from run to run.
    pub kept: PathBuf,
    /// The program that puts others under a policy.
    pub launcher: PathBuf,
    /// One run at a time.
    _lock: Lock,
}

impl Places {
    /// Builds the launcher.
    pub fn new() -> Result<Places> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let repository = here.canonicalize().context(|| here.display().to_string())?;
        let kept = repository.join("target/suites");
        let lock = Lock::of(&kept)?;
        run(cargo(&repository).args(["build", "-q", "-p", "trampfd-host"]))?;
        let launcher = repository.join("target/debug/trampfd-host");
        let said = kept.join("said");
        fs::create_dir_all(&said).context(|| said.display().to_string())?;
        Ok(Places { repository, kept, launcher, _lock: lock })
    }

    /// Builds our libraries.
    pub fn build_ours(&self) -> Result<()> {
        run(Command::new("scripts/libs").current_dir(&self.repository)).map(drop)
    }

    /// A library of ours, by its path under `target/lib`.
    pub fn ours(&self, path: &str) -> PathBuf {
        self.repository.join("target/lib").join(path)
    }

    /// A file for what a program says, one at a time.
    pub fn said(&self, name: &str) -> PathBuf {
        self.kept.join("said").join(name)
    }

    /// The folder of a crate's sources, as cargo unpacked them, and the crate's version.
    pub fn crate_sources(&self, name: &str) -> Result<(PathBuf, String)> {
        // Without a platform cargo fetches the crates of all of them.
        let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
        let metadata = ["metadata", "--format-version=1", &platform];
        let text = output(cargo(&self.repository).args(metadata))?;
        let metadata: Value = serde_json::from_str(&text).context(|| "cargo metadata")?;
        let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
        let package = packages
            .iter()
            .find(|package| package["name"] == name)
            .ok_or_else(|| Error::new(format!("no crate {name} among the dependencies")))?;
        let manifest = package["manifest_path"].as_str().map(Path::new);
        let folder = manifest.and_then(Path::parent);
        match (folder, package["version"].as_str()) {
            (Some(folder), Some(version)) => Ok((folder.to_owned(), version.to_owned())),
            _ => Err(Error::new(format!("cargo metadata says nothing of {name}"))),
        }
    }

    /// A folder of ours whose contents `make` makes, anew only where `key` has changed.
    pub fn once(
        &self,
        name: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.kept.join(name);
        let stamp = self.kept.join(format!("{name}.stamp"));
        // Some of what is kept holds the names of its folder.
        let key = format!("{}\n{key}\n", dir.display());
        // A stamp that cannot be read says that nothing is there.
        if fs::read_to_string(&stamp).is_ok_and(|text| text == key) {
            return Ok(dir);
        }
        eprintln!("suites: making {}", dir.display());
        remove_if_any(&stamp)?;
        remake(&dir)?;
        make(&dir)?;
        fs::write(&stamp, key).context(|| stamp.display().to_string())?;
        Ok(dir)
    }

    /// The libffi and the Python of this machine's own release, unpacked.
    pub fn debian(&self) -> Result<Debian> {
        let suites = own_suites()?;
        let dir = self.once("debian", &format!("1 {suites:?}"), |dir| {
            let apt = Apt::open(&dir.join("apt"), &suites, None)?;
            // python3 depends on python3.N first of all.
            let python = apt.candidate("python3")?;
            let name = python
                .depends
                .iter()
                .find(|name| name.starts_with("python3."))
                .ok_or_else(|| Error::new("python3 depends on no python3.N"))?;
            let library = apt.candidate(&format!("lib{name}-stdlib"))?;
            let libffi = library
                .depends
                .iter()
                .find(|name| name.starts_with("libffi"))
                .ok_or_else(|| Error::new("Python's library depends on no libffi"))?;
            let mut packages = vec![apt.candidate(libffi)?, library.clone()];
            for name in [
                format!("{name}-minimal"),
                format!("lib{name}-minimal"),
                format!("lib{name}-testsuite"),
            ] {
                packages.push(apt.candidate(&name)?);
            }
            let said: Vec<String> =
                packages.iter().map(|p| format!("{} {}\n", p.name, p.version)).collect();
            apt.unpack(&packages, &dir.join("tree"))?;
            apt.forget()?;
            let versions = dir.join("versions");
            fs::write(&versions, said.concat()).context(|| versions.display().to_string())
        })?;
        let tree = dir.join("tree");
        let title = format!("Debian's {}", version_in(&dir, "libffi")?);
        let python_version = version_in(&dir, "libpython3")?;
        Ok(Debian { libffi: find(&tree, "libffi.so.8")?, title, tree, python_version })
    }
}

/// What [`Places::debian`] fetched.
#[derive(Debug)]
pub struct Debian {
    pub tree: PathBuf,
    pub libffi: PathBuf,
    /// What to call that libffi.
    pub title: String,
    pub python_version: String,
}

impl Debian {
    /// Where libffi lies.
    pub fn libraries(&self) -> Option<&Path> {
        self.libffi.parent()
    }
}

/// The version of a package whose name begins so.
fn version_in(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join("versions");
    let text = fs::read_to_string(&path).context(|| path.display().to_string())?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(' '))
        .map(|(_, version)| version.to_owned())
        .ok_or_else(|| Error::new(format!("{}: no {name}", path.display())))
}

/// The file of that name somewhere below a folder.
pub fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for path in list(&dir)? {
            if path.file_name().is_some_and(|n| n == name) {
                return Ok(path);
            }
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    Err(Error::new(format!("no {name} below {}", folder.display())))
}

/// What is in a folder, in order of names.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let said = || folder.display().to_string();
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).context(said)? {
        paths.push(entry.context(said)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Cargo, in the folder of a package. What cargo told this process is not for that one, and what
/// it makes lies where it is looked for.
pub fn cargo(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_TARGET_DIR", "CARGO_BUILD_"];
        if told.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder);
    command
}
