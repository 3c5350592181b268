//! The linked libraries: what they export and ask for, and what C programs see of them.
//!
//! Each program is in `tests/c`; it runs its tests one by one and prints TAP. Rows:
//!
//! | row | the closures are | the rest of libffi is |
//! |---|---|---|
//! | drop-in | ours | in the same library |
//! | preload | ours | libffi as `libffi-sys` carries it, shared |
//! | control | that libffi's | that libffi's |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Every symbol of libffi.so.8, by the node of its version.
const SYMBOLS: &[(&str, &str)] = &[
    (
        "LIBFFI_BASE_8.0",
        "ffi_type_void ffi_type_uint8 ffi_type_sint8 ffi_type_uint16 ffi_type_sint16 \
         ffi_type_uint32 ffi_type_sint32 ffi_type_uint64 ffi_type_sint64 ffi_type_float \
         ffi_type_double ffi_type_longdouble ffi_type_pointer ffi_call ffi_prep_cif \
         ffi_prep_cif_var ffi_raw_call ffi_ptrarray_to_raw ffi_raw_to_ptrarray ffi_raw_size \
         ffi_java_raw_call ffi_java_ptrarray_to_raw ffi_java_raw_to_ptrarray ffi_java_raw_size \
         ffi_get_struct_offsets",
    ),
    (
        "LIBFFI_BASE_8.1",
        "ffi_get_version ffi_get_version_number ffi_get_default_abi ffi_get_closure_size",
    ),
    ("LIBFFI_CALL_PLAN_8.4", "ffi_call_plan_alloc ffi_call_plan_invoke ffi_call_plan_free"),
    ("LIBFFI_CALL_PLAN_8.5", "ffi_call_plan_size"),
    (CLOSURE, CLOSURES),
    (
        "LIBFFI_COMPLEX_8.0",
        "ffi_type_complex_float ffi_type_complex_double ffi_type_complex_longdouble",
    ),
    ("LIBFFI_GO_CLOSURE_8.0", "ffi_call_go ffi_prep_go_closure"),
    ("LIBFFI_INT128_8.3", "ffi_type_sint128 ffi_type_uint128"),
];

const CLOSURE: &str = "LIBFFI_CLOSURE_8.0";
const CLOSURES: &str = "ffi_closure_alloc ffi_closure_free ffi_prep_closure ffi_prep_closure_loc \
                        ffi_prep_raw_closure ffi_prep_raw_closure_loc ffi_prep_java_raw_closure \
                        ffi_prep_java_raw_closure_loc";

/// What the libraries may be linked to.
const NEEDED: &[&str] = &["libc.so.", "libgcc_s.so.", "ld-linux"];

/// What a libffi calls that makes memory executable in its own ways.
const MAKES_CODE: &[&str] = &["memfd_create", "mkstemp", "getmntent_r", "setmntent", "mkostemp"];

struct Libs {
    /// Folder of the drop-in.
    drop_in: PathBuf,
    preload: PathBuf,
    /// Folder of libffi itself, shared.
    plain: PathBuf,
    include: PathBuf,
    /// Where programs are built.
    work: PathBuf,
}

impl Libs {
    fn drop_in(&self) -> PathBuf {
        self.drop_in.join("libffi.so.8")
    }

    fn plain(&self) -> PathBuf {
        self.plain.join("libffi.so.8")
    }
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

/// Links the libraries, once for all tests.
fn libs() -> &'static Libs {
    static LIBS: OnceLock<Libs> = OnceLock::new();
    LIBS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        succeed(&mut Command::new(root.join("scripts/libs")));
        let drop_in = root.join("target/lib/ffi");
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trampfd-ffi");
        let plain = work.join("plain");
        std::fs::create_dir_all(&plain).unwrap();
        let vendored = drop_in.join("vendored");
        let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("libffi.map");
        succeed(
            Command::new("cc")
                .args(["-shared", "-Wl,-soname,libffi.so.8,--whole-archive"])
                .arg(vendored.join("lib/libffi.a"))
                .arg("-Wl,--no-whole-archive,--undefined-version")
                .arg(format!("-Wl,--version-script={}", map.display()))
                .arg("-o")
                .arg(plain.join("libffi.so.8")),
        );
        Libs {
            preload: root.join("target/lib/libtrampfd-ffi-preload.so"),
            include: vendored.join("include"),
            drop_in,
            plain,
            work,
        }
    })
}

