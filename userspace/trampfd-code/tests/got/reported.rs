//! What debuggers and profilers are told.

use std::path::Path;
use std::process::Command;

use trampfd_code::got::{Error, Loader, Options, Set, Symbol};
use trampfd_code::pool::Pools;

use crate::build::{build, function};
use crate::count::bytes;

/// What the debugger stops at.
// A name that a debugger finds in an optimised program.
#[unsafe(export_name = "trampfd_test_visit")]
extern "C" fn visit(x: i32) -> i32 {
    x
}

fn walk(loader: &Loader, id: u64) -> Result<Set, Error> {
    let object = build("walk.c", &["-O1", "-g", "-fPIC", "-fno-optimize-sibling-calls"]);
    let mut set = loader.set(id);
    set.add("walk", &object.bytes).unwrap();
    set.resolve(|_| Some(Symbol::Address(visit as *const () as usize)));
    // SAFETY: an object of gcc.
    unsafe { set.load() }
}

fn with(change: impl FnOnce(&mut Options)) -> Result<Loader, Error> {
    let mut options = Options::default();
    change(&mut options);
    Loader::new(Pools::new().unwrap(), options)
}

#[repr(C)]
struct Entry {
    next: *const Entry,
    previous: *const Entry,
    file: *const u8,
    len: u64,
}

#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *const Entry,
    first: *const Entry,
}

unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
}

/// The files that a debugger sees.
fn shown() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut previous = std::ptr::null();
    // SAFETY: only this test, in this process, shows objects.
    unsafe {
        assert_eq!((__jit_debug_descriptor.version, __jit_debug_descriptor.action), (1, 0));
        let mut entry = __jit_debug_descriptor.first;
        while !entry.is_null() {
            assert_eq!((*entry).previous, previous);
            files.push(bytes((*entry).file as usize, (*entry).len as usize).to_vec());
            (previous, entry) = (entry, (*entry).next);
        }
    }
    files
}

#[test]
fn debuggers_see_objects_while_they_are_loaded() {
    let loader = with(|options| options.gdb = true).unwrap();
    let set = walk(&loader, 1).unwrap();
    let text = set.sections().iter().find(|s| &*s.name == "walk:.text").unwrap();
    let [file] = &shown()[..] else { panic!("one") };
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shown-{}.o", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let listed = Command::new("readelf").args(["-SW"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|line| line.contains(" .text ")).unwrap();
    assert!(line.contains(&format!("{:016x}", text.address)), "{line}");
    let more = [2, 3].map(|id| walk(&loader, id).unwrap());
    assert_eq!(shown().len(), 3);
    let [two, three] = more;
    drop(two);
    assert_eq!(shown().len(), 2);
    drop(set);
    drop(three);
    assert!(shown().is_empty());
}

/// Run under gdb by the test below.
#[test]
fn debugged() {
    if std::env::var_os("GOT_DEBUGGED").is_none() {
        return;
    }
    let loader = with(|options| options.gdb = true).unwrap();
    assert_eq!(function(&walk(&loader, 1).unwrap(), "middle")(1), 3);
}

/// What gdb says when it is given these commands for the test above.
fn gdb(commands: &[&str]) -> (String, String) {
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set debuginfod enabled off"])
        .args(commands.iter().flat_map(|command| ["-ex", command]))
        .arg("--args")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "reported::debugged", "--test-threads", "1"])
        .env("GOT_DEBUGGED", "1")
        .output()
        .expect("gdb");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_debugger_stops_in_loaded_code_without_writing_there() {
    let load = ["break __jit_debug_register_code", "run", "finish", "delete"];
    let (said, errors) =
        gdb(&[&load[..], &["hbreak walk.c:3", "continue", "print x + 40", "kill"]].concat());
    assert!(said.contains("inner (x="), "{said}\n{errors}");
    assert!(said.contains("$1 = 41"), "{said}\n{errors}");
    // It is told when the set goes, too.
    let (stop, look) = ("break __jit_debug_register_code", "x/2wx &__jit_debug_descriptor");
    let (said, errors) = gdb(&["set language c", stop, "run", look, "continue", look, "continue"]);
    for action in ["1", "2"] {
        let descriptor = format!("0x00000001\t0x0000000{action}");
        assert!(said.contains(&descriptor), "{said}\n{errors}");
    }
    // It cannot write there, and some versions do not say so.
    let (said, errors) = gdb(&[&load[..], &["break walk.c:3", "continue"]].concat());
    assert!(said.contains("walk.c, line 3."), "{said}\n{errors}");
    assert!(!said.contains("inner (x="), "{said}\n{errors}");
}

