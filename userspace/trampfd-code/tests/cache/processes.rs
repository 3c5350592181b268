//! Several processes and one folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Barrier, Mutex};

use trampfd_code::cache::{Cache, Options};

use crate::program::{Body, Folder, Program, call, events, open, run};
use crate::support::alone::succeeds;

const ROLE: &str = "TRAMPFD_CACHE_ROLE";
const FOLDER: &str = "TRAMPFD_CACHE_FOLDER";

/// In a child: what it is to do, and the folder.
pub fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(FOLDER)?.into()))
}

/// A process that runs nothing but the test `name`.
pub struct Child(pub std::process::Child);

impl Child {
    pub fn new(name: &str, role: &str, dir: &Path) -> Child {
        Child::with(name, role, dir, Stdio::null())
    }

    pub fn with(name: &str, role: &str, dir: &Path, stdin: Stdio) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env(ROLE, role).env(FOLDER, dir);
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Child(command.spawn().unwrap())
    }

    #[track_caller]
    pub fn succeeds(self) {
        let output = self.0.wait_with_output().unwrap();
        succeeds(&output);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{text}");
    }
}

fn program() -> Program {
    Program::of(&[(0, &[1, 7]), (1, &[2]), (2, &[3]), (3, &[4]), (4, &[7]), (7, &[])])
        .with(9, Body::Helper("twelve"))
}

#[test]
fn a_second_process_loads_what_the_first_compiled_and_compiles_nothing() {
    const NAME: &str =
        "processes::a_second_process_loads_what_the_first_compiled_and_compiles_nothing";
    let program = program();
    if let Some((start, dir)) = role() {
        let cache = open(&dir, &program);
        assert_eq!(run(&cache, 0), program.value(0));
        assert_eq!(run(&cache, 9), 12);
        let start = start.as_str();
        assert_eq!(events(&cache), [start, start, start]);
        let count = if start == "compiled" { 7 } else { 0 };
        assert_eq!(program.compiled.load(Ordering::Relaxed), count);
        return;
    }
    let folder = Folder::new("second");
    Child::new(NAME, "compiled", &folder.0).succeeds();
    Child::new(NAME, "loaded", &folder.0).succeeds();
    Child::new(NAME, "loaded", &folder.0).succeeds();
}

#[test]
fn a_method_in_the_batch_of_another_is_found_where_it_was() {
    let folder = Folder::new("home");
    let program = Program::of(&[(0, &[1]), (1, &[]), (5, &[6]), (6, &[1])]);
    let first = folder.open(&program);
    // 1 is in the batch of 0, and called by that of 5.
    first.get(0).unwrap();
    first.get(5).unwrap();
    assert_eq!(events(&first), ["compiled", "compiled"]);
    let second = folder.open(&program);
    assert_eq!(run(&second, 5), program.value(5));
    assert_eq!(run(&second, 0), program.value(0));
    assert_eq!(events(&second), ["loaded", "loaded"]);
}

#[test]
fn processes_that_write_at_the_same_time_disturb_nobody() {
    const NAME: &str = "processes::processes_that_write_at_the_same_time_disturb_nobody";
    let program = program();
    if let Some((number, dir)) = role() {
        let number: usize = number.parse().unwrap();
        for round in 0..60 {
            let mut options = Options::default();
            options.limit = [None, Some(1), Some(20_000)][number % 3];
            let cache = Cache::open(&dir, program.clone(), options).unwrap();
            assert_eq!(run(&cache, 0), program.value(0));
            let address = cache.get(0).unwrap();
            if (round + number).is_multiple_of(3) {
                cache.clear().unwrap();
            }
            assert_eq!(call(address), program.value(0));
            let events = events(&cache);
            let fine = |event: &String| ["compiled", "loaded", "evicted"].contains(&&**event);
            assert!(events.iter().all(fine), "{events:?}");
        }
        return;
    }
    let folder = Folder::new("writers");
    let children: Vec<_> = (0..8).map(|n| Child::new(NAME, &n.to_string(), &folder.0)).collect();
    children.into_iter().for_each(Child::succeeds);
    assert!(folder.names().iter().all(|name| name.ends_with(".code")), "{:?}", folder.names());
}

/// Each says that it uses the files, which were not used for long.
#[test]
fn caches_with_a_limit_that_start_together_do_not_disturb_each_other() {
    let folder = Folder::new("together");
    let program = program();
    assert_eq!(run(&folder.open(&program), 0), program.value(0));
    let (barrier, strange) = (Barrier::new(8), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (barrier, strange, folder, program) = (&barrier, &strange, &folder, &program);
            scope.spawn(move || {
                for _ in 0..50 {
                    if barrier.wait().is_leader() {
                        folder.forget_uses();
                    }
                    barrier.wait();
                    let mut options = Options::default();
                    options.limit = Some(1 << 20);
                    let cache = Cache::open(&folder.0, program.clone(), options).unwrap();
                    let value = run(&cache, 0);
                    let events = events(&cache);
                    if value != program.value(0) || events != ["loaded", "loaded"] {
                        strange.lock().unwrap().push((thread, value, events));
                    }
                }
            });
        }
    });
    assert_eq!(strange.into_inner().unwrap(), []);
}

#[test]
fn a_child_of_fork_loads_compiles_and_leaves_its_parent_alone() {
    const NAME: &str = "processes::a_child_of_fork_loads_compiles_and_leaves_its_parent_alone";
    let program = program();
    let Some((_, dir)) = role() else {
        let folder = Folder::new("fork");
        Child::new(NAME, "parent", &folder.0).succeeds();
        return;
    };
    // The harness has one more thread, which waits.
    let cache = open(&dir, &program);
    let start = cache.get(0).unwrap();
    let waiting = cache.stats().waiting;
    assert!(waiting > 0);
    // SAFETY: the child runs code that takes no lock of another thread's.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let fine = call(start) == program.value(0) && call(cache.get(9).unwrap()) == 12;
        // SAFETY: ends the child.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(cache.stats().waiting, waiting);
    assert_eq!(call(start), program.value(0));
    assert_eq!(run(&cache, 9), 12);
    assert_eq!(events(&cache), ["compiled", "loaded", "loaded"]);
}
