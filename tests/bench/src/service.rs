//! The kernel service's own figures, measured where it is: in a test machine that counts
//! instructions instead of time (`--kernel`), and read from what that run printed.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::time::Instant;

use trampfd::{Backend, Builder, Closure};
use trampfd_sys::{
    TRAMPFD_CLEAR, TRAMPFD_CLEAR_RANGE, TRAMPFD_OFF_DATA, TRAMPFD_SET, TRAMPFD_SET_STRIDED,
    TRAMPFD_TABLE_SIZE, off_code, trampfd_clear, trampfd_set,
};

use crate::clock::{self, Lane, median};
use crate::peers::{self, Bare, WithContext};
use crate::process::child_or_none;
use crate::table::{Row, Target};

/// What a line of this run begins with.
const MARK: &str = "@bench";

/// Every row: name, unit, target.
const ROWS: [(&str, &str, Target); 15] = [
    ("kernel: 100,000 creations", "calls per 100", Target::Most(1.0)),
    ("kernel: 100,000 create + drop, 1,000 live", "calls per 100", Target::Most(2.0)),
    ("kernel: 1,000,000 live, 16 bytes captured", "B each", Target::Most(72.0)),
    ("kernel: 1,000,000 live: mappings", "per 100", Target::Most(0.1)),
    ("kernel: 1,000 of 1,000 kinds, 4 threads", "B each", Target::Most(256.0)),
    ("kernel: fork with no table", "insns", Target::None),
    ("kernel: fork with 16,384 live slots", "insns", Target::None),
    ("kernel: fork with 16,384 live slots over none", "ratio", Target::Most(1.05)),
    ("kernel: first SET after fork, 128 live", "insns", Target::None),
    ("kernel: first SET after fork, 16,384 live", "insns", Target::None),
    ("kernel: first SET after fork, 16,384 live over 128", "ratio", Target::Most(1.5)),
    ("kernel: call, hot", "insns", Target::None),
    ("kernel: indirect call that passes a context, hot", "insns", Target::None),
    ("kernel: create + drop, 16 bytes captured", "insns", Target::None),
    ("kernel: text backend's create + drop, for comparison", "insns", Target::None),
];

/// Measures everything and prints a line for each row.
pub fn measure() {
    let pairs = child_or_none(&["calls", "pairs"], 1);
    let million = child_or_none(&["million", "kernel"], 2);
    let fork = child_or_none(&["fork"], 2);
    let set = child_or_none(&["set"], 2);
    let hot = child_or_none(&["hot"], 4);
    let values = [
        child_or_none(&["calls", "creations"], 1)[0],
        pairs[0],
        million[0],
        million[1],
        child_or_none(&["kinds", "kernel"], 1)[0],
        fork[0],
        fork[1],
        fork[1] / fork[0],
        set[0],
        set[1],
        set[1] / set[0],
        hot[0],
        hot[1],
        hot[2],
        hot[3],
    ];
    for ((name, ..), value) in ROWS.iter().zip(values) {
        println!("{MARK} {name} = {value}");
    }
}

/// The rows from what [`measure`] printed into a file; one that is not there has no value.
pub fn rows(file: &Path) -> Vec<Row> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| {
        eprintln!("{}: {error}", file.display());
        String::new()
    });
    let value = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(MARK)?.trim().rsplit_once(" = "))
            .find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(f64::NAN)
    };
    ROWS.iter().map(|&(name, unit, target)| Row::new(name, value(name), unit, target)).collect()
}

fn kernel() -> Builder {
    Builder::new().require(Backend::Kernel)
}

fn closure(n: u64) -> Closure<Bare> {
    let make = |a: i32, b: i32, data: &[u64; 2]| peers::compute::<1>(a, b, data);
    kernel().closure(make, [n, 7]).expect("a closure")
}

/// Child: system calls for 100 of `what`, counted by a tracer.
pub fn calls(what: &str) -> io::Result<()> {
    const COUNT: u64 = 100_000;
    let pairs = what == "pairs";
    let traced = count_calls(|mark| {
        let mut live: Vec<Closure<Bare>> = Vec::with_capacity(COUNT as usize);
        if pairs {
            live.extend((0..1_000).map(closure));
        }
        mark();
        for n in 0..COUNT {
            if pairs {
                // Not the one that was just made: the oldest of a thousand.
                live[n as usize % 1_000] = closure(n);
            } else {
                live.push(closure(n));
            }
        }
        mark();
        std::mem::forget(live);
    })?;
    println!("{}", traced as f64 / (COUNT as f64 / 100.0));
    Ok(())
}

