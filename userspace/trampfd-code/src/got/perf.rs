//! What the profiler perf reads: the map of names (/tmp/perf-PID.map), and the dump of code
//! (jit-PID.dump, for `perf inject --jit`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::Error;
use super::arch::MACHINE;
use crate::sys::{self, At, FileMode, Prot};
use crate::vm::{self, Meter};

/// A function that was loaded.
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) address: usize,
    pub(super) code: &'a [u8],
}

/// A file of this user's, to which whole records are appended.
#[derive(Debug)]
struct Log {
    fd: OwnedFd,
    path: PathBuf,
}

impl Log {
    fn open(path: PathBuf, meter: &Meter) -> Result<Log, Error> {
        match sys::append_to(meter.counts(), &path, FileMode::RUSR | FileMode::WUSR) {
            Ok(fd) => Ok(Log { fd, path }),
            Err(error) => Err(Error::Profile { path, error }),
        }
    }

    /// Writes what the file begins with, in place of what an earlier process left there, but once.
    fn begin(&self, header: &[u8], meter: &Meter) -> io::Result<()> {
        let (fd, counts) = (self.fd.as_fd(), meter.counts());
        let mut dumps = dumps();
        let stat = sys::stat(counts, fd)?;
        let which = (stat.st_dev, stat.st_ino);
        if stat.st_size > 0 && dumps.begun.contains(&which) {
            return Ok(());
        }
        sys::set_len(counts, fd, 0)?;
        sys::write_at(counts, fd, header, 0)?;
        dumps.begun.push(which);
        Ok(())
    }

    fn write(&self, bytes: &[u8], meter: &Meter) -> Result<(), Error> {
        // The offset does not matter: the file is open for appending.
        sys::write_at(meter.counts(), self.fd.as_fd(), bytes, 0)
            .map_err(|error| Error::Profile { path: self.path.clone(), error })
    }
}

/// The map of names.
#[derive(Debug)]
pub(super) struct Map(Log);

impl Map {
    pub(super) fn open(meter: &Meter) -> Result<Map, Error> {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        Ok(Map(Log::open(path.into(), meter)?))
    }

    pub(super) fn add(&self, functions: &[Function<'_>], meter: &Meter) -> Result<(), Error> {
        let mut lines = String::new();
        for Function { name, address, code } in functions {
            // A name ends with its line.
            let name = name.replace(['\n', '\r'], "?");
            lines += &format!("{address:x} {:x} {name}\n", code.len());
        }
        self.0.write(lines.as_bytes(), meter)
    }
}

/// The dump of code.
#[derive(Debug)]
pub(super) struct Dump(Log);

/// The dumps of this process. Locked while one is written to, so that times go up in it.
static DUMPS: Mutex<Dumps> = Mutex::new(Dumps { begun: Vec::new(), functions: 0 });

struct Dumps {
    /// Device and number of the files that have their header.
    begun: Vec<(u64, u64)>,
    /// In all of them; no two have the same number.
    functions: u64,
}

fn dumps() -> MutexGuard<'static, Dumps> {
    DUMPS.lock().unwrap_or_else(|e| e.into_inner())
}

impl Dump {
    pub(super) fn open(folder: &Path, meter: &Meter) -> Result<Dump, Error> {
        /// "JiTD".
        const MAGIC: u32 = 0x4a69_5444;
        const VERSION: u32 = 1;
        const LEN: u32 = 40;
        let path = folder.join(format!("jit-{}.dump", std::process::id()));
        let failed = |error| Error::Profile { path: path.clone(), error };
        let log = Log::open(path.clone(), meter)?;
        let mut header = Vec::new();
        for word in [MAGIC, VERSION, LEN, MACHINE.into(), 0, std::process::id()] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(sys::monotonic_nanoseconds(meter.counts()).to_ne_bytes());
        header.extend(0u64.to_ne_bytes());
        log.begin(&header, meter).map_err(failed)?;
        // perf finds the file by a mapping of it that could be executed; it need not stay.
        let counts = meter.counts();
        let read = sys::open_readable(counts, &path);
        let shown = read.and_then(|fd| {
            let (page, prot) = (vm::page_size(), Prot::ReadExecute);
            // SAFETY: new pages, which nobody uses.
            unsafe {
                let view = sys::map_file(counts, At::Anywhere, page, prot, false, fd.as_fd(), 0)?;
                sys::unmap(counts, view, page)
            }
        });
        shown.map_err(failed)?;
        Ok(Dump(log))
    }

    pub(super) fn add(&self, functions: &[Function<'_>], meter: &Meter) -> Result<(), Error> {
        /// JIT_CODE_LOAD.
        const LOAD: u32 = 0;
        const FIXED: usize = 56;
        let mut dumps = dumps();
        let mut records = Vec::new();
        let (process, thread) = (std::process::id(), sys::thread_number(meter.counts()));
        for Function { name, address, code } in functions {
            let len = FIXED + name.len() + 1 + code.len();
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            records.extend(LOAD.to_ne_bytes());
            records.extend(len.to_ne_bytes());
            records.extend(sys::monotonic_nanoseconds(meter.counts()).to_ne_bytes());
            records.extend(process.to_ne_bytes());
            records.extend(thread.to_ne_bytes());
            let number = dumps.functions;
            dumps.functions += 1;
            for word in [*address as u64, *address as u64, code.len() as u64, number] {
                records.extend(word.to_ne_bytes());
            }
            records.extend(name.bytes().filter(|&byte| byte != 0));
            records.resize(records.len() + 1 + name.bytes().filter(|&b| b == 0).count(), 0);
            records.extend(*code);
        }
        self.0.write(&records, meter)
    }
}
