//! Writes C callers of dynamic closures: types of every class and layout, and signatures of them.
//! `tests/it/dynamic.rs` includes the Rust half.
//!
//! ```text
//!  Rust  TYPES       how to make type N of earlier ones     C  t_N        the same type
//!        SIGNATURES  argument and result types by number       ctypes     size, alignment, offsets
//!                                                              csigs      values and callers
//! ```
//!
//! Nothing of a layout is computed here: sizes, offsets and the bytes that count are C's own.

use std::fmt::Write as _;
use std::path::Path;

use crate::Random;

/// A scalar: what makes it in Rust, its name in C, bytes that count, how its bytes are drawn.
struct Scalar {
    rust: &'static str,
    c: &'static str,
    draw: Draw,
}

/// Which bytes a scalar may have.
#[derive(Clone, Copy)]
enum Draw {
    /// An integer of up to 64 bits: any.
    Int,
    /// Any.
    Any,
    /// 0 or 1.
    Bool,
    /// A number of 10 bytes.
    LongDouble,
    /// Two of them.
    LongDoubles,
}

const fn scalar(rust: &'static str, c: &'static str, draw: Draw) -> Scalar {
    Scalar { rust, c, draw }
}

const SCALARS: [Scalar; 19] = [
    scalar("I8", "int8_t", Draw::Int),
    scalar("U8", "uint8_t", Draw::Int),
    scalar("I16", "int16_t", Draw::Int),
    scalar("U16", "uint16_t", Draw::Int),
    scalar("I32", "int32_t", Draw::Int),
    scalar("U32", "uint32_t", Draw::Int),
    scalar("I64", "int64_t", Draw::Int),
    scalar("U64", "uint64_t", Draw::Int),
    scalar("CHAR", "char", Draw::Int),
    scalar("BOOL", "_Bool", Draw::Bool),
    scalar("POINTER", "void *", Draw::Any),
    scalar("F32", "float", Draw::Any),
    scalar("F64", "double", Draw::Any),
    scalar("I128", "__int128", Draw::Any),
    scalar("U128", "unsigned __int128", Draw::Any),
    scalar("LONG_DOUBLE", "long double", Draw::LongDouble),
    scalar("COMPLEX_F32", "float _Complex", Draw::Any),
    scalar("COMPLEX_F64", "double _Complex", Draw::Any),
    scalar("COMPLEX_LONG_DOUBLE", "long double _Complex", Draw::LongDoubles),
];
const I8: usize = 0;
const U8: usize = 1;
const I16: usize = 2;
const U16: usize = 3;
const I32: usize = 4;
const I64: usize = 6;
const BOOL: usize = 9;
const POINTER: usize = 10;
const F32: usize = 11;
const F64: usize = 12;
const I128: usize = 13;
const LD: usize = 15;
const CF: usize = 16;
const CD: usize = 17;
const CLD: usize = 18;
/// Number of the result of a function that returns nothing.
const VOID: usize = 0xffff;

/// A type that is made of others, by number.
#[derive(Clone, PartialEq)]
enum Made {
    Structure(Vec<usize>),
    Union(Vec<usize>),
    Array(usize, usize),
}

/// All types: the scalars, then what is made of them.
struct Types(Vec<Made>);

impl Types {
    fn add(&mut self, made: Made) -> usize {
        let at = self.0.iter().position(|known| *known == made).unwrap_or_else(|| {
            self.0.push(made);
            self.0.len() - 1
        });
        SCALARS.len() + at
    }

    fn structure(&mut self, members: &[usize]) -> usize {
        self.add(Made::Structure(members.to_vec()))
    }

    fn union(&mut self, members: &[usize]) -> usize {
        self.add(Made::Union(members.to_vec()))
    }

    fn array(&mut self, element: usize, count: usize) -> usize {
        self.add(Made::Array(element, count))
    }

    fn made(&self, n: usize) -> Option<&Made> {
        n.checked_sub(SCALARS.len()).map(|n| &self.0[n])
    }

    fn is_array(&self, n: usize) -> bool {
        matches!(self.made(n), Some(Made::Array(..)))
    }

    /// A member or type name `name` of this type, as C declares it.
    fn declare(&self, n: usize, name: &str) -> String {
        match self.made(n) {
            None => format!("{} {name}", SCALARS[n].c),
            Some(Made::Array(element, count)) => {
                self.declare(*element, &format!("{name}[{count}]"))
            }
            Some(_) => format!("t_{n} {name}"),
        }
    }

