//! The policies: what each is, and the launcher that puts a program under one.
//!
//! | policy | forbids |
//! |---|---|
//! | `none` | nothing |
//! | `mdwe` | memory that is or was writable becoming executable (PR_SET_MDWE, Linux 6.3) |
//! | `sec` | the same, by the seccomp filter of systemd's MemoryDenyWriteExecute= |
//! | `memfd-noexec` | executable memfds: vm.memfd_noexec=2 in a pid namespace (Linux 6.3) |
//! | `noexec-tmp` | executing what lies in /tmp, /var/tmp and /dev/shm |
//! | `no-proc` | /proc |
//! | `noexec-dev` | executing what lies in /dev |
//! | `chroot` | everything outside a folder: no /proc, no /dev |
//! | `landlock` | all files but programs, libraries, devices and /proc, and writing anything elsewhere (Linux 5.13) |
//! | `nowx` | `sec`, `memfd-noexec` and `noexec-tmp` together |
//! | `strict` | `sec`, memfds, and executable memory that is no private mapping of a file |
//! | `memfd-enosys`, `memfd-eperm` | memfds: memfd_create(2) ends with that error |
//! | `memfd-noexec-1` | nothing: vm.memfd_noexec=1 in a pid namespace, which changes what a memfd is without flags |
//!
//! The last three are about code memory alone: what a program is started under by `via`, but not
//! in [`POLICIES`].

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null;

use crate::{arch, seccomp};

/// All of them; `probe.rs` has a column for each.
pub const POLICIES: [&str; 11] = [
    "none",
    "mdwe",
    "sec",
    "memfd-noexec",
    "noexec-tmp",
    "no-proc",
    "noexec-dev",
    "chroot",
    "landlock",
    "nowx",
    "strict",
];

/// Exit status of a launcher that could not put the policy into force.
pub const LACKS: i32 = 77;
/// Exit status of a launcher that could not start the program.
pub const NOT_STARTED: i32 = 126;

/// The user that starts set-uid programs.
const NOBODY: u32 = 65534;

/// Why a policy is not in force.
#[derive(Debug)]
pub struct Lacks(pub String);

fn lacks(what: &str) -> impl FnOnce(io::Error) -> Lacks {
    move |e| Lacks(format!("{what}: {e}"))
}

/// The result of a call that says -1 for an error.
pub fn check(ret: libc::c_int) -> io::Result<()> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts this process under a policy; `root` is the folder of `chroot`.
///
/// # Errors
///
/// [`Lacks`]: what the kernel or this process's privileges do not offer.
pub fn enter(policy: &str, root: &Path) -> Result<(), Lacks> {
    match policy {
        "none" => Ok(()),
        "mdwe" => {
            const PR_SET_MDWE: libc::c_int = 65;
            const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
            // SAFETY: takes rights away, and does nothing else.
            check(unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) })
                .map_err(lacks("PR_SET_MDWE (Linux 6.3)"))
        }
        "sec" => seccomp::install(false).map_err(lacks("seccomp")),
        "nowx" => {
            // The filter last: what it denies is no business of mounts.
            enter("memfd-noexec", root)?;
            enter("noexec-tmp", root)?;
            enter("sec", root)
        }
        "landlock" => landlock(root).map_err(lacks("landlock (Linux 5.13)")),
        "strict" => seccomp::install(true).map_err(lacks("seccomp")),
        "memfd-enosys" => seccomp::refuse_memfds(libc::ENOSYS).map_err(lacks("seccomp")),
        "memfd-eperm" => seccomp::refuse_memfds(libc::EPERM).map_err(lacks("seccomp")),
        "memfd-noexec" => memfd_noexec("2"),
        "memfd-noexec-1" => memfd_noexec("1"),
        "noexec-tmp" => {
            own_namespace(libc::CLONE_NEWNS)?;
            for place in [c"/tmp", c"/var/tmp", c"/dev/shm"] {
                if Path::new(place.to_str().unwrap_or_default()).is_dir() {
                    let kept = our_folder_in(place);
                    mount(c"tmpfs", place, c"tmpfs", libc::MS_NOEXEC)?;
                    if let Some(kept) = kept {
                        put_back(&kept)?;
                    }
                }
            }
            Ok(())
        }
        "no-proc" => {
            own_namespace(libc::CLONE_NEWNS)?;
            mount(c"tmpfs", c"/proc", c"tmpfs", libc::MS_RDONLY)
        }
        "noexec-dev" => {
            own_namespace(libc::CLONE_NEWNS)?;
            mount(c"/dev", c"/dev", c"", libc::MS_BIND)?;
            mount(c"", c"/dev", c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_NOEXEC)
        }
        "chroot" => {
            std::os::unix::fs::chroot(root).map_err(lacks("chroot"))?;
            std::env::set_current_dir("/").map_err(lacks("chroot"))
        }
        _ => Err(Lacks(format!("there is no policy {policy}"))),
    }
}

