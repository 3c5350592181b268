//! C, C++, Fortran and Zig programs, compiled here and run with what `link.sh` made.
//!
//! ```text
//!   tests/c/api.c            the C interface, and what compiled programs rely on
//!   tests/c/nested.c         the runtime of nested functions, called as compilers call it
//!   tests/c/exceptions.cpp   C++ exceptions through both
//!   examples/                the same program in four languages
//! ```
//!
//! A program lists its tests; each is run in a process of its own. A compiler that is not there is
//! a failure: `scripts/setup.sh` installs them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of these tests.
fn out(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a command; it must succeed. What it printed.
fn run(command: &mut Command) -> String {
    let output = start(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

fn start(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("not run: {command:?}: {error}"))
}

/// The folder of the libraries, linked anew.
fn lib() -> &'static Path {
    static LIB: LazyLock<PathBuf> = LazyLock::new(|| {
        run(&mut Command::new(here().join("link.sh")));
        here().join("../../target/lib").canonicalize().expect("target/lib")
    });
    &LIB
}

/// How a program gets the library.
#[derive(Clone, Copy)]
enum Linked {
    /// `-ltrampfd`.
    Shared,
    /// The object of nested functions, in a program that is dynamic.
    Object,
    /// The same in a static program.
    StaticObject,
    /// The archive of everything, in a static program.
    Static,
}

/// Compiles a program.
fn compile(compiler: &str, source: &str, name: &str, linked: Linked, options: &[&str]) -> PathBuf {
    let lib = lib();
    let program = out(name);
    let mut command = Command::new(compiler);
    command.args(options).arg("-o").arg(&program).arg(here().join(source));
    if !compiler.starts_with("gfortran") {
        command.args(["-Wall", "-Wextra", "-Werror", "-Wno-infinite-recursion"]);
        command.arg("-I").arg(here().join("include"));
    }
    match linked {
        Linked::Shared => {
            command.arg("-L").arg(lib).arg("-ltrampfd");
            command.arg(format!("-Wl,-rpath,{}", lib.display()));
        }
        Linked::Object => {
            command.arg(lib.join("libtrampfd-nested.a"));
        }
        Linked::StaticObject => {
            command.arg("-static").arg(lib.join("libtrampfd-nested.a"));
        }
        Linked::Static => {
            command.arg("-static").arg(lib.join("libtrampfd.a")).arg("-lgcc_eh");
        }
    }
    run(&mut command);
    program
}

/// Runs every test of a program, each in its own process; there must be `count`.
fn all_tests(program: &Path, count: usize, prepare: impl Fn(&mut Command) -> &mut Command) {
    some_tests(program, count, prepare, |_| true);
}

/// The same for those tests whose names are `wanted`.
fn some_tests(
    program: &Path,
    count: usize,
    prepare: impl Fn(&mut Command) -> &mut Command,
    wanted: impl Fn(&str) -> bool,
) {
    let names = run(prepare(&mut Command::new(program)));
    assert_eq!(names.lines().count(), count, "{names}");
    let mut failures = String::new();
    for name in names.lines().filter(|name| wanted(name)) {
        let output = start(prepare(Command::new("timeout").arg("120").arg(program).arg(name)));
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.ends_with("ok\n") {
            let why = String::from_utf8_lossy(&output.stderr);
            failures += &format!("{name}: {}: {said}{why}\n", output.status);
        }
    }
    assert!(failures.is_empty(), "{}:\n{failures}", program.display());
}

fn plainly(command: &mut Command) -> &mut Command {
    command
}

/// Not those that take a signal after each instruction: they take long, and it is the same code in
/// each library. They run with the object.
fn not_stepped(name: &str) -> bool {
    !name.ends_with("_at_each_instruction")
}

const API_TESTS: usize = 15;
const NESTED_TESTS: usize = 24;

#[test]
fn api() {
    for level in ["-O0", "-O2"] {
        let name = format!("api{level}");
        let program = compile("gcc", "tests/c/api.c", &name, Linked::Shared, &[level]);
        all_tests(&program, API_TESTS, plainly);
    }
}

#[test]
fn exceptions() {
    for level in ["-O0", "-O2"] {
        let name = format!("exceptions{level}");
        let source = "tests/c/exceptions.cpp";
        all_tests(&compile("g++", source, &name, Linked::Shared, &[level]), 2, plainly);
    }
}

#[test]
fn nested_functions_by_the_shared_library() {
    let program = compile("gcc", "tests/c/nested.c", "nested-so", Linked::Shared, &["-O2"]);
    some_tests(&program, NESTED_TESTS, plainly, not_stepped);
}

#[test]
fn nested_functions_by_the_object() {
    for level in ["-O0", "-O2"] {
        let name = format!("nested-object{level}");
        let program = compile("gcc", "tests/c/nested.c", &name, Linked::Object, &[level]);
        some_tests(&program, NESTED_TESTS, plainly, |name| level == "-O2" || not_stepped(name));
    }
}

#[test]
fn nested_functions_in_a_static_program() {
    let linked = Linked::StaticObject;
    let program = compile("gcc", "tests/c/nested.c", "nested-static", linked, &["-O2"]);
    some_tests(&program, NESTED_TESTS, plainly, not_stepped);
}

/// A program that was linked to another library's functions, as programs are to libgcc_s.
#[test]
fn nested_functions_by_preload() {
    lib();
    let (source, map, other) = (out("other.c"), out("other.map"), out("libother.so"));
    let names = ["__gcc_nested_func_ptr_created", "__gcc_nested_func_ptr_deleted"];
    let more = ["Init", "Adjust", "Free"].map(|name| format!("_FortranATrampoline{name}"));
    let all = names.into_iter().chain(more.iter().map(String::as_str));
    let text: String =
        all.map(|name| format!("void {name}(void) {{ __builtin_abort(); }}\n")).collect();
    std::fs::write(&source, text).unwrap();
    std::fs::write(&map, format!("GCC_14.0.0 {{ global: {}; {}; }};", names[0], names[1])).unwrap();
    run(Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&other, &source])
        .arg(format!("-Wl,--version-script={}", map.display())));
    let program = out("nested-preload");
    run(Command::new("gcc")
        .args(["-O2", "-o"])
        .args([&program, &here().join("tests/c/nested.c"), &other])
        .arg(format!("-Wl,-rpath,{}", out("").display())));
    // It does call the other library's, unless ours is preloaded.
    assert!(!start(Command::new(&program).arg("nests")).status.success());
    let ours = lib().join("libtrampfd.so.0");
    some_tests(&program, NESTED_TESTS, |command| command.env("LD_PRELOAD", &ours), not_stepped);
}

