//! The bindings for other languages under each policy, through process lives: the drop-in
//! libffi.so.8, the preload over the system's, GCC's nested functions, and the C API.
//!
//! ```text
//! tests/host/lives/*.c ── cc ──► target/host/lives/PROGRAM ─┐
//! scripts/libs ────────────────► target/lib/LIBRARY ────────┤ hard links
//!                                                           ▼
//! DIR/program, DIR/ours/LIBRARY, or DIR/with space/LIBRARY and a file DIR/with;
//! DIR/data what closed fds become; DIR/elsewhere/ a root without files;
//! DIR/lib.. the libraries of the system, for the policy chroot
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kinds::{self, Places};
use crate::policy::POLICIES;
use crate::run::{self, Kit, Outcome};

/// How a program comes to the library.
#[derive(Clone, Copy, Debug)]
struct Binding {
    name: &'static str,
    /// The source beside lives.c.
    source: &'static str,
    /// What its linker is told; `{lib}` is target/lib.
    link: &'static [&'static str],
    /// In target/lib; or one of these.
    library: &'static str,
    preloaded: bool,
}

/// The library is in the program itself.
const LINKED: &str = "(the program)";
/// This machine's own libffi, as the loader finds it.
const MACHINE: &str = "(the machine's)";

const DROP_IN: Binding = Binding {
    name: "drop-in",
    source: "libffi",
    link: &["-lffi"],
    library: "ffi/libffi.so.8",
    preloaded: false,
};

const NESTED_LINKED: Binding = Binding {
    name: "",
    source: "nested",
    link: &["-DLIVES_LINKED", "{lib}/libtrampfd-nested.a"],
    library: LINKED,
    preloaded: false,
};

const BINDINGS: [Binding; 7] = [
    DROP_IN,
    Binding { name: "preload", library: "libtrampfd-ffi-preload.so", preloaded: true, ..DROP_IN },
    Binding {
        name: "nested functions",
        source: "nested",
        link: &["-ldl"],
        library: "libtrampfd.so.0",
        preloaded: true,
    },
    Binding { name: "nested functions, linked first", ..NESTED_LINKED },
    Binding {
        name: "nested functions, static",
        link: &["-static", "-DLIVES_LINKED", "{lib}/libtrampfd-nested.a"],
        ..NESTED_LINKED
    },
    Binding {
        name: "nested functions, static PIE",
        link: &["-static-pie", "-DLIVES_LINKED", "{lib}/libtrampfd-nested.a"],
        ..NESTED_LINKED
    },
    Binding {
        name: "C API",
        source: "capi",
        link: &["-L{lib}", "-ltrampfd", "-I{repository}/userspace/trampfd-capi/include"],
        library: "libtrampfd.so.0",
        preloaded: false,
    },
];

/// The library of this machine, for controls.
const SYSTEM: Binding = Binding { name: "system", library: MACHINE, ..DROP_IN };

/// Something that happens; `lives.c` says what. In `value`, `{dir}` is a folder of the run.
#[derive(Clone, Copy, Debug)]
struct Life {
    name: &'static str,
    event: &'static str,
    value: &'static str,
    /// Where the library lies.
    place: &'static str,
}

const QUIET: Life = Life { name: "a quiet life", event: "quiet", value: "", place: "ours" };

const LIVES: [Life; 12] = [
    QUIET,
    Life { name: "the library's path has a space", place: "with space", ..QUIET },
    Life { name: "fork, both drop and make", event: "fork", ..QUIET },
    Life { name: "all fds closed", event: "daemon", ..QUIET },
    Life { name: "all fds taken by a data file", event: "fds", value: "{dir}/data", ..QUIET },
    Life { name: "no free fd", event: "no-fd", ..QUIET },
    Life { name: "library deleted", event: "delete", ..QUIET },
    Life { name: "library replaced by a copy", event: "same", ..QUIET },
    Life { name: "library replaced by another file", event: "replace", ..QUIET },
    Life { name: "chroot in mid-life", event: "chroot", value: "{dir}/elsewhere", ..QUIET },
    Life { name: "no file can be opened (landlock)", event: "landlock", ..QUIET },
    Life {
        name: "library replaced, no free fd, chroot",
        event: "replace,no-fd,chroot",
        value: "{dir}/elsewhere",
        ..QUIET
    },
];

/// Closures, and how many of them before the event: more than the library is linked with, so that
/// it must grow after the event.
const COUNT: u32 = 6000;
const BEFORE: [u32; 2] = [0, 50];
/// More than a library can make that needs two mappings for 128, and as many frames as a stack
/// holds.
const MANY: u32 = 5_000_000;
const MANY_NESTED: u32 = 100_000;

