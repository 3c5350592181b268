//! What is run and what is expected, as tables.

use crate::kinds::{KINDS, Kind};
use crate::policy::POLICIES;

/// Where growing works.
pub const GREW: &str = "grew";

/// Backends and ways of growing that each scenario is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Static text, by a duplicate in memory alone.
    Duplicate,
    /// Static text, from the file alone.
    File,
    /// Static text, as it likes.
    Text,
    /// The kernel service.
    Kernel,
    /// What there is.
    Auto,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Duplicate => "text, duplicate",
            Way::File => "text, file",
            Way::Text => "text",
            Way::Kernel => "kernel",
            Way::Auto => "any backend",
        }
    }

    /// Arguments of the subject.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Way::Duplicate => &["--backend", "text", "--growth", "duplicate"],
            Way::File => &["--backend", "text", "--growth", "file"],
            Way::Text => &["--backend", "text"],
            Way::Kernel => &["--backend", "kernel"],
            Way::Auto => &[],
        }
    }
}

/// Something that happens in the life of a process. `{dir}` is a folder of the run, in which the
/// subject lies; see `run.rs` for what else is there.
#[derive(Clone, Copy, Debug)]
struct Life {
    name: &'static str,
    /// As [`crate::policy::launch`] says; `relative`: as `./subject` in its folder.
    start: &'static str,
    event: &'static str,
    /// What is said where growth is by duplicate alone, by file alone, by any.
    duplicate: &'static str,
    file: &'static str,
    text: &'static str,
    /// What is said with the kernel service; "" where that is not asked.
    kernel: &'static str,
    /// Text needs what only a whole system has: a C library to load, /dev/fd.
    host_only: bool,
}

/// Nothing happens, everything works.
const QUIET: Life = Life {
    name: "a quiet life",
    start: "direct",
    event: "",
    duplicate: GREW,
    file: GREW,
    text: GREW,
    kernel: GREW,
    host_only: false,
};
/// The file is not to be had any more.
const FILE_GONE: Life = Life { file: "growth duplicate=- file=ENOENT", ..QUIET };
/// Where the file was there is another one.
const FILE_OTHER: Life = Life {
    file: "growth duplicate=- file=(the program's file is not the one that was loaded)",
    ..QUIET
};
/// Text that mremap(2) may not touch.
const MSEAL: Life = Life { duplicate: "growth duplicate=EPERM file=-", ..QUIET };

const PROGRAM_LIVES: &[Life] = &[
    QUIET,
    Life { name: "fork in mid-life, parent and child go on", event: "fork", ..QUIET },
    Life {
        name: "all fds closed and taken by a data file",
        event: "close-fds={dir}/data",
        ..QUIET
    },
    Life {
        name: "all fds closed and taken by an executable data file",
        event: "close-fds={dir}/executable-data",
        ..QUIET
    },
    Life { name: "program deleted", event: "delete", ..FILE_GONE },
    Life { name: "program replaced by a copy", event: "same", ..QUIET },
    Life { name: "program replaced by another of its length", event: "replace", ..FILE_OTHER },
    Life { name: "program replaced by a short file", event: "shorten", ..FILE_OTHER },
    Life { name: "program replaced by a fifo", event: "fifo", ..FILE_OTHER },
    Life { name: "chdir after an absolute start", event: "chdir=/", ..QUIET },
    Life { name: "relative start", start: "relative", ..QUIET },
    Life { name: "chdir after a relative start", start: "relative", event: "chdir=/", ..FILE_GONE },
    Life {
        name: "chdir after a relative start, to where a file has that name",
        start: "relative",
        event: "chdir={dir}/elsewhere",
        ..FILE_OTHER
    },
    Life { name: "chroot in mid-life", event: "chroot={dir}/elsewhere", ..FILE_GONE },
    // The loader of the C library knows the name of what it was told to start.
    Life { name: "started by the loader", start: "loader", kernel: "", host_only: true, ..QUIET },
    Life {
        name: "started by a user whose program it is not (set-uid)",
        start: "set-uid",
        file: "growth duplicate=- file=(a set-uid program does not trust the path that it was \
               started by)",
        ..QUIET
    },
    Life {
        name: "started from a memfd",
        start: "memfd",
        // Nothing tells that nobody writes to its text.
        kernel: "NotText",
        ..FILE_GONE
    },
    Life { name: "started from a sealed memfd", start: "memfd-sealed", ..FILE_GONE },
    Life {
        name: "started from a memfd that stays open",
        start: "memfd-open",
        // A writable fd of the text is still there.
        kernel: "NotText",
        host_only: true,
        ..QUIET
    },
    Life {
        name: "started from a memfd, whose fd a data file takes",
        start: "memfd-open",
        event: "close-fds={dir}/data",
        kernel: "NotText",
        host_only: true,
        ..FILE_OTHER
    },
    Life { name: "no free fd", event: "no-fd", file: "growth duplicate=- file=EMFILE", ..QUIET },
    Life {
        name: "three fds at most",
        event: "three-fds",
        file: "growth duplicate=- file=EMFILE",
        ..QUIET
    },
    Life {
        name: "no address space",
        event: "no-memory",
        // Slots of signatures known at run time need memory of their own.
        duplicate: "growth duplicate=ENOMEM file=-, NoMemory",
        file: "growth duplicate=- file=ENOMEM, NoMemory",
        text: "growth duplicate=ENOMEM file=-, NoMemory",
        // Its tables are kept in memory that a program cannot run out of and go on.
        kernel: "",
        ..QUIET
    },
    Life { name: "text under mseal", event: "mseal", ..MSEAL },
    Life {
        name: "text under mseal, program deleted",
        event: "mseal,delete",
        file: "growth duplicate=- file=ENOENT",
        text: "growth duplicate=EPERM file=ENOENT",
        ..MSEAL
    },
];