/// What the example prints in every language.
const NUMBERS: [i32; 5] = [9, 7, 5, 12, 1];

fn prints_the_numbers(program: &Path) {
    let text = run(&mut Command::new(program));
    let numbers: Vec<i32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("number ")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(numbers, NUMBERS, "{text}");
}

#[test]
fn example_in_c() {
    let source = "examples/sort.c";
    prints_the_numbers(&compile("gcc", source, "sort-c", Linked::Shared, &["-O2"]));
    prints_the_numbers(&compile("gcc", source, "sort-static", Linked::Static, &["-O2"]));
}

#[test]
fn example_in_cxx() {
    let options = ["-O2", "-std=c++17"];
    let program = compile("g++", "examples/sort.cpp", "sort-cpp", Linked::Shared, &options);
    prints_the_numbers(&program);
    assert!(run(&mut Command::new(program)).contains("from inside the closure, called"));
}

#[test]
fn example_in_fortran() {
    let modules = out("");
    let options = ["-O2", "-Wall", "-J", modules.to_str().unwrap()];
    let source = "examples/sort.f90";
    prints_the_numbers(&compile("gfortran", source, "sort-f90", Linked::Shared, &options));
}

/// The compiler that the package `ziglang` of pip carries.
fn zig() -> PathBuf {
    const VERSION: &str = "0.17.0";
    let folder = here().join(format!("../../target/zig-{VERSION}"));
    let zig = folder.join("ziglang/zig");
    if !zig.exists() {
        let part = here().join(format!("../../target/zig-{VERSION}.part"));
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).unwrap();
        let package = format!("ziglang=={VERSION}");
        run(Command::new("python3")
            .args(["-m", "pip", "download", "-q", "--no-deps", "-d", ".", &package])
            .current_dir(&part));
        let wheel = std::fs::read_dir(&part).unwrap().next().expect("a wheel").unwrap().path();
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, &part]));
        std::fs::remove_file(wheel).unwrap();
        run(Command::new("chmod").arg("+x").arg(part.join("ziglang/zig")));
        std::fs::rename(part, folder).unwrap();
    }
    zig
}

#[test]
fn example_in_zig() {
    let (lib, program, cache) = (lib(), out("sort-zig"), out("zig-cache"));
    run(Command::new(zig())
        .args(["build-exe", "-lc", "-ltrampfd", "-L"])
        .arg(lib)
        .arg("-rpath")
        .arg(lib)
        .arg("--cache-dir")
        .arg(&cache)
        .arg("--global-cache-dir")
        .arg(&cache)
        .arg(format!("-femit-bin={}", program.display()))
        .arg(here().join("examples/sort.zig")));
    prints_the_numbers(&program);
}

