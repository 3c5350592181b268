//! The folder: files are opened, checked, published and removed.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::format::{self, Contents};
use super::{Error, Key, Options, Reason, Verity};
use crate::sys::folder::{self as files, FileType, Stat};
use crate::sys::{self, Counts};
use crate::vm::Meter;

/// Letters of a key in a name.
const HEX: usize = 64;
const BATCH: &[u8] = b".code";
/// A file that is being written, and a folder that was in a file's place.
const NEW: &[u8] = b".new";
const OLD: &[u8] = b".old";

/// What a crash left behind is removed when it is so old.
const LEFT: Duration = Duration::from_secs(60);
/// A file is said to be in use no more often: it would look changed to others that verify it.
const USED: Duration = Duration::from_secs(60);
/// Changes within one tick of the file system's clock may show the same time.
const TICK: Duration = Duration::from_millis(20);
/// The same where it shows whole seconds only, or every other.
const LONG_TICK: Duration = Duration::from_secs(2);
/// How often another writer may be in the way.
const TRIES: usize = 16;

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    device: u64,
    number: u64,
    len: u64,
    modified: (i64, u64),
    changed: (i64, u64),
    owner: u32,
    mode: u32,
    links: u64,
}

impl Facts {
    #[allow(clippy::unnecessary_cast)] // the types differ by architecture
    fn new(stat: &Stat) -> Facts {
        Facts {
            device: stat.st_dev as u64,
            number: stat.st_ino as u64,
            len: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            owner: stat.st_uid,
            mode: stat.st_mode,
            links: stat.st_nlink as u64,
        }
    }

    fn get(counts: &Counts, fd: BorrowedFd<'_>) -> io::Result<Facts> {
        Ok(Facts::new(&sys::stat(counts, fd)?))
    }

    /// Whether a change of the file from `now` on, a time since 1970, will show.
    fn would_show(&self, now: Duration) -> bool {
        let tick = if self.changed.1 == 0 { LONG_TICK } else { TICK };
        now.saturating_sub(since_1970(self.changed)) > tick
    }

    /// Whether it may be executed from, by all that is not in it.
    fn check(&self, user: u32) -> Result<(), Reason> {
        const OTHERS_WRITE: u32 = 0o022;
        let mode = self.mode & 0o7777;
        if FileType::from_raw_mode(self.mode) != FileType::RegularFile {
            Err(Reason::NotAFile)
        } else if self.owner != user {
            Err(Reason::Owner(self.owner))
        } else if mode & OTHERS_WRITE != 0 {
            Err(Reason::Writable(mode))
        } else if self.links != 1 {
            Err(Reason::Links(self.links))
        } else if self.len > format::MAX {
            Err(Reason::Size(self.len))
        } else {
            Ok(())
        }
    }
}

fn since_1970((seconds, nanoseconds): (i64, u64)) -> Duration {
    Duration::new(seconds.max(0) as u64, nanoseconds as u32)
}

/// The time since 1970.
fn clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn age(time: (i64, u64)) -> Duration {
    clock().saturating_sub(since_1970(time))
}

/// When a file was used last, or said to be.
#[allow(clippy::unnecessary_cast)] // the types differ by architecture
fn used(stat: &Stat) -> (i64, u64) {
    (stat.st_atime as i64, stat.st_atime_nsec as u64)
}

/// Bytes of memory that are kept to read the next file into.
const KEPT: usize = 1 << 20;

/// A file that passed all checks.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) contents: Arc<Contents>,
    /// It was compared with what was verified before; else it was read and verified.
    pub(super) known: bool,
    facts: Facts,
}

/// A private folder, and what is known of its files.
#[derive(Debug)]
pub(super) struct Folder {
    /// Absolute: it is the same whatever folder the program works in.
    path: PathBuf,
    fd: OwnedFd,
    user: u32,
    version: [u8; 32],
    sync: bool,
    verity: Verity,
    limit: Option<u64>,
    known: HashMap<Key, (Facts, Arc<Contents>)>,
    /// Whether left-over files were looked for.
    cleaned: bool,
    /// What files are read into, kept for the next.
    buffer: Vec<u8>,
    meter: Meter,
}

