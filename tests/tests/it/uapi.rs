//! `trampfd-sys` is the header. The lists of structs, fields and numbers are read from the
//! header's text, what they are is asked of a C compiler, and what the mirror says must be the
//! same: nothing in one that is not in the other.

use std::any::type_name_of_val;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of, size_of_val};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use trampfd_sys as sys;
use trampfd_sys::*;

const HEADER: &str = include_str!("../../../kernel-module/include/uapi/linux/trampfd.h");
const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel-module/include/uapi");

/// What one side says: name to description, as "trampfd_set.flags" to "4 4 u32".
type Facts = BTreeMap<String, String>;

/// Registers at which `TRAMPFD_OFF_CODE` is compared.
const REGS: [u16; 5] = [0, 1, 11, 31, 63];

fn mirror() -> Facts {
    let mut facts = Facts::new();
    // The pattern has no `..`: a field that is not listed here does not compile.
    macro_rules! structs {
        ($($name:ident { $($field:ident),* $(,)? })*) => {$(
            let $name { $($field),* } = $name::default();
            facts.insert(stringify!($name).into(), size_of::<$name>().to_string());
            $(facts.insert(
                concat!(stringify!($name), ".", stringify!($field)).into(),
                format!(
                    "{} {} {}",
                    offset_of!($name, $field), size_of_val(&$field), type_name_of_val(&$field)
                ),
            );)*
        )*};
    }
    structs! {
        trampfd_info {
            size, flags, abi_version, slot_stride, slots_per_page, page_size, slots_per_table,
            policy, regs, features, max_views, user_views, max_pages, user_pages,
        }
        trampfd_slot { stub, code, data }
        trampfd_set { size, flags, count, bad, entries, stub, code, data, data_stride }
        trampfd_clear { size, flags, count, bad, entries, stub }
        trampfd_get { size, flags, count, bad, entries }
        trampfd_seal { size, flags, stub }
    }
    macro_rules! constants {
        ($($name:ident)*) => {$(
            facts.insert(stringify!($name).into(), u64::try_from(sys::$name).unwrap().to_string());
        )*};
    }
    constants! {
        TRAMPFD_ABI_VERSION TRAMPFD_TABLE_SIZE
        TRAMPFD_OFF_UNIT TRAMPFD_OFF_DATA
        TRAMPFD_IOC_TYPE TRAMPFD_INFO TRAMPFD_SET TRAMPFD_CLEAR TRAMPFD_GET TRAMPFD_SEAL
        TRAMPFD_POLICY_STRICT_VMA TRAMPFD_POLICY_RELAXED
        TRAMPFD_FEATURE_STRIDED TRAMPFD_FEATURE_SEAL
        TRAMPFD_SET_STRIDED TRAMPFD_CLEAR_RANGE TRAMPFD_SEAL_ALL
    }
    for reg in REGS {
        facts.insert(format!("TRAMPFD_OFF_CODE({reg})"), off_code(reg).to_string());
    }
    facts
}

/// What the header's text declares.
struct Declared {
    structs: BTreeMap<String, Vec<String>>,
    constants: BTreeSet<String>,
    macros: BTreeSet<String>,
}

/// Reads the declarations; panics at a line it does not understand, so that no way of writing a
/// declaration can pass unseen.
fn declared(header: &str) -> Declared {
    let mut all =
        Declared { structs: BTreeMap::new(), constants: BTreeSet::new(), macros: BTreeSet::new() };
    let mut open: Option<String> = None;
    for line in without_comments(header).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["#include", ..] | ["#ifndef", ..] | ["#endif", ..] => {}
            ["#define", "_UAPI_LINUX_TRAMPFD_H"] => {}
            ["#define", name, _, ..] => match name.split_once('(') {
                Some((name, _)) => assert!(all.macros.insert(name.into()), "{line}"),
                None => assert!(all.constants.insert(name.into()), "{line}"),
            },
            ["struct", name, "{"] if open.is_none() => {
                assert!(all.structs.insert(name.into(), Vec::new()).is_none(), "{line}");
                open = Some(name.into());
            }
            ["__u32" | "__u64", field] if open.is_some() && field.ends_with(';') => {
                let fields = all.structs.get_mut(open.as_ref().unwrap()).unwrap();
                fields.push(field.trim_end_matches(';').into());
            }
            ["};"] if open.is_some() => open = None,
            _ => panic!("the header has a line that this test cannot read: {line}"),
        }
    }
    all
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out += part.split_once("*/").expect("a comment that ends").1;
    }
    out
}

fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

fn ran(what: &str, output: std::io::Result<Output>) -> String {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A folder for this test alone.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What the C compiler says about everything that the header declares, asked once: tests run
/// side by side, and the program has one place.
fn header_by_cc() -> &'static Facts {
    static FACTS: LazyLock<Facts> = LazyLock::new(ask_cc);
    &FACTS
}

