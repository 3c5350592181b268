//! A file that code lies in: no path leads to it, and it was tried that its pages can be mapped
//! R-X here.

use std::env;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::process::WriteFd;
use super::{Access, Attempt, Error, Mapping, Meter, Options, Source, Write, page_size};
use crate::sys::{self, At, FileMode, MemfdKind, Prot, Seals};

/// See [`Source::usual`].
pub(super) fn usual_sources() -> Vec<Source> {
    let mut sources = vec![Source::MemfdExec, Source::MemfdNoexecSeal, Source::Memfd];
    let named = |name: &str| secure_env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folders = [
        Some("/dev/shm".into()),
        named("XDG_RUNTIME_DIR"),
        named("TMPDIR"),
        Some("/tmp".into()),
        Some("/var/tmp".into()),
        named("HOME"),
        Some(".".into()),
    ];
    for folder in folders.into_iter().flatten().map(Source::Folder) {
        if !sources.contains(&folder) {
            sources.push(folder);
        }
    }
    sources
}

/// An environment variable, if the program does not run with more rights than its user.
fn secure_env(name: &str) -> Option<OsString> {
    // SAFETY: reads a value of the auxiliary vector.
    let more = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if more { None } else { env::var_os(name) }
}

/// A file for code, of fixed length, holes first.
///
/// # Invariants
///
/// Executable views go through `read`, which cannot write; where there is none, the file was
/// sealed (F_SEAL_FUTURE_WRITE) after the alias was made, which has the same effect. `alias`
/// covers the file from its first byte to its last.
#[derive(Debug)]
pub struct CodeFile {
    write: WriteFd,
    read: Option<OwnedFd>,
    alias: Option<Mapping>,
    withdrawn: AtomicBool,
    len: usize,
    source: Source,
    id: u64,
    meter: Meter,
}

impl CodeFile {
    /// A file of at least `len` bytes, rounded up to pages, from the first source that gives
    /// executable pages. With [`Write::Alias`] all of it is mapped for writing.
    ///
    /// # Errors
    ///
    /// [`Error::NoExecutableMemory`], [`Error::NoReadOnlyDescriptor`], [`Error::TooLarge`],
    /// [`Error::LargePages`]; [`Error::System`], also where descriptors or memory have run
    /// out, or RLIMIT_FSIZE is less.
    pub fn new(len: usize, options: &Options, meter: &Meter) -> Result<CodeFile, Error> {
        if options.large_pages {
            return Err(Error::LargePages);
        }
        let len = super::round_to_pages(len.max(1))?;
        let mut attempts = Vec::new();
        // Executable, but only through the descriptor that writes.
        let mut without_read = None;
        for source in &options.sources {
            match Opened::new(source, len, meter) {
                Ok(Opened { write, read: Some(read) }) => {
                    return CodeFile::with(write, Some(read), len, source, options.write, meter);
                }
                Ok(Opened { write, read: None }) => {
                    without_read.get_or_insert((write, source));
                }
                // No answer about the source: what the next one gives might be weaker.
                Err(Attempt { error, .. }) if is_shortage(&error) => {
                    return Err(Error::System { what: "making a file for code", error });
                }
                Err(attempt) => attempts.push(attempt),
            }
        }
        match without_read {
            Some((write, source)) if options.write != Write::Pwrite => {
                CodeFile::with(write, None, len, source, Write::Alias, meter)
            }
            Some(_) => Err(Error::NoReadOnlyDescriptor),
            None => Err(Error::NoExecutableMemory(attempts)),
        }
    }

    fn with(
        write: WriteFd,
        read: Option<OwnedFd>,
        len: usize,
        source: &Source,
        how: Write,
        meter: &Meter,
    ) -> Result<CodeFile, Error> {
        let mut file = CodeFile {
            write,
            read,
            alias: None,
            withdrawn: AtomicBool::new(false),
            len,
            source: source.clone(),
            id: next_id(),
            meter: meter.clone(),
        };
        if how == Write::Alias {
            file.alias = Some(file.writable(0..len)?);
        }
        if file.read.is_none() {
            file.seal_but_alias()?;
        }
        Ok(file)
    }

    /// Bytes: whole pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a file has a page at least.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the pages came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether this process made it, and may write it: not so in a child of fork.
    pub fn is_ours(&self) -> bool {
        self.write.get().is_ok()
    }

    /// How code gets in now.
    pub fn how(&self) -> Write {
        let aliased = self.alias.is_some() && !self.withdrawn.load(Ordering::Acquire);
        if aliased { Write::Alias } else { Write::Pwrite }
    }

    /// The first byte of the writable alias, while there is one.
    pub fn alias(&self) -> Option<*mut u8> {
        let there = self.is_ours() && !self.withdrawn.load(Ordering::Acquire);
        self.alias.as_ref().filter(|_| there).map(Mapping::ptr)
    }

