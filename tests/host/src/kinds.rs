//! The link kinds: how each is built, and that it came out as what it is called.
//!
//! All share one target directory: what cargo is told is part of the names of what it keeps
//! there, so nothing is built twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A program of cargo's.
    Program,
    /// A C program that loads or is linked to the library: with these arguments of the compiler.
    CdyLib(&'static [&'static str]),
    /// A C program with the static library in it.
    StaticLib,
    /// A program with two versions of the crates in it.
    TwoVersions,
}

/// What the file must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// Position-independent, started by a loader.
    Pie,
    /// Position-independent, no loader.
    StaticPie,
    /// At fixed addresses, no loader.
    Static,
}

/// A link kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    flags: &'static str,
    cargo: &'static [&'static str],
    pub form: Form,
    looks: Looks,
    /// The linker signs what it links: this word must be there, or must not.
    linker: Option<(&'static str, bool)>,
}

const PIE: Kind = Kind {
    name: "pie",
    flags: "",
    cargo: &["--release"],
    form: Form::Program,
    looks: Looks::Pie,
    linker: None,
};
const LLD: &str = "LLD";

/// All of them.
pub const KINDS: [Kind; 13] = [
    PIE,
    Kind { name: "debug", cargo: &[], ..PIE },
    Kind {
        name: "static-pie",
        flags: "-Ctarget-feature=+crt-static",
        looks: Looks::StaticPie,
        ..PIE
    },
    Kind {
        name: "static",
        flags: "-Ctarget-feature=+crt-static -Crelocation-model=static",
        looks: Looks::Static,
        ..PIE
    },
    Kind { name: "cdylib", form: Form::CdyLib(&["-DDLOPEN", "-ldl"]), ..PIE },
    Kind {
        name: "cdylib-linked",
        form: Form::CdyLib(&["-L{dir}", "-lsubject", "-Wl,-rpath,$ORIGIN"]),
        ..PIE
    },
    Kind { name: "staticlib", form: Form::StaticLib, ..PIE },
    Kind { name: "lld", flags: "-Clink-arg=-fuse-ld=lld", linker: Some((LLD, true)), ..PIE },
    Kind { name: "bfd", flags: "-Clink-arg=-fuse-ld=bfd", linker: Some((LLD, false)), ..PIE },
    Kind {
        name: "static-lld",
        flags: "-Ctarget-feature=+crt-static -Crelocation-model=static -Clink-arg=-fuse-ld=lld",
        looks: Looks::Static,
        linker: Some((LLD, true)),
        ..PIE
    },
    Kind {
        name: "fat-lto",
        cargo: &[
            "--release",
            "--config=profile.release.lto='fat'",
            "--config=profile.release.codegen-units=1",
        ],
        ..PIE
    },
    Kind {
        name: "panic-abort",
        cargo: &["--release", "--config=profile.release.panic='abort'"],
        ..PIE
    },
    Kind { name: "two-versions", form: Form::TwoVersions, ..PIE },
];

/// The kind called `name`.
pub fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Where everything is.
#[derive(Debug)]
pub struct Places {
    pub repository: PathBuf,
    /// For what the matrix makes.
    pub target: PathBuf,
}

impl Places {
    /// From where this crate lies.
    pub fn new() -> Places {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let repository = repository.canonicalize().unwrap_or(repository);
        Places { target: repository.join("target/host"), repository }
    }
}

/// Runs a command; what it said if it failed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Copies a file, or hands back why not.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(drop).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}

/// Builds a kind into `target/host/kinds/NAME/`: `subject`, and `libsubject.so` where there is
/// one.
pub fn build(kind: &Kind, places: &Places) -> Result<PathBuf, String> {
    let dir = places.target.join("kinds").join(kind.name);
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let subject = dir.join("subject");
    match kind.form {
        Form::Program => {
            let built = cargo(kind, places, &places.repository, &["build", "--bin=subject"])?;
            copy(&built.join("subject"), &subject)?;
        }
        Form::TwoVersions => {
            let project = two_versions(places)?;
            let built = cargo(kind, places, &project, &["build", "--bin=two-versions"])?;
            copy(&built.join("two-versions"), &subject)?;
        }
        Form::CdyLib(_) | Form::StaticLib => {
            let (form, file) = match kind.form {
                Form::StaticLib => ("staticlib", "libtrampfd_subject.a"),
                _ => ("cdylib", "libtrampfd_subject.so"),
            };
            let form = format!("--crate-type={form}");
            let words = ["rustc", "--lib", "--features=export", &form];
            let built = cargo(kind, places, &places.repository, &words)?;
            let library = dir.join(match kind.form {
                Form::StaticLib => "libsubject.a",
                _ => "libsubject.so",
            });
            copy(&built.join(file), &library)?;
            let words = match kind.form {
                Form::CdyLib(words) => words,
                _ => &["-L{dir}", "-lsubject", "-lgcc_s", "-lpthread", "-lm", "-ldl"],
            };
            let words = words.iter().map(|w| w.replace("{dir}", &dir.to_string_lossy()));
            let main = places.repository.join("tests/host/subject/src/main.c");
            run(Command::new("cc").arg("-O2").arg("-o").args([&subject, &main]).args(words))?;
        }
    }
    is_what_it_is_called(kind, &subject)?;
    Ok(dir)
}

