//! The fixture: a test body is run on every backend that this run is about, in this process or
//! in one of its own.
//!
//! `TRAMPFD_TEST_BACKENDS` names the backends, `text` and `kernel` with a comma between; without
//! it `text`. Each that is named must be there: a body on a backend that is not fails.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use trampfd::{Backend, Builder, Closure, FnPointer};

/// Which test and backend a process of its own is for.
const ALONE: &str = "TRAMPFD_TEST_ALONE";

/// How long a process may take. The slowest machine is an emulated one.
const LIMIT: Duration = Duration::from_secs(120);

/// The backends that this run is about.
///
/// # Panics
///
/// `TRAMPFD_TEST_BACKENDS` names none, or one that is unknown.
pub fn backends() -> Vec<Backend> {
    let names = std::env::var("TRAMPFD_TEST_BACKENDS").unwrap_or_else(|_| "text".into());
    names.split(',').map(|name| backend(name.trim())).collect()
}

fn backend(name: &str) -> Backend {
    match name {
        "text" => Backend::Text,
        "kernel" => Backend::Kernel,
        _ => panic!("TRAMPFD_TEST_BACKENDS: no backend {name:?}"),
    }
}

fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Kernel => "kernel",
        _ => "text",
    }
}

/// Runs `body` on each backend.
pub fn each(body: impl Fn(&Builder)) {
    for backend in backends() {
        body(&Builder::new().require(backend));
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct End {
    /// The backend it was for.
    pub backend: Backend,
    /// As waitpid says.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl End {
    /// The process came to its end.
    ///
    /// # Panics
    ///
    /// It did not.
    pub fn is_good(&self) {
        assert!(self.status.success(), "{}: {}\n{}", self.backend, self.status, self.stderr);
    }

    /// The process was ended by `signal`.
    ///
    /// # Panics
    ///
    /// It was not.
    pub fn is_killed_by(&self, signal: i32) {
        assert_eq!(self.status.signal(), Some(signal), "{}\n{}", self.backend, self.stderr);
    }
}

/// Runs `body` once for each backend, each in a process of its own: this program, started anew
/// for this test. `body` must be a closure that stands in the test function, which must do
/// nothing before; in the process that is started, this function does not return.
pub fn alone<F: Fn(&Builder)>(body: F) -> Vec<End> {
    backends().into_iter().map(|backend| alone_on(backend, &body)).collect()
}

/// [`alone`], and each process must come to its end.
pub fn alone_well<F: Fn(&Builder)>(body: F) {
    alone(body).iter().for_each(End::is_good);
}

/// [`alone`] on one backend, whatever the run is about.
pub fn alone_on<F: Fn(&Builder)>(backend: Backend, body: F) -> End {
    start(&test_of::<F>(), backend, "", || body(&Builder::new().require(backend)))
}

/// [`alone`] for each of `cases`; each end comes with its case.
pub fn alone_cases<F: Fn(&Builder, &str)>(cases: &[&str], body: F) -> Vec<(String, End)> {
    alone_cases_on(&backends(), cases, body)
}

/// [`alone_cases`] on these backends, whatever the run is about.
pub fn alone_cases_on<F: Fn(&Builder, &str)>(
    backends: &[Backend],
    cases: &[&str],
    body: F,
) -> Vec<(String, End)> {
    let test = test_of::<F>();
    let run = |backend, case: &str| {
        let end = start(&test, backend, case, || body(&Builder::new().require(backend), case));
        (case.to_owned(), end)
    };
    let each = backends.iter();
    each.flat_map(|backend| cases.iter().map(move |case| run(*backend, case))).collect()
}

/// All of these came to their end.
///
/// # Panics
///
/// One did not.
pub fn all_good(ends: &[(String, End)]) {
    for (case, end) in ends {
        assert!(end.status.success(), "{case}: {}\n{}", end.status, end.stderr);
    }
}

/// Says that a process of its own came as far as its body.
const MARK: &str = "trampfd-tests: here begins the body\n";

fn start(test: &str, backend: Backend, case: &str, body: impl FnOnce()) -> End {
    let task = format!("{test}@{}@{case}", name(backend));
    if let Some(here) = std::env::var_os(ALONE) {
        if here == *task {
            eprint!("{MARK}");
            body();
            std::process::exit(0);
        }
        // The process is for another backend or case of this test.
        return End { backend, status: ExitStatus::from_raw(0), stderr: String::new() };
    }
    let mut child = Command::new(myself())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, &task)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program, started anew");
    let mut pipe = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let status = wait(&mut child);
    let stderr = reader.join().expect("the reader").expect("what it wrote");
    let Some(stderr) = stderr.strip_prefix(MARK) else {
        panic!("{test} did not come as far as its body: {status}\n{stderr}");
    };
    End { backend, status, stderr: stderr.to_owned() }
}

/// This program, also where its file was replaced or there is no /proc.
fn myself() -> OsString {
    if std::path::Path::new("/proc/self/exe").exists() {
        return "/proc/self/exe".into();
    }
    std::env::args_os().next().expect("a program has a name")
}

/// The name by which libtest knows the test whose closure `F` is.
fn test_of<F>() -> String {
    let name = std::any::type_name::<F>().trim_start_matches('&');
    let name = name.split("::{{closure}}").next().unwrap_or(name);
    name.split_once("::").map_or(name, |(_, path)| path).to_owned()
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waitpid") {
            return status;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            panic!("a process of this test did not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `body` in a child of fork and returns how that ended: with 0 if `body` returned.
///
/// # Panics
///
/// The child did not end in time.
pub fn fork(body: impl FnOnce()) -> ExitStatus {
    // SAFETY: the child runs `body` and ends; what the library promises after fork is what the
    // callers test.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let end = catch_unwind(AssertUnwindSafe(body));
        // The test harness may hold what it captured for itself; this goes out.
        if let Err(panic) = &end {
            let text = match panic.downcast_ref::<String>() {
                Some(text) => text,
                None => panic.downcast_ref::<&str>().copied().unwrap_or("a panic"),
            };
            // SAFETY: reads the text.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: ends the child, and nothing of the parent's in it.
        unsafe { libc::_exit(end.is_err().into()) };
    }
    let start = Instant::now();
    let mut status = 0;
    loop {
        // SAFETY: a child of this function.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if start.elapsed() > LIMIT => {
                // SAFETY: as above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                panic!("a child of fork did not end");
            }
            0 => std::thread::sleep(Duration::from_millis(1)),
            done => {
                assert_eq!(done, pid, "waitpid: {}", std::io::Error::last_os_error());
                return ExitStatus::from_raw(status);
            }
        }
    }
}

/// [`fork`], and the child must come to its end.
///
/// # Panics
///
/// It did not.
pub fn fork_well(body: impl FnOnce()) {
    let status = fork(body);
    assert!(status.success(), "the child of fork: {status}");
}

/// The mappings of this process, one a line.
///
/// # Panics
///
/// There is no /proc.
pub fn mappings() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    maps.lines().map(str::to_owned).collect()
}

/// No mapping of this process is writable and executable.
///
/// # Panics
///
/// One is.
pub fn no_writable_code() {
    for line in mappings() {
        let rights = line.split(' ').nth(1).expect("rights");
        assert!(!(rights.contains('w') && rights.contains('x')), "{line}");
    }
}

/// Those of many closures that a test calls, with their index: all on static text, every 61st of
/// the kernel service's, which in time is each place of a page.
///
/// The kernel's stubs are all one page, and the emulator that test machines run on keeps a
/// translation of each stub that was ever called, as belonging to that page. When the module
/// goes and the page is used anew, it walks them all for each: with 100,000 that takes minutes,
/// in which the machine looks dead.
pub fn some<S: FnPointer>(all: &[Closure<S>]) -> impl Iterator<Item = (usize, &Closure<S>)> {
    let kernel = all.first().is_some_and(|f| f.backend() == Backend::Kernel);
    all.iter().enumerate().step_by(if kernel { 61 } else { 1 })
}