    fn check(&self, at: usize, len: usize) -> Result<(), Error> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::OutOfRange { at, len }),
        }
    }

    fn check_pages(&self, range: &Range<usize>) -> Result<(), Error> {
        let whole = |at: usize| at.is_multiple_of(page_size());
        match range {
            Range { start, end } if start < end && whole(*start) && whole(*end) => {
                self.check(*start, end - start)
            }
            _ => Err(Error::OutOfRange { at: range.start, len: range.len() }),
        }
    }

    /// Writes `bytes` at offset `at`: through the alias if there is one, else by pwrite(2).
    ///
    /// # Safety
    ///
    /// Nobody executes or writes these bytes meanwhile, unless they stay what they are. Where
    /// there is an alias and the system may be out of memory, or the file system of the file full,
    /// their pages were [allocated](CodeFile::allocate): else that is no error, but SIGBUS.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::OtherProcess`], [`Error::Withdrawn`] where only the alias
    /// could write, [`Error::System`].
    pub unsafe fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        self.check(at, bytes.len())?;
        let fd = self.write.get()?;
        if let Some(alias) = self.alias() {
            // SAFETY: inside the alias, which nobody withdraws meanwhile (`withdraw`).
            unsafe { alias.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            return Ok(());
        }
        if self.read.is_none() {
            return Err(Error::Withdrawn);
        }
        sys::write_at(self.meter.counts(), fd, bytes, at as u64)
            .map_err(Error::system("writing code"))
    }

    /// A writable view of part of it, for as long as the caller keeps it. Children of fork do
    /// not get it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::OtherProcess`], [`Error::System`]: after sealing, too.
    pub fn writable(&self, range: Range<usize>) -> Result<Mapping, Error> {
        let view = Mapping::reserve(range.len(), super::Place::Anywhere, &self.meter)?;
        view.map_file(0, range.len(), self, range.start, Access::Write)?;
        Ok(view)
    }

    /// Gives whole pages memory of their own now, so that writing them cannot fail later.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: without memory or room; [`Error::OutOfRange`], [`Error::OtherProcess`].
    pub fn allocate(&self, range: Range<usize>) -> Result<(), Error> {
        self.check_pages(&range)?;
        let fd = self.write.get()?;
        sys::allocate(self.meter.counts(), fd, range.start as u64, range.len() as u64)
            .map_err(Error::system("allocating pages for code"))
    }

    /// Gives the memory of whole pages back: they read as zeros.
    ///
    /// # Safety
    ///
    /// Nobody executes or reads what lies there.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: after sealing, too; [`Error::OutOfRange`], [`Error::OtherProcess`].
    pub unsafe fn discard(&self, range: Range<usize>) -> Result<(), Error> {
        self.check_pages(&range)?;
        let fd = self.write.get()?;
        sys::punch(self.meter.counts(), fd, range.start as u64, range.len() as u64)
            .map_err(Error::system("giving pages back"))
    }

    /// Takes the writable alias away. What was written stays; more can be written by pwrite(2),
    /// but not where the alias was had for want of a read-only descriptor ([`Error::Withdrawn`]).
    ///
    /// # Safety
    ///
    /// Nobody uses a pointer into the alias any more, nor writes meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::OtherProcess`]; [`Error::System`]: the alias is still there.
    pub unsafe fn withdraw(&self) -> Result<(), Error> {
        self.write.get()?;
        match &self.alias {
            Some(alias) if !self.withdrawn.swap(true, Ordering::AcqRel) => {
                let released = alias.release(0, alias.len());
                // It is there still, and can be taken away later.
                released.inspect_err(|_| self.withdrawn.store(false, Ordering::Release))
            }
            _ => Ok(()),
        }
    }

    /// From now on nothing but the alias that is there can write the file, whoever has a
    /// descriptor of it (F_SEAL_FUTURE_WRITE).
    ///
    /// # Errors
    ///
    /// [`Error::NoSeals`] if it is no memfd, [`Error::OtherProcess`].
    pub fn seal_but_alias(&self) -> Result<(), Error> {
        self.seal(Seals::FUTURE_WRITE | Seals::SHRINK | Seals::GROW)
    }

    /// From now on nothing can write the file (F_SEAL_WRITE), nor take this back.
    ///
    /// # Errors
    ///
    /// [`Error::Aliased`] before [`CodeFile::withdraw`]; [`Error::NoSeals`] if it is no memfd;
    /// [`Error::OtherProcess`].
    pub fn seal_writes(&self) -> Result<(), Error> {
        if self.alias().is_some() {
            return Err(Error::Aliased);
        }
        self.seal(Seals::WRITE | Seals::SHRINK | Seals::GROW | Seals::SEAL)
    }

    fn seal(&self, seals: Seals) -> Result<(), Error> {
        if let Source::Folder(_) = self.source {
            return Err(Error::NoSeals);
        }
        match sys::seal_file(self.meter.counts(), self.write.get()?, seals) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(Error::Aliased),
            other => other.map_err(Error::system("sealing")),
        }
    }

    /// The descriptor that a view with `access` is made through: one that gives no more, for
    /// what mprotect(2) allows later depends on it.
    pub(crate) fn fd(&self, access: Access) -> Result<BorrowedFd<'_>, Error> {
        match (access, &self.read) {
            (Access::None | Access::Read | Access::Execute, Some(read)) => Ok(read.as_fd()),
            (Access::Write, _) | (_, None) => self.write.get(),
        }
    }

    /// A number that no other file of this process has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// A number that no other file of this process has.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The descriptors of a file whose pages were seen to be executable.
