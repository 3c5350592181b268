//! Processes that are killed at any point.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use trampfd_code::cache::{Cache, Options};

use crate::processes::{Child, role};
use crate::program::{Body, Folder, Program, events, open, run};

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[2]), (2, &[3]), (3, &[])]).with(9, Body::Long(50_000))
}

/// What is left of a killed process harms nobody, whose files are whole.
fn is_usable(folder: &Folder) {
    let program = program();
    let cache = folder.open(&program);
    assert_eq!(run(&cache, 0), program.value(0));
    cache.get(9).unwrap();
    let events = events(&cache);
    let fine = |event: &String| ["compiled", "loaded"].contains(&event.as_str());
    assert!(events.len() == 3 && events.iter().all(fine), "{events:?}");
}

fn left_over(folder: &Folder) -> usize {
    folder.names().iter().filter(|name| name.ends_with(".new")).count()
}

/// Waits until the child says so.
fn is_ready(child: &mut Child) -> String {
    let mut text = Vec::new();
    let stdout = child.0.stdout.as_mut().unwrap();
    let mut byte = [0];
    while !text.ends_with(b"!") {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the child died");
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_process_killed_at_any_time_leaves_a_usable_cache() {
    const NAME: &str = "crash::a_process_killed_at_any_time_leaves_a_usable_cache";
    if let Some((_, dir)) = role() {
        let round = || {
            let cache = open(&dir, &program());
            cache.get(9).unwrap();
            run(&cache, 0);
            cache.clear().unwrap();
        };
        let start = Instant::now();
        round();
        // How long it takes here.
        print!("round {}!", start.elapsed().as_micros());
        std::io::stdout().flush().unwrap();
        loop {
            round();
        }
    }
    let folder = Folder::new("killed");
    let mut state = 12345u64;
    for _ in 0..300 {
        let mut child = Child::new(NAME, "loop", &folder.0);
        let text = is_ready(&mut child);
        let round: u64 = text.rsplit(' ').next().unwrap().trim_end_matches('!').parse().unwrap();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_micros((state >> 33) % (2 * round)));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        is_usable(&folder);
    }
    let left = left_over(&folder);
    assert!(left > 0, "never was a file being written");
}

#[test]
fn a_process_killed_before_or_after_any_system_call_leaves_a_usable_cache() {
    const NAME: &str =
        "crash::a_process_killed_before_or_after_any_system_call_leaves_a_usable_cache";
    if let Some((_, dir)) = role() {
        // SAFETY: returns a number.
        print!("tid {}!", unsafe { libc::syscall(libc::SYS_gettid) });
        std::io::stdout().flush().unwrap();
        let mut byte = [0];
        std::io::stdin().read_exact(&mut byte).unwrap();
        // All that there is to do: each batch goes when the next comes.
        let mut options = Options::default();
        (options.sync, options.limit) = (true, Some(1));
        let cache = Cache::open(&dir, program(), options).unwrap();
        cache.get(9).unwrap();
        run(&cache, 0);
        // SAFETY: ends the process, so that what it does after is not counted.
        unsafe { libc::_exit(0) };
    }
    let folder = Folder::new("each-call");
    let (mut stops, mut left) = (0, 0);
    loop {
        let mut child = Child::with(NAME, "once", &folder.0, Stdio::piped());
        let text = is_ready(&mut child);
        let tid = text.rsplit(' ').next().unwrap().trim_end_matches('!').parse().unwrap();
        let ended = run_for(tid, stops, || {
            child.0.stdin.take().unwrap().write_all(b"!").unwrap();
        });
        child.0.kill().unwrap();
        if !ended {
            is_dead(tid);
        }
        child.0.wait().unwrap();
        is_usable(&folder);
        left = left.max(left_over(&folder));
        std::fs::remove_dir_all(&folder.0).unwrap();
        if ended {
            break;
        }
        stops += 1;
    }
    // To publish three batches takes fifteen calls each, at least; some leave a file behind.
    assert!(stops > 90 && left > 0, "{stops} {left}");
}

#[test]
fn what_dead_processes_of_this_number_left_is_in_nobodys_way() {
    let folder = Folder::new("same-number");
    let program = program();
    drop(folder.open(&program));
    let (key, me) = (program.key_of(0), std::process::id());
    for n in 0..1000 {
        std::fs::write(folder.0.join(format!("{key}.{me}.{n}.new")), "half").unwrap();
    }
    is_usable(&folder);
    assert_eq!(left_over(&folder), 1000, "a minute old, they would be removed");
}

/// Waits until a traced thread is dead: before that its process is not.
fn is_dead(tid: i32) {
    let mut status = 0;
    // SAFETY: a thread that we trace.
    unsafe {
        while libc::waitpid(tid, &mut status, libc::__WALL) == tid && libc::WIFSTOPPED(status) {
            libc::ptrace(libc::PTRACE_CONT, tid, 0, 0);
        }
    }
}

/// Lets the thread run, after `go`, up to so many beginnings and ends of system calls. `true`: it
/// ended before.
fn run_for(tid: i32, stops: usize, go: impl FnOnce()) -> bool {
    let mut status = 0;
    // SAFETY: a thread of a child of ours, which waits for what `go` writes.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0), 0, "ptrace");
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0), 0);
        assert_eq!(libc::waitpid(tid, &mut status, libc::__WALL), tid);
    }
    go();
    for _ in 0..stops {
        // SAFETY: it is stopped.
        unsafe {
            if libc::ptrace(libc::PTRACE_SYSCALL, tid, 0, 0) != 0 {
                return true;
            }
            let waited = libc::waitpid(tid, &mut status, libc::__WALL);
            if waited != tid || !libc::WIFSTOPPED(status) {
                return true;
            }
        }
    }
    false
}
