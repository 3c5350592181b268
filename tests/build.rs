//! Writes C callers and the closures that they call, for many signatures: each type alone, each
//! number of arguments, both kinds of registers used up, and random ones. `tests/it/signature.rs`
//! includes the Rust half.
//!
//! For signature N there are two C functions, compiled with optimisation. `call_N` calls its
//! argument as C does; `dirty_N` passes everything that is narrower than its register or stack
//! word with other bits above, as the psABI allows.

use std::fmt::Write as _;
use std::path::Path;

#[path = "build/dynamic.rs"]
mod dynamic;

/// A type: its names in Rust and C, bits of its value, and whether it is floating-point.
struct Type {
    rust: &'static str,
    c: &'static str,
    bits: u32,
    float: bool,
}

const fn int(rust: &'static str, c: &'static str, bits: u32) -> Type {
    Type { rust, c, bits, float: false }
}

const TYPES: [Type; 18] = [
    int("i8", "int8_t", 8),
    int("u8", "uint8_t", 8),
    int("i16", "int16_t", 16),
    int("u16", "uint16_t", 16),
    int("i32", "int32_t", 32),
    int("u32", "uint32_t", 32),
    int("i64", "int64_t", 64),
    int("u64", "uint64_t", 64),
    int("isize", "ptrdiff_t", 64),
    int("usize", "size_t", 64),
    int("bool", "bool", 1),
    int("*const u8", "const uint8_t *", 64),
    int("*mut c_void", "void *", 64),
    int("Option<extern \"C\" fn()>", "void_fn", 64),
    int("Option<unsafe extern \"C\" fn(i32) -> i32>", "int_fn", 64),
    Type { rust: "f32", c: "float", bits: 32, float: true },
    Type { rust: "f64", c: "double", bits: 64, float: true },
    Type { rust: "f64", c: "double", bits: 64, float: true },
];
const F64: usize = 16;
const I64: usize = 6;
const VOID: usize = usize::MAX;

/// Random numbers, the same in each build: a failure is there again tomorrow.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Bits of a value of this type: often the least, the greatest, or none.
    fn value(&mut self, t: &Type) -> u64 {
        let mask = u64::MAX >> (64 - t.bits);
        let bits = match self.below(6) {
            0 => 0,
            1 => mask,
            2 => 1 << (t.bits - 1),
            3 => mask >> 1,
            _ => self.next(),
        };
        // No NaN: a compiler may choose among them.
        let bits = if t.float { bits & 0xbfef_ffff_bf7f_ffff } else { bits };
        bits & mask
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    dynamic::write(Path::new(&std::env::var("OUT_DIR").unwrap()));
    let mut random = Random(0x7261_6d70_6664);
    let mut signatures: Vec<(Vec<usize>, usize)> = vec![(vec![], VOID)];
    for t in 0..TYPES.len() {
        signatures.push((vec![t], t));
        signatures.push((vec![t; 12], t));
    }
    for n in 1..=12 {
        signatures.push((vec![I64; n], I64));
        signatures.push((vec![F64; n], F64));
        signatures.push(((0..n).map(|i| [I64, F64][i % 2]).collect(), F64));
    }
    for (ints, floats) in [(1, 9), (2, 10), (3, 9), (6, 6), (7, 5), (8, 4)] {
        let mut mixture = [vec![I64; ints], vec![F64; floats]].concat();
        signatures.push((mixture.clone(), F64));
        mixture.reverse();
        signatures.push((mixture, I64));
    }
    while signatures.len() < 150 {
        // Chosen so that long ones, which use up registers, are more frequent.
        let n = random.below(13).max(random.below(13));
        let float = random.below(3) == 0;
        let arguments = (0..n)
            .map(|_| if float && random.below(3) > 0 { F64 } else { random.below(TYPES.len()) })
            .collect();
        let result = random.below(TYPES.len() + 1);
        signatures.push((arguments, if result == TYPES.len() { VOID } else { result }));
    }

    let mut c = String::from(
        "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n\
         typedef void (*void_fn)(void);\ntypedef int (*int_fn)(int);\n\
         static inline double f64(uint64_t b) { double d; memcpy(&d, &b, 8); return d; }\n\
         static inline float f32(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }\n",
    );
    let mut rust = String::new();
    for (n, (arguments, result)) in signatures.iter().enumerate() {
        signature(&mut random, &mut c, &mut rust, n, arguments, *result);
    }
    let all: String = (0..signatures.len()).map(|n| format!("s{n}::signature(),")).collect();
    writeln!(rust, "fn all() -> Vec<Case> {{ vec![{all}] }}").unwrap();

    let out = std::env::var("OUT_DIR").unwrap();
    let out = Path::new(&out);
    std::fs::write(out.join("signatures.rs"), rust).unwrap();
    std::fs::write(out.join("callers.c"), c).unwrap();
    let mut cc = cc::Build::new();
    cc.file(out.join("callers.c")).opt_level(2).warnings(true).warnings_into_errors(true);
    cc.flag("-Wno-cast-function-type").compile("callers");
}

