//! Caches where the system forbids much.

use std::io;

use trampfd_code::vm::{self, Meter};

use crate::processes::{Child, role};
use crate::program::{Body, Folder, Program, events, run};

/// How the page at `address` is mapped: "r-xp", for instance.
pub fn access(address: usize) -> String {
    rows()
        .into_iter()
        .find(|row| row.0 <= address && address < row.1)
        .map_or("none".into(), |r| r.2)
}

fn rows() -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start), number(end), rest[..4].to_string())
    };
    maps.lines().map(parse).collect()
}

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[2]), (2, &[3]), (3, &[4, 5]), (4, &[])])
        .with(5, Body::Helper("twelve"))
}

#[test]
fn only_code_is_executable_and_nothing_is_writable_too() {
    let folder = Folder::new("rows");
    let program = program();
    for start in ["compiled", "loaded"] {
        let cache = folder.open(&program);
        assert_eq!(run(&cache, 0), program.value(0));
        let address = cache.get(0).unwrap() as usize;
        let page = vm::page_size();
        // Code, constants, GOT.
        assert_eq!([0, 1, 2].map(|n| access(address + n * page)), ["r-xp", "r--p", "rw-p"]);
        assert!(rows().iter().all(|(.., access)| !access.contains("wx")));
        assert!(events(&cache).iter().all(|event| event == start));
    }
}

/// Whether something is mapped at this address.
fn mapped(address: usize) -> bool {
    rows().iter().any(|&(start, end, _)| (start..end).contains(&address))
}

/// What a cache that is dropped leaves mapped: nothing.
#[test]
fn a_cache_that_is_dropped_leaves_nothing_mapped() {
    let folder = Folder::new("dropped");
    let program = program();
    let cache = folder.open(&program);
    assert_eq!(run(&cache, 0), program.value(0));
    let of_folder = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(folder.0.to_str().unwrap())).count()
    };
    // Code and constants of two batches.
    assert_eq!(of_folder(), 4);
    assert_eq!(cache.stats().memory.mappings, 6);
    let code = cache.get(0).unwrap() as usize;
    // SAFETY: nobody runs it.
    unsafe { cache.unload() };
    assert_eq!(of_folder(), 0);
    // What is kept for the next batch is memory in one piece.
    assert_eq!(cache.stats().memory.mappings, 1);
    assert!(mapped(code));
    drop(cache);
    assert!(!mapped(code));
}

/// From now on no memfd, and of executable memory only private mappings of files; mprotect makes
/// nothing executable.
fn forbid_all_but_private_files() -> io::Result<()> {
    use libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    };
    let op = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: u32| op(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
    let is = |k: i64, jt, jf| op(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, k as u32);
    let has = |k: i32, jt, jf| op(BPF_JMP | BPF_JSET | BPF_K, jt, jf, k as u32);
    let argument = |n: u32| load(16 + 8 * n);
    let mut code = [
        load(0),
        is(libc::SYS_memfd_create, 12, 0),
        is(libc::SYS_mprotect, 0, 2),
        argument(2),
        has(libc::PROT_EXEC, 9, 8),
        is(libc::SYS_mmap, 0, 7),
        argument(2),
        has(libc::PROT_EXEC, 0, 5),
        has(libc::PROT_WRITE, 5, 0),
        argument(3),
        has(libc::MAP_ANONYMOUS, 3, 0),
        op(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf),
        is(i64::from(libc::MAP_PRIVATE), 0, 1),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    const PR_SET_MDWE: i32 = 65;
    // SAFETY: takes rights away from this thread, and those that it starts.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        // Before Linux 6.3 the filter does it alone.
        let mdwe = libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0;
        if !mdwe && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
        if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn a_cache_works_where_only_private_file_mappings_may_be_executable() {
    const NAME: &str = "policy::a_cache_works_where_only_private_file_mappings_may_be_executable";
    let program = program();
    if let Some((start, dir)) = role() {
        forbid_all_but_private_files().unwrap();
        let options = vm::Options::default();
        assert!(vm::Region::new(1, &options, &Meter::new()).is_err(), "the policy has no teeth");
        let cache = crate::program::open(&dir, &program);
        assert_eq!(run(&cache, 0), program.value(0));
        assert_eq!(events(&cache), [start.as_str(), &start]);
        return;
    }
    let folder = Folder::new("strict");
    for start in ["compiled", "loaded"] {
        Child::new(NAME, start, &folder.0).succeeds();
    }
}