/// Statuses of lives.c.
const RIGHT: i32 = 0;
const WRONG_ANSWER: i32 = 2;
const REFUSED: i32 = 3;
const EXECUTABLE_MEMORY: i32 = 4;
const OTHER_LIBRARY: i32 = 6;

/// That lives.c sees what it is there to see, with the libffi of this machine: (what, policy,
/// event, closures before it, status).
const CONTROLS: [(&str, &str, &str, u32, i32); 5] = [
    ("memory that is writable and executable", "none", "quiet", 0, EXECUTABLE_MEMORY),
    ("a memfd that is executable", "mdwe", "quiet", 0, EXECUTABLE_MEMORY),
    ("a child that changes its parent's closures", "mdwe", "fork", 50, WRONG_ANSWER),
    ("closures that need an fd", "mdwe", "no-fd", 0, REFUSED),
    ("closures that a policy refuses", "strict", "quiet", 0, REFUSED),
];

/// One row.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    binding: Binding,
    policy: &'static str,
    life: Life,
    before: u32,
    count: u32,
    status: i32,
}

fn rows() -> Vec<Row> {
    let quiet = |binding, policy, name| Row {
        name,
        binding,
        policy,
        life: QUIET,
        before: 0,
        count: COUNT,
        status: RIGHT,
    };
    let mut rows = Vec::new();
    for (what, policy, event, before, status) in CONTROLS {
        let life = Life { event, ..QUIET };
        let name = format!("control: libffi's own library: {what}: policy {policy}");
        rows.push(Row { life, before, status, ..quiet(SYSTEM, policy, name) });
    }
    for binding in BINDINGS {
        let name = format!("control: {}: a wrong answer is seen", binding.name);
        let life = Life { event: "lie", ..QUIET };
        rows.push(Row { life, status: WRONG_ANSWER, ..quiet(binding, "none", name) });
        // What is linked to its own library does not start without it.
        if binding.preloaded || binding.source == DROP_IN.source {
            let name = format!("control: {}: a library that is not used is seen", binding.name);
            let life = Life { place: "elsewhere", ..QUIET };
            rows.push(Row { life, status: OTHER_LIBRARY, ..quiet(binding, "none", name) });
        }
    }
    for binding in BINDINGS {
        for policy in POLICIES {
            for life in LIVES {
                for before in BEFORE {
                    let what = if before == 0 { "at the start" } else { "in mid-life" };
                    let name = format!("{}: {}, {what}: policy {policy}", binding.name, life.name);
                    rows.push(Row { life, before, ..quiet(binding, policy, name) });
                }
            }
        }
        for policy in ["none", "strict"] {
            let count = if binding.source == "nested" { MANY_NESTED } else { MANY };
            let name = format!("{}: {count} at once: policy {policy}", binding.name);
            rows.push(Row { count, ..quiet(binding, policy, name) });
        }
    }
    rows
}

/// Names of the rows.
pub fn names() -> Vec<String> {
    rows().into_iter().map(|row| row.name).collect()
}

/// Builds what is needed and runs the rows that have `only` in their name.
pub fn run(kit: &Kit, places: &Places, only: &str, report: &mut dyn FnMut(&str, &Outcome)) {
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(only)).collect();
    if rows.is_empty() {
        return;
    }
    let said = |made: &Result<(), String>| match made {
        Ok(()) => Outcome::Passed,
        Err(e) => Outcome::Failed(e.clone()),
    };
    let libraries = libraries(places);
    report("the libraries: they can be built", &said(&libraries));
    let stage = Stage { dir: kit.scratch.join("life"), places };
    for binding in BINDINGS.iter().chain([&SYSTEM]) {
        if !rows.iter().any(|row| row.binding.name == binding.name) {
            continue;
        }
        let built = stage.build(binding);
        report(&format!("{}: its program can be built", binding.name), &said(&built));
    }
    for row in &rows {
        // Older libraries may be there.
        let outcome = match &libraries {
            Ok(()) => stage.run(kit, row).unwrap_or_else(Outcome::Failed),
            Err(_) => Outcome::Failed("not run: no libraries".into()),
        };
        report(&row.name, &outcome);
    }
}

/// Builds target/lib, if that has not been done since its sources changed.
pub fn libraries(places: &Places) -> Result<(), String> {
    kinds::run(Command::new(places.repository.join("scripts/libs")).current_dir(&places.repository))
        .map(drop)
}

