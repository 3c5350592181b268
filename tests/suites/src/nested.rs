//! The programs of GCC's own test-suite that take the address of a nested function, compiled with
//! `-ftrampoline-impl=heap` by a GCC that has it. Compiler and C library are those of a newer
//! release than this machine's may be, and so the programs run with that release's loader.
//!
//! ```text
//! target/suites/gcc/tree            the root: compiler, C library
//! target/suites/gcc/tree/nested     what it compiles and links: sources, objects, WAY/programs
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vm_fetch::apt::{Apt, new_root};
use vm_fetch::error::{Context, Error, Result};
use vm_fetch::files::{remake, remove_if_any};
use vm_fetch::process::{output, run as run_to_end};

use crate::places::{Places, find, list};
use crate::report::{Outcome, Report, Results};
use crate::row::{POLICIES, Suite, Way, binds, rows, stops, under, works};
use crate::work::{self, each};

const RELEASE: [&str; 2] = ["trixie", "trixie-security"];
const GCC: &str = "gcc-14";

/// Where they are in GCC's sources.
#[rustfmt::skip]
const PROGRAMS: [&str; 14] = [
    "gcc/testsuite/gcc.c-torture/execute/20000822-1.c",
    "gcc/testsuite/gcc.c-torture/execute/921215-1.c",
    "gcc/testsuite/gcc.c-torture/execute/931002-1.c",
    "gcc/testsuite/gcc.c-torture/execute/nestfunc-1.c",
    "gcc/testsuite/gcc.c-torture/execute/nestfunc-2.c",
    "gcc/testsuite/gcc.c-torture/execute/nestfunc-3.c",
    "gcc/testsuite/gcc.c-torture/execute/nestfunc-5.c",
    "gcc/testsuite/gcc.c-torture/execute/nestfunc-6.c",
    "gcc/testsuite/gcc.dg/heap-trampoline-1.c",
    "gcc/testsuite/gcc.dg/nested-vla-1.c",
    "gcc/testsuite/gcc.dg/nested-vla-2.c",
    "gcc/testsuite/gcc.dg/nested-vla-3.c",
    "gcc/testsuite/gcc.dg/trampoline-1.c",
    "libgomp/testsuite/libgomp.c/pr52547.c",
];
const OPTIMISATIONS: [&str; 2] = ["-O0", "-O2"];
/// Makes and drops a nested pointer at every optimisation.
const WITNESS: &str = "heap-trampoline-1.c -O2";
const CREATED: &str = "__gcc_nested_func_ptr_created";
const DELETED: &str = "__gcc_nested_func_ptr_deleted";

/// Under MDWE at least so many of them abort with libgcc.
const STOPPED: usize = 14;
const LIMIT: Duration = Duration::from_secs(60);

/// How the runtime gets into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not at all: libgcc's own is there, and stays or is preloaded over.
    Libgcc,
    LibgccStatic,
    /// `libtrampfd.so` stands before libgcc on the command line.
    First,
    /// `libtrampfd-nested.a` does.
    Object,
    Static,
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Link::Libgcc => "libgcc",
            Link::LibgccStatic => "libgcc-static",
            Link::First => "linked-first",
            Link::Object => "object",
            Link::Static => "object-static",
        }
    }

    fn is_static(self) -> bool {
        matches!(self, Link::LibgccStatic | Link::Static)
    }

    /// The library of ours that is linked, under `target/lib`, and by its soname.
    fn library(self) -> Option<&'static str> {
        match self {
            Link::Libgcc | Link::LibgccStatic => None,
            Link::First => Some("libtrampfd.so.0"),
            Link::Object | Link::Static => Some("libtrampfd-nested.a"),
        }
    }
}

/// A program's object file.
struct Object {
    name: String,
    /// In the root's folder `nested`.
    file: String,
    /// What the source wants to be linked with.
    words: Vec<&'static str>,
}

/// The compiler in its root, and what it has compiled.
struct Root<'a> {
    places: &'a Places,
    tree: PathBuf,
    objects: Vec<Object>,
}

/// The programs of one way of linking.
struct Linked<'a> {
    root: &'a Root<'a>,
    link: Link,
    title: String,
    /// That what was linked in is ours.
    definition: Outcome,
}

