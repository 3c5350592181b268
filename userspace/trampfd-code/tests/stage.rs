//! Memory that is written where it will be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, mem, ptr};

use trampfd_code::stage::{Error, Kind, Stage, publish_in_place};
use trampfd_code::vm::{self, Meter, Options, Place, Write, page_size};

#[path = "support/mod.rs"]
mod support;

use support::alone::alone;
use support::maps::{Row, access, rows};
use support::policy::refuse_exec_gain;

#[path = "stage/failing.rs"]
mod failing;
#[path = "stage/in_place.rs"]
mod in_place;
#[path = "stage/arch/x86_64.rs"]
mod machine;

type Function = extern "C" fn() -> i32;

fn function(ptr: *mut u8) -> Function {
    // SAFETY: what tests put there is a function.
    unsafe { mem::transmute::<*mut u8, Function>(ptr) }
}

fn write(at: *mut u8, bytes: &[u8]) {
    // SAFETY: tests write to what they have allocated.
    unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}

/// A function that returns `value`, staged.
fn stage_answer(stage: &mut Stage, value: i32) -> *mut u8 {
    let code = stage.allocate(Kind::Code, machine::ANSWER, 16).unwrap();
    write(code, &machine::answer(value));
    code
}

fn protect(ptr: *mut u8, prot: i32) -> io::Result<()> {
    let page = (ptr as usize & !(page_size() - 1)) as *mut libc::c_void;
    // SAFETY: tests ask for what must be refused, or for their own pages.
    let ret = unsafe { libc::mprotect(page, page_size(), prot) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn anonymous(len: usize) -> *mut u8 {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new pages.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

/// Bytes that this process has of something: "VmSize", for instance.
fn status(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    row.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A function with its constant and its variable, finalised: 40 + 2, then 40 + 3.
fn code_and_data(stage: &mut Stage) {
    let constant = stage.allocate(Kind::ReadOnly, 4, 4).unwrap();
    let variable = stage.allocate(Kind::ReadWrite, 4, 4).unwrap();
    let code = stage.allocate(Kind::Code, machine::SUM, 16).unwrap();
    let bump = stage.allocate(Kind::Code, machine::BUMP, 16).unwrap();
    write(constant, &40_i32.to_le_bytes());
    write(variable, &2_i32.to_le_bytes());
    let (at, one, other) = (code as usize, constant as usize, variable as usize);
    write(code, &machine::sum(at, one, other).expect("in reach"));
    write(bump, &machine::bump(bump as usize, other).expect("in reach"));
    stage.finalise().unwrap();
    assert_eq!(function(code)(), 42);
    function(bump)();
    assert_eq!(function(code)(), 43);
    assert_eq!(access(code), "r-xs");
    assert_eq!(access(constant), "r--p");
    assert_eq!(access(variable), "rw-p");
}

#[test]
fn code_runs_where_it_was_written_with_its_data() {
    let mut stage = Stage::new(Options::default()).unwrap();
    code_and_data(&mut stage);
    code_and_data(&mut stage);
}

#[test]
fn code_runs_where_memory_that_was_writable_may_not() {
    alone(|| {
        refuse_exec_gain();
        let mut stage = Stage::new(Options::default()).unwrap();
        code_and_data(&mut stage);
        code_and_data(&mut stage);
    });
}

#[test]
fn a_set_takes_three_system_calls_and_no_mapping_of_its_own() {
    let room = 16 << 20;
    let mut stage = Stage::with_room(Options::default(), room).unwrap();
    let mut functions = Vec::new();
    let mut base = 0;
    for i in 0..100 {
        let before = stage.stats();
        let code = stage_answer(&mut stage, i);
        let data = stage.allocate(Kind::ReadOnly, 300, 8).unwrap();
        stage.allocate(Kind::ReadWrite, 200, 8).unwrap();
        write(data, &[1; 300]);
        stage.finalise().unwrap();
        if functions.is_empty() {
            base = code as usize;
        } else {
            assert_eq!(stage.stats().system_calls - before.system_calls, 3);
            assert_eq!(stage.stats().mappings, before.mappings);
        }
        functions.push(function(code));
        // Code: final, staged, reserved; so with constants; variables: writable, reserved.
        let ours = |row: &&Row| row.range.end > base && row.range.start < base + room;
        let rows = rows();
        let ours: Vec<&Row> = rows.iter().filter(ours).collect();
        let accesses: Vec<&str> = ours.iter().map(|row| row.rights.as_str()).collect();
        let want = ["r-xs", "rw-p", "---p", "r--p", "rw-p", "---p", "rw-p", "---p"];
        assert_eq!(accesses, want);
    }
    for (i, function) in functions.iter().enumerate() {
        assert_eq!(function(), i as i32);
    }
}

#[test]
fn a_set_without_anything_new_costs_nothing() {
    let mut stage = Stage::new(Options::default()).unwrap();
    stage_answer(&mut stage, 1);
    stage.allocate(Kind::ReadWrite, 100, 8).unwrap();
    stage.finalise().unwrap();
    let before = stage.stats();
    stage.allocate(Kind::ReadWrite, 100, 8).unwrap();
    stage.finalise().unwrap();
    assert_eq!(stage.stats(), before);
}

#[test]
fn nothing_is_ever_writable_and_executable() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let watcher = std::thread::spawn(|| {
        let mut looks = 0;
        while !DONE.load(Ordering::Relaxed) || looks == 0 {
            for row in rows() {
                assert!(!row.rights.starts_with("rwx"), "{:x?} {}", row.range, row.rights);
            }
            looks += 1;
        }
    });
    let ending = Ending(&DONE);
    for _ in 0..20 {
        let mut stage = Stage::with_room(Options::default(), 1 << 20).unwrap();
        (0..20).for_each(|_| code_and_data(&mut stage));
    }
    drop(ending);
    watcher.join().unwrap();
}

#[test]
fn a_jump_to_where_no_code_is_traps() {
    let mut stage = Stage::new(Options::default()).unwrap();
    let code = stage_answer(&mut stage, 5);
    stage.finalise().unwrap();
    // SAFETY: a page of code that is final.
    let page = unsafe { std::slice::from_raw_parts(code, page_size()) };
    assert_eq!(page[..machine::ANSWER], machine::answer(5));
    assert!(page[machine::ANSWER..].iter().all(|&byte| byte == machine::TRAP));
}

#[test]
fn an_alias_is_of_no_use_and_not_there() {
    alone(|| {
        for write in [Write::Any, Write::Pwrite, Write::Alias] {
            let mut options = Options::default();
            options.write = write;
            let mut stage = Stage::new(options.clone()).unwrap();
            code_and_data(&mut stage);
            let page = anonymous(page_size());
            // SAFETY: a page of ours.
            unsafe { publish_in_place(page, page_size(), &options, &Meter::new()) }.unwrap();
            assert!(rows().iter().all(|row| row.rights != "rw-s"));
        }
    });
}

#[test]
fn what_is_allocated_does_not_overlap_and_is_aligned() {
    let mut stage = Stage::with_room(Options::default(), 1 << 20).unwrap();
    let mut all: Vec<(Kind, *mut u8, Vec<u8>)> = Vec::new();
    for i in 0..3000_usize {
        let kind = [Kind::Code, Kind::ReadOnly, Kind::ReadWrite][i % 3];
        let (len, align) = (i * 7919 % 2000, 1 << (i % 9));
        let ptr = stage.allocate(kind, len, align).unwrap();
        assert_eq!(ptr as usize % align, 0);
        let bytes = vec![i as u8 | 1; len];
        // SAFETY: allocated just now.
        assert!(unsafe { std::slice::from_raw_parts(ptr, len) }.iter().all(|&byte| byte == 0));
        write(ptr, &bytes);
        all.push((kind, ptr, bytes));
        if i % 100 == 0 {
            stage.finalise().unwrap();
        }
    }
    stage.finalise().unwrap();
    for (kind, ptr, bytes) in &all {
        // SAFETY: allocated above.
        assert_eq!(unsafe { std::slice::from_raw_parts(*ptr, bytes.len()) }, bytes);
        let want = match kind {
            Kind::Code => "r-xs",
            Kind::ReadOnly => "r--p",
            Kind::ReadWrite => "rw-p",
        };
        if bytes.len() > 1900 {
            assert_eq!(access(*ptr), want);
        }
    }
}

#[test]
fn code_cannot_be_made_writable() {
    let mut stage = Stage::new(Options::default()).unwrap();
    let code = stage_answer(&mut stage, 5);
    stage.finalise().unwrap();
    for prot in [libc::PROT_WRITE, libc::PROT_WRITE | libc::PROT_EXEC] {
        let error = protect(code, libc::PROT_READ | prot).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
    let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    std::os::unix::fs::FileExt::write_at(&memory, &machine::answer(6), code as u64).unwrap_err();
    assert_eq!(function(code)(), 5);
}

/// Tells a thread that it is over, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn threads_run_code_while_more_is_finalised() {
    let mut stage = Stage::new(Options::default()).unwrap();
    let code = stage_answer(&mut stage, 7);
    stage.finalise().unwrap();
    let first = function(code);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            let mut calls = 0_u64;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(first(), 7);
                calls += 1;
            }
            calls
        });
        let ending = Ending(&done);
        for i in 0..1000 {
            let code = stage_answer(&mut stage, i);
            stage.finalise().unwrap();
            assert_eq!(function(code)(), i);
        }
        drop(ending);
        assert!(runner.join().unwrap() > 0);
    });
}

