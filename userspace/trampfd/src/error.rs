//! Why something could not be had.

use std::fmt;
use std::io;

/// What makes the stubs behind closures.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The kernel service: stubs and their values in pages that only the kernel writes.
    Kernel,
    /// Stubs in the program's own text, values in ordinary memory.
    Text,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Kernel => "kernel service",
            Backend::Text => "static text",
        })
    }
}

/// Why the kernel service cannot be used: three kinds of no, and what to do about each.
#[non_exhaustive]
#[derive(Debug)]
pub enum Unavailable {
    /// There is no `/dev/trampfd`: the module is not loaded, or /dev is not populated here.
    NotPresent,
    /// The device is there, but the service behind it is switched off or gone: the module's
    /// parameter `enabled` is 0, or only the device node is left.
    SwitchedOff,
    /// This process may not open the device (file mode, cgroup or a security module).
    NotPermitted(io::Error),
    /// `/dev` is mounted noexec, so nothing of it can be mapped executable.
    NoexecMount,
    /// A security module or seccomp filter refuses the mapping or the calls.
    Lsm(io::Error),
    /// The process has been sealed: it gets no further tables.
    Sealed,
    /// The service accepts no text of this program as a target: it was started from a memfd that
    /// can still be written, its file is open for writing, or it moved its text to anonymous
    /// memory.
    OwnText,
    /// The module speaks another version of the contract, which is given.
    Version(u32),
    /// The limit of the user or of the cgroup is reached.
    Limit(io::Error),
    /// Something else; the error says what.
    Failed(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::NotPresent => {
                f.write_str("there is no /dev/trampfd here (is the module loaded?)")
            }
            Unavailable::SwitchedOff => {
                f.write_str("the service behind /dev/trampfd is switched off")
            }
            Unavailable::NotPermitted(_) => f.write_str("/dev/trampfd may not be opened"),
            Unavailable::NoexecMount => {
                f.write_str("/dev/trampfd lies on a mount with the option noexec")
            }
            Unavailable::Lsm(_) => {
                f.write_str("a security policy refuses to map /dev/trampfd executable")
            }
            Unavailable::Sealed => f.write_str("this process is sealed"),
            Unavailable::OwnText => f.write_str(
                "the service does not accept this program's text as a target: its file can be \
                 written, or the text is not a file's",
            ),
            Unavailable::Version(v) => {
                write!(f, "the module speaks version {v} of the contract, which is not known here")
            }
            Unavailable::Limit(_) => f.write_str("a limit of the kernel service is reached"),
            Unavailable::Failed(_) => f.write_str("/dev/trampfd does not work"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unavailable::NotPermitted(e)
            | Unavailable::Lsm(e)
            | Unavailable::Limit(e)
            | Unavailable::Failed(e) => Some(e),
            _ => None,
        }
    }
}

/// Why a closure could not be made, or a seal not be set.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The function to be called does not lie in text: in an executable, not writable segment of
    /// a loaded object, or, with the kernel service, in what its policy accepts.
    NotText {
        /// The function's address.
        code: usize,
    },
    /// No stub can load this register.
    Register {
        /// Its DWARF number.
        reg: u16,
    },
    /// There is no stub at this address.
    NoStub {
        /// The address.
        address: usize,
    },
    /// The process is sealed and no prewarmed closure of this kind is left.
    Sealed,
    /// This backend was required and is not to be had.
    Unavailable {
        /// Which.
        backend: Backend,
        /// Why not.
        reason: Unavailable,
    },
    /// The static tables could not be extended.
    Growth {
        /// Why the table in memory could not be duplicated; `None` if that was not tried.
        duplicate: Option<io::Error>,
        /// Why the program's own file could not be mapped again; `None` if that was not tried.
        file: Option<io::Error>,
    },
    /// What was asked for is not something that this backend can do.
    Unsupported {
        /// The backend.
        backend: Backend,
        /// What it cannot do.
        what: &'static str,
    },
    /// No memory, or the memory limit of the cgroup is reached.
    NoMemory,
    /// The user's limit of views or pages of the kernel service is reached.
    Quota,
    /// The kernel service refused a call.
    Service {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotText { code } => {
                write!(f, "{code:#x} does not lie in text that a trampoline may jump to")
            }
            Error::Register { reg } => {
                write!(f, "no trampoline can load the register with DWARF number {reg}")
            }
            Error::NoStub { address } => write!(f, "there is no trampoline at {address:#x}"),
            Error::Sealed => {
                f.write_str("the process is sealed and no prewarmed closure of this kind is left")
            }
            Error::Unavailable { backend, .. } => write!(f, "the {backend} is not to be had"),
            Error::Growth { .. } => f.write_str(
                "the static trampoline tables could not be extended, neither by a duplicate of \
                 the table in memory nor from the program's own file",
            ),
            Error::Unsupported { backend, what } => write!(f, "the {backend} cannot {what}"),
            Error::NoMemory => f.write_str("no memory, or the cgroup's memory limit is reached"),
            Error::Quota => f.write_str("the user's limit of trampolines is reached"),
            Error::Service { call, .. } => write!(f, "the kernel service refused {call}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unavailable { reason, .. } => Some(reason),
            Error::Growth { duplicate, file } => {
                file.as_ref().or(duplicate.as_ref()).map(|e| e as _)
            }
            Error::Service { source, .. } => Some(source),
            _ => None,
        }
    }
}