pub(super) struct Opened {
    write: WriteFd,
    pub(super) read: Option<OwnedFd>,
}

impl Opened {
    pub(super) fn new(source: &Source, len: usize, meter: &Meter) -> Result<Opened, Attempt> {
        let counts = meter.counts();
        let failed = |step| move |error| Attempt { source: source.clone(), step, error };
        let kind = match source {
            Source::MemfdExec => Some(MemfdKind::Exec),
            Source::MemfdNoexecSeal => Some(MemfdKind::NoexecSeal),
            Source::Memfd => Some(MemfdKind::Plain),
            Source::Folder(_) => None,
        };
        let (write, read) = match (kind, source) {
            (None, Source::Folder(folder)) => {
                let (write, read) = unlinked(folder, meter).map_err(failed("create"))?;
                (write, Some(read))
            }
            (kind, _) => {
                let kind = kind.unwrap_or(MemfdKind::Plain);
                let make = || sys::memfd(counts, c"trampfd-code", kind);
                (WriteFd::new(make).map_err(failed("create"))?, None)
            }
        };
        sys::set_len(counts, write.as_made(), len as u64).map_err(failed("size"))?;
        // A memfd has no path but this one.
        let read = match read {
            Some(read) => Some(read),
            None => again(write.as_made(), meter).map_err(failed("open read-only"))?,
        };
        let seen = read.as_ref().map_or(write.as_made(), OwnedFd::as_fd);
        // SAFETY: pages that nothing knows of.
        unsafe {
            let page = page_size();
            let (at, how) = (At::Anywhere, Prot::ReadExecute);
            let probe = sys::map_file(counts, at, page, how, true, seen, 0);
            let probe = probe.map_err(failed("map R-X"))?;
            sys::unmap(counts, probe, page).map_err(failed("unmap"))?;
        }
        Ok(Opened { write, read })
    }
}

/// The same file once more, for reading only. `None` where that cannot be had, without /proc.
fn again(fd: BorrowedFd<'_>, meter: &Meter) -> io::Result<Option<OwnedFd>> {
    let read = match sys::open_readable(meter.counts(), &sys::path_of(fd)) {
        Err(error) if is_shortage(&error) => return Err(error),
        Err(_) => return Ok(None),
        Ok(read) => read,
    };
    Ok(same_file(fd, read.as_fd(), meter)?.then_some(read))
}

/// Descriptors or memory have run out, or this process may have no file that large.
fn is_shortage(error: &io::Error) -> bool {
    use libc::{EFBIG, EMFILE, ENFILE, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EFBIG))
}

fn same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>, meter: &Meter) -> io::Result<bool> {
    let (one, other) = (sys::stat(meter.counts(), one)?, sys::stat(meter.counts(), other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// A new file in `folder` that has no name any more: to write, and to read only.
pub(super) fn unlinked(folder: &Path, meter: &Meter) -> io::Result<(WriteFd, OwnedFd)> {
    static SEED: OnceLock<std::hash::RandomState> = OnceLock::new();
    let counts = meter.counts();
    let mut last = io::ErrorKind::AlreadyExists.into();
    for attempt in 0..16u64 {
        let mut hasher = SEED.get_or_init(Default::default).build_hasher();
        hasher.write_u64(counts.calls() ^ attempt << 48 ^ super::token() << 32);
        let name = format!(".trampfd-{}-{:016x}", std::process::id(), hasher.finish());
        let path = folder.join(name);
        let make = || sys::create(counts, &path, FileMode::RUSR | FileMode::WUSR);
        let write = match WriteFd::new(make) {
            Ok(write) => write,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                last = e;
                continue;
            }
            Err(e) => return Err(e),
        };
        let read = sys::open_readable(counts, &path);
        sys::unlink(counts, &path)?;
        let read = read?;
        if !same_file(write.as_made(), read.as_fd(), meter)? {
            return Err(io::Error::other("somebody else replaced the file"));
        }
        return Ok((write, read));
    }
    Err(last)
}