impl Folder {
    pub(super) fn open(path: &Path, options: &Options, meter: &Meter) -> Result<Folder, Error> {
        let user = files::user(meter.counts());
        let path = files::absolute(meter.counts(), path)
            .map_err(|error| Error::Folder { path: path.into(), error })?;
        let fd = private_folder(&path, user, meter.counts())?;
        Ok(Folder {
            path,
            fd,
            user,
            version: *blake3::hash(&options.version).as_bytes(),
            sync: options.sync,
            verity: options.verity,
            limit: options.limit,
            known: HashMap::new(),
            cleaned: false,
            buffer: Vec::new(),
            meter: meter.clone(),
        })
    }

    pub(super) fn version(&self) -> &[u8; 32] {
        &self.version
    }

    fn counts(&self) -> &Counts {
        self.meter.counts()
    }

    /// The batch of `root`, if there is a file of that name.
    pub(super) fn load(&mut self, root: &Key) -> Result<Option<Found>, Reason> {
        let (meter, name) = (self.meter.clone(), Name::of(root));
        let counts = meter.counts();
        for _ in 0..TRIES {
            let fd = match files::open_in(counts, self.fd.as_fd(), name.as_cstr()) {
                Ok(fd) => fd,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ENOENT) => return Ok(None),
                    Some(libc::ELOOP) => return Err(Reason::Symlink),
                    // A socket.
                    Some(libc::ENXIO) => return Err(Reason::NotAFile),
                    _ => return Err(Reason::Unreadable(e)),
                },
            };
            let stat = sys::stat(counts, fd.as_fd()).map_err(Reason::Unreadable)?;
            let mut facts = Facts::new(&stat);
            if facts.links == 0 {
                // Removed or replaced, or just about to be: its name can be there a while longer.
                std::thread::yield_now();
                continue;
            }
            facts.check(self.user)?;
            if let Some((known, contents)) = self.known.get(root)
                && *known == facts
            {
                let contents = contents.clone();
                return Ok(Some(Found { fd, contents, known: true, facts }));
            }
            if self.verity == Verity::Require {
                files::has_verity(counts, fd.as_fd()).map_err(Reason::NoVerity)?;
            }
            // Where that is not noted, as on a file system that is only read, the file is as good.
            if self.limit.is_some()
                && age(used(&stat)) > USED
                && files::touch(counts, fd.as_fd()).is_ok()
            {
                facts = Facts::get(counts, fd.as_fd()).map_err(Reason::Unreadable)?;
                if facts.links == 0 {
                    continue;
                }
            }
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.clear();
            let read = files::read(counts, fd.as_fd(), facts.len as usize, &mut bytes);
            let contents = match read {
                Ok(()) => format::verify(&mut bytes, &self.version, root),
                Err(e) => Err(Reason::Unreadable(e)),
            };
            if bytes.capacity() <= KEPT {
                self.buffer = bytes;
            }
            let contents = Arc::new(contents?);
            return Ok(Some(Found { fd, contents, known: false, facts }));
        }
        // What nothing but its name is left of is not there.
        Ok(None)
    }

    /// Whether what is mapped now is what was verified: to be asked after it was mapped. If so,
    /// the file is known from here on.
    pub(super) fn confirm(&mut self, found: &Found) -> bool {
        if found.known {
            return true;
        }
        let Ok(now) = Facts::get(self.counts(), found.fd.as_fd()) else { return false };
        // Removed or replaced meanwhile, it is still the same file.
        let same = Facts { links: found.facts.links, changed: found.facts.changed, ..now };
        let replaced = now.links == 0 && same == found.facts;
        if now == found.facts && now.would_show(clock()) {
            self.known.insert(found.contents.root(), (now, found.contents.clone()));
        }
        now == found.facts || replaced
    }

    /// Writes a file and gives it its name, in place of what has it; returns a descriptor that
    /// reads it.
    pub(super) fn publish(&mut self, root: &Key, bytes: &[u8]) -> Result<OwnedFd, Error> {
        let mut tries = TRIES;
        loop {
            let (temporary, fd) = self.write(root, bytes)?;
            let name = Name::of(root);
            let result = self.rename(root, &temporary, name.as_cstr());
            match result {
                Ok(()) => {
                    if self.sync {
                        files::sync(self.counts(), self.fd.as_fd())
                            .map_err(publish("writing the folder to the disk"))?;
                    }
                    return Ok(fd);
                }
                Err(error) => {
                    // Nobody needs it; what cannot be removed now, a later start removes.
                    let _ = files::unlink_in(self.counts(), self.fd.as_fd(), &temporary, false);
                    tries -= 1;
                    if error.kind() != io::ErrorKind::NotFound || tries == 0 {
                        return Err(publish("giving a file its name")(error));
                    }
                    // Somebody took it for left over.
                }
            }
        }
    }

    fn rename(&self, root: &Key, from: &CStr, to: &CStr) -> io::Result<()> {
        let (counts, folder) = (self.counts(), self.fd.as_fd());
        for _ in 0..TRIES {
            match files::rename_in(counts, folder, from, to) {
                Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {}
                other => return other,
            }
            // A folder is in its place. What is in it is not ours to remove.
            let aside = unique(root, OLD);
            match files::rename_in(counts, folder, to, &aside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {
                    let _ = files::unlink_in(counts, folder, &aside, true);
                }
            }
        }
        Err(io::ErrorKind::IsADirectory.into())
    }

    /// A file under a name that nobody else looks for.
    fn write(&mut self, root: &Key, bytes: &[u8]) -> Result<(CString, OwnedFd), Error> {
        let (name, fd) = self.create(root)?;
        self.fill(&name, fd, bytes).map(|fd| (name.clone(), fd)).inspect_err(|_| {
            let _ = files::unlink_in(self.counts(), self.fd.as_fd(), &name, false);
        })
    }

    fn create(&mut self, root: &Key) -> Result<(CString, OwnedFd), Error> {
        let mut tries = TRIES;
        loop {
            let name = unique(root, NEW);
            match files::create_in(self.counts(), self.fd.as_fd(), &name) {
                Ok(fd) => return Ok((name, fd)),
                Err(e) if tries == 0 => return Err(publish("making a file")(e)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                // The folder itself was removed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.fd = private_folder(&self.path, self.user, self.counts())?;
                }
                Err(e) => return Err(publish("making a file")(e)),
            }
            tries -= 1;
        }
    }

    fn fill(&self, name: &CStr, fd: OwnedFd, bytes: &[u8]) -> Result<OwnedFd, Error> {
        let counts = self.counts();
        let reader = files::reopen_in(counts, self.fd.as_fd(), name, &fd)
            .map_err(publish("opening a file for reading"))?;
        // Says that its writer is alive. Where files cannot be locked, its age has to say it.
        let _ = files::lock(counts, reader.as_fd());
        sys::write_at(counts, fd.as_fd(), bytes, 0).map_err(publish("writing a file"))?;
        drop(fd);
        if self.verity != Verity::No {
            match self.enable_verity(reader.as_fd()) {
                Err(e) if self.verity == Verity::Require => return Err(Error::NoVerity(e)),
                _ => {}
            }
        }
        files::only_readable(counts, reader.as_fd()).map_err(publish("making a file read-only"))?;
        if self.sync {
            files::sync(counts, reader.as_fd()).map_err(publish("writing a file to the disk"))?;
        }
        Ok(reader)
    }

    fn enable_verity(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut tries = TRIES;
        loop {
            match files::enable_verity(self.counts(), fd) {
                // A child of fork has our descriptor until it starts its program.
                Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) && tries > 0 => tries -= 1,
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// After a file was published: removes what crashes left behind, once, and the least
    /// recently used files while there are more bytes than the limit. Returns whose batches were
    /// removed.
    pub(super) fn tidy(&mut self, newest: &Key) -> io::Result<Vec<Key>> {
        if self.cleaned && self.limit.is_none() {
            return Ok(Vec::new());
        }
        let (counts, folder) = (self.counts(), self.fd.as_fd());
        let names = files::list(counts, folder)?;
        if !self.cleaned {
            names.iter().filter(|name| is_ours(name, NEW)).for_each(|name| self.clean(name));
            for name in names.iter().filter(|name| is_ours(name, OLD)) {
                let _ = files::unlink_in(counts, folder, name, true);
            }
        }
        let mut removed = Vec::new();
        if let Some(limit) = self.limit {
            let mut batches = Vec::new();
            for name in &names {
                // What is gone meanwhile needs no room.
                if let Some(key) = key_of(name)
                    && let Ok(stat) = files::stat_in(counts, folder, name)
                {
                    batches.push((used(&stat), stat.st_size.max(0) as u64, key, name));
                }
            }
            batches.sort_unstable();
            let mut total: u64 = batches.iter().map(|(_, len, ..)| len).sum();
            for (_, len, key, name) in batches.into_iter().filter(|(.., key, _)| key != newest) {
                if total <= limit {
                    break;
                }
                if files::unlink_in(counts, folder, name, false).is_ok() {
                    total -= len;
                    removed.push(key);
                }
            }
        }
        self.cleaned = true;
        for key in &removed {
            self.known.remove(key);
        }
        Ok(removed)
    }

    /// Removes a file that was not finished, if its writer is dead.
    fn clean(&self, name: &CStr) {
        let (counts, folder) = (self.counts(), self.fd.as_fd());
        let Ok(fd) = files::open_in(counts, folder, name) else { return };
        let Ok(facts) = Facts::get(counts, fd.as_fd()) else { return };
        let old = facts.owner == self.user && age(facts.modified) > LEFT;
        if old && files::lock(counts, fd.as_fd()).unwrap_or(true) {
            let _ = files::unlink_in(counts, folder, name, false);
        }
    }

    /// Removes all batches.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        self.known.clear();
        let (counts, folder) = (self.counts(), self.fd.as_fd());
        let names = files::list(counts, folder).map_err(publish("reading the folder"))?;
        for name in names.iter().filter(|name| key_of(name).is_some()) {
            match files::unlink_in(counts, folder, name, false) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // What is no file is in nobody's way until its place is needed.
                Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {}
                result => result.map_err(publish("removing a file"))?,
            }
        }
        Ok(())
    }
}