/// Runs all rows.
pub fn run(places: &Places, report: &mut Report) -> Result<()> {
    let root = Root::new(places)?;
    let all = root.objects.len();
    let title = format!("nested functions of {GCC}");
    let linked = |link, definition| Linked { root: &root, link, title: title.clone(), definition };

    for link in [Link::Libgcc, Link::LibgccStatic] {
        root.link(link)?;
        let libgcc = Way { name: link.name().into(), variables: vec![], library: PathBuf::new() };
        let programs = linked(link, Ok(()));
        works(report, &programs, &libgcc);
        stops(report, &programs, &libgcc, "mdwe", STOPPED);
        stops(report, &programs, &libgcc, "strict", STOPPED);
    }

    let library = places.ours("libtrampfd.so.0");
    let inside = |name: &str| Way {
        name: name.to_owned(),
        variables: vec![],
        library: places.ours("libtrampfd-nested.a"),
    };
    for (way, link) in [
        (Way::preloaded("preload", library.clone(), None), Link::Libgcc),
        (Way::found_first("linked first", library), Link::First),
        (inside("object"), Link::Object),
        (inside("static"), Link::Static),
    ] {
        let mut definition = Ok(());
        if link.library().is_some() && way.library.exists() {
            let said = root.link(link).map_err(|e| e.to_string());
            definition = said.and_then(|said| definition_is_ours(link, &said));
            let stacks = root.executable_stacks(link).map_err(|e| e.to_string());
            let stacks = stacks.and_then(|programs| match &programs[..] {
                [] => Ok(()),
                some => Err(some.join("; ")),
            });
            report.result(&format!("{title}, {}, no stack is executable", way.name), &stacks);
        }
        rows(report, &linked(link, definition), &way, &POLICIES, all);
    }
    Ok(())
}

impl Suite for Linked<'_> {
    fn title(&self) -> &str {
        &self.title
    }

    fn results(&self, way: &Way, policy: &str) -> Results {
        let places = self.root.places;
        each(&self.root.objects, |object, thread| {
            let program = self.root.program(self.link, object);
            let outcome = if program.exists() {
                let mut command = under(places, policy, way, &program);
                let ended = work::run(&mut command, &places.said(&thread.to_string()), LIMIT);
                ended.and_then(|ended| ended.well())
            } else {
                Err("not run: it is not linked".to_owned())
            };
            (object.name.clone(), outcome)
        })
    }

    /// The linker said so, and where the loader has its part in it, it too.
    fn in_use(&self, way: &Way, policy: &str) -> Outcome {
        self.definition.clone()?;
        if matches!(self.link, Link::Object | Link::Static) {
            return Ok(());
        }
        let object = self.root.objects.iter().find(|object| object.name == WITNESS);
        let object = object.ok_or_else(|| format!("there is no program {WITNESS}"))?;
        let program = self.root.program(self.link, object);
        let places = self.root.places;
        let mut command = under(places, policy, way, &program);
        let name = program.to_string_lossy();
        binds(&mut command, &name, &[CREATED, DELETED], way, &places.said("bindings"))
    }
}

impl<'a> Root<'a> {
    fn new(places: &'a Places) -> Result<Root<'a>> {
        let dir = places.once("gcc", &format!("2 {RELEASE:?} {GCC} {PROGRAMS:?}"), fetch)?;
        let tree = dir.join("tree");
        let mut objects = Vec::new();
        for program in PROGRAMS {
            let source = program.rsplit('/').next().unwrap_or(program);
            let words = if program.starts_with("libgomp/") { vec!["-fopenmp"] } else { vec![] };
            for optimisation in OPTIMISATIONS {
                objects.push(Object {
                    name: format!("{source} {optimisation}"),
                    file: format!("{source}{optimisation}.o"),
                    words: words.clone(),
                });
            }
        }
        let root = Root { places, tree, objects };
        root.compile()?;
        Ok(root)
    }

    /// The compiler, in its root.
    fn gcc(&self) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(&self.tree).arg(format!("/usr/bin/{GCC}")).env_clear();
        command.env("PATH", "/usr/bin").env("LC_ALL", "C").args(["-w", "-ftrampoline-impl=heap"]);
        command
    }

