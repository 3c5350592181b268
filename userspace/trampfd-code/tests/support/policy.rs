//! Policies that a test puts itself under, in a process of its own.

use std::ffi::CStr;
use std::io;
use std::ptr::null_mut;

use super::alone::lacks;

pub fn check(ret: i32) {
    assert_ne!(ret, -1, "{}", io::Error::last_os_error());
}

/// From now on what is or was writable cannot be made executable in this process (PR_SET_MDWE);
/// seen to be so. Before Linux 6.3 the test cannot run.
pub fn refuse_exec_gain() {
    const PR_SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: takes rights away, nothing else.
    if unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) } != 0 {
        lacks("PR_SET_MDWE", (6, 3), &io::Error::last_os_error());
    }
    let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new page, of which nobody else knows.
    unsafe {
        let page = libc::mmap(null_mut(), 4096, rw, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        let done = libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
        assert_eq!(done, -1, "PR_SET_MDWE does nothing");
        check(libc::munmap(page, 4096));
    }
}

fn filter(mut code: Vec<libc::sock_filter>) {
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program; takes rights away.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        check(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program));
    }
}

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Loads the word at this offset of struct seccomp_data.
const fn load(at: u32) -> libc::sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

const fn argument(n: u32) -> libc::sock_filter {
    load(16 + 8 * n)
}

const fn and(bits: u32) -> libc::sock_filter {
    op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

/// Skips `yes` or `no` operations.
const fn if_equal(value: u32, yes: u8, no: u8) -> libc::sock_filter {
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value)
}

/// Skips `yes` or `no` operations.
const fn if_any(bits: i32, yes: u8, no: u8) -> libc::sock_filter {
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, yes, no, bits as u32)
}

const fn answer(value: u32) -> libc::sock_filter {
    op(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

const ALLOW: libc::sock_filter = answer(libc::SECCOMP_RET_ALLOW);

const fn refusal(errno: i32) -> libc::sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// A system call, and of one argument the bits that must all be set.
pub type Call = (libc::c_long, u32, i32);

/// memfd_create with all of `flags`.
pub const fn memfd_with(flags: i32) -> Call {
    (libc::SYS_memfd_create, 1, flags)
}

/// From now on each of the calls ends with `errno`.
pub fn refuse(calls: &[Call], errno: i32) {
    let mut code = Vec::new();
    for &(call, which, bits) in calls {
        code.extend([
            load(0),
            if_equal(call as u32, 0, 4),
            argument(which),
            and(bits as u32),
            if_equal(bits as u32, 0, 1),
            refusal(errno),
        ]);
    }
    code.push(ALLOW);
    filter(code);
}

/// From now on no memfd, and of executable memory only private mappings of files; mprotect makes
/// nothing executable.
pub fn strict() {
    const TYPE: u32 = 0xf; // MAP_TYPE: private, shared or both kinds of it
    filter(vec![
        load(0),
        if_equal(libc::SYS_memfd_create as u32, 12, 0),
        if_equal(libc::SYS_mprotect as u32, 0, 2),
        argument(2),
        if_any(libc::PROT_EXEC, 9, 8),
        if_equal(libc::SYS_mmap as u32, 0, 7),
        argument(2),
        if_any(libc::PROT_EXEC, 0, 5),
        if_any(libc::PROT_WRITE, 5, 0),
        argument(3),
        if_any(libc::MAP_ANONYMOUS, 3, 0),
        and(TYPE),
        if_equal(libc::MAP_PRIVATE as u32, 0, 1),
        ALLOW,
        refusal(libc::EPERM),
    ]);
}

/// Mounts of its own. Where this user may have none the test has failed: it wants root.
pub fn own_mounts(more: i32) {
    // SAFETY: gives this thread namespaces of its own.
    let ret = unsafe { libc::unshare(libc::CLONE_NEWNS | more) };
    assert_eq!(ret, 0, "namespaces, which want root: {}", io::Error::last_os_error());
    mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"");
}

pub fn mount(from: &CStr, to: &CStr, kind: &CStr, flags: libc::c_ulong, options: &CStr) {
    let [from, to, kind, options] = [from, to, kind, options].map(CStr::as_ptr);
    // SAFETY: C strings.
    check(unsafe { libc::mount(from, to, kind, flags, options.cast()) });
}

/// An empty folder over another, in mounts of its own.
pub fn cover(place: &CStr, flags: libc::c_ulong) {
    mount(c"tmpfs", place, c"tmpfs", flags, c"");
}
