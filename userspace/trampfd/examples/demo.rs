//! The main job: C library functions that take a bare function pointer and no user data, called
//! with closures that capture state, in a process that may have no memory which is writable and
//! executable.
//!
//! ```text
//! demo [--backend text|kernel|all] [--many N] [FOLDER]
//! ```
//!
//! Walks FOLDER (/usr/share) with nftw(3) and sorts what was found with qsort(3). Every result is
//! compared with one that was come by without closures; a wrong one ends the program with code 1.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use trampfd::{Backend, Builder, Closure, support};

/// Third result of the callback of nftw(3).
#[repr(C)]
struct Ftw {
    base: c_int,
    level: c_int,
}

type Visit = unsafe extern "C" fn(*const c_char, *const libc::stat, c_int, *mut Ftw) -> c_int;
type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

unsafe extern "C" {
    fn nftw(folder: *const c_char, visit: Visit, fds: c_int, flags: c_int) -> c_int;
    fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
}

/// Do not follow symbolic links, stay on one file system (ftw.h).
const FTW_PHYS_MOUNT: c_int = 1 | 2;

/// What is remembered of each file.
#[derive(Debug)]
struct Found {
    path: CString,
    size: i64,
    level: c_int,
}

/// Times the walk is done again where the folder changed meanwhile.
const WALKS: usize = 5;
/// Calls over which the time of one is taken, and how often that is done.
const CALLS: i32 = 50_000;
const BATCHES: usize = 51;

struct Options {
    backends: Vec<Backend>,
    /// The kernel service must be there.
    kernel_wanted: bool,
    many: usize,
    folder: CString,
}

fn main() -> ExitCode {
    match options().and_then(|options| demo(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("demo: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut backend = "all".to_owned();
    let mut many = 100_000;
    let mut folder = "/usr/share".into();
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().and_then(|value| value.into_string().ok());
            value.ok_or_else(|| format!("{} wants a value", word.display()))
        };
        match word.to_str() {
            Some("--backend") => backend = value()?,
            Some("--many") => many = value()?.parse()?,
            Some(option) if option.starts_with('-') => Err(format!("unknown option {option}"))?,
            _ => folder = word,
        }
    }
    let backends = match backend.as_str() {
        "text" => vec![Backend::Text],
        "kernel" => vec![Backend::Kernel],
        "all" => vec![Backend::Text, Backend::Kernel],
        other => Err(format!("no backend {other}: text, kernel or all"))?,
    };
    let kernel_wanted = backend == "kernel";
    let folder = CString::new(folder.into_vec())?;
    Ok(Options { backends, kernel_wanted, many: many.max(1), folder })
}

fn demo(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("trampfd: C function pointers with state, without memory that is W and X");
    println!("  machine      {}", machine());
    println!("  policy       {}", forbid_new_code()?);
    for &backend in &options.backends {
        if backend == Backend::Kernel {
            match support().kernel {
                Ok(_) => {}
                Err(reason) if options.kernel_wanted => {
                    Err(format!("the kernel service is not to be had: {reason}"))?;
                }
                Err(reason) => {
                    println!("\n[{backend}]\n  not used here: {reason}");
                    continue;
                }
            }
        }
        println!("\n[{backend}]");
        on(backend, options)?;
    }
    Ok(())
}

/// The whole job on one backend.
fn on(backend: Backend, options: &Options) -> Result<(), Box<dyn Error>> {
    let builder = Builder::new().require(backend);
    let mut made = 0;
    let mut found = walk(&builder, &options.folder, &mut made)?;
    sort(&builder, &mut found, &mut made)?;
    many(&builder, options.many, &mut made)?;
    println!("  closures     {made} made, each call's result checked");
    Ok(())
}

/// Lists the folder through nftw, until that agrees with a list that Rust made itself.
fn walk(builder: &Builder, folder: &CStr, made: &mut usize) -> Result<Vec<Found>, Box<dyn Error>> {
    let shown = OsStr::from_bytes(folder.to_bytes()).display();
    for _ in 0..WALKS {
        let mut found = Vec::new();
        let mut calls = 0;
        let mut visit = builder.local_mut(
            |path: *const c_char, stat: *const libc::stat, _kind: c_int, ftw: *mut Ftw| -> c_int {
                // SAFETY: nftw passes a C string and two structs that live during the call.
                let (path, stat, ftw) = unsafe { (CStr::from_ptr(path), &*stat, &*ftw) };
                calls += 1;
                found.push(Found { path: path.into(), size: stat.st_size, level: ftw.level });
                0
            },
        )?;
        *made += 1;
        // SAFETY: the closure lives until nftw has returned.
        if unsafe { nftw(folder.as_ptr(), visit.as_ptr(), 20, FTW_PHYS_MOUNT) } != 0 {
            Err(format!("nftw of {shown}: {}", io::Error::last_os_error()))?;
        }
        drop(visit);
        let by_c: BTreeSet<&[u8]> = found.iter().map(|found| found.path.to_bytes()).collect();
        let by_rust = list(Path::new(OsStr::from_bytes(folder.to_bytes())))?;
        if calls == by_rust.len() && by_c.iter().copied().eq(by_rust.iter().map(Vec::as_slice)) {
            println!("  nftw         {calls} entries of {shown}, through 1 closure");
            return Ok(found);
        }
    }
    Err(format!("nftw of {shown} found other files than std::fs did"))?
}

/// The paths below and with `folder`, on its file system, without a closure of ours.
fn list(folder: &Path) -> io::Result<BTreeSet<Vec<u8>>> {
    let device = folder.symlink_metadata()?.dev();
    let mut paths = BTreeSet::new();
    let mut ahead = vec![folder.to_owned()];
    while let Some(path) = ahead.pop() {
        let metadata = match path.symlink_metadata() {
            // Deleted meanwhile: the lists will differ, and be made again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            for entry in path.read_dir()? {
                ahead.push(entry?.path());
            }
        }
        paths.insert(path.into_os_string().into_vec());
    }
    Ok(paths)
}