const LIBRARY_LIVES: &[Life] = &[
    QUIET,
    Life { name: "library deleted", event: "delete", ..FILE_GONE },
    Life { name: "library replaced by a copy", event: "same", ..QUIET },
    Life { name: "library replaced by another of its length", event: "replace", ..FILE_OTHER },
    Life { name: "library replaced by a fifo", event: "fifo", ..FILE_OTHER },
    Life {
        name: "library loaded by a relative name, then chdir",
        start: "relative",
        event: "chdir=/",
        ..FILE_GONE
    },
    Life { name: "text under mseal", event: "mseal", ..MSEAL },
    Life { name: "fork in mid-life, parent and child go on", event: "fork", ..QUIET },
];

/// Controls: these must end with the status given, or the matrix cannot see what it is there to
/// see.
const CONTROLS: [(&str, &str, &str, i32); 4] = [
    ("a wrong expectation is seen", "", "something else", 2),
    ("a wrong answer is seen", "lie", GREW, 3),
    ("a writable and executable mapping is seen", "writable-text", GREW, 4),
    ("an event that fails is seen", "close-fds={dir}/nothing", GREW, 5),
];

/// One run of the subject.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub kind: &'static str,
    pub policy: &'static str,
    pub start: &'static str,
    pub event: &'static str,
    pub way: Way,
    pub expect: &'static str,
    pub status: i32,
}

impl Run {
    fn new(kind: &'static str, way: Way) -> Run {
        Run {
            name: String::new(),
            kind,
            policy: "none",
            start: "direct",
            event: "",
            way,
            expect: GREW,
            status: 0,
        }
    }
}

const TEXT_WAYS: [Way; 3] = [Way::Duplicate, Way::File, Way::Text];

fn life(life: &Life, kind: &'static str, way: Way) -> Run {
    Run {
        name: format!("life: {}: {kind}, {}", life.name, way.name()),
        start: life.start,
        event: life.event,
        expect: match way {
            Way::Duplicate => life.duplicate,
            Way::File => life.file,
            Way::Text | Way::Auto => life.text,
            Way::Kernel => life.kernel,
        },
        ..Run::new(kind, way)
    }
}

fn policy(policy: &'static str, kind: &'static str, way: Way) -> Run {
    Run {
        name: format!("policy {policy}: {kind}, {}", way.name()),
        policy,
        expect: match (way, policy) {
            (Way::Kernel, "chroot") => "unavailable NotPresent",
            (Way::Kernel, "noexec-dev") => "unavailable NoexecMount",
            _ => GREW,
        },
        ..Run::new(kind, way)
    }
}

fn controls(kind: &'static str, way: Way) -> impl Iterator<Item = Run> {
    CONTROLS.iter().map(move |&(name, event, expect, status)| Run {
        name: format!("control: {name}: {kind}, {}", way.name()),
        event,
        expect,
        status,
        ..Run::new(kind, way)
    })
}

/// The matrix of this machine: static text.
pub fn host() -> Vec<Run> {
    let mut runs: Vec<Run> = controls("pie", Way::Text).collect();
    for Kind { name, .. } in &KINDS {
        runs.extend(TEXT_WAYS.map(|way| Run {
            name: format!("link kind {name}: {}", way.name()),
            ..Run::new(name, way)
        }));
    }
    for name in POLICIES {
        for kind in ["pie", "static", "static-pie", "cdylib"] {
            runs.extend(TEXT_WAYS.map(|way| policy(name, kind, way)));
        }
    }
    for kind in ["pie", "static-pie"] {
        // The loader of the C library starts no static program.
        let lives = PROGRAM_LIVES.iter().filter(|l| kind == "pie" || l.start != "loader");
        runs.extend(lives.flat_map(|l| TEXT_WAYS.map(|way| life(l, kind, way))));
    }
    runs.extend(LIBRARY_LIVES.iter().flat_map(|l| TEXT_WAYS.map(|way| life(l, "cdylib", way))));
    runs
}

/// The matrix of a machine that has nothing but static programs, on the backends that it is told
/// to have.
pub fn machine(backends: &[&str]) -> Vec<Run> {
    const KIND: &str = "static-pie";
    let kernel = backends.contains(&"kernel");
    let mut ways: Vec<Way> = Vec::new();
    if backends.contains(&"text") {
        ways.extend(TEXT_WAYS);
    }
    if kernel {
        ways.extend([Way::Kernel, Way::Auto]);
    }
    let mut runs: Vec<Run> = Vec::new();
    for &way in ways.iter().filter(|way| matches!(way, Way::Text | Way::Kernel)) {
        runs.extend(controls(KIND, way));
    }
    for name in POLICIES {
        runs.extend(ways.iter().map(|&way| policy(name, KIND, way)));
    }
    for l in PROGRAM_LIVES {
        runs.extend(ways.iter().filter_map(|&way| match way {
            // What there is, is the kernel service, which is asked by itself.
            Way::Auto => None,
            Way::Kernel => (!l.kernel.is_empty()).then(|| life(l, KIND, way)),
            _ => (!l.host_only).then(|| life(l, KIND, way)),
        }));
    }
    runs
}
