//! calc under test: each program by the interpreter, compiled, and from the cache, under the
//! policy that main sets.

mod generate;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs, io};

use crate::runtime::{Fault, What};
use crate::{
    Ran, command, compiled, entry, interpreter, lexer, place, program, refuse_exec_gain, report,
};
use generate::Random;
use trampfd_code::cache::{Happened, Reason};

/// Runs `body`, with a folder of its own, in a process that may make nothing executable that is
/// or was writable, and that runs nothing but the test `name`.
fn hardened(name: &str, body: impl FnOnce(&Path)) {
    const CHILD: &str = "TRAMPFD_CALC_TEST";
    if env::var(CHILD).is_ok_and(|test| test == name) {
        refuse_exec_gain().expect("PR_SET_MDWE (Linux 6.3)");
        body(&folder());
        return;
    }
    let folder = env::temp_dir().join(format!("calc-{name}-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &format!("tests::{name}")]);
    let output = command.env(CHILD, name).env("CALC_FOLDER", &folder).output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

/// Of this process; the cache makes another in it.
fn folder() -> PathBuf {
    PathBuf::from(env::var_os("CALC_FOLDER").unwrap()).join("cache")
}

/// Parses a program and runs it from the cache in `folder`: what it printed, and the rest.
fn run(text: &str, numbers: &[i64], folder: &Path) -> (String, Ran) {
    let program = Arc::new(program(text).unwrap_or_else(|error| panic!("{error}\n{text:.999}")));
    let main = entry(&program, numbers).unwrap();
    let mut output = Vec::new();
    let ran = compiled(&program, main, numbers, folder, &mut output);
    (
        String::from_utf8(output).unwrap(),
        ran.unwrap_or_else(|error| panic!("{error:?}\n{text:.999}")),
    )
}

/// The same by the interpreter. `None`: it takes too many steps.
fn interpret(text: &str, numbers: &[i64]) -> Option<(String, Result<i64, Fault>)> {
    let program = program(text).unwrap_or_else(|error| panic!("{error}\n{text:.999}"));
    let main = entry(&program, numbers).unwrap();
    let mut output = Vec::new();
    let result = interpreter::run(&program, main, numbers, 1_000_000, &mut output)?;
    Some((String::from_utf8(output).unwrap(), result))
}

/// Whether memory that was written can be made executable.
fn gains_exec() -> bool {
    let (any, flags) = (std::ptr::null_mut(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new page, which nobody else knows, given back at the end.
    unsafe {
        let page = libc::mmap(any, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        *page.cast::<u8>() = 0xc3;
        let gained = libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) == 0;
        assert_eq!(libc::munmap(page, 4096), 0);
        gained
    }
}

#[test]
fn the_policy_is_in_force() {
    hardened("the_policy_is_in_force", |_| assert!(!gains_exec()));
}

const FIB: &str = include_str!("../programs/fib.calc");
const PRIMES: &str = include_str!("../programs/primes.calc");
const COLLATZ: &str = include_str!("../programs/collatz.calc");
const PARITY: &str = include_str!("../programs/parity.calc");

/// With a number, and what they print for it.
const PROGRAMS: [(&str, i64, &str); 5] = [
    (FIB, 20, "6765\n"),
    (PRIMES, 12, "2\n3\n5\n7\n11\n5\n"),
    (COLLATZ, 100, "97\n118\n"),
    (PARITY, 1001, "0\n1\n"),
    (PARITY, 0, "1\n0\n"),
];

#[test]
fn the_sample_programs_print_what_they_should() {
    hardened("the_sample_programs_print_what_they_should", |folder| {
        for (text, number, want) in PROGRAMS {
            let (printed, ran) = run(text, &[number], folder);
            assert_eq!((&*printed, ran.result), (want, Ok(0)));
            assert_eq!(interpret(text, &[number]), Some((want.to_owned(), Ok(0))));
        }
        for row in fs::read_to_string("/proc/self/maps").unwrap().lines() {
            assert!(!row.contains(" rwx"), "{row}");
        }
    });
}

#[test]
fn a_second_start_compiles_nothing() {
    hardened("a_second_start_compiles_nothing", |folder| {
        for (text, number, want) in PROGRAMS.into_iter().take(4) {
            let (_, first) = run(text, &[number], folder);
            assert!(first.stats.methods_compiled > 0 && first.stats.loaded == 0);
            let (printed, second) = run(text, &[number], folder);
            assert_eq!(printed, want);
            assert_eq!((second.stats.methods_compiled, second.stats.compiled), (0, 0));
            assert_eq!(second.stats.loaded, first.stats.compiled);
        }
    });
}

/// The functions that batches begin with, of those that were compiled, and of those loaded.
fn batches(ran: &Ran) -> (Vec<&str>, Vec<&str>) {
    let (mut compiled, mut loaded) = (Vec::new(), Vec::new());
    for (name, event) in &ran.events {
        match event.what {
            Happened::Compiled { .. } => compiled.push(&**name),
            Happened::Loaded { .. } => loaded.push(&**name),
            _ => (),
        }
    }
    (compiled, loaded)
}

#[test]
fn a_batch_is_two_levels_deep_and_the_rest_is_compiled_when_it_is_called() {
    hardened("a_batch_is_two_levels_deep_and_the_rest_is_compiled_when_it_is_called", |folder| {
        let (_, ran) = run(COLLATZ, &[1], folder);
        assert_eq!(batches(&ran), (vec!["main"], vec![]));
        assert_eq!(ran.stats.methods_compiled, 3);
        // 2 is halved, once, and nothing grows.
        let (_, ran) = run(COLLATZ, &[2], folder);
        assert_eq!(batches(&ran), (vec!["is_even", "half"], vec!["main"]));
        let (_, ran) = run(COLLATZ, &[3], folder);
        assert_eq!(batches(&ran), (vec!["grow"], vec!["main", "is_even", "half"]));
    });
}

#[test]
fn an_edit_compiles_the_batches_that_it_touches_and_no_other() {
    hardened("an_edit_compiles_the_batches_that_it_touches_and_no_other", |folder| {
        run(COLLATZ, &[10], folder);
        // Lines that move change nothing.
        let moved = format!("# One more line.\n\n{COLLATZ}");
        assert_eq!(run(&moved, &[10], folder).1.stats.methods_compiled, 0);
        // Called in the batch of main, so that one is made again, too.
        let edited = COLLATZ.replace("return 3 * n + 1;", "return n + 1;");
        assert_ne!(edited, COLLATZ);
        let (printed, ran) = run(&edited, &[10], folder);
        assert_eq!(Some((printed, Ok(0))), interpret(&edited, &[10]));
        let (mut compiled, mut loaded) = batches(&ran);
        compiled.sort_unstable();
        loaded.sort_unstable();
        assert_eq!((compiled, loaded), (vec!["grow", "main"], vec!["half", "is_even"]));
    });
}

#[test]
fn a_broken_file_is_compiled_again_and_the_reason_told() {
    hardened("a_broken_file_is_compiled_again_and_the_reason_told", |folder| {
        let (want, first) = run(COLLATZ, &[10], folder);
        let files: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len() as u64, first.stats.compiled);
        for file in files {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            // The file is read-only: another takes its name.
            fs::remove_file(&file).unwrap();
            fs::write(&file, &bytes).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o400);
            fs::set_permissions(&file, mode).unwrap();

            let (printed, ran) = run(COLLATZ, &[10], folder);
            assert_eq!((&printed, ran.result.clone()), (&want, Ok(0)));
            assert_eq!((ran.stats.ignored, ran.stats.compiled), (1, 1));
            let mut reasons = ran.events.iter().filter_map(|(_, event)| match &event.what {
                Happened::Ignored(reason) => Some(reason),
                _ => None,
            });
            assert!(matches!(reasons.next(), Some(Reason::Hash)), "{:?}", ran.events);
            let mut text = Vec::new();
            report(&ran, &mut text).unwrap();
            assert!(String::from_utf8(text).unwrap().contains("calc: file of "));
            assert_eq!(run(COLLATZ, &[10], folder).1.stats.methods_compiled, 0);
        }
    });
}

#[test]
fn compiled_code_does_what_the_interpreter_does() {
    hardened("compiled_code_does_what_the_interpreter_does", |folder| {
        let seed = env::var("CALC_SEED").map_or(1, |seed| seed.parse().unwrap());
        let mut random = Random(seed);
        let (mut returned, mut printed, mut faults) = (0, 0, [0; 2]);
        for round in 0..400 {
            let text = generate::program(&mut random);
            let numbers = [random.number(), random.number()];
            let Some(want) = interpret(&text, &numbers) else { continue };
            let (first_printed, first) = run(&text, &numbers, folder);
            assert_eq!((first_printed, first.result), want, "seed {seed}, {round}: {text}");
            let (second_printed, second) = run(&text, &numbers, folder);
            assert_eq!(second.stats.methods_compiled, 0, "seed {seed}, {round}: {text}");
            assert_eq!((second_printed, second.result), want, "seed {seed}, {round}: {text}");
            printed += want.0.lines().count();
            match want.1 {
                Ok(_) => returned += 1,
                Err(Fault { what: What::Overflow, .. }) => faults[0] += 1,
                Err(_) => faults[1] += 1,
            }
        }
        // All of it was seen.
        let seen = returned > 100 && printed > 100 && faults[0] > 20 && faults[1] > 20;
        assert!(seen, "{returned} returned, {printed} lines, {faults:?} faults");
    });
}

#[test]
fn operators_bind_and_stop_as_the_grammar_says() {
    hardened("operators_bind_and_stop_as_the_grammar_says", |folder| {
        for (expression, want) in [
            ("10 - 4 - 3", 3),
            ("100 / 10 / 5", 2),
            ("2 + 3 * 4 - 5 % 3", 12),
            ("-2 * -3", 6),
            ("-(2 + 3)", -5),
            ("!0 + !7", 1),
            ("1 < 2 == 1", 1),
            ("5 == 2 + 3", 1),
            ("3 > 2 && 2 >= 2 && 1 != 2 && 2 <= 1", 0),
            ("1 || 0 && 0", 1),
            ("0 && 1 / 0", 0),
            ("7 || 1 / 0", 1),
            ("-7 / 2", -3),
            ("-7 % 2", -1),
            ("digits(1, 2, 3, 4, 5) + digits(5, 4, 3, 2, digits(1, 2, 3, 4, 5))", 79_010),
        ] {
            let text = format!(
                "fn main() {{ return {expression}; }}
                 fn digits(a, b, c, d, e) {{ return a * 10000 + b * 1000 + c * 100 + d * 10 + e; }}"
            );
            assert_eq!(interpret(&text, &[]), Some((String::new(), Ok(want))), "{expression}");
            assert_eq!(run(&text, &[], folder).1.result, Ok(want), "{expression}");
        }
    });
}

#[test]
fn faults_end_the_program_with_their_line() {
    hardened("faults_end_the_program_with_their_line", |folder| {
        let least = "(-9223372036854775807 - 1)";
        for (expression, want) in [
            ("9223372036854775807 + n", "great"),
            (&*format!("{least} - n"), "great"),
            (&format!("{least} * (0 - n)"), "great"),
            (&format!("{least} / (0 - n)"), "great"),
            (&format!("-{least}"), "great"),
            ("1 / (n - 1)", "division by zero"),
            ("1 % (n - 1)", "division by zero"),
            ("deep(n)", "too many calls"),
        ] {
            let text = format!(
                "fn deep(n) {{ return deep(n); }}\n\nfn main(n) {{\n    print(7);\n    \
                 print(inner(n));\n    print(8);\n}}\nfn inner(n) {{\n    return {expression};\n}}\n"
            );
            let (printed, ran) = run(&text, &[1], folder);
            let fault = ran.result.unwrap_err();
            let told = place(&program(&text).unwrap(), &fault);
            assert!(told.contains(want), "{told}: {expression}");
            let line =
                if want == "too many calls" { "line 1, in deep" } else { "line 9, in inner" };
            assert!(told.starts_with(line), "{told}: {expression}");
            assert_eq!(printed, "7\n");
            if want != "too many calls" {
                assert_eq!(interpret(&text, &[1]), Some((printed, Err(fault))));
            }
        }
        // What the processor refuses, and the language does not.
        let text = format!("fn main(n) {{ return {least} % (0 - n); }}");
        assert_eq!(run(&text, &[1], folder).1.result, Ok(0));
    });
}

#[test]
fn the_largest_programs_run() {
    hardened("the_largest_programs_run", |folder| {
        let sum = format!("n{}", " + 1".repeat(1000));
        let nested = format!("{}n{}", "(n + ".repeat(90), ")".repeat(90));
        let parameters = "(1, 2, 3, 4, g".repeat(95) + "(1, 2, 3, 4, 5)" + &")".repeat(95);
        let variables = "let x = n; ".repeat(999);
        let lines = "\nx = x + 1;".repeat(20_000);
        let text = format!(
            "fn main(n) {{ {variables} print({sum}); print({nested}); print(g{parameters});
             x = 0; {lines} return x; }}
             fn g(a, b, c, d, e) {{ return a + b + c + d + e; }}"
        );
        let want = (format!("1001\n91\n{}\n", 10 * 96 + 5), Ok(20_000));
        assert_eq!(interpret(&text, &[1]).as_ref(), Some(&want));
        let (printed, ran) = run(&text, &[1], folder);
        assert_eq!((printed, ran.result), want);
    });
}

#[test]
fn no_call_is_too_deep_for_the_stack() {
    hardened("no_call_is_too_deep_for_the_stack", |folder| {
        let (sum, minus) = (" + 1".repeat(1000), "-".repeat(40));
        let blocks = ("if 1 { ".repeat(48), "}".repeat(48));
        let calls = ["f(n)".to_owned(), format!("{minus}f(n)"), format!("f(n){sum}")];
        for call in calls {
            for (open, close) in [("", ""), (&*blocks.0, &*blocks.1)] {
                let nested = format!("fn main(n) {{ f(n); }} fn f(n) {{ {open} {call}; {close} }}");
                let tree = program(&nested).unwrap();
                let interpreted = interpreter::run(&tree, 0, &[1], u64::MAX, &mut io::sink());
                let interpreted = interpreted.expect("as many steps as it takes");
                for result in [interpreted, run(&nested, &[1], folder).1.result] {
                    let fault = result.unwrap_err();
                    assert_eq!((fault.what, &*fault.function), (What::TooManyCalls, "f"), "{call}");
                }
            }
        }
    });
}

#[test]
fn without_memory_for_a_stack_there_is_a_fault() {
    hardened("without_memory_for_a_stack_there_is_a_fault", |_| {
        let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a limit on the address space of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let (_, result) = interpret("fn main() { }", &[]).unwrap();
        let fault = result.unwrap_err();
        assert!(matches!(fault.what, What::NoStack(_)), "{fault:?}");
    });
}

#[test]
fn what_is_kept_nowhere_is_removed_and_hides_no_error() {
    hardened("what_is_kept_nowhere_is_removed_and_hides_no_error", |folder| {
        let temporary = |path: &Path| {
            // SAFETY: the other thread of this process waits for this one.
            unsafe { env::set_var("TMPDIR", path) };
        };
        let words = [
            "--no-cache",
            concat!(env!("CARGO_MANIFEST_DIR"), "/examples/calc/programs/fib.calc"),
            "9",
        ];
        fs::create_dir(folder).unwrap();
        temporary(folder);
        command(words.iter().map(Into::into)).unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        temporary(Path::new("/proc"));
        let error = command(words.iter().map(Into::into)).unwrap_err();
        assert!(error.to_string().contains("cannot be used for code"), "{error}");
    });
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let fib = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/calc/programs/fib.calc");
    for (words, want) in [
        (&[][..], "usage: calc"),
        (&["--cache"], "usage: calc"),
        (&["--else", fib, "1"], "usage: calc"),
        (&["--interpret", fib], "main takes 1 numbers, not 0"),
        (&["--interpret", fib, "1", "2"], "main takes 1 numbers, not 2"),
        (&["--interpret", fib, "one"], "invalid digit"),
        (&["--interpret", "/nowhere"], "/nowhere: No such file"),
    ] {
        let error = command(words.iter().map(Into::into)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}, not {want}");
    }
}

/// Lets others into the folder of the cache when something is printed, and removes what is there.
struct Spoil<'a>(&'a Path);

