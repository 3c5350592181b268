//! A test in a process of its own: for what changes the process, or counts what is in it.

use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, io};

/// Names the test that a process is for.
const WHICH: &str = "TRAMPFD_CODE_TEST";

/// What such a process says at the end of its test.
const END: &str = "the body came to its end";

/// How the reason begins why a test could not run. In a test machine such a test is skipped,
/// anywhere else it has failed.
const NOT_RUN: &str = "not run: ";

/// Runs `body` in a process of its own. It must be a closure that stands in the test function,
/// the only such one; what the test does before is done in both processes.
///
/// # Panics
///
/// It did not come to its end: with what it panicked with, first of all.
#[track_caller]
pub fn alone<F: FnOnce()>(body: F) {
    passes(&output_of(body));
}

/// The same, but returns what the process printed and how it ended. In the process itself it does
/// not return.
pub fn output_of<F: FnOnce()>(body: F) -> Output {
    output_by(Command::new(env::current_exe().unwrap()), body)
}

/// The same by a command that takes this program's arguments as its own last ones.
pub fn output_by<F: FnOnce()>(mut command: Command, body: F) -> Output {
    static STARTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let test = test_of::<F>();
    if env::var_os(WHICH).is_some_and(|which| which == *test) {
        body();
        println!("{END}");
        std::process::exit(0);
    }
    let mut started = STARTED.lock().unwrap_or_else(|e| e.into_inner());
    assert!(!started.contains(&test), "a second closure of {test} would never be run");
    started.push(test.clone());
    drop(started);
    // So that malloc makes no mappings of its own, which would be counted.
    let malloc = [
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
        ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ];
    command.args([&test, "--exact", "--test-threads=1", "--nocapture"]);
    command.env(WHICH, test).env("RUST_BACKTRACE", "0").envs(malloc).output().unwrap()
}

/// The name by which libtest knows the test whose closure `F` is.
fn test_of<F>() -> String {
    let name = std::any::type_name::<F>();
    let (function, _) = name.split_once("::{{closure}}").expect("a closure");
    let (_, path) = function.split_once("::").expect("a function of a crate");
    path.into()
}

/// The closure of [`output_of`] came to its end.
#[track_caller]
pub fn passes(output: &Output) {
    succeeds(output);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(END), "the body was not run: {said}");
}

/// A process that runs a test has ended well.
///
/// # Panics
///
/// It has not. What it or one of its children panicked with comes first, because only the
/// beginning of a message is seen everywhere.
#[track_caller]
pub fn succeeds(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    let causes = causes(&errors);
    if let [cause] = &causes[..]
        && cause.starts_with(NOT_RUN)
    {
        panic!("{cause}");
    }
    let causes: String = causes.into_iter().map(|cause| cause + "\n").collect();
    // Marked, so that nobody takes the results in it for those of this program.
    let all: String =
        said.lines().chain(errors.lines()).map(|line| format!("| {line}\n")).collect();
    assert!(output.status.success(), "{causes}{}\n{all}", output.status);
}

/// The messages of the panics in what a process wrote.
fn causes(errors: &str) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut inside = false;
    for line in errors.lines() {
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            causes.push(String::new());
            inside = true;
        } else if line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE=") {
            inside = false;
        } else if let Some(cause) = causes.last_mut().filter(|_| inside) {
            *cause += if cause.is_empty() { "" } else { "\n" };
            *cause += line;
        }
    }
    causes
}

/// Ends a test that needs something which Linux has since version `since`, and which was answered
/// with `error`: on an older kernel it could not run, on others it has failed.
#[track_caller]
pub fn lacks(what: &str, since: (u32, u32), error: &io::Error) -> ! {
    let (major, minor) = since;
    assert!(linux() < since, "{what}, which Linux has since {major}.{minor}: {error}");
    panic!("{NOT_RUN}{what} (Linux {major}.{minor}): {error}");
}

/// The version of this kernel.
pub fn linux() -> (u32, u32) {
    // SAFETY: bytes, for which zeros are good.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: writes strings there.
    assert_eq!(unsafe { libc::uname(&mut name) }, 0);
    // SAFETY: a string, as the kernel ends it.
    let release = unsafe { std::ffi::CStr::from_ptr(name.release.as_ptr()) };
    let mut numbers = release.to_str().unwrap().split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

/// Forks; in the child calls `act`, and ends. Whether it came to its end, without a panic and
/// within a minute.
pub fn child(act: impl FnOnce()) -> bool {
    // SAFETY: the child calls `act`, of which the tests say what it relies on; the other threads
    // of a process of its own only wait.
    end_of(unsafe { libc::fork() }, act)
}

/// The same by the system call alone: the C library does not know.
pub fn raw_child(act: impl FnOnce()) -> bool {
    // SAFETY: as above; no stack of its own, so the child goes on with a copy of this one.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    end_of(pid as i32, act)
}

fn end_of(pid: i32, act: impl FnOnce()) -> bool {
    assert_ne!(pid, -1, "{}", io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: ends the child, sooner or later.
        unsafe { libc::alarm(60) };
        let act = std::panic::AssertUnwindSafe(act);
        let ok = std::panic::catch_unwind(act).is_ok();
        // SAFETY: ends the child, without what was meant for its parent's end.
        unsafe { libc::_exit(i32::from(!ok)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}