    /// Scalars in a value of this type.
    fn count(&self, n: usize) -> usize {
        match self.made(n) {
            None => 1,
            Some(Made::Array(element, count)) => count * self.count(*element),
            Some(Made::Structure(members) | Made::Union(members)) => {
                members.iter().map(|&member| self.count(member)).sum()
            }
        }
    }

    /// Paths from a value of this type to its scalars.
    fn leaves(&self, n: usize, path: &str, out: &mut Vec<(String, usize)>) {
        match self.made(n) {
            None => out.push((path.to_owned(), n)),
            Some(Made::Array(element, count)) => {
                (0..*count).for_each(|i| self.leaves(*element, &format!("{path}[{i}]"), out));
            }
            Some(Made::Structure(members) | Made::Union(members)) => {
                for (i, member) in members.iter().enumerate() {
                    self.leaves(*member, &format!("{path}.m{i}"), out);
                }
            }
        }
    }
}

struct Signature {
    args: Vec<usize>,
    result: usize,
}

pub fn write(out: &Path) {
    let mut random = Random(0x6479_6e61_6d69);
    let mut types = Types(Vec::new());
    let values = value_types(&mut types, &mut random);
    let signatures = signatures(&values, &mut random);

    let mut c = String::from(HEAD);
    let mut rust = String::from("fn types() -> Vec<Type> {\nlet mut t: Vec<Type> = vec![");
    SCALARS.iter().for_each(|s| write!(rust, "Type::{}, ", s.rust).unwrap());
    rust.push_str("];\n");
    let mut table = String::from("const struct ctype ctypes[] = {\n");
    for (n, s) in SCALARS.iter().enumerate() {
        writeln!(c, "typedef {} t_{n};", s.c).unwrap();
        describe(&types, n, &mut c, &mut table);
    }
    for n in SCALARS.len()..SCALARS.len() + types.0.len() {
        define(&types, n, &mut c, &mut rust);
        describe(&types, n, &mut c, &mut table);
    }
    rust.push_str("t\n}\n");
    c.push_str(&table);
    writeln!(c, "}};\nconst unsigned ctype_count = sizeof ctypes / sizeof *ctypes;").unwrap();

    let mut table = String::from("const struct csig csigs[] = {\n");
    rust.push_str("const SIGNATURES: &[(&[u16], u16)] = &[\n");
    for (n, signature) in signatures.iter().enumerate() {
        caller(n, signature, &mut c, &mut table);
        let Signature { args, result } = signature;
        writeln!(rust, "(&{args:?}, {result}),").unwrap();
    }
    rust.push_str("];\n");
    c.push_str(&table);
    writeln!(c, "}};\nconst unsigned csig_count = sizeof csigs / sizeof *csigs;").unwrap();

    std::fs::write(out.join("dynamic.rs"), rust).unwrap();
    std::fs::write(out.join("dynamic.c"), c).unwrap();
    for (level, name) in [(0, "dynamic_0"), (2, "dynamic_2")] {
        let mut cc = cc::Build::new();
        cc.file(out.join("dynamic.c")).opt_level(level).debug(false);
        cc.define("ctypes", &*format!("{name}_types")).define("csigs", &*format!("{name}_sigs"));
        cc.define("ctype_count", &*format!("{name}_type_count"));
        cc.define("csig_count", &*format!("{name}_sig_count"));
        cc.warnings(true).warnings_into_errors(true);
        cc.flag("-Wno-cast-function-type").flag("-Wno-psabi").compile(name);
    }
}

/// What both halves know. `call` returns 0 if the result was the one that was wanted; `noisy` does
/// the same with arguments that have other bits above, `wide` looks at the whole register of the
/// result.
const HEAD: &str = "\
#include <stddef.h>
#include <stdint.h>
#include <string.h>
struct leaf { uint32_t at, len, draw, scalar; };
struct ctype { size_t size, align; const size_t *offsets; size_t members; const struct leaf *leaves; size_t count; };
struct value { unsigned char *bytes; uint32_t type; };
typedef void (*code)(void);
struct csig { const struct value *values; int (*call)(code); int (*noisy)(code); int (*wide)(code); };
static inline int differ(const void *a, const void *b, const struct leaf *leaf, size_t n) {
	for (; n--; leaf++)
		if (memcmp((const char *)a + leaf->at, (const char *)b + leaf->at, leaf->len)) return 1;
	return 0;
}
";

