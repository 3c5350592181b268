//! What this system allows, found out by trying, and where each answer comes from.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::file::{Opened, unlinked};
use super::{Attempt, CodeFile, Error, Meter, Options, Source, Write, page_size};
use crate::sys::{self, At, Prot};

/// What a [`Fact`] is about.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// PR_SET_MDWE: memory that is or was writable may not become executable (Linux 6.3).
    Mdwe,
    /// vm.memfd_noexec of the pid namespace (Linux 6.3): 2 forbids MFD_EXEC.
    MemfdNoexec,
    /// The seccomp mode of this thread: 0 none, 1 strict, 2 filters.
    Seccomp,
    /// Whether SELinux enforces its policy.
    Selinux,
    /// The label under which a security module runs this thread.
    Label,
    /// /proc can be read.
    Proc,
    /// A private page of memory that is writable and executable. This library never makes one;
    /// it is asked in a way that makes none either.
    WritableExecutable,
    /// A private page that was writable, made executable.
    BecomesExecutable,
    /// A shared, executable view of a file from this source: what [`CodeFile`] needs.
    Code(Source),
    /// A private, executable view of a file in this folder: what [`cache`](crate::cache) needs.
    FileCode(PathBuf),
    /// Sealing pages (mseal(2), Linux 6.10).
    Mseal,
    /// Keeping pages from children of fork (MADV_DONTFORK).
    DontFork,
    /// Pages that children of fork find empty (MADV_WIPEONFORK, Linux 4.14).
    WipeOnFork,
}

/// What was found out.
#[non_exhaustive]
#[derive(Debug)]
pub enum State {
    /// It was tried, and works.
    Allowed,
    /// Pages can be had, but no descriptor that only reads them: code is written through an
    /// alias ([`Write::Alias`]).
    AliasOnly,
    /// It was tried, and refused.
    Refused {
        /// At which step.
        step: &'static str,
        /// The answer.
        error: io::Error,
    },
    /// What it is set to.
    Value(String),
    /// It could not be found out.
    Unknown(io::Error),
}

/// One thing that was found out, and how.
#[derive(Debug)]
pub struct Fact {
    /// What it is about.
    pub subject: Subject,
    /// What was found out.
    pub state: State,
    /// Where the answer comes from: a system call, or a file.
    pub source: String,
}

/// What this system allows this process; see [`report`]. Displays as a table.
#[derive(Debug)]
pub struct Report {
    facts: Vec<Fact>,
    anonymous: Result<Source, Error>,
    without_alias: Result<Source, Error>,
}

impl Report {
    /// All facts.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What was found out about `subject`, if that was asked.
    pub fn state(&self, subject: &Subject) -> Option<&State> {
        self.facts.iter().find(|fact| fact.subject == *subject).map(|fact| &fact.state)
    }

    /// Code that is in no file with a path can be had, and from where: everything in this crate
    /// but [`cache`](crate::cache) needs it.
    ///
    /// # Errors
    ///
    /// What [`CodeFile::new`] says with usual options.
    pub fn anonymous_code(&self) -> Result<&Source, &Error> {
        self.anonymous.as_ref()
    }

    /// The same without a writable alias ([`Write::Pwrite`]).
    ///
    /// # Errors
    ///
    /// What [`CodeFile::new`] says with that option.
    pub fn code_without_alias(&self) -> Result<&Source, &Error> {
        self.without_alias.as_ref()
    }

    /// The first of the usual folders from whose files code can be mapped privately. Others may
    /// do, too.
    pub fn file_code(&self) -> Option<&Path> {
        self.facts.iter().find_map(|fact| match (&fact.subject, &fact.state) {
            (Subject::FileCode(folder), State::Allowed) => Some(folder.as_path()),
            _ => None,
        })
    }
}