/// Builds another program of this workspace static.
pub fn build_static(places: &Places, package: &str) -> Result<PathBuf, String> {
    let target = places.target.join("build");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(["build", "--release", "-p", package]).current_dir(&places.repository);
    command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    run(&mut command)?;
    Ok(target.join("release").join(package))
}

/// The folder that cargo put it into.
fn cargo(kind: &Kind, places: &Places, dir: &Path, words: &[&str]) -> Result<PathBuf, String> {
    let target = places.target.join("build");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(words).args(kind.cargo).current_dir(dir);
    if kind.form != Form::TwoVersions {
        command.args(["-p", "trampfd-subject"]);
    }
    command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", kind.flags);
    run(&mut command)?;
    Ok(target.join(if kind.cargo.is_empty() { "debug" } else { "release" }))
}

/// A workspace with copies of the crates under another version number, and a program that
/// depends on these and on the real ones.
fn two_versions(places: &Places) -> Result<PathBuf, String> {
    const CRATES: [&str; 4] =
        ["trampolines", "userspace/trampfd-sys", "userspace/trampfd", "tests/host/subject"];
    let project = places.target.join("two-versions");
    let said = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    for folder in CRATES {
        mirror(&places.repository.join(folder), &project.join(folder))?;
    }
    let manifest = places.repository.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| said(&manifest, e))?;
    let version = text
        .lines()
        .find(|line| line.starts_with("version = "))
        .ok_or("the workspace has no version")?;
    let (start, end) = text
        .split_once("members = [")
        .and_then(|(start, rest)| Some((start, rest.split_once(']')?.1)))
        .ok_or("the workspace has no members")?;
    let members = CRATES.map(|folder| format!("\"{folder}\"")).join(", ");
    let text = format!("{start}members = [{members}]{end}")
        .replace(version, "version = \"0.99.0\"")
        + &format!(
            "
[package]
name = \"two-versions\"
version.workspace = true
edition.workspace = true

[dependencies]
one = {{ package = \"trampfd-subject\", path = \"{}\" }}
two = {{ package = \"trampfd-subject\", path = \"tests/host/subject\" }}
",
            places.repository.join("tests/host/subject").display()
        );
    write(&project.join("Cargo.toml"), text.as_bytes())?;
    let source = "//! Two versions of the crates, side by side.\n\nfn main() {\n    \
        let words = || std::env::args().skip(1);\n    \
        let other = std::thread::spawn(move || one::run(words()));\n    \
        let status = two::run(words());\n    \
        std::process::exit(status.max(other.join().unwrap_or(101)));\n}\n";
    fs::create_dir_all(project.join("src")).map_err(|e| said(&project, e))?;
    write(&project.join("src/main.rs"), source.as_bytes())?;
    Ok(project)
}

/// Copies a folder; a file that is the same already stays untouched, so that cargo builds
/// nothing again.
fn mirror(from: &Path, to: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", from.display());
    fs::create_dir_all(to).map_err(said)?;
    for entry in fs::read_dir(from).map_err(said)? {
        let entry = entry.map_err(said)?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            mirror(&from, &to)?;
        } else {
            write(&to, &fs::read(&from).map_err(said)?)?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// Looks into the ELF header and at what the linker signed.
fn is_what_it_is_called(kind: &Kind, program: &Path) -> Result<(), String> {
    let said = |what: &str| Err(format!("{}: {what}", program.display()));
    let bytes = fs::read(program).map_err(|e| format!("{}: {e}", program.display()))?;
    let number = |at: usize, len: usize| {
        let mut word = [0; 8];
        word[..len].copy_from_slice(bytes.get(at..at + len)?);
        Some(u64::from_le_bytes(word))
    };
    let header = || {
        // Elf64_Ehdr: e_type, e_phoff, e_phentsize, e_phnum.
        let (kind, offset) = (number(16, 2)?, number(32, 8)? as usize);
        let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
        let mut loader = false;
        for n in 0..count {
            loader |= number(offset + n * size, 4)? == u64::from(libc::PT_INTERP);
        }
        Some((kind, loader))
    };
    let looks = match header() {
        Some((3, true)) => Looks::Pie,
        Some((3, false)) => Looks::StaticPie,
        Some((2, false)) => Looks::Static,
        _ => return said("an unexpected ELF file"),
    };
    if looks != kind.looks {
        return said(&format!("it is {looks:?}, not {:?}", kind.looks));
    }
    if let Some((word, there)) = kind.linker {
        // Signed in .comment as "Linker: ... LLD x.y.z".
        let signed = bytes.windows(8).enumerate().any(|(at, window)| {
            window == b"Linker: "
                && bytes[at..bytes.len().min(at + 64)]
                    .windows(word.len())
                    .any(|w| w == word.as_bytes())
        });
        if signed != there {
            return said(&format!("linked by {word}: {signed}"));
        }
    }
    Ok(())
}