#[test]
fn what_was_staged_is_given_back() {
    let mut stage = Stage::new(Options::default()).unwrap();
    let len = 1 << 20;
    let code = stage.allocate(Kind::Code, len, 16).unwrap();
    write(code, &vec![0x90; len]);
    assert!(private_memory(code) >= len);
    stage.finalise().unwrap();
    assert_eq!(private_memory(code), 0);
}

#[test]
fn staged_memory_takes_no_huge_pages() {
    if !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
        return;
    }
    let mut stage = Stage::new(Options::default()).unwrap();
    let code = stage_answer(&mut stage, 1);
    let flags = smaps(code, "VmFlags:");
    assert!(flags.split(' ').any(|flag| flag == "nh"), "{flags}");
}

/// Bytes of private memory in the mapping at `ptr`.
fn private_memory(ptr: *mut u8) -> usize {
    smaps(ptr, "Anonymous:").strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// What /proc/self/smaps says of the mapping at `ptr`.
fn smaps(ptr: *mut u8, what: &str) -> String {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = text.lines().skip_while(|line| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
        !range.is_some_and(|range| range.contains(&(ptr as usize)))
    });
    lines.find_map(|line| line.strip_prefix(what)).expect("a row for it").trim().into()
}

#[test]
fn when_a_reservation_is_full_the_next_is_in_reach() {
    let mut stage = Stage::with_room(Options::default(), 64 << 10).unwrap();
    let constant = stage.allocate(Kind::ReadOnly, 4, 4).unwrap();
    write(constant, &40_i32.to_le_bytes());
    let mut sums = Vec::new();
    for i in 0..300 {
        let variable = stage.allocate(Kind::ReadWrite, 1000, 64).unwrap();
        write(variable, &i32::to_le_bytes(i));
        let code = stage.allocate(Kind::Code, 1000, 64).unwrap();
        let bytes = machine::sum(code as usize, constant as usize, variable as usize);
        write(code, &bytes.expect("in reach"));
        sums.push(function(code));
        if i % 7 == 0 {
            stage.finalise().unwrap();
        }
    }
    // More than any reservation has room for.
    let large = stage.allocate(Kind::Code, 1 << 20, 1 << 16).unwrap();
    assert_eq!(large as usize % (1 << 16), 0);
    assert!((large as usize).abs_diff(constant as usize) < 1 << 31);
    write(large, &machine::answer(9));
    stage.finalise().unwrap();
    assert_eq!(function(large)(), 9);
    for (i, sum) in sums.iter().enumerate() {
        assert_eq!(sum(), 40 + i as i32);
    }
}