fn signature(
    random: &mut Random,
    c: &mut String,
    rust: &mut String,
    n: usize,
    arguments: &[usize],
    result: usize,
) {
    let types: Vec<&Type> = arguments.iter().map(|&t| &TYPES[t]).collect();
    let values: Vec<u64> = types.iter().map(|t| random.value(t)).collect();
    let void = Type { rust: "()", c: "void", bits: 1, float: false };
    let result = if result == VOID { &void } else { &TYPES[result] };
    let answer = if result.rust == "()" { 0 } else { random.value(result) };

    let list = |items: Vec<String>| if items.is_empty() { "void".into() } else { items.join(", ") };
    let plain = list(types.iter().map(|t| t.c.into()).collect());
    let wide = |t: &&Type| if t.float { "double" } else { "uint64_t" }.to_owned();
    let wide = list(types.iter().map(wide).collect());
    let (mut clean, mut dirty) = (Vec::new(), Vec::new());
    for (t, v) in types.iter().zip(&values) {
        // A bool is one byte: what lies above the byte is not its own.
        let own = if t.rust == "bool" { 8 } else { t.bits };
        let noise = if own == 64 { 0 } else { random.next() << own };
        match t.c {
            "float" => {
                clean.push(format!("f32({v:#x}u)"));
                dirty.push(format!("f64({:#x}u)", v | noise));
            }
            "double" => {
                clean.push(format!("f64({v:#x}u)"));
                dirty.push(format!("f64({v:#x}u)"));
            }
            _ => {
                clean.push(format!("({}){v:#x}u", t.c));
                dirty.push(format!("{:#x}u", v | noise));
            }
        }
    }
    let give = if result.rust == "()" { "" } else { "return " };
    let (out, clean, dirty) = (result.c, clean.join(", "), dirty.join(", "));
    writeln!(c, "{out} call_{n}({out} (*f)({plain}));").unwrap();
    writeln!(c, "{out} call_{n}({out} (*f)({plain})) {{ {give}f({clean}); }}").unwrap();
    writeln!(c, "{out} dirty_{n}({out} (*f)({plain}));").unwrap();
    writeln!(
        c,
        "{out} dirty_{n}({out} (*f)({plain})) {{ {give}(({out} (*)({wide}))(void_fn)f)({dirty}); }}"
    )
    .unwrap();

    let names: Vec<String> = (0..types.len()).map(|i| format!("a{i}")).collect();
    let typed: Vec<String> =
        names.iter().zip(&types).map(|(name, t)| format!("{name}: {},", t.rust)).collect();
    let rust_types: Vec<&str> = types.iter().map(|t| t.rust).collect();
    let words: Vec<String> = names.iter().map(|name| format!("{name}.word()")).collect();
    let expected: Vec<String> = values.iter().map(|v| format!("{v:#x}")).collect();
    writeln!(
        rust,
        "pub mod s{n} {{
    use super::*;
    generated! {{
        {text:?}, [{rust_types}] {result}, call_{n} dirty_{n},
        ({typed}), [{words}], [{expected}], {answer:#x}, ({blanks})
    }}
}}",
        text = format!("fn({}) -> {}", rust_types.join(", "), result.rust),
        rust_types = rust_types.join(", "),
        result = result.rust,
        typed = typed.join(" "),
        words = words.join(", "),
        expected = expected.join(", "),
        blanks = "_, ".repeat(types.len()),
    )
    .unwrap();
}