/// Where rows are run, one at a time.
#[derive(Debug)]
struct Stage<'a> {
    dir: PathBuf,
    places: &'a Places,
}

impl Stage<'_> {
    fn built(&self) -> PathBuf {
        self.places.repository.join("target/lib")
    }

    fn program(&self, binding: &Binding) -> PathBuf {
        self.places.target.join("lives").join(binding.name.replace(' ', "-").replace(',', ""))
    }

    fn build(&self, binding: &Binding) -> Result<(), String> {
        let program = self.program(binding);
        let folder = self.places.target.join("lives");
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let sources = self.places.repository.join("tests/host/lives");
        let link = binding.link.iter().map(|word| {
            word.replace("{lib}", &self.built().to_string_lossy())
                .replace("{repository}", &self.places.repository.to_string_lossy())
        });
        kinds::run(
            Command::new("cc")
                .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
                .args([&program, &sources.join("lives.c")])
                .arg(sources.join(binding.source).with_extension("c"))
                .args(link),
        )?;
        // For the policy chroot. The same for all rows, so they stay.
        run::copy_libraries(&program, &self.dir)?;
        if ![LINKED, MACHINE].contains(&binding.library) {
            run::copy_libraries(&self.built().join(binding.library), &self.dir)?;
        }
        Ok(())
    }

    /// The library of a row before it is staged.
    fn library(&self, binding: &Binding) -> Result<PathBuf, String> {
        match binding.library {
            LINKED => return Ok(self.program(binding)),
            MACHINE => {}
            library => return Ok(self.built().join(library)),
        }
        let said = kinds::run(Command::new("ldd").arg(self.program(binding)))?;
        said.lines()
            .find_map(|line| line.trim().strip_prefix("libffi.so.8 => "))
            .and_then(|rest| rest.split_whitespace().next())
            .map(PathBuf::from)
            .ok_or_else(|| "this machine has no libffi.so.8".to_owned())
    }

    /// Lays out a fresh folder for a row; where its library lies in it.
    fn prepare(&self, row: &Row) -> Result<PathBuf, String> {
        let said = |path: &Path| {
            let path = path.display().to_string();
            move |e: std::io::Error| format!("{path}: {e}")
        };
        for folder in ["ours", "with space", "elsewhere"] {
            let folder = self.dir.join(folder);
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(said(&folder))?;
            }
            fs::create_dir_all(&folder).map_err(said(&folder))?;
        }
        for file in ["data", "with"].map(|name| self.dir.join(name)) {
            if !file.exists() {
                fs::write(&file, vec![0xccu8; 1 << 20]).map_err(said(&file))?;
            }
        }
        let program = self.dir.join("program");
        // It may not be there yet.
        let _ = fs::remove_file(&program);
        fs::hard_link(self.program(&row.binding), &program).map_err(said(&program))?;
        let library = self.library(&row.binding)?;
        let name = library.file_name().ok_or("a library without a name")?;
        let staged = self.dir.join(row.life.place).join(name);
        match row.binding.library {
            // It may be on another file system.
            MACHINE => kinds::copy(&library, &staged)?,
            _ => fs::hard_link(&library, &staged).map_err(said(&staged))?,
        }
        Ok(staged)
    }

    fn run(&self, kit: &Kit, row: &Row) -> Result<Outcome, String> {
        let staged = self.prepare(row)?;
        let inside = |path: &Path| -> String {
            let path = path.to_string_lossy();
            match row.policy {
                "chroot" => path.replacen(&*self.dir.to_string_lossy(), "", 1),
                _ => path.into_owned(),
            }
        };
        let program = match row.binding.library {
            LINKED => staged.clone(),
            _ => self.dir.join("program"),
        };
        let folder = staged.parent().map(inside).unwrap_or_default();
        let mut command = Command::new(&kit.launcher);
        command
            .args(["via", row.policy])
            .arg(&self.dir)
            .args(["direct", &inside(&program), &inside(&staged)])
            .args([row.life.event, &row.life.value.replace("{dir}", &inside(&self.dir))])
            .args([row.before.to_string(), row.count.to_string()])
            .current_dir(&self.dir);
        // Where it lies elsewhere, nobody is told.
        if row.life.place != "elsewhere" {
            command.env("VIA_LD_LIBRARY_PATH", &folder);
            if row.binding.preloaded {
                // By its name: a path that is preloaded cannot have a space.
                command.env("VIA_LD_PRELOAD", staged.file_name().unwrap_or_default());
            }
        }
        Ok(kit.ended(&mut command, row.status))
    }
}