/// Builds a program or library of `tests/c`, linked to `more`.
fn build(name: &str, out: &str, more: &[&str]) -> PathBuf {
    let libs = libs();
    let out = libs.work.join(out);
    let cc = if name.ends_with(".cc") { "c++" } else { "cc" };
    succeed(
        Command::new(cc)
            .args(["-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-O1", "-g"])
            .args(["-pthread", "-DWITH_INT128", "-o"])
            .arg(&out)
            .arg("-I")
            .arg(&libs.include)
            .arg(source(name))
            .args(more),
    );
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Row {
    DropIn,
    Preload,
    Control,
}

fn command(program: &Path, row: Row) -> Command {
    let libs = libs();
    let mut command = Command::new(program);
    let folder = if row == Row::DropIn { &libs.drop_in } else { &libs.plain };
    command.env("LD_LIBRARY_PATH", folder).env_remove("LD_PRELOAD").env("LD_BIND_NOW", "1");
    if row == Row::Preload {
        command.env("LD_PRELOAD", &libs.preload);
    }
    command
}

/// Runs a program of tests, which must all pass, and says how many there were.
fn passes(name: &str, row: Row) -> usize {
    let program = build(name, &format!("{name}.{}", row as u8), &[&needs_libffi()]);
    let output = succeed(&mut command(&program, row));
    let text = String::from_utf8_lossy(&output.stdout);
    let planned = text.lines().find_map(|line| line.strip_prefix("1..")?.parse().ok());
    let passed = text.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(planned, Some(passed), "{name}: {text}");
    passed
}

fn needs_libffi() -> String {
    libs().drop_in().to_str().unwrap().to_owned()
}

/// The tests of a program that fail with libffi's own closures.
fn fails_without_us(name: &str) -> BTreeSet<String> {
    let program = build(name, &format!("{name}.control"), &[&needs_libffi()]);
    let output = command(&program, Row::Control).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = text.lines().filter_map(|line| line.strip_prefix("not ok ")?.split(':').next());
    failed.filter_map(|test| Some(test.split_once(" - ")?.1.to_owned())).collect()
}

#[test]
fn closures() {
    assert_eq!(passes("closure.c", Row::DropIn), 13);
    assert_eq!(passes("closure.c", Row::Preload), 13);
}

#[test]
fn raw_closures() {
    assert_eq!(passes("raw.c", Row::DropIn), 10);
    assert_eq!(passes("raw.c", Row::Preload), 10);
    // libffi looks for the raw closure where its code is.
    assert!(fails_without_us("raw.c").contains("raw_mixed"));
    assert!(fails_without_us("raw.c").contains("java_has_no_structures"));
}

#[test]
fn misuse() {
    assert_eq!(passes("misuse.c", Row::DropIn), 11);
    assert_eq!(passes("misuse.c", Row::Preload), 11);
    let failed = fails_without_us("misuse.c");
    assert!(failed.contains("ghc") && failed.contains("code_is_freed"), "{failed:?}");
}

#[test]
fn random_signatures() {
    assert_eq!(passes("fuzz.c", Row::DropIn), 3);
    assert_eq!(passes("fuzz.c", Row::Preload), 3);
}

#[test]
fn call_plans() {
    assert_eq!(passes("plan.c", Row::DropIn), 3);
}

#[test]
fn exceptions() {
    assert_eq!(passes("exceptions.cc", Row::DropIn), 3);
    assert_eq!(passes("exceptions.cc", Row::Preload), 3);
}

/// Libraries that are loaded later, into programs without a libffi.
#[test]
fn loaded_later() {
    let libs = libs();
    let module = build("module.c", "module.so", &["-shared", "-fPIC", &needs_libffi()]);
    let loader = build("loader.c", "loader", &["-ldl"]);
    let run = |row, how: &str, module: &Path| {
        succeed(command(&loader, row).arg(how).arg(module).arg(libs.drop_in()));
    };
    for how in ["local", "deepbind", "unload"] {
        run(Row::DropIn, how, &module);
    }
    run(Row::Preload, "local", &module);
    run(Row::Preload, "unload", &module);
    succeed(command(&loader, Row::Preload).arg("none"));
    // Not ours: the preloaded functions are passed over, and the test sees it.
    let not_ours = command(&loader, Row::Preload).arg("deepbind").arg(&module).arg("-").output();
    assert!(!not_ours.unwrap().status.success());

    // A libffi under a name of its own, as packed into Python wheels.
    let wheel = libs.work.join("libffi-0123abcd.so.8.1.4");
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("libffi.map");
    succeed(
        Command::new("cc")
            .args(["-shared", "-Wl,-soname,libffi-0123abcd.so.8.1.4,--whole-archive"])
            .arg(libs.drop_in.join("vendored/lib/libffi.a"))
            .arg("-Wl,--no-whole-archive,--undefined-version")
            .arg(format!("-Wl,--version-script={}", map.display()))
            .arg("-o")
            .arg(&wheel),
    );
    let rpath = format!("-Wl,-rpath,{}", libs.work.display());
    let packed = ["-shared", "-fPIC", wheel.to_str().unwrap(), &rpath];
    run(Row::Preload, "local", &build("module.c", "packed.so", &packed));
}

fn objdump(args: &[&str], file: &Path) -> String {
    let output = succeed(Command::new("objdump").args(args).arg(file).env("LC_ALL", "C"));
    String::from_utf8(output.stdout).unwrap()
}

/// Names with their versions that a library defines, and the names that it asks for.
fn symbols(file: &Path) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut defined, mut undefined) = (BTreeSet::new(), BTreeSet::new());
    for line in objdump(&["-T"], file).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [.., section, size, version, name] = words[..] else { continue };
        if u64::from_str_radix(size, 16).is_err() {
            continue;
        }
        if line.contains("*UND*") {
            undefined.insert(name.to_owned());
        } else if section != "*ABS*" {
            defined.insert((version.trim_matches(['(', ')']).to_owned(), name.to_owned()));
        }
    }
    (defined, undefined)
}

