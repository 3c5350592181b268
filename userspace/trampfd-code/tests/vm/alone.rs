//! A test in a process of its own, where no other thread does anything, and what can be forbidden
//! there.

use std::ffi::CStr;
use std::io;
use std::process::Command;
use std::ptr::{null, null_mut};

/// Names the test that a process is for.
const WHICH: &str = "TRAMPFD_CODE_ALONE";

/// Whether this is the process for test `name`, which goes on. If not, starts that process, and
/// says by a panic that it failed.
pub fn alone(name: &str) -> bool {
    if std::env::var_os(WHICH).is_some_and(|which| which == name) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(WHICH, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("1 passed"), "no test {name}: {said}");
    false
}

/// Forks; in the child calls `act`, and ends. Whether it came to its end without a panic.
pub fn child(act: impl FnOnce()) -> bool {
    // SAFETY: the other threads of this process only wait (`alone`).
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

pub fn check(ret: i32) {
    assert_ne!(ret, -1, "{}", io::Error::last_os_error());
}

/// No memory that is or was writable becomes executable. Not before Linux 6.3.
pub fn mdwe() -> bool {
    const PR_SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: takes rights away.
    if unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) } != 0 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "PR_SET_MDWE: {error}");
        eprintln!("not under PR_SET_MDWE: {error}");
        return false;
    }
    true
}

pub fn has_memfd(flags: libc::c_uint) -> bool {
    // SAFETY: a C string; a new descriptor, closed at once.
    unsafe {
        let fd = libc::memfd_create(c"probe".as_ptr(), flags | libc::MFD_CLOEXEC);
        fd >= 0 && libc::close(fd) == 0
    }
}

/// A system call, and of one argument the bits that must all be set.
pub type Call = (libc::c_long, usize, i32);

/// From now on each of the calls ends with `errno`.
pub fn refuse(calls: &[Call], errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Offset of the arguments in struct seccomp_data.
    const ARGUMENTS: usize = 16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut code = Vec::new();
    for &(call, argument, bits) in calls {
        code.extend([
            op(LOAD, 0, 0, 0),
            op(IF_EQUAL, 0, 4, call as u32),
            op(LOAD, 0, 0, (ARGUMENTS + 8 * argument) as u32),
            op(AND, 0, 0, bits as u32),
            op(IF_EQUAL, 0, 1, bits as u32),
            op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        ]);
    }
    code.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        check(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program));
    }
}

/// memfd_create with all of `flags`.
pub fn memfd_with(flags: i32) -> Call {
    (libc::SYS_memfd_create, 1, flags)
}

/// mmap of shared, executable memory, and memfds: what is left is private mappings of files.
pub fn strict() {
    // MAP_SHARED in the flags; MAP_SHARED_VALIDATE has that bit, too.
    refuse(&[memfd_with(0)], libc::EPERM);
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load =
        |argument: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16 + 8 * argument);
    let skip_without =
        |bit: i32, n| op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, n, bit as u32);
    let mut code = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 5, libc::SYS_mmap as u32),
        load(2),
        skip_without(libc::PROT_EXEC, 3),
        load(3),
        skip_without(libc::MAP_SHARED, 1),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    });
}

/// Mounts of its own. Where this user may have none the test has failed: it wants root.
pub fn own_mounts(more: i32) {
    // SAFETY: gives this thread namespaces of its own.
    let ret = unsafe { libc::unshare(libc::CLONE_NEWNS | more) };
    assert_eq!(ret, 0, "not run: namespaces: {}", io::Error::last_os_error());
    mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE);
}

pub fn mount(from: &CStr, to: &CStr, kind: &CStr, flags: libc::c_ulong) {
    // SAFETY: C strings.
    check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, null()) });
}

/// An empty folder over another.
pub fn cover(place: &CStr, flags: libc::c_ulong) {
    mount(c"tmpfs", place, c"tmpfs", flags);
}

/// A page at `address`, if nothing is there.
pub fn take(address: *mut u8) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: replaces nothing.
    let page = unsafe { libc::mmap(address.cast(), 4096, libc::PROT_READ, flags, -1, 0) };
    page == address.cast()
}

/// The answers to what could make a page writable, move it or take it away: of mprotect to RW
/// and RWX, munmap, mremap elsewhere, mmap over it.
pub fn attempts(page: *mut u8) -> [i32; 5] {
    let errno = |failed: bool| match failed {
        true => io::Error::last_os_error().raw_os_error().unwrap(),
        false => 0,
    };
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let page = page.cast();
    let over = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the test's own page; where one of them succeeds the test does not use it again.
    unsafe {
        [
            errno(libc::mprotect(page, 4096, rw) != 0),
            errno(libc::mprotect(page, 4096, rw | libc::PROT_EXEC) != 0),
            errno(libc::munmap(page, 4096) != 0),
            errno(
                libc::mremap(
                    page,
                    4096,
                    4096,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    page.wrapping_add(1 << 30),
                ) == libc::MAP_FAILED,
            ),
            errno(libc::mmap(page, 4096, rw, over, -1, 0) == libc::MAP_FAILED),
        ]
    }
}

/// The errno of a write through /proc/self/mem, which asks no mprotect.
pub fn poke(address: *const u8) -> i32 {
    // SAFETY: a C string; a new file; whatever it writes is the byte that is there.
    unsafe {
        let fd = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        check(fd);
        let byte = *address;
        let n = libc::pwrite(fd, (&raw const byte).cast(), 1, address as libc::off_t);
        let errno = if n == 1 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() };
        libc::close(fd);
        errno
    }
}

/// Address space that is taken: nothing else of the process is there.
pub fn reserve(len: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new pages.
    let start = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}
