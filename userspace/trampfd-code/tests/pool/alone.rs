//! A test in a process of its own, where no other test does anything.

use std::io;
use std::process::{Command, Output};

/// Names the test that a process is for.
const WHICH: &str = "TRAMPFD_CODE_ALONE";

/// Whether this is the process for test `name`, which goes on. If not, starts that process, and
/// says by a panic that it failed.
pub fn alone(name: &str) -> bool {
    if is(name) {
        return true;
    }
    check(&again(Command::new(std::env::current_exe().unwrap()), name));
    false
}

/// Whether this is the process for test `name`.
pub fn is(name: &str) -> bool {
    std::env::var_os(WHICH).is_some_and(|which| which == name)
}

/// Runs this program once more, for one test. `malloc` makes no system calls of its own there,
/// but brk.
pub fn again(mut command: Command, name: &str) -> Output {
    let command = command.args(["--exact", name, "--test-threads=1", "--nocapture"]);
    let malloc = [
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
        ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ];
    command.env(WHICH, name).envs(malloc).output().unwrap()
}

/// The test passed.
pub fn check(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("1 passed"), "no such test: {said}");
}

/// Forks; in the child calls `act`, and ends. Whether it came to its end, without a panic and
/// within ten seconds.
pub fn child(act: impl FnOnce()) -> bool {
    // SAFETY: the child calls `act`, of which the tests say what it relies on.
    let pid = unsafe { libc::fork() };
    assert_ne!(pid, -1, "{}", io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: ends the child, sooner or later.
        unsafe { libc::alarm(10) };
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_ok();
        // SAFETY: ends the child, without what was meant for its parent's end.
        unsafe { libc::_exit(i32::from(!ok)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// From now on no memory that is or was writable becomes executable, and it is seen that this is
/// so. Not before Linux 6.3.
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
    let page = block(None, 4096).expect("a page");
    let page = std::ptr::with_exposed_provenance_mut::<libc::c_void>(page);
    // SAFETY: a new page.
    let done = unsafe {
        libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) == 0
            && libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) == 0
    };
    assert!(!done, "PR_SET_MDWE does nothing");
    true
}

/// Takes `len` bytes of address space, at this address or anywhere, if they are free.
pub fn block(address: Option<usize>, len: usize) -> Option<usize> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    if address.is_some() {
        flags |= libc::MAP_FIXED_NOREPLACE;
    }
    let at = std::ptr::with_exposed_provenance_mut(address.unwrap_or(0));
    // SAFETY: replaces nothing.
    let there = unsafe { libc::mmap(at, len, libc::PROT_NONE, flags, -1, 0) };
    (there != libc::MAP_FAILED).then(|| there.expose_provenance())
}

/// Puts an empty file system of `size` bytes over `place`, for this thread alone. Where this user
/// may not, the test has failed: it wants root.
pub fn cover(place: &std::ffi::CStr, size: usize) {
    let options = std::ffi::CString::new(format!("size={size}")).unwrap();
    let [none, root, tmpfs] = [c"", c"/", c"tmpfs"].map(|text| text.as_ptr());
    // SAFETY: C strings; namespaces of this thread's own.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, options.as_ptr().cast()) == 0
    };
    assert!(done, "not run: mounts: {}", io::Error::last_os_error());
}