/// A folder that only this user may enter, made if it was not there.
fn private_folder(path: &Path, user: u32, counts: &Counts) -> Result<OwnedFd, Error> {
    let failed = |error| Error::Folder { path: path.into(), error };
    files::make_folder(counts, path).map_err(failed)?;
    let fd = files::open_folder(counts, path).map_err(failed)?;
    let stat = sys::stat(counts, fd.as_fd()).map_err(failed)?;
    let mode = files::permissions(&stat);
    if stat.st_uid != user {
        return Err(Error::ForeignFolder { path: path.into(), owner: stat.st_uid });
    }
    if mode & 0o777 != 0o700 {
        return Err(Error::OpenFolder { path: path.into(), mode });
    }
    Ok(fd)
}

fn publish(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Publish { what, error }
}

/// The name of a batch's file.
struct Name([u8; HEX + BATCH.len() + 1]);

impl Name {
    fn of(root: &Key) -> Name {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = [0; HEX + BATCH.len() + 1];
        for (pair, byte) in name.chunks_exact_mut(2).zip(root.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        name[HEX..HEX + BATCH.len()].copy_from_slice(BATCH);
        Name(name)
    }

    fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// A name that nothing has. Processes in containers that share the folder have the same numbers,
/// and what dead ones left must be in nobody's way; a child of fork has its parent's seed.
fn unique(root: &Key, ending: &[u8]) -> CString {
    let random = RandomState::new().hash_one(std::process::id());
    let mut name = format!("{root}.{random:016x}").into_bytes();
    name.extend_from_slice(ending);
    CString::new(name).unwrap_or_default()
}

/// Whether a name is of our making.
fn is_ours(name: &CStr, ending: &[u8]) -> bool {
    let name = name.to_bytes();
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.ends_with(ending)
        && name.get(..HEX).is_some_and(|key| key.iter().all(hex))
        && name[HEX] == b'.'
}

fn key_of(name: &CStr) -> Option<Key> {
    if !is_ours(name, BATCH) || name.count_bytes() != HEX + BATCH.len() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(name.to_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_when_no_change_of_it_could_show_its_time() {
        let shows = |changed: (i64, u64), now: Duration| {
            let [device, number, len, links] = [1; 4];
            let (owner, mode, modified) = (0, 0o100_400, changed);
            let facts = Facts { device, number, len, modified, changed, owner, mode, links };
            facts.would_show(now)
        };
        let at = |seconds: u64, milliseconds: u32| Duration::new(seconds, milliseconds * 1_000_000);
        assert!(!shows((100, 5_000_000), at(100, 24)));
        assert!(shows((100, 5_000_000), at(100, 26)));
        // A clock of whole seconds: all of this one, and the next, may be the same to it.
        assert!(!shows((100, 0), at(100, 26)));
        assert!(!shows((100, 0), at(101, 999)));
        assert!(shows((100, 0), at(102, 1)));
        // A clock that was set back.
        assert!(!shows((100, 1), at(99, 0)));
        assert!(!shows((-5, 1), at(0, 0)));
    }
}