/// Finds out what this system allows this process, and this thread, by trying. What is made for
/// that is gone when it returns: pages, memfds, and files which for a moment have a name in the
/// folders of [`Source::usual`]. Nothing becomes writable and executable at any time. It takes
/// some hundred system calls: for logs and bug reports, not for each start. A seccomp filter that
/// kills for what it forbids kills for asking, too.
pub fn report() -> Report {
    let meter = Meter::new();
    let mut facts = vec![
        mdwe(&meter),
        memfd_noexec(&meter),
        seccomp(&meter),
        text(Subject::Selinux, "/sys/fs/selinux/enforce", &meter),
        text(Subject::Label, "/proc/thread-self/attr/current", &meter),
        tried(Subject::Proc, "/proc/self/status", "read", || {
            sys::read_text(meter.counts(), Path::new("/proc/self/status")).map(drop)
        }),
    ];
    facts.extend(pages(&meter));
    let sources = Source::usual();
    facts.extend(sources.iter().map(|source| code(source, &meter)));
    facts.extend(sources.iter().filter_map(|source| match source {
        Source::Folder(folder) => Some(file_code(folder, &meter)),
        _ => None,
    }));
    let source = |write| {
        let options = Options { write, ..Options::default() };
        CodeFile::new(1, &options, &meter).map(|file| file.source().clone())
    };
    Report { facts, anonymous: source(Write::Any), without_alias: source(Write::Pwrite) }
}

fn tried(
    subject: Subject,
    source: impl Into<String>,
    step: &'static str,
    attempt: impl FnOnce() -> io::Result<()>,
) -> Fact {
    let state = match attempt() {
        Ok(()) => State::Allowed,
        Err(error) => State::Refused { step, error },
    };
    Fact { subject, state, source: source.into() }
}

fn text(subject: Subject, path: &str, meter: &Meter) -> Fact {
    let state = match sys::read_text(meter.counts(), Path::new(path)) {
        Ok(text) => State::Value(text.trim_matches(['\n', '\0']).into()),
        Err(error) => State::Unknown(error),
    };
    Fact { subject, state, source: path.into() }
}

fn memfd_noexec(meter: &Meter) -> Fact {
    text(Subject::MemfdNoexec, "/proc/sys/vm/memfd_noexec", meter)
}

fn mdwe(meter: &Meter) -> Fact {
    let state = match sys::mdwe(meter.counts()) {
        Ok(bits) => State::Value(bits.to_string()),
        Err(error) => State::Unknown(error),
    };
    Fact { subject: Subject::Mdwe, state, source: "prctl(PR_GET_MDWE)".into() }
}

/// Not by prctl(PR_GET_SECCOMP): a filter may kill for it.
fn seccomp(meter: &Meter) -> Fact {
    let mut fact = text(Subject::Seccomp, "/proc/thread-self/status", meter);
    if let State::Value(status) = &fact.state {
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        fact.state = match mode {
            Some(mode) => State::Value(mode.trim().into()),
            None => State::Unknown(io::Error::other("the kernel does not say")),
        };
    }
    fact
}

/// What can be done with private pages.
fn pages(meter: &Meter) -> Vec<Fact> {
    let (counts, len) = (meter.counts(), page_size());
    let new = || {
        // SAFETY: new pages, nothing is replaced.
        unsafe { sys::map_nothing(counts, At::Anywhere, len, Prot::ReadWrite) }
    };
    let with = |act: &dyn Fn(*mut u8) -> io::Result<()>| {
        let page = new()?;
        let answer = act(page);
        // SAFETY: the page that was made above, which nobody else knows.
        unsafe { sys::unmap(counts, page, len) }?;
        answer
    };
    vec![
        tried(
            Subject::WritableExecutable,
            "mmap(PROT_WRITE|PROT_EXEC) where there is no room, prctl(PR_GET_MDWE)",
            "map RWX",
            || {
                // SAFETY: the page is mapped.
                with(&|page| unsafe { sys::ask_for_writable_code(counts, page) })?;
                match sys::mdwe(counts) {
                    Ok(bits) if bits != 0 => Err(io::Error::from_raw_os_error(libc::EACCES)),
                    _ => Ok(()),
                }
            },
        ),
        tried(Subject::BecomesExecutable, "mprotect(PROT_EXEC)", "RW to R-X", || {
            // SAFETY: a page that nobody uses.
            with(&|page| unsafe { sys::protect(counts, page, len, Prot::ReadExecute) })
        }),
        tried(Subject::Mseal, "mseal of no pages", "mseal", || {
            // SAFETY: of length 0: nothing is sealed.
            with(&|page| unsafe { sys::seal_pages(counts, page, 0) })
        }),
        tried(Subject::DontFork, "madvise(MADV_DONTFORK)", "madvise", || {
            // SAFETY: a page that nobody uses.
            with(&|page| unsafe { sys::keep_from_children(counts, page, len) })
        }),
        tried(Subject::WipeOnFork, "madvise(MADV_WIPEONFORK)", "madvise", || {
            // SAFETY: a page that nobody uses.
            with(&|page| unsafe { sys::wipe_in_children(counts, page, len) })
        }),
    ]
}