fn ask_cc() -> Facts {
    let declared = declared(HEADER);
    let mut c = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/trampfd.h>\n\
         #define TYPE(v) _Generic((v), __u32: \"u32\", __u64: \"u64\", default: \"?\")\n\
         #define FIELD(s, f) printf(#s \".\" #f \"=%zu %zu %s\\n\", offsetof(struct s, f), \\\n\
         \tsizeof(((struct s *)0)->f), TYPE(((struct s *)0)->f))\n\
         #define CONSTANT(name) printf(#name \"=%llu\\n\", (unsigned long long)(name))\n\
         int main(void)\n{\n",
    );
    for (name, fields) in &declared.structs {
        writeln!(c, "\tprintf(\"{name}=%zu\\n\", sizeof(struct {name}));").unwrap();
        for field in fields {
            writeln!(c, "\tFIELD({name}, {field});").unwrap();
        }
    }
    for name in &declared.constants {
        writeln!(c, "\tCONSTANT({name});").unwrap();
    }
    for name in &declared.macros {
        for reg in REGS {
            writeln!(c, "\tCONSTANT({name}({reg}));").unwrap();
        }
    }
    c += "\treturn 0;\n}\n";

    let folder = folder("uapi");
    let (source, program) = (folder.join("uapi.c"), folder.join("uapi"));
    std::fs::write(&source, c).unwrap();
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", INCLUDE, "-o"];
    ran("cc", cc().args(flags).arg(&program).arg(&source).output());
    ran("the C program", Command::new(&program).output())
        .lines()
        .map(|line| {
            let (name, fact) = line.split_once('=').unwrap();
            (name.to_owned(), fact.to_owned())
        })
        .collect()
}

#[test]
fn mirrors_header() {
    let (c, rust) = (header_by_cc(), &mirror());
    let names: BTreeSet<&String> = c.keys().chain(rust.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|&name| c.get(name) != rust.get(name))
        .map(|name| format!("{name}: header {:?}, mirror {:?}", c.get(name), rust.get(name)))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(declared(HEADER).structs.len(), 6);
}

/// The flag bits of a struct, and those of INFO, are distinct: no two names for one bit.
#[test]
fn flags_of_a_group_are_distinct_bits() {
    let facts = header_by_cc();
    for group in ["TRAMPFD_POLICY_", "TRAMPFD_FEATURE_"] {
        let values: Vec<u64> = facts
            .iter()
            .filter(|(name, _)| name.starts_with(group))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(values.iter().all(|value| value.is_power_of_two()), "{group} {values:?}");
        assert_eq!(
            values.iter().fold(0, |all, bit| all | bit).count_ones() as usize,
            values.len(),
            "{group} {values:?}"
        );
    }
}

#[test]
fn structs_have_no_holes() {
    let facts = header_by_cc();
    for (name, fields) in declared(HEADER).structs {
        let mut end = 0;
        for field in &fields {
            let fact: Vec<&str> = facts[&format!("{name}.{field}")].split(' ').collect();
            let (offset, size): (usize, usize) =
                (fact[0].parse().unwrap(), fact[1].parse().unwrap());
            assert_eq!(offset, end, "{name}: a hole before {field}");
            assert_eq!(offset % size, 0, "{name}.{field} is misaligned where it need not be");
            end = offset + size;
        }
        assert_eq!(facts[&name], end.to_string(), "{name}: a hole at the end");
        assert_eq!(end % 8, 0, "{name}: arrays of it would be padded where __u64 is aligned to 8");
    }
}

/// On i386 a `__u64` is aligned to 4. The mirror's facts hold there too, asserted at compile time
/// so that no 32-bit C library is needed.
#[test]
fn same_layout_where_u64_is_aligned_to_4() {
    let mut c = String::from(
        "#include <linux/trampfd.h>\n\
         _Static_assert(sizeof(void *) == 4, \"a 32-bit compiler\");\n\
         struct probe { __u32 a; __u64 b; };\n\
         _Static_assert(__builtin_offsetof(struct probe, b) == 4, \"__u64 aligned to 4\");\n",
    );
    for (name, fact) in mirror() {
        let (first, rest) = fact.split_once(' ').unwrap_or((&fact, ""));
        let expression = match name.split_once('.') {
            Some((of, field)) => format!("__builtin_offsetof(struct {of}, {field})"),
            None if name.starts_with("trampfd_") => format!("sizeof(struct {name})"),
            None => name.clone(),
        };
        writeln!(c, "_Static_assert({expression} == {first}, \"{name}\");").unwrap();
        if let (Some((of, field)), Some((size, _))) = (name.split_once('.'), rest.split_once(' ')) {
            writeln!(
                c,
                "_Static_assert(sizeof(((struct {of} *)0)->{field}) == {size}, \"{name}\");"
            )
            .unwrap();
        }
    }
    let source = folder("uapi32").join("uapi32.c");
    std::fs::write(&source, c).unwrap();
    // The headers of the 64-bit C library's folder serve both; without it `asm/` is not found.
    let host = ran("cc", cc().arg("-print-multiarch").output());
    let mut check = cc();
    check.args(["-m32", "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only", "-I", INCLUDE]);
    check.arg("-idirafter").arg(Path::new("/usr/include").join(host.trim()));
    ran("cc -m32", check.arg(&source).output());
}

#[test]
fn an_unknown_declaration_is_seen() {
    for line in ["typedef int x;", "struct a { __u32 b; };", "\t__u16 c;", "#define X"] {
        let header = format!("{HEADER}\n{line}\n");
        let seen = std::panic::catch_unwind(|| declared(&header));
        assert!(seen.is_err(), "{line}");
    }
}