#[test]
fn gdb_knows_functions_and_lines_of_loaded_code() {
    let (said, errors) = gdb(&["break trampfd_test_visit", "run", "backtrace 4"]);
    for (function, line) in [("inner", 3), ("middle", 4)] {
        let frame = said.lines().find(|line| line.contains(&format!(" in {function} (")));
        let frame = frame.unwrap_or_else(|| panic!("{said}\n{errors}"));
        assert!(frame.ends_with(&format!("walk.c:{line}")), "{frame}");
    }
}

#[test]
fn the_map_for_perf_lists_functions() {
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let _ = std::fs::remove_file(&path);
    let set = walk(&with(|options| options.perf_map = true).unwrap(), 1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut names = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.splitn(3, ' ').collect();
        let address = usize::from_str_radix(columns[0], 16).unwrap();
        assert_eq!(set.symbol(columns[2]), Some(address));
        assert!(usize::from_str_radix(columns[1], 16).unwrap() > 4);
        names.push(columns[2]);
    }
    names.sort();
    assert_eq!(names, ["inner", "middle"]);

    // Somebody else's link is not followed.
    let victim = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-{}", std::process::id()));
    std::fs::write(&victim, "mine").unwrap();
    for target in [Path::new("/dev/null"), &victim] {
        std::os::unix::fs::symlink(target, &path).unwrap();
        let error = with(|options| options.perf_map = true).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(&error, Error::Profile { .. }), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    std::fs::hard_link(&victim, &path).unwrap();
    assert!(with(|options| options.perf_map = true).is_err());
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&victim).unwrap();
}

#[test]
fn the_dump_for_perf_has_the_code() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("jit-{}.dump", std::process::id()));
    let _ = std::fs::remove_file(&path);
    // What an earlier process of this number left.
    std::fs::write(&path, [b'?'; 100]).unwrap();
    // Two loaders share the file, of which the second comes when the first has written.
    let sets = [0, 1]
        .map(|_| walk(&with(|options| options.jitdump = Some(folder.into())).unwrap(), 1).unwrap());
    let dump = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let word = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_ne_bytes(dump[at..at + 8].try_into().unwrap());
    assert_eq!(&dump[..4], b"DTiJ");
    assert_eq!((word(4), word(8), word(12), word(20)), (1, 40, 62, std::process::id()));
    let (mut at, mut before) = (40, long(24));
    let mut numbers = std::collections::HashSet::new();
    let mut found = Vec::new();
    while at < dump.len() {
        assert_eq!((word(at), word(at + 16)), (0, std::process::id()));
        assert!(long(at + 8) >= before, "times go up");
        before = long(at + 8);
        let (address, len) = (long(at + 32) as usize, long(at + 40) as usize);
        assert_eq!(long(at + 24), address as u64);
        assert!(numbers.insert(long(at + 48)), "each function has its number");
        let end = at + word(at + 4) as usize;
        let name = &dump[at + 56..end - len];
        assert_eq!(&dump[end - len..end], bytes(address, len), "the code as it runs");
        found.push((String::from_utf8(name[..name.len() - 1].to_vec()).unwrap(), address));
        at = end;
    }
    assert_eq!(at, dump.len());
    for set in &sets {
        for name in ["inner", "middle"] {
            assert!(found.contains(&(name.into(), set.symbol(name).unwrap())), "{found:?}");
        }
    }
    assert_eq!(found.len(), 4);
}