    /// Compiles what is not compiled yet.
    fn compile(&self) -> Result<()> {
        let here = self.tree.join("nested");
        each(&self.objects, |object, _| {
            if here.join(&object.file).exists() {
                return Ok(());
            }
            let (source, optimisation) = object
                .name
                .split_once(' ')
                .ok_or_else(|| Error::new("an object without a name"))?;
            let text = fs::read_to_string(here.join(source)).context(|| source.to_owned())?;
            let mut command = self.gcc();
            command.args(options(&text)).args(&object.words).arg(optimisation);
            // Under a name of its own, so that what is interrupted is not taken for whole.
            let part = format!("{}.part", object.file);
            command.args(["-c", &format!("/nested/{source}"), "-o", &format!("/nested/{part}")]);
            run_to_end(&mut command)?;
            fs::rename(here.join(part), here.join(&object.file)).context(|| object.file.clone())
        })
        .into_iter()
        .collect()
    }

    /// The program that an object was linked to.
    fn program(&self, link: Link, object: &Object) -> PathBuf {
        let name = object.file.trim_end_matches(".o");
        self.tree.join("nested").join(link.name()).join(name)
    }

    /// Links all programs; what the linker said of where the entries come from.
    fn link(&self, link: Link) -> Result<Vec<String>> {
        let here = self.tree.join("nested");
        remake(&here.join(link.name()))?;
        let library = link.library().map(|name| (name, self.places.ours(name)));
        if let Some((name, path)) = &library {
            let copy = here.join(name);
            remove_if_any(&copy)?;
            fs::copy(path, &copy).context(|| path.display().to_string())?;
        }
        let folder = find(&self.tree.join("usr/lib"), "libc.so.6")?;
        let folder = folder.parent().unwrap_or(&self.tree);
        let loader = loader_in(folder)?;
        each(&self.objects, |object, _| {
            let mut command = self.gcc();
            command.args(&object.words).arg(format!("/nested/{}", object.file));
            if let Some((name, _)) = &library {
                command.arg(format!("/nested/{name}"));
            }
            if link.is_static() {
                command.arg("-static");
            } else {
                command.arg(format!("-Wl,--dynamic-linker={}", loader.display()));
                command.arg(format!("-Wl,-rpath,{}", folder.display()));
            }
            command.arg(format!("-Wl,--trace-symbol={CREATED}"));
            command.args([
                "-o",
                &format!("/nested/{}/{}", link.name(), object.file.trim_end_matches(".o")),
            ]);
            run_to_end(&mut command).context(|| object.name.clone())
        })
        .into_iter()
        .collect()
    }

    /// The programs whose stack the kernel is asked to make executable, which is what nested
    /// functions used to need, and what one careless object file brings back.
    fn executable_stacks(&self, link: Link) -> Result<Vec<String>> {
        let mut bad = Vec::new();
        for object in &self.objects {
            let program = self.program(link, object);
            let said = output(Command::new("readelf").args(["-lW", "--"]).arg(&program))?;
            if !stack_is_data(&said) {
                bad.push(object.name.clone());
            }
        }
        Ok(bad)
    }
}

/// That the linker took the entries from the file that it was given: in each program that wants
/// them it was the first to define them. `said` is what it said of each program.
fn definition_is_ours(link: Link, said: &[String]) -> Outcome {
    let name = link.library().unwrap_or("nothing of ours");
    let with_reference = || said.iter().filter(|text| text.contains(": reference to "));
    for text in with_reference() {
        match text.lines().find(|line| line.contains(": definition of ")) {
            Some(line) if line.contains(name) => {}
            Some(line) => return Err(line.to_owned()),
            None => return Err(format!("nothing defines {CREATED}")),
        }
    }
    match with_reference().count() {
        few if few < STOPPED => Err(format!("only {few} programs want {CREATED}")),
        _ => Ok(()),
    }
}

/// The program's headers say that its stack is no code.
fn stack_is_data(headers: &str) -> bool {
    let stack = headers.lines().find(|line| line.trim_start().starts_with("GNU_STACK"));
    stack.is_some_and(|line| line.contains(" RW ") && !line.contains(" RWE "))
}