/// System calls of a child process between its two marks.
pub fn count_calls(work: impl FnOnce(fn())) -> io::Result<u64> {
    /// A call that nothing else makes here.
    fn mark() {
        // SAFETY: no effect.
        unsafe { libc::syscall(libc::SYS_getpgid, -1) };
    }
    /// How the child ended before its marks did, as a number of no call.
    const NONE: u64 = u64::MAX;
    // SAFETY: a child of this single thread, which traces nobody else.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            work(mark);
            libc::_exit(0);
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, libc::PTRACE_O_TRACESYSGOOD);
        let (mut entered, mut marks, mut calls) = (false, 0, 0);
        loop {
            if libc::ptrace(libc::PTRACE_SYSCALL, child, 0, 0) != 0
                || libc::waitpid(child, &mut status, 0) != child
            {
                return Err(io::Error::last_os_error());
            }
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                break;
            }
            if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
                return Err(io::Error::other(format!("stopped: status {status:#x}")));
            }
            entered = !entered;
            if entered {
                let number = entered_call(child).unwrap_or(NONE);
                if number == libc::SYS_getpgid as u64 {
                    marks += 1;
                } else if marks == 1 {
                    calls += 1;
                }
            }
        }
        if marks == 2 { Ok(calls) } else { Err(io::Error::other("the child did not end its work")) }
    }
}

/// Which system call a stopped child has entered.
fn entered_call(child: libc::pid_t) -> Option<u64> {
    /// struct ptrace_syscall_info up to the number (linux/ptrace.h).
    #[repr(C)]
    struct Info {
        op: u8,
        pad: [u8; 3],
        arch: u32,
        pointers: [u64; 2],
        number: u64,
    }
    const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    // SAFETY: the kernel fills in at most what it is told the size of.
    unsafe {
        let mut info: Info = std::mem::zeroed();
        let size = size_of::<Info>();
        let got = libc::ptrace(PTRACE_GET_SYSCALL_INFO, child, size, &raw mut info);
        (got > 0 && info.op == 1).then_some(info.number)
    }
}

/// The third argument register carries the data.
extern "C" fn target(a: i32, b: i32, _: *const [u64; 2]) -> i32 {
    a ^ b
}

/// A table of the service without the library.
///
/// # Invariants
///
/// Two views lie at `start`, and nobody else has their addresses.
struct Table {
    device: libc::c_int,
    start: usize,
}

impl Table {
    const SLOTS: u32 = (TRAMPFD_TABLE_SIZE / 32) as u32;

    fn new() -> io::Result<Table> {
        let good = |result: isize| match result {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(result),
        };
        // SAFETY: the views go into a reservation of their own.
        unsafe {
            let device = libc::open(c"/dev/trampfd".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            good(device as isize)?;
            let map = |at: usize, len, protection, flags, fd, offset| {
                let at = std::ptr::with_exposed_provenance_mut(at);
                good(libc::mmap(at, len, protection, flags, fd, offset) as isize)
            };
            let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = map(0, 2 * TRAMPFD_TABLE_SIZE, libc::PROT_NONE, private, -1, 0)? as usize;
            let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
            let (read, run) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_EXEC);
            let (data, code) = (TRAMPFD_OFF_DATA as i64, off_code(1) as i64);
            map(start + TRAMPFD_TABLE_SIZE, TRAMPFD_TABLE_SIZE, read, fixed, device, data)?;
            map(start, TRAMPFD_TABLE_SIZE, run, fixed, device, code)?;
            Ok(Table { device, start })
        }
    }

    /// Sets `count` slots from number `first`.
    fn set(&self, first: u32, count: u32) -> io::Result<()> {
        let mut set = trampfd_set {
            size: size_of::<trampfd_set>() as u32,
            flags: TRAMPFD_SET_STRIDED,
            count,
            bad: 0,
            entries: 0,
            stub: (self.start + first as usize * 32) as u64,
            code: target as *const () as u64,
            data: 0,
            data_stride: 16,
        };
        // SAFETY: a struct of the call.
        self.done(unsafe { libc::ioctl(self.device, TRAMPFD_SET.into(), &raw mut set) })
    }