/// Sorts numbers of files by three keys through qsort, with comparators that know the files.
fn sort(builder: &Builder, found: &mut [Found], made: &mut usize) -> Result<(), Box<dyn Error>> {
    type Key<'a> = Box<dyn Fn(&Found, &Found) -> std::cmp::Ordering + 'a>;
    let keys: [(&str, Key); 3] = [
        ("path", Box::new(|a, b| a.path.cmp(&b.path))),
        ("size", Box::new(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)))),
        ("level", Box::new(|a, b| a.level.cmp(&b.level).then_with(|| a.path.cmp(&b.path)))),
    ];
    let mut comparisons = 0u64;
    let mut closures = 0;
    let mut largest = 0;
    for (name, key) in &keys {
        let mut order: Vec<u32> = (0..found.len() as u32).collect();
        let files = &*found;
        let mut compare = builder.local_mut(|a: *const c_void, b: *const c_void| -> c_int {
            comparisons += 1;
            // SAFETY: qsort passes the addresses of two elements of `order`.
            let (a, b) = unsafe { (*a.cast::<u32>(), *b.cast::<u32>()) };
            key(&files[a as usize], &files[b as usize]) as c_int
        })?;
        closures += 1;
        // SAFETY: elements of `order`; the closure lives until qsort has returned.
        unsafe {
            qsort(order.as_mut_ptr().cast(), order.len(), size_of::<u32>(), compare.as_ptr());
        }
        drop(compare);
        let mut expected: Vec<u32> = (0..found.len() as u32).collect();
        expected.sort_by(|&a, &b| key(&found[a as usize], &found[b as usize]));
        if order != expected {
            Err(format!("qsort by {name} came to another order than sort_by"))?;
        }
        if *name == "size" {
            largest = order[0] as usize;
        }
    }
    *made += closures;
    println!(
        "  qsort        by path, size and level, through {closures} closures: {comparisons} comparisons"
    );
    let largest = &found[largest];
    println!("               largest: {}, {} bytes", largest.path.to_string_lossy(), largest.size);
    Ok(())
}

/// Many closures at once, and what each costs.
fn many(builder: &Builder, count: usize, made: &mut usize) -> Result<(), Box<dyn Error>> {
    let mut closures: Vec<Closure<unsafe extern "C" fn(i32, i32) -> i32>> =
        Vec::with_capacity(count);
    let start = Instant::now();
    for n in 0..count {
        closures.push(builder.closure(|a: i32, b: i32, n: &i32| a.wrapping_mul(b) ^ n, n as i32)?);
    }
    let creation = start.elapsed() / count as u32;
    *made += count;
    for (n, closure) in closures.iter().enumerate() {
        // SAFETY: it lives.
        let result = unsafe { closure.as_ptr()(7, 6) };
        if result != 42 ^ n as i32 {
            Err(format!("closure {n} returned {result}, not {}", 42 ^ n as i32))?;
        }
    }
    let one = black_box(closures[count / 2].as_ptr());
    let expected = (0..CALLS).fold(0, |sum, n| sum ^ n.wrapping_mul(3) ^ (count / 2) as i32);
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        let start = Instant::now();
        let mut sum = 0;
        for n in 0..CALLS {
            // SAFETY: it lives.
            sum ^= unsafe { one(n, 3) };
        }
        times.push(start.elapsed());
        if sum != expected {
            Err(format!("{CALLS} calls came to {sum}, not {expected}"))?;
        }
    }
    times.sort_unstable();
    let call = times[BATCHES / 2].as_nanos() as f64 / f64::from(CALLS);
    println!("  creation     {} ns each, {count} that live at once", creation.as_nanos());
    println!(
        "  call         {call:.1} ns each, one closure called {CALLS} times (median of {BATCHES})"
    );
    if emulated() {
        println!("               (emulated processor: these times are no times)");
    }
    Ok(())
}