/// Sets vm.memfd_noexec, in a pid namespace of its own.
fn memfd_noexec(value: &str) -> Result<(), Lacks> {
    own_namespace(libc::CLONE_NEWNS | libc::CLONE_NEWPID)?;
    go_on_as_child()?;
    mount(c"proc", c"/proc", c"proc", 0)?;
    fs::write("/proc/sys/vm/memfd_noexec", value).map_err(lacks("vm.memfd_noexec (Linux 6.3)"))
}

/// The folder right in `place` that this program lies in, if it does: a checkout in /tmp. Held
/// open, so that it can be mounted again when something else lies over `place`.
fn our_folder_in(place: &CStr) -> Option<(PathBuf, OwnedFd)> {
    let place = Path::new(place.to_str().ok()?);
    let exe = std::env::current_exe().ok()?;
    let folder = place.join(exe.strip_prefix(place).ok()?.components().next()?);
    let path = CString::new(folder.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: a C string; the fd is new.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    // SAFETY: nobody else has it.
    (fd >= 0).then(|| (folder, unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Mounts a folder where it was.
fn put_back((folder, fd): &(PathBuf, OwnedFd)) -> Result<(), Lacks> {
    fs::create_dir(folder).map_err(lacks("a folder in an empty /tmp"))?;
    let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let from = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    mount(&text(&from), &text(folder), c"", libc::MS_BIND)
}

/// From now on only what programs are started from can be opened, and nothing for writing but in
/// `root`.
fn landlock(root: &Path) -> io::Result<()> {
    /// The same on every architecture.
    const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
    const SYS_LANDLOCK_ADD_RULE: libc::c_long = 445;
    const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
    const PATH_BENEATH: libc::c_long = 1;
    const EXECUTE: u64 = 1 << 0;
    const READ_FILE: u64 = 1 << 2;
    const READ_DIR: u64 = 1 << 3;
    /// Rights over files that the first version knows: all are taken away, but for the rules.
    static ALL: u64 = (1 << 13) - 1;
    const SYSTEM: [&str; 9] =
        ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/dev", "/proc"];

    /// struct landlock_path_beneath_attr.
    #[repr(C, packed)]
    struct Beneath {
        allowed: u64,
        folder: i32,
    }

    const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
    let this = std::env::current_exe()?;
    let system = SYSTEM.iter().map(Path::new).chain(this.parent()).map(|folder| (folder, READ));
    // SAFETY: reads the number.
    let rules = unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, &raw const ALL, 8, 0) };
    check(rules as libc::c_int)?;
    for (folder, allowed) in system.chain([(root, ALL)]).filter(|(folder, _)| folder.is_dir()) {
        let opened = fs::File::open(folder)?;
        let rule = Beneath { allowed, folder: opened.as_raw_fd() };
        // SAFETY: reads the struct.
        check(unsafe {
            libc::syscall(SYS_LANDLOCK_ADD_RULE, rules, PATH_BENEATH, &raw const rule, 0)
        } as libc::c_int)?;
    }
    // SAFETY: takes rights away; the fd was made above.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, rules, 0) as libc::c_int)?;
        check(libc::close(rules as libc::c_int))
    }
}

fn own_namespace(which: libc::c_int) -> Result<(), Lacks> {
    // SAFETY: gives this process, which has one thread, namespaces of its own.
    check(unsafe { libc::unshare(which) }).map_err(lacks("namespaces"))?;
    mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE)
}

fn mount(from: &CStr, to: &CStr, kind: &CStr, flags: libc::c_ulong) -> Result<(), Lacks> {
    // SAFETY: C strings.
    check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, null()) })
        .map_err(lacks(&format!("mount on {}", to.to_string_lossy())))
}

/// The first child of a new pid namespace goes on; this process only waits for it, and ends as
/// it ended.
fn go_on_as_child() -> Result<(), Lacks> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    check(pid).map_err(lacks("fork"))?;
    if pid == 0 {
        // SAFETY: asks for a signal when the waiting process is gone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        return Ok(());
    }
    let mut status = 0;
    // SAFETY: waits for the child, writes its status and ends.
    unsafe {
        libc::waitpid(pid, &mut status, 0);
        match libc::WIFEXITED(status) {
            true => libc::_exit(libc::WEXITSTATUS(status)),
            false => libc::_exit(128 + libc::WTERMSIG(status)),
        }
    }
}