/// The types that are passed by value: every pairing of the eightbytes below, every size, and
/// what is made of the odd scalars; then random ones. Arrays are left out: they are parts only.
fn value_types(types: &mut Types, random: &mut Random) -> Vec<usize> {
    let pair_of_floats = types.structure(&[F32, F32]);
    let double_or_long = types.union(&[F64, I64]);
    let floats = types.array(F32, 2);
    let floats_or_double = types.union(&[floats, F64]);
    let char_or_float = types.union(&[I8, F32]);
    let bytes = types.array(I8, 8);
    let shorts = types.array(I16, 4);
    let three = types.array(U8, 3);
    // Whole eightbytes, as lists of members; then what may follow, of any size.
    let first: [&[usize]; 11] = [
        &[I64],
        &[F64],
        &[F32, F32],
        &[I32, F32],
        &[F32, I32],
        &[POINTER],
        &[bytes],
        &[shorts],
        &[CF],
        &[double_or_long],
        &[floats_or_double],
    ];
    let second: [&[usize]; 15] = [
        &[],
        &[I64],
        &[F64],
        &[F32],
        &[I32],
        &[I8],
        &[U16, I8],
        &[pair_of_floats],
        &[I32, F32],
        &[I8, F32],
        &[CF],
        &[BOOL],
        &[three],
        &[char_or_float],
        &[floats_or_double],
    ];
    for a in first {
        for b in second {
            types.structure(&[a, b].concat());
        }
    }
    // Every size.
    for n in 1..=64 {
        let array = types.array(U8, n);
        types.structure(&[array]);
    }
    for (element, most) in [(I16, 9), (I32, 5), (I64, 5), (F32, 17), (F64, 8), (CF, 4), (CD, 3)] {
        for n in 1..=most {
            let array = types.array(element, n);
            types.structure(&[array]);
        }
    }
    // A part that is smaller than its eightbyte, a hole, a tail.
    for members in [
        &[I8][..],
        &[BOOL, BOOL],
        &[I16, I8],
        &[I8, I16],
        &[I8, I32],
        &[I8, F32],
        &[F32, I8],
        &[I8, F64],
        &[F64, I8],
        &[F32, F64],
        &[F32, F32, F32],
        &[F32, F32, I8],
        &[I8, F32, F32],
        &[I32, I32, F32],
        &[I8, I8, I8, I8, F32, F64],
        &[F32, I64],
        &[I64, F32, I8],
    ] {
        types.structure(members);
    }
    // What takes two registers, st(0), or memory.
    for members in
        [&[I128][..], &[I128, I8], &[I8, I128], &[LD], &[LD, I8], &[I8, LD], &[CF, F32], &[CF, CF]]
    {
        types.structure(members);
    }
    for members in [&[CD][..], &[CD, I8], &[CLD], &[LD, LD], &[CF, I8], &[I8, CF], &[F32, CF]] {
        types.structure(members);
    }
    let [ii, id, di, dd] =
        [[I64, I64], [I64, F64], [F64, I64], [F64, F64]].map(|m| types.structure(&m));
    let sixteen = types.array(U8, 16);
    let long_double = types.structure(&[LD]);
    let wide = types.structure(&[I128]);
    for members in [
        &[I128, F64][..],
        &[I128, dd],
        &[I128, LD],
        &[LD, I8],
        &[LD, I32],
        &[LD, I64],
        &[LD, F32],
        &[LD, F64],
        &[LD, CF],
        &[LD, CD],
        &[LD, ii],
        &[LD, id],
        &[LD, di],
        &[LD, dd],
        &[LD, sixteen],
        &[LD, CLD],
        &[long_double, I8],
        &[long_double, LD],
        &[wide, long_double],
        &[F32, I32],
        &[F64, I8],
        &[F64, F32],
        &[F32, three],
        &[CF, I64],
        &[CD, I64],
        &[id, F64],
        &[di, I8],
        &[dd, F32],
        &[dd, I32],
        &[dd, CD],
        &[ii, F64],
        &[id, di],
        &[POINTER, F64],
    ] {
        types.union(members);
    }
    // Random ones, of all before them too.
    for _ in 0..120 {
        let count = 1 + random.below(4);
        let members: Vec<usize> = (0..count)
            .map(|_| {
                let of_all = SCALARS.len() + types.0.len();
                let among = if random.below(3) > 0 { SCALARS.len() } else { of_all };
                let part = random.below(among);
                let part = if types.count(part) > 32 { F32 } else { part };
                // An array of an array is one of more dimensions.
                if random.below(4) == 0 { types.array(part, 1 + random.below(4)) } else { part }
            })
            .collect();
        if random.below(4) == 0 {
            types.union(&members)
        } else {
            types.structure(&members)
        };
    }
    (0..SCALARS.len() + types.0.len()).filter(|&n| !types.is_array(n)).collect()
}