impl io::Write for Spoil<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fs::remove_dir_all(self.0)?;
        fs::create_dir(self.0)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.0, mode)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn code_that_cannot_be_had_is_a_fault_of_the_call() {
    hardened("code_that_cannot_be_had_is_a_fault_of_the_call", |folder| {
        let text = "fn main() { print(1); a(); } fn a() { b(); } fn b() { c(); } fn c() { }";
        let program = Arc::new(program(text).unwrap());
        let ran = compiled(&program, 0, &[], folder, &mut Spoil(folder)).unwrap();
        let fault = ran.result.unwrap_err();
        assert!(matches!(&fault.what, What::NotCompiled(why) if why.contains("0700")), "{fault:?}");
        assert_eq!(ran.stats.methods_compiled, 3);
    });
}

#[test]
fn wrong_programs_are_refused_with_their_line() {
    let deep = format!("fn main() {{ return {}1{}; }}", "(".repeat(500), ")".repeat(500));
    let minus = format!("fn main() {{ return {}1; }}", "-".repeat(100_000));
    let many = format!("fn main() {{ {} }}", "let x = 1;".repeat(1001));
    let long = format!("fn main() {{\n return 1{}; }}", "+1".repeat(100_000));
    for (text, line, what) in [
        ("fn main() { return 1 }", 1, "; is missing"),
        ("fn main() {\n  x = 1;\n}", 2, "there is no x"),
        ("fn main() { if 1 { let x = 1; }\n return x; }", 2, "there is no x"),
        ("fn main() {\n\n  f(); }", 3, "there is no function f"),
        ("fn f(a) { }\nfn main() { f(); }", 2, "f has 1 parameters and is given 0 arguments"),
        ("fn main() { print(1, 2); }", 1, "print has 1 parameters"),
        ("fn f() { }\nfn f() { }", 2, "f is there already"),
        ("fn f() { }", 1, "there is no function main"),
        ("fn main(a, b, c, d, e, f) { }", 1, "main has more than 5 parameters"),
        ("fn main() { return 9223372036854775808; }", 1, "too large"),
        ("fn main() { return 12ab; }", 1, "12ab"),
        ("fn main() { return 1 $ 2; }", 1, "'$' has no meaning"),
        ("fn main() { let let = 1; }", 1, "a name is missing"),
        ("fn main() { return 1;", 1, "a name is missing"),
        ("let", 1, "fn is missing"),
        (&deep, 1, "nested too deep"),
        (&minus, 1, "nested too deep"),
        (&many, 1, "more than 1000 variables"),
        (&long, 2, "more than 1000 operators"),
    ] {
        match program(text) {
            Err(lexer::Error { line: at, what: why }) if at == line && why.contains(what) => (),
            Err(error) => panic!("{error}, not: line {line}, {what}: {text:.99}"),
            Ok(_) => panic!("{text:.99} is a program, not: line {line}, {what}"),
        }
    }
}

#[test]
fn any_text_is_a_program_or_an_error() {
    const PIECES: [&str; 24] = [
        "fn", "main", "(", ")", "{", "}", "let", "x", "=", "1", ";", "if", "else", "while",
        "return", "-", "!", "+", "==", ",", "\n", " ", "ä", "# c\n",
    ];
    let mut random = Random(2);
    let mut programs = 0;
    for _ in 0..20_000 {
        let pieces = (0..random.below(12)).map(|_| PIECES[random.below(PIECES.len())]);
        let middle: Vec<&str> = pieces.collect();
        let text = format!("fn main() {{ {} }}", middle.join(" "));
        programs += usize::from(program(&text).is_ok());
    }
    assert!(programs > 100, "{programs}");
}