fn code(source: &Source, meter: &Meter) -> Fact {
    let state = match Opened::new(source, page_size(), meter) {
        Ok(Opened { read: Some(_), .. }) => State::Allowed,
        Ok(_) => State::AliasOnly,
        Err(Attempt { step, error, .. }) => State::Refused { step, error },
    };
    let how = match source {
        Source::Folder(_) => "open, unlink, mmap(PROT_EXEC, MAP_SHARED)",
        _ => "memfd_create, mmap(PROT_EXEC, MAP_SHARED)",
    };
    Fact { subject: Subject::Code(source.clone()), state, source: how.into() }
}

fn file_code(folder: &Path, meter: &Meter) -> Fact {
    let (counts, len) = (meter.counts(), page_size());
    let mut step = "create";
    let mut attempt = || {
        let (write, read) = unlinked(folder, meter)?;
        step = "size";
        sys::set_len(counts, write.as_made(), len as u64)?;
        step = "map R-X";
        let (at, prot) = (At::Anywhere, Prot::ReadExecute);
        // SAFETY: new pages that nobody else knows.
        unsafe {
            let page = sys::map_file(counts, at, len, prot, false, read.as_fd(), 0)?;
            sys::unmap(counts, page, len)
        }
    };
    let state = match attempt() {
        Ok(()) => State::Allowed,
        Err(error) => State::Refused { step, error },
    };
    Fact {
        subject: Subject::FileCode(folder.into()),
        state,
        source: "open, unlink, mmap(PROT_EXEC, MAP_PRIVATE)".into(),
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Subject::Mdwe => "PR_SET_MDWE",
            Subject::MemfdNoexec => "vm.memfd_noexec",
            Subject::Seccomp => "seccomp mode",
            Subject::Selinux => "SELinux enforcing",
            Subject::Label => "security label",
            Subject::Proc => "/proc",
            Subject::WritableExecutable => "memory that is writable and executable",
            Subject::BecomesExecutable => "memory that was writable, executable",
            Subject::Code(source) => return write!(f, "code in a {source}"),
            Subject::FileCode(folder) => {
                return write!(f, "code mapped from files in {}", folder.display());
            }
            Subject::Mseal => "sealing pages",
            Subject::DontFork => "pages kept from children",
            Subject::WipeOnFork => "pages empty in children",
        };
        f.write_str(text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Allowed => f.write_str("allowed"),
            State::AliasOnly => f.write_str("allowed, through an alias only"),
            State::Refused { step, error } => write!(f, "refused: {step}: {error}"),
            State::Value(value) => f.write_str(value),
            State::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 3]> = self
            .facts
            .iter()
            .map(|fact| [fact.subject.to_string(), fact.state.to_string(), fact.source.clone()])
            .collect();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (subjects, states) = (width(0), width(1));
        for [subject, state, source] in &rows {
            writeln!(f, "{subject:subjects$}  {state:states$}  [{source}]")?;
        }
        for (what, answer) in [
            ("code made at run time", self.anonymous_code()),
            ("the same without an alias", self.code_without_alias()),
        ] {
            match answer {
                Ok(source) => writeln!(f, "{what}: yes, {source}")?,
                Err(error) => writeln!(f, "{what}: no: {error}")?,
            }
        }
        match self.file_code() {
            Some(folder) => write!(f, "code from files: yes, in {}", folder.display()),
            None => f.write_str("code from files: in none of these folders"),
        }
    }
}