fn signatures(values: &[usize], random: &mut Random) -> Vec<Signature> {
    let mut all = vec![Signature { args: vec![], result: VOID }];
    for &t in values {
        all.push(Signature { args: vec![t], result: t });
    }
    // Short ones, of each number of integers, and each result.
    for n in 0..=6 {
        for result in [VOID, I8, U8, I16, U16, I32, I32 + 1, I64, POINTER, F32, F64] {
            all.push(Signature { args: vec![I64; n], result });
            all.push(Signature { args: vec![I32; n], result });
        }
    }
    // Registers of each kind used up before, by, and after a value that takes some.
    for ints in 0..=7 {
        for floats in 0..=9 {
            let t = values[random.below(values.len())];
            let mut args = [vec![I64; ints], vec![F64; floats], vec![t, t, I32, F32, t]].concat();
            all.push(Signature { args: args.clone(), result: values[random.below(values.len())] });
            args.reverse();
            all.push(Signature { args, result: VOID });
        }
    }
    for (before, t) in [(I64, I128), (F64, CD), (F32, CF), (I8, LD), (I64, CLD)] {
        for n in 0..=9 {
            let args = [vec![before; n], vec![t, before, t, t]].concat();
            all.push(Signature { args, result: t });
        }
    }
    // Long ones.
    for n in [15, 16, 17, 40, 300] {
        for t in [I32, F64, I128, LD, CF] {
            all.push(Signature { args: vec![t; n], result: t });
        }
        let args = (0..n).map(|_| values[random.below(values.len())]).collect();
        all.push(Signature { args, result: I64 });
    }
    all.push(Signature { args: vec![I32; 5000], result: I64 });
    for _ in 0..300 {
        let n = random.below(12).max(random.below(12));
        let args = (0..n)
            .map(|_| match random.below(3) {
                0 => random.below(SCALARS.len()),
                _ => values[random.below(values.len())],
            })
            .collect();
        let result = match random.below(8) {
            0 => VOID,
            _ => values[random.below(values.len())],
        };
        all.push(Signature { args, result });
    }
    all
}

/// The type itself, in both languages.
fn define(types: &Types, n: usize, c: &mut String, rust: &mut String) {
    let by_number = |members: &[usize]| -> String {
        members.iter().map(|m| format!("t[{m}].clone(), ")).collect()
    };
    let fields = |members: &[usize]| -> String {
        let one = |(i, &m): (usize, &usize)| types.declare(m, &format!("m{i}")) + "; ";
        members.iter().enumerate().map(one).collect()
    };
    let (made, text) = match types.made(n).expect("no scalar") {
        Made::Structure(members) => {
            writeln!(c, "typedef struct {{ {}}} t_{n};", fields(members)).unwrap();
            ("structure", format!("&[{}]", by_number(members)))
        }
        Made::Union(members) => {
            writeln!(c, "typedef union {{ {}}} t_{n};", fields(members)).unwrap();
            ("union", format!("&[{}]", by_number(members)))
        }
        Made::Array(element, count) => {
            writeln!(c, "typedef {};", types.declare(n, &format!("t_{n}"))).unwrap();
            ("array", format!("&t[{element}], {count}"))
        }
    };
    writeln!(rust, "t.push(Type::{made}({text}).unwrap());").unwrap();
}