/// Under `policy`, starts `program` as `start` says: `direct`, `loader` (by the C library's
/// loader), `set-uid` (by another user), from a memfd that exec closes: `memfd`, `memfd-sealed`,
/// from one that stays open: `memfd-open`; `inside`: in `root`, which becomes its root. What the
/// environment calls `VIA_NAME` is `NAME` for the program, but not for this launcher. Returns the
/// status to exit with if that failed.
pub fn launch(policy: &str, root: &Path, start: &str, program: &str, words: &[String]) -> i32 {
    // So that the program can look at its own mappings wherever it is.
    // SAFETY: a C string.
    let proc_fd = unsafe { libc::open(c"/proc".as_ptr(), libc::O_PATH | libc::O_DIRECTORY) };
    if let Err(Lacks(what)) = enter(policy, root) {
        eprintln!("{what}");
        return LACKS;
    }
    let mut command = match start {
        "loader" => {
            let mut command = Command::new(arch::LOADER);
            command.arg(program);
            command
        }
        "memfd" | "memfd-sealed" | "memfd-open" => {
            let e = from_memfd(start, program, words, proc_fd);
            eprintln!("{program} from a memfd: {e}");
            return NOT_STARTED;
        }
        "set-uid" => match std::fs::metadata(program) {
            // As somebody else, who gets the owner's rights.
            Ok(meta) if meta.uid() != NOBODY && may_set_uid(program) => {
                let reachable = match reachable(program) {
                    Ok(path) => path,
                    Err(Lacks(what)) => {
                        eprintln!("{what}");
                        return LACKS;
                    }
                };
                let mut command = Command::new(reachable);
                command.uid(NOBODY).gid(NOBODY);
                command
            }
            _ => {
                eprintln!("{program}: no set-uid here");
                return LACKS;
            }
        },
        "inside" => {
            let entered =
                std::os::unix::fs::chroot(root).and_then(|()| std::env::set_current_dir("/"));
            if let Err(e) = entered {
                eprintln!("chroot: {e}");
                return LACKS;
            }
            Command::new(program)
        }
        _ => Command::new(program),
    };
    for (name, value) in std::env::vars_os() {
        if let Some(name) = name.to_str().and_then(|name| name.strip_prefix("VIA_")) {
            command.env(name, value);
        }
    }
    command.args(words).env("TRAMPFD_PROC", proc_fd.to_string());
    let e = command.exec();
    eprintln!("{program}: {e}");
    NOT_STARTED
}

/// Where [`NOBODY`] finds a program that may lie in somebody's home: its folder, mounted once
/// more, for this process only.
fn reachable(program: &str) -> Result<PathBuf, Lacks> {
    const PLACE: &CStr = c"/mnt";
    let program = Path::new(program);
    let (Some(folder), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(Lacks(format!("{}: no path of a program", program.display())));
    };
    let folder =
        CString::new(folder.as_os_str().as_encoded_bytes()).map_err(|_| Lacks("a path".into()))?;
    own_namespace(libc::CLONE_NEWNS)?;
    // A test machine's root has no such folder.
    let _ = fs::create_dir("/mnt");
    mount(&folder, PLACE, c"", libc::MS_BIND)?;
    Ok(Path::new("/mnt").join(name))
}

/// This process may become [`NOBODY`], and the program's mount lets it come back.
fn may_set_uid(program: &str) -> bool {
    let Ok(path) = CString::new(program) else { return false };
    // SAFETY: an all-zero statvfs is one; a C string, and the struct is written.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        let known = libc::statvfs(path.as_ptr(), &mut stat) == 0;
        known && stat.f_flag & libc::ST_NOSUID == 0 && libc::geteuid() == 0
    }
}

/// Copies a program into a memfd and executes that. Returns only if that failed.
fn from_memfd(start: &str, program: &str, words: &[String], proc_fd: i32) -> io::Error {
    let close = start != "memfd-open";
    let start = || -> io::Result<()> {
        let bytes = fs::read(program)?;
        let flags = libc::MFD_ALLOW_SEALING | if close { libc::MFD_CLOEXEC } else { 0 };
        // SAFETY: a C string.
        let mut fd = unsafe { libc::memfd_create(c"subject".as_ptr(), flags) };
        check(fd)?;
        if close {
            // A number that nobody will take.
            // SAFETY: a new fd.
            fd = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 900) };
            check(fd)?;
        }
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            // SAFETY: reads the bytes.
            let n = unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) };
            check(n as libc::c_int)?;
            written += n as usize;
        }
        if start == "memfd-sealed" {
            // SAFETY: takes rights away, and does nothing else.
            check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE) })?;
        }
        let words: Vec<CString> = std::iter::once(program)
            .chain(words.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()?;
        let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(null());
        let environment = CString::new(format!("TRAMPFD_PROC={proc_fd}"))?;
        let envp = [environment.as_ptr(), null()];
        // SAFETY: arrays of C strings that end with null.
        check(unsafe {
            libc::execveat(
                fd,
                c"".as_ptr(),
                argv.as_ptr().cast(),
                envp.as_ptr().cast(),
                libc::AT_EMPTY_PATH,
            )
        })
    };
    start().err().unwrap_or_else(|| io::ErrorKind::Other.into())
}