/// The dynamic loader in a folder of libraries.
fn loader_in(folder: &Path) -> Result<PathBuf> {
    let is_loader = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
    };
    list(folder)?
        .into_iter()
        .find(is_loader)
        .ok_or_else(|| Error::new(format!("no loader in {}", folder.display())))
}

/// The options that a test's own comments ask for, but for its optimisation.
fn options(source: &str) -> Vec<&str> {
    let directives = ["{ dg-options \"", "{ dg-additional-options \""];
    let asked = source.lines().filter_map(|line| {
        let (_, rest) = directives.iter().find_map(|d| line.split_once(d))?;
        Some(rest.split_once('"')?.0)
    });
    asked.flat_map(str::split_whitespace).filter(|word| !word.starts_with("-O")).collect()
}

/// The root and, in its folder `nested`, the sources.
fn fetch(dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    new_root(&tree)?;
    let apt = Apt::open(&dir.join("apt"), &RELEASE.map(str::to_owned), None)?;
    apt.unpack_root(&[GCC.to_owned(), "libc6-dev".to_owned()], &tree)?;
    let package = apt.candidate(&format!("{GCC}-source"))?;
    let unpacked = dir.join("source");
    apt.unpack(&[package], &unpacked)?;
    apt.forget()?;
    let archives = list(&unpacked.join("usr/src").join(GCC))?;
    let is_archive = |path: &&PathBuf| path.to_string_lossy().ends_with(".tar.xz");
    let archive = archives
        .iter()
        .find(is_archive)
        .ok_or_else(|| Error::new(format!("no archive in {GCC}-source")))?;
    let here = tree.join("nested");
    fs::create_dir_all(&here).context(|| here.display().to_string())?;
    // Without the folders; a program that the archive lacks is an error of tar.
    let mut command = Command::new("tar");
    command.args(["--no-same-owner", "--wildcards", "--transform=s:.*/::", "-xJf"]);
    command.arg(archive).arg("-C").arg(&here);
    run_to_end(command.args(PROGRAMS.map(|program| format!("*/{program}"))))?;
    fs::remove_dir_all(&unpacked).context(|| unpacked.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_definition_counts() {
        let ours = "ld: /nested/a.o: reference to f\nld: /nested/libtrampfd.so.0: definition of f\n\
                    ld: libgcc_s.so.1: definition of f\n";
        let theirs = "ld: /nested/a.o: reference to f\nld: libgcc_s.so.1: definition of f\n\
                      ld: /nested/libtrampfd.so.0: definition of f\n";
        let mut said = vec![ours.to_owned(); STOPPED];
        said.push("ld: libgcc_s.so.1: definition of f\n".into());
        assert_eq!(definition_is_ours(Link::First, &said), Ok(()));
        assert!(definition_is_ours(Link::Object, &said).is_err());
        assert!(definition_is_ours(Link::First, &said[1..]).is_err());
        said.push(theirs.into());
        assert!(definition_is_ours(Link::First, &said).is_err());
        said.pop();
        said.push("ld: /nested/a.o: reference to f\n".into());
        assert!(definition_is_ours(Link::First, &said).is_err());
    }

    #[test]
    fn a_stack_that_nothing_is_said_of_is_executable() {
        let headers =
            |flags| format!("  LOAD 0x0 R E 0x1000\n  GNU_STACK 0x0 0x0 0x0 {flags} 0x10\n");
        assert!(stack_is_data(&headers("RW ")));
        assert!(!stack_is_data(&headers("RWE")));
        assert!(!stack_is_data("  LOAD 0x0 R E 0x1000\n"));
    }

    #[test]
    fn reads_the_options_of_a_test() {
        let source = "/* { dg-do run } */\n/* { dg-options \"-O2 -std=gnu99\" } */\n\
                      /* { dg-additional-options \"-fpermissive\" } */\n";
        assert_eq!(options(source), ["-std=gnu99", "-fpermissive"]);
        assert_eq!(options("int main(void) {}"), [""; 0]);
    }
}
