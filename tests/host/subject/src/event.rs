//! What can happen to a process in the middle of its life. It does it to itself.

use std::ffi::{CString, c_int};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Fail;

/// What lasts while the tables grow, and is undone when dropped.
pub(crate) struct Happened {
    limit: Option<(u32, libc::rlimit)>,
    /// Keeps the heap from giving back what lies below it.
    _top_of_heap: Vec<u8>,
}

impl Drop for Happened {
    fn drop(&mut self) {
        if let Some((which, before)) = &self.limit {
            // SAFETY: reads the struct. Raising the soft limit again is always allowed.
            unsafe { libc::setrlimit(*which, before) };
        }
    }
}

/// Lets `NAME[=VALUE],..` happen; `object` is the file of the program, or the library, that the
/// static tables lie in.
pub(crate) fn happen(events: &str, object: &Path) -> Result<Vec<Happened>, Fail> {
    events.split(',').map(|event| one(event, object)).collect()
}

fn one(event: &str, object: &Path) -> Result<Happened, Fail> {
    let (name, value) = event.split_once('=').unwrap_or((event, ""));
    let mut happened = Happened { limit: None, _top_of_heap: Vec::new() };
    let beside = object.with_extension("new");
    match name {
        "" | "fork" | "lie" => {}
        "close-fds" => close_fds(Path::new(value))?,
        "delete" => done("delete", fs::remove_file(object))?,
        "replace" | "shorten" | "same" | "fifo" => {
            let other = match (name, fs::read(object)) {
                ("same", Ok(bytes)) => Ok(bytes),
                ("replace", Ok(bytes)) => Ok(vec![0xcc; bytes.len()]),
                (_, bytes) => bytes.map(|_| vec![0xcc; 64]),
            };
            match name {
                "fifo" => {
                    let path = c_path(&beside)?;
                    // SAFETY: a C string.
                    result("mkfifo", unsafe { libc::mkfifo(path.as_ptr(), 0o755) })?;
                }
                _ => done("write", other.and_then(|bytes| fs::write(&beside, bytes)))?,
            }
            done("rename", fs::rename(&beside, object))?;
        }
        "chdir" => done("chdir", std::env::set_current_dir(value))?,
        "chroot" => {
            let path = c_path(Path::new(value))?;
            // SAFETY: a C string.
            result("chroot", unsafe { libc::chroot(path.as_ptr()) })?;
            done("chdir", std::env::set_current_dir("/"))?;
        }
        "no-fd" => happened.limit = Some(limit(libc::RLIMIT_NOFILE, 0)?),
        "three-fds" => happened.limit = Some(limit(libc::RLIMIT_NOFILE, 3)?),
        "no-memory" => {
            // What the closures themselves need is on the heap already.
            let mut pieces = vec![vec![1u8; 64 << 10]; 256];
            happened._top_of_heap = pieces.pop().unwrap_or_default();
            drop(pieces);
            happened.limit = Some(limit(libc::RLIMIT_AS, 1)?);
        }
        "mseal" => seal_text()?,
        "writable-text" => map_writable_text()?,
        _ => return Err(Fail::Setup(format!("unknown event {name}"))),
    }
    Ok(happened)
}

fn done<T>(what: &str, result: io::Result<T>) -> Result<T, Fail> {
    result.map_err(|e| Fail::Setup(format!("{what}: {e}")))
}

/// The result of a call that says -1 for an error.
fn result(what: &str, ret: c_int) -> Result<(), Fail> {
    if ret != -1 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => Err(Fail::Lacks(format!("{what}: {e}"))),
        _ => Err(Fail::Setup(format!("{what}: {e}"))),
    }
}

fn c_path(path: &Path) -> Result<CString, Fail> {
    done("path", CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from))
}

/// What daemons do; and then other files take the numbers.
fn close_fds(data: &Path) -> Result<(), Fail> {
    let path = c_path(data)?;
    for fd in 0..1024 {
        // SAFETY: nothing of this program uses an fd that it opened before.
        unsafe { libc::close(fd) };
    }
    for _ in 0..32 {
        // The calling thread opens and closes one of the numbers meanwhile.
        // SAFETY: a C string.
        if unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) } < 0 {
            return Err(Fail::Setup(format!("open: {}", io::Error::last_os_error())));
        }
    }
    Ok(())
}

/// Lowers a soft limit; the one before.
fn limit(which: u32, now: u64) -> Result<(u32, libc::rlimit), Fail> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the struct.
    result("getrlimit", unsafe { libc::getrlimit(which, &mut before) })?;
    let lower = libc::rlimit { rlim_cur: now, ..before };
    // SAFETY: reads the struct.
    result("setrlimit", unsafe { libc::setrlimit(which, &lower) })?;
    Ok((which, before))
}

/// mseal(2) on every executable segment, as a loader would.
fn seal_text() -> Result<(), Fail> {
    /// The same on every architecture.
    const SYS_MSEAL: libc::c_long = 462;

    /// # Safety
    ///
    /// Called by dl_iterate_phdr with a `Vec<(usize, usize)>`.
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        found: *mut libc::c_void,
    ) -> c_int {
        // SAFETY: both are what dl_iterate_phdr was called with and promises.
        unsafe {
            let info = &*info;
            let found = &mut *found.cast::<Vec<(usize, usize)>>();
            for n in 0..info.dlpi_phnum.into() {
                let header = &*info.dlpi_phdr.add(n);
                if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                    let start = info.dlpi_addr as usize + header.p_vaddr as usize;
                    found.push((start, start + header.p_memsz as usize));
                }
            }
        }
        0
    }

    let mut found: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `visit` gets the list that it expects.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    // SAFETY: asks a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for (start, end) in found {
        let start = start & !(page - 1);
        let len = end.next_multiple_of(page) - start;
        // SAFETY: takes away ways to change mappings, and does nothing else.
        result("mseal", unsafe { libc::syscall(SYS_MSEAL, start, len, 0) } as c_int)?;
    }
    Ok(())
}

/// What must never be there: shows that it would be seen.
fn map_writable_text() -> Result<(), Fail> {
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let p = unsafe { libc::mmap(core::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    result("mmap", if p == libc::MAP_FAILED { -1 } else { 0 })
}