    /// Clears one slot.
    fn clear(&self, slot: u32) -> io::Result<()> {
        let mut clear = trampfd_clear {
            size: size_of::<trampfd_clear>() as u32,
            flags: TRAMPFD_CLEAR_RANGE,
            count: 1,
            bad: 0,
            entries: 0,
            stub: (self.start + slot as usize * 32) as u64,
        };
        // SAFETY: a struct of the call; nobody calls the stub.
        self.done(unsafe { libc::ioctl(self.device, TRAMPFD_CLEAR.into(), &raw mut clear) })
    }

    fn done(&self, result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Calls stubs below `count` in each page, so that it is mapped.
    fn call(&self, count: u32) {
        for slot in (0..count as usize).step_by(64) {
            // SAFETY: by the invariant, a stub that was set to `target`.
            let result = unsafe {
                std::mem::transmute::<usize, Bare>(self.start + slot * 32)(slot as i32, 1)
            };
            assert_eq!(result, slot as i32 ^ 1);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: by the invariant.
        unsafe {
            let at = std::ptr::with_exposed_provenance_mut(self.start);
            libc::munmap(at, 2 * TRAMPFD_TABLE_SIZE);
            libc::close(self.device);
        }
    }
}

const FORKS: usize = 41;

/// What fork takes, and what `after` takes in the parent while the child lives. `before` runs
/// before each fork and is not measured.
fn forked(
    before: impl Fn() -> io::Result<()>,
    after: impl Fn() -> io::Result<()>,
) -> io::Result<(f64, f64)> {
    let (mut forks, mut afters) = (Vec::new(), Vec::new());
    for _ in 0..FORKS {
        before()?;
        let mut pipe = [0; 2];
        // SAFETY: one thread, and a child that makes system calls only: it ends when the parent
        // closes the pipe.
        let (took, child) = unsafe {
            if libc::pipe(pipe.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let start = Instant::now();
            let child = libc::fork();
            if child == 0 {
                libc::close(pipe[1]);
                let mut byte = 0u8;
                libc::read(pipe[0], (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
            (start.elapsed(), child)
        };
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        let start = Instant::now();
        let done = after();
        afters.push(start.elapsed().as_nanos() as f64);
        forks.push(took.as_nanos() as f64);
        // SAFETY: its own descriptors and child.
        unsafe {
            libc::close(pipe[0]);
            libc::close(pipe[1]);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        done?;
    }
    Ok((median(forks.into_iter()), median(afters.into_iter())))
}

/// Child: what fork takes with no table, and with a full one whose pages are all mapped.
pub fn fork() -> io::Result<()> {
    let nothing = || Ok(());
    let (none, _) = forked(nothing, nothing)?;
    let table = Table::new()?;
    table.set(0, Table::SLOTS)?;
    table.call(Table::SLOTS);
    let (full, _) = forked(nothing, nothing)?;
    drop(table);
    let (again, _) = forked(nothing, nothing)?;
    println!("{}\n{full}", (none + again) / 2.0);
    Ok(())
}

/// Child: what the first SET after fork takes beside 127 live slots, and beside 16,383.
pub fn set() -> io::Result<()> {
    for live in [128, Table::SLOTS] {
        let table = Table::new()?;
        table.set(0, live)?;
        table.call(live);
        let (_, took) = forked(|| table.clear(live - 1), || table.set(live - 1, 1))?;
        println!("{took}");
    }
    Ok(())
}

/// Child: instructions of a call, of one that passes its context, and of create + drop on both
/// backends.
pub fn hot() {
    const CALLS: usize = 10_000;
    let data = [5, 7];
    let ours = closure(5);
    let ours = black_box(ours.as_ptr());
    let context: WithContext = black_box(peers::with_context::<1>);
    let create = |builder: Builder| {
        move || {
            for n in 0..CALLS as u64 {
                let data = black_box([n; 2]);
                let make = |a: i32, b: i32, data: &[u64; 2]| peers::compute::<1>(a, b, data);
                let closure: Closure<Bare> = builder.closure(make, data).expect("a closure");
                black_box(closure.as_ptr());
            }
        }
    };
    // SAFETY: both live.
    let (call, call_context) = unsafe {
        (
            || _ = black_box((0..CALLS as i32).fold(0, |x, n| x ^ ours(n, 3))),
            || _ = black_box((0..CALLS as i32).fold(0, |x, n| x ^ context(n, 3, &data))),
        )
    };
    let times = clock::run(
        20,
        CALLS,
        &mut [
            Lane::new(call),
            Lane::new(call_context),
            Lane::new(create(kernel())),
            Lane::new(create(Builder::new().require(Backend::Text))),
        ],
    );
    for lane in 0..4 {
        println!("{}", times.median(lane));
    }
}