/// What C says of the type: size, alignment, where its parts are, which bytes count.
fn describe(types: &Types, n: usize, c: &mut String, table: &mut String) {
    // As a member, so that a path to an element of an array has a name to begin with.
    writeln!(c, "struct w_{n} {{ t_{n} v; }};").unwrap();
    let members = match types.made(n) {
        None => vec![],
        Some(Made::Array(_, count)) => (0..*count).map(|i| format!("v[{i}]")).collect(),
        Some(Made::Structure(members) | Made::Union(members)) => {
            (0..members.len()).map(|i| format!("v.m{i}")).collect()
        }
    };
    let offsets: String =
        members.iter().map(|path| format!("offsetof(struct w_{n}, {path}), ")).collect();
    // An array with nothing in it is none.
    writeln!(c, "static const size_t o_{n}[] = {{ {offsets}0 }};").unwrap();
    let mut leaves = Vec::new();
    types.leaves(n, "v", &mut leaves);
    let leaves: String = leaves
        .iter()
        .map(|(path, scalar)| {
            let at = format!("offsetof(struct w_{n}, {path})");
            let len = format!("sizeof(t_{scalar})");
            match SCALARS[*scalar].draw {
                Draw::Int | Draw::Any => format!("{{ {at}, {len}, 0, {scalar} }}, "),
                Draw::Bool => format!("{{ {at}, {len}, 1, {scalar} }}, "),
                // x87 numbers have 10 bytes.
                Draw::LongDouble => format!("{{ {at}, 10, 2, {scalar} }}, "),
                Draw::LongDoubles => {
                    format!("{{ {at}, 10, 2, {LD} }}, {{ {at} + {len} / 2, 10, 2, {LD} }}, ")
                }
            }
        })
        .collect();
    writeln!(c, "static const struct leaf l_{n}[] = {{ {leaves}}};").unwrap();
    writeln!(
        table,
        "{{ sizeof(t_{n}), _Alignof(t_{n}), o_{n}, {count}, l_{n}, sizeof l_{n} / sizeof *l_{n} }},",
        count = members.len(),
    )
    .unwrap();
}

/// The functions that call a closure of a signature, and the values of its arguments and result,
/// which Rust fills before.
fn caller(n: usize, signature: &Signature, c: &mut String, table: &mut String) {
    let Signature { args, result } = signature;
    let list = |items: Vec<String>| if items.is_empty() { "void".into() } else { items.join(", ") };
    let mut values = String::new();
    for (i, t) in args.iter().enumerate() {
        writeln!(c, "static t_{t} a_{n}_{i};").unwrap();
        write!(values, "{{ (unsigned char *)&a_{n}_{i}, {t} }}, ").unwrap();
    }
    let out = if *result == VOID {
        values.push_str("{ 0, 0xffff }");
        "void".to_owned()
    } else {
        writeln!(c, "static t_{result} r_{n};").unwrap();
        write!(values, "{{ (unsigned char *)&r_{n}, {result} }}").unwrap();
        format!("t_{result}")
    };
    writeln!(c, "static const struct value v_{n}[] = {{ {values} }};").unwrap();

    let int = |t: usize| t < SCALARS.len() && matches!(SCALARS[t].draw, Draw::Int);
    let narrow = |t: usize| int(t) && t != I64 && t != I64 + 1;
    let plain = list(args.iter().map(|t| format!("t_{t}")).collect());
    let passed = (0..args.len()).map(|i| format!("a_{n}_{i}")).collect::<Vec<_>>().join(", ");
    let mut function = |name: &str, out: &str, types: &str, passed: &str, wide: bool| {
        let call = format!("(({out} (*)({types}))f)({passed})");
        let body = match (*result == VOID, wide) {
            (true, _) => format!("{call}; return 0;"),
            (false, false) => format!(
                "t_{result} r = {call}; return differ(&r, &r_{n}, l_{result}, sizeof l_{result} / sizeof *l_{result});"
            ),
            (false, true) => format!("return {call} != ({out})r_{n};"),
        };
        writeln!(c, "static int {name}_{n}(code f) {{ {body} }}").unwrap();
        format!("{name}_{n}")
    };
    let call = function("call", &out, &plain, &passed, false);
    let mut noisy = "0".to_owned();
    if args.iter().any(|&t| narrow(t)) && args.len() < 100 {
        let one = |(i, &t): (usize, &usize)| match narrow(t) {
            // Shifted out of the value's own bits at once where it is small.
            true => format!(
                "((uint64_t)0x9d3c5a7e1b2f4680u << (8 * sizeof(t_{t})) | \
                 ((uint64_t)a_{n}_{i} & (((uint64_t)1 << 8 * sizeof(t_{t})) - 1)))"
            ),
            false => format!("a_{n}_{i}"),
        };
        let types = list(
            args.iter()
                .map(|&t| if narrow(t) { "uint64_t".into() } else { format!("t_{t}") })
                .collect(),
        );
        let passed = args.iter().enumerate().map(one).collect::<Vec<_>>().join(", ");
        noisy = function("noisy", &out, &types, &passed, false);
    }
    let mut wide = "0".to_owned();
    if int(*result) {
        // The register's upper bits are the sign's, or none, as with libffi.
        wide = function("wide", "int64_t", &plain, &passed, true);
    }
    writeln!(table, "{{ v_{n}, {call}, {noisy}, {wide} }},").unwrap();
}