#[test]
fn memory_lies_where_it_is_asked_to() {
    let mut options = Options::default();
    options.place = Place::Near { address: 1 << 30, within: 1 << 30 };
    let mut stage = Stage::with_room(options, 1 << 20).unwrap();
    for _ in 0..40 {
        for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
            let ptr = stage.allocate(kind, 100_000, 16).unwrap();
            assert!(ptr as usize + 100_000 <= 1 << 31);
        }
    }
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let mut stage = Stage::with_room(Options::default(), 1 << 20).unwrap();
    for align in [0, 3, usize::MAX] {
        let error = stage.allocate(Kind::Code, 1, align).unwrap_err();
        assert!(matches!(error, Error::Alignment(n) if n == align), "{error}");
    }
    for len in [usize::MAX, isize::MAX as usize, 1 << 30, usize::MAX - page_size()] {
        for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
            let error = stage.allocate(kind, len, 16).unwrap_err();
            assert!(matches!(error, Error::TooLarge(n) if n == len), "{error}");
        }
    }
    let error = stage.allocate(Kind::Code, 1, 1 << 63).unwrap_err();
    assert!(matches!(error, Error::TooLarge(1)), "{error}");
    for room in [usize::MAX, 1 << 40] {
        assert!(Stage::with_room(Options::default(), room).is_err());
    }
    let mut options = Options::default();
    options.sources.clear();
    let error = Stage::new(options).unwrap_err();
    assert!(matches!(error, Error::Memory(vm::Error::NoExecutableMemory(_))), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    // None of it harms what follows; nothing is asked of an empty request but an address.
    let (one, other) =
        (stage.allocate(Kind::Code, 0, 1).unwrap(), stage.allocate(Kind::Code, 0, 1).unwrap());
    assert_ne!(one, other);
    code_and_data(&mut stage);
}

