//! Sections of 100 modules, in pools: system calls, mappings and bytes, beside LLVM's
//! SectionMemoryManager (tests/bench/peers/llvm.cpp, which scripts/bench compiles).

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io;
use std::process::Command;

use trampfd_code::pool::{Kind, Pool, Pools, Request, Set};

use crate::memory::say;
use crate::process::{child_or_none, mappings};
use crate::service::count_calls;
use crate::table::{Row, Target};

const LLVM: &str = "target/bench/llvm";
const MODULES: usize = 100;
/// The sections of a module: bytes, and alignment.
const SECTIONS: [(Kind, usize); 3] =
    [(Kind::Code, 1000), (Kind::ReadOnly, 300), (Kind::ReadWrite, 200)];
const ALIGN: usize = 16;

/// One set with the sections of so many modules, filled and committed.
fn commit(pool: &Pool, modules: usize) -> Set {
    let mut set = pool.set();
    let mut sections = Vec::with_capacity(modules * SECTIONS.len());
    for _ in 0..modules {
        for (kind, len) in SECTIONS {
            let request = Request { name: "", kind, len, align: ALIGN };
            sections.push(set.request(request));
        }
    }
    let mut layout = set.lay_out().expect("addresses");
    for section in sections {
        layout.bytes(section).expect("a section").fill(0xc3);
    }
    layout.commit().expect("a set")
}

/// How the modules come.
#[derive(Clone, Copy)]
enum Way {
    /// All at once, in one pool.
    Set,
    /// One after the other, in one pool.
    Each,
    /// One after the other, each in a pool of its own.
    Pools,
}

/// What was made, and is to be kept until it was measured.
type Made = (Vec<Pool>, Vec<Set>);

/// Makes all, from the first request until all can run. `pool` is the first.
fn make(way: Way, modules: usize, pools: &Pools, pool: Pool) -> Made {
    let (mut all, mut sets) = (vec![pool], Vec::new());
    match way {
        Way::Set => sets.push(commit(&all[0], modules)),
        Way::Each => sets.extend((0..modules).map(|_| commit(&all[0], 1))),
        Way::Pools => {
            for n in 0..modules {
                if n > 0 {
                    all.push(pools.create(n as u64).expect("a pool"));
                }
                sets.push(commit(&all[n], 1));
            }
        }
    }
    (all, sets)
}

/// From here nothing of it can be written any more.
fn finalise(pools: &[Pool]) {
    pools.iter().for_each(|pool| pool.finalise().expect("an end"));
}

/// Has the heap's memory ready, so that what is counted is not malloc's.
fn ready() {
    // SAFETY: options of malloc, and one block, freed at once.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::free(black_box(libc::malloc(64 << 20)));
    }
}

/// Bytes that are resident of the mappings that the sections lie in, all their pages touched.
fn resident(sets: &[Set]) -> Result<f64, Box<dyn Error>> {
    let placed: Vec<_> = sets.iter().flat_map(Set::sections).collect();
    for section in &placed {
        for at in (section.address..section.address + section.len).step_by(ALIGN) {
            // SAFETY: bytes of a section that was committed.
            black_box(unsafe { (at as *const u8).read_volatile() });
        }
    }
    let mut bytes = 0.0;
    let mut ours = false;
    for line in fs::read_to_string("/proc/self/smaps")?.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let start = usize::from_str_radix(start, 16)?;
            let range = start..usize::from_str_radix(end, 16)?;
            ours = placed.iter().any(|section| range.contains(&section.address));
        } else if ours && first == "Rss:" {
            let kb: f64 = words.next().ok_or("no figure")?.parse()?;
            bytes += kb * 1024.0;
        }
    }
    Ok(bytes)
}

/// Child: system calls as a tracer counts them, until all can run, and until all is final;
/// mappings more than before there were pools; bytes of memory over bytes asked for.
pub fn run(way: &str, modules: usize) -> Result<(), Box<dyn Error>> {
    let way = match way {
        "set" => Way::Set,
        "each" => Way::Each,
        "pools" => Way::Pools,
        _ => return Err(format!("no way to make modules: {way}").into()),
    };
    ready();
    let begin = || {
        let pools = Pools::new().expect("pools");
        let pool = pools.create(0).expect("a pool");
        (pools, pool)
    };
    let calls = |whole: bool| {
        count_calls(|mark| {
            let (pools, pool) = begin();
            mark();
            let made = make(way, modules, &pools, pool);
            if whole {
                finalise(&made.0);
            }
            mark();
            std::mem::forget(made);
        })
    };
    let (run, whole) = (calls(false)? as f64, calls(true)? as f64);
    let before = mappings();
    let (pools, pool) = begin();
    let (kept, sets) = make(way, modules, &pools, pool);
    finalise(&kept);
    let mappings = mappings() - before;
    let payload = modules * SECTIONS.iter().map(|(_, len)| len).sum::<usize>();
    say(&[run, whole, mappings, resident(&sets)? / payload as f64]);
    drop(kept);
    Ok(())
}

/// What LLVM's takes: all at once, one at a time, each in a manager of its own.
fn llvm() -> io::Result<Vec<[f64; 3]>> {
    let output = Command::new(LLVM).output()?;
    let numbers: Result<Vec<f64>, _> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(|word| word.parse().map_err(io::Error::other))
        .collect();
    let lines: Vec<[f64; 3]> = numbers?.as_chunks().0.to_vec();
    match (output.status.success(), lines.len()) {
        (true, 3) => Ok(lines),
        _ => Err(io::Error::other(format!("{}: {} lines", output.status, lines.len()))),
    }
}

/// The rows.
pub fn rows() -> Vec<Row> {
    let llvm = llvm().unwrap_or_else(|error| {
        eprintln!("{LLVM}: {error}");
        vec![[f64::NAN; 3]; 3]
    });
    let llvm_payload = (MODULES * SECTIONS.iter().map(|(_, len)| len).sum::<usize>()) as f64;
    let mut rows = Vec::new();
    let ways = [
        ("set", "one set", (Target::None, Target::Most(3.0)), Target::Most(1.1)),
        ("each", "one at a time", (Target::Most(100.0), Target::None), Target::None),
        ("pools", "a pool each", (Target::None, Target::None), Target::None),
    ];
    for ((word, way, most_calls, most_bytes), llvm) in ways.into_iter().zip(llvm) {
        let row = |what: &str, value, unit, target| {
            let name = format!("code: {MODULES} modules of 3 sections, {way}: {what}");
            Row::new(name, value, unit, target)
        };
        let ours = child_or_none(&["code-pool", word, &MODULES.to_string()], 4);
        let one = child_or_none(&["code-pool", word, "1"], 4);
        let [calls, mapped, bytes] = llvm;
        let (most_run, most_whole) = most_calls;
        rows.extend([
            row("system calls until all can run", ours[0], "calls", most_run),
            row("system calls until all is final", ours[1], "calls", most_whole),
            row("system calls, LLVM", calls, "calls", Target::None),
            row("mappings", ours[2], "mappings", Target::None),
            row("mappings more than of one", ours[2] - one[2], "mappings", Target::Most(0.0)),
            row("mappings, LLVM", mapped, "mappings", Target::None),
            row("bytes over payload", ours[3], "ratio", most_bytes),
            row("bytes over payload, LLVM", bytes / llvm_payload, "ratio", Target::None),
        ]);
    }
    rows
}