/// Whatever `pkg-config` would say, the compiler takes it.
#[test]
fn pkg_config_file() {
    let text = std::fs::read_to_string(lib().join("pkgconfig/trampfd.pc")).unwrap();
    assert!(!text.contains('@'), "{text}");
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in {text}"))
    };
    assert_eq!(value("Version: "), env!("CARGO_PKG_VERSION"));
    assert_eq!(value("Libs: "), "-L${libdir} -ltrampfd");
    assert_eq!(value("Cflags: "), "-I${includedir}");
    assert_eq!(value("includedir="), "${prefix}/include");
}

/// Names that a list in a text file begins its lines with.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix('\t')?.strip_suffix(';'))
        .filter(|name| *name != "*")
        .collect()
}

fn readelf(option: &str, file: &str) -> String {
    run(Command::new("readelf").args(["-W", option]).arg(lib().join(file)))
}

#[test]
fn the_shared_library_exports_what_its_map_lists() {
    let map = std::fs::read_to_string(here().join("libtrampfd.map")).unwrap();
    let listed = names(&map);
    let header = std::fs::read_to_string(here().join("include/trampfd.h")).unwrap();
    for name in listed.iter().filter(|name| name.starts_with("trampfd")) {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
    let symbols = readelf("--dyn-syms", "libtrampfd.so.0");
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter(|line| line.contains(" FUNC ") && !line.contains(" UND "))
        .map(|line| line.split_whitespace().last().unwrap())
        .collect();
    let versioned = listed.iter().map(|name| {
        let node = if name.starts_with("__gcc") { "GCC_14.0.0" } else { "TRAMPFD_0.1" };
        format!("{name}@@{node}")
    });
    let want: BTreeSet<String> = versioned.collect();
    assert_eq!(exported, want.iter().map(String::as_str).collect());
    let dynamic = readelf("--dynamic", "libtrampfd.so.0");
    assert!(dynamic.contains("soname: [libtrampfd.so.0]"), "{dynamic}");
    assert!(!dynamic.contains("TEXTREL"), "{dynamic}");
    let flags = ["BIND_NOW", "NODELETE"];
    assert!(flags.iter().all(|flag| dynamic.contains(flag)), "{dynamic}");
    for needed in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let known = ["libgcc_s.so.1", "libc.so.6", "ld-linux"];
        assert!(known.iter().any(|known| needed.contains(known)), "{needed}");
    }
    let segments = readelf("--segments", "libtrampfd.so.0");
    assert!(segments.contains("GNU_RELRO"), "{segments}");
    assert!(!segments.contains("RWE"), "{segments}");
}

/// Other Rust libraries in the same program define the same names of Rust's library.
#[test]
fn the_archives_define_nothing_else() {
    let map = std::fs::read_to_string(here().join("libtrampfd.map")).unwrap();
    let listed = names(&map);
    for (archive, all) in [("libtrampfd.a", true), ("libtrampfd-nested.a", false)] {
        let mut nm = Command::new("nm");
        let text =
            run(nm.args(["-g", "--defined-only", "-f", "just-symbols"]).arg(lib().join(archive)));
        let defined: BTreeSet<&str> =
            text.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
        let want = listed.iter().copied().filter(|name| all || !name.starts_with("trampfd"));
        assert_eq!(defined, want.collect(), "{archive}");
        assert!(readelf("--sections", archive).contains(".note.GNU-stack"), "{archive}");
    }
}

/// The object is small: a table of 64 KiB, and a little code.
#[test]
fn the_object_is_small() {
    let text = run(Command::new("size").arg(lib().join("libtrampfd-nested.a")));
    let row = text.lines().nth(1).expect("a row");
    let bytes: usize = row.split_whitespace().next().unwrap().parse().unwrap();
    assert!((64 << 10..80 << 10).contains(&bytes), "{text}");
}

#[test]
fn manual_page_is_well_formed() {
    let page = here().join("man/trampfd.3");
    let text = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page));
    assert_eq!(text, "");
    // Every function has its line.
    let text = std::fs::read_to_string(page).unwrap();
    let map = std::fs::read_to_string(here().join("libtrampfd.map")).unwrap();
    for name in names(&map) {
        assert!(text.contains(&format!("\n.Fn {name}")), "{name}");
    }
}