fn expected(table: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let rows = table.iter().flat_map(|(version, names)| {
        names.split_whitespace().map(|name| (version.to_string(), name.to_owned()))
    });
    rows.collect()
}

#[test]
fn symbols_and_versions() {
    let libs = libs();
    assert_eq!(expected(SYMBOLS).len(), 48);
    assert_eq!(symbols(&libs.drop_in()).0, expected(SYMBOLS));
    assert_eq!(symbols(&libs.preload).0, expected(&[(CLOSURE, CLOSURES)]));
    // libffi itself has no call plans, and the comparison sees it.
    let missing = &expected(SYMBOLS) - &symbols(&libs.plain()).0;
    assert_eq!(missing, expected(&SYMBOLS[2..4]));
}

#[test]
fn what_the_libraries_ask_for() {
    let libs = libs();
    for (file, soname) in
        [(libs.drop_in(), "libffi.so.8"), (libs.preload.clone(), "libtrampfd-ffi-preload.so")]
    {
        let headers = objdump(&["-p"], &file);
        let dynamic = |tag: &str| -> Vec<String> {
            let lines = headers.lines().map(str::trim);
            let values = lines.filter_map(|line| line.strip_prefix(tag));
            values.map(|value| value.trim().to_owned()).collect()
        };
        assert_eq!(dynamic("SONAME "), [soname]);
        let needed = dynamic("NEEDED ");
        let known = |name: &String| NEEDED.iter().any(|known| name.starts_with(known));
        assert!(!needed.is_empty() && needed.iter().all(known), "{needed:?}");
        assert_eq!(dynamic("TEXTREL "), [""; 0]);
        // DF_BIND_NOW, and the thread's word; DF_1_NOW and DF_1_NODELETE.
        assert_eq!(dynamic("FLAGS "), ["0x0000000000000018"], "{headers}");
        assert_eq!(dynamic("FLAGS_1 "), ["0x0000000000000009"], "{headers}");
        assert!(!headers.contains("flags rwx"), "{headers}");
        let stack = headers.split("STACK off").nth(1).expect("a PT_GNU_STACK");
        assert!(stack.lines().nth(1).unwrap().trim().ends_with("flags rw-"), "{headers}");
        assert!(headers.contains("RELRO off"), "{headers}");
        let (_, undefined) = symbols(&file);
        assert!(undefined.contains("mremap"), "{undefined:?}");
        for name in MAKES_CODE {
            assert!(!undefined.contains(*name), "{} calls {name}", file.display());
        }
    }
    // libffi itself does.
    let (_, undefined) = symbols(&libs.plain());
    assert!(MAKES_CODE.iter().any(|name| undefined.contains(*name)));
}