#[test]
fn code_runs_from_each_source_that_the_system_allows() {
    let mut works = 0;
    for source in vm::Source::usual() {
        let mut options = Options::default();
        options.sources = vec![source.clone()];
        match Stage::new(options) {
            Ok(mut stage) => {
                code_and_data(&mut stage);
                works += 1;
            }
            Err(Error::Memory(vm::Error::NoExecutableMemory(attempts))) => {
                assert_eq!(attempts.len(), 1);
                assert_eq!(attempts[0].source, source);
            }
            Err(error) => panic!("{source}: {error}"),
        }
    }
    assert!(works > 0);
}

#[test]
fn a_stage_gives_back_all_it_took() {
    alone(|| {
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        // What is made once stays.
        drop(Stage::new(Options::default()).unwrap());
        let before = descriptors();
        let mut stage = Stage::with_room(Options::default(), 64 << 10).unwrap();
        let mut all = Vec::new();
        for i in 0..100 {
            stage.allocate(Kind::ReadWrite, 1000, 8).unwrap();
            all.push(stage_answer(&mut stage, i));
            stage.finalise().unwrap();
        }
        assert!(descriptors() > before);
        drop(stage);
        assert_eq!(descriptors(), before);
        for code in all {
            assert_eq!(access(code), "none");
        }
    });
}

#[test]
fn what_is_leaked_stays_and_cannot_be_written() {
    alone(|| {
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        drop(Stage::new(Options::default()).unwrap());
        let before = descriptors();
        let mut stage = Stage::new(Options::default()).unwrap();
        let code = stage_answer(&mut stage, 13);
        stage.finalise().unwrap();
        stage.leak();
        assert_eq!(descriptors(), before);
        assert_eq!(function(code)(), 13);
        protect(code, libc::PROT_WRITE).unwrap_err();
    });
}

#[test]
fn what_is_leaked_takes_no_room_for_more() {
    alone(|| {
        drop(Stage::new(Options::default()).unwrap());
        let before = (status("VmSize"), rows().len());
        let mut leaked = Vec::new();
        for i in 0..100 {
            let mut stage = Stage::new(Options::default()).unwrap();
            let meter = stage.meter().clone();
            let data = stage.allocate(Kind::ReadOnly, 4, 4).unwrap();
            let variable = stage.allocate(Kind::ReadWrite, 4, 4).unwrap();
            let code = stage_answer(&mut stage, i);
            stage.finalise().unwrap();
            stage.leak();
            assert_eq!((meter.stats().mappings, meter.stats().reserved), (3, 3 * page_size()));
            assert_eq!([code, data, variable].map(|at| access(at)), ["r-xs", "r--p", "rw-p"]);
            leaked.push(function(code));
        }
        for (i, function) in leaked.iter().enumerate() {
            assert_eq!(function(), i as i32);
        }
        let (size, count) = (status("VmSize") - before.0, rows().len() - before.1);
        assert!(size <= (300 * page_size() + (1 << 20)) as u64, "{size} bytes");
        // malloc may have made some.
        assert!(count < 400, "{count} mappings");
    });
}

#[test]
fn a_child_of_fork_has_code_of_its_own() {
    alone(|| {
        let mut stage = Stage::new(Options::default()).unwrap();
        let old = stage_answer(&mut stage, 1);
        stage.finalise().unwrap();
        let staged = stage_answer(&mut stage, 2);
        // SAFETY: the other thread of this process waits for this one.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // Not the parent's copy of it.
            write(staged, &machine::answer(20));
            let fine = stage.finalise().is_ok()
                && function(old)() == 1
                && function(staged)() == 20
                && protect(staged, libc::PROT_WRITE).is_err();
            let more = stage_answer(&mut stage, 30);
            let fine = fine && stage.finalise().is_ok() && function(more)() == 30;
            drop(stage);
            // SAFETY: the child is done.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: a child of this process.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        stage.finalise().unwrap();
        assert_eq!((function(old)(), function(staged)()), (1, 2));
    });
}