/// Kernel and processor.
fn machine() -> String {
    // SAFETY: uname fills the struct in.
    let release = unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&mut names);
        CStr::from_ptr(names.release.as_ptr()).to_string_lossy().into_owned()
    };
    format!("Linux {release}{}", if emulated() { ", emulated processor (TCG)" } else { "" })
}

/// QEMU computes what the processor does, which takes times of its own.
fn emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains("QEMU TCG"))
}

/// Has the kernel refuse this process memory that is, or was, writable and executable; says how,
/// and how that was seen.
fn forbid_new_code() -> Result<String, Box<dyn Error>> {
    // SAFETY: takes numbers only.
    let mdwe = unsafe {
        libc::prctl(libc::PR_SET_MDWE, u64::from(libc::PR_MDWE_REFUSE_EXEC_GAIN), 0u64, 0u64, 0u64)
    };
    let how = match mdwe {
        0 => "PR_SET_MDWE".to_owned(),
        _ => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                Err(format!("PR_SET_MDWE: {error}"))?;
            }
            seccomp()?;
            "a seccomp filter like systemd's MemoryDenyWriteExecute (PR_SET_MDWE: not in this \
             kernel)"
                .to_owned()
        }
    };
    // SAFETY: a new mapping, given back at once.
    let tries = unsafe {
        let map = |protection| {
            libc::mmap(
                std::ptr::null_mut(),
                1,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let both = map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        let later = map(libc::PROT_READ | libc::PROT_WRITE);
        if later == libc::MAP_FAILED {
            Err(io::Error::last_os_error())?;
        }
        let changed = libc::mprotect(later, 1, libc::PROT_READ | libc::PROT_EXEC);
        libc::munmap(later, 1);
        (both == libc::MAP_FAILED, changed != 0)
    };
    match tries {
        (true, true) => Ok(format!("{how}; mmap W+X and mprotect W to X were tried: refused")),
        (false, _) => Err(format!("{how} is on, but mmap W+X works"))?,
        (_, false) => Err(format!("{how} is on, but mprotect W to X works"))?,
    }
}

/// Refuses mmap W+X, mprotect and pkey_mprotect X, shmat X, and calls of other architectures.
fn seccomp() -> io::Result<()> {
    const ARCHITECTURE: u32 = 4; // offset in struct seccomp_data
    const NUMBER: u32 = 0;
    const THIRD: u32 = 16 + 2 * 8;
    /// From here on x86-64 has the same calls again, for x32; other architectures have none.
    const X32: u32 = 0x4000_0000;
    let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let equal = |k, jt, jf| libc::sock_filter { code: 0x15, jt, jf, k };
    let at_least = |k, jt, jf| libc::sock_filter { code: 0x35, jt, jf, k };
    let and = |k| libc::sock_filter { code: 0x54, jt: 0, jf: 0, k };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let wx = (libc::PROT_WRITE | libc::PROT_EXEC) as u32;
    let x = libc::PROT_EXEC as u32;
    let shm_exec = libc::SHM_EXEC as u32;
    let native = native_architecture()?;
    // Each row: if the number is not the call's, the next row; else its third argument decides.
    let mut filter = vec![
        load(ARCHITECTURE),
        equal(native, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        at_least(X32, 0, 1),
        answer(refuse),
    ];
    for (call, mask) in [
        (libc::SYS_mmap, wx),
        (libc::SYS_mprotect, x),
        (libc::SYS_pkey_mprotect, x),
        (libc::SYS_shmat, shm_exec),
    ] {
        filter.extend([
            load(NUMBER),
            equal(call as u32, 0, 4),
            load(THIRD),
            and(mask),
            equal(mask, 0, 1),
            answer(refuse),
        ]);
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives during the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number of this architecture in struct seccomp_data: ELF machine, 64 bits, little endian.
fn native_architecture() -> io::Result<u32> {
    // Bytes 18 and 19 of the program's ELF header.
    let header = std::fs::read("/proc/self/exe")?;
    let machine = header.get(18..20).ok_or(io::ErrorKind::InvalidData)?;
    Ok(0xc000_0000 | u32::from(u16::from_le_bytes([machine[0], machine[1]])))
}
