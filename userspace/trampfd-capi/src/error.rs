//! Errors as C sees them: a code, and for this thread's last one a sentence.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char};

use trampfd::{Error, TypeError};

/// What failed, as it is kept for the thread.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the caller passed is none of what it may be.
    Invalid(&'static str),
    /// A closure could not be made, or what else the library says.
    Closure(Error),
    /// There is no such type or signature.
    Type(TypeError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Closure(error)
    }
}

impl From<TypeError> for Failure {
    fn from(error: TypeError) -> Failure {
        Failure::Type(error)
    }
}

/// Every code, at its place, with what it means. The header lists them by name.
const MEANING: [&CStr; 19] = [
    c"no error",
    c"an argument is null, or no such backend or type",
    c"the function lies in no text that a trampoline may jump to",
    c"no trampoline can load this register",
    c"there is no closure at this address",
    c"the process is sealed",
    c"this backend is not to be had here",
    c"the static tables of trampolines could not be extended",
    c"this backend cannot do that",
    c"no memory, or a memory limit is reached",
    c"the user's limit of trampolines is reached",
    c"the kernel service refused a call",
    c"a structure, union or array has no bytes",
    c"void is neither an argument nor a part of a structure",
    c"an array is neither an argument nor a result",
    c"a structure is packed, or aligned to more than its parts are",
    c"the type or all arguments together are too large for a call",
    c"a structure has too many levels of others",
    c"an error that this interface has no code for",
];

/// `TRAMPFD_ERROR_OTHER`.
const OTHER: i32 = MEANING.len() as i32 - 1;

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Failure::Invalid(_) => 1,
            Failure::Closure(error) => match error {
                Error::NotText { .. } => 2,
                Error::Register { .. } => 3,
                Error::NoStub { .. } => 4,
                Error::Sealed => 5,
                Error::Unavailable { .. } => 6,
                Error::Growth { .. } => 7,
                Error::Unsupported { .. } => 8,
                Error::NoMemory => 9,
                Error::Quota => 10,
                Error::Service { .. } => 11,
                _ => OTHER,
            },
            Failure::Type(error) => match error {
                TypeError::ZeroSized => 12,
                TypeError::Void => 13,
                TypeError::Array => 14,
                TypeError::Alignment => 15,
                TypeError::TooLarge => 16,
                TypeError::TooDeep => 17,
                _ => OTHER,
            },
        }
    }

    /// The whole sentence: the error, and what it comes from.
    fn sentence(&self) -> String {
        match self {
            Failure::Invalid(what) => (*what).to_owned(),
            Failure::Type(error) => error.to_string(),
            Failure::Closure(error) => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(error) = source {
                    text += ": ";
                    text += &error.to_string();
                    source = error.source();
                }
                text
            }
        }
    }
}

thread_local! {
    static CODE: Cell<i32> = const { Cell::new(0) };
    static DETAIL: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Keeps a failure as this thread's last, and gives its code.
#[cold]
pub(crate) fn keep(failure: &Failure) -> i32 {
    let code = failure.code();
    CODE.set(code);
    // No sentence of ours has a zero in it. In a thread that is at its end only the code is kept.
    let text = CString::new(failure.sentence()).unwrap_or_default();
    let _ = DETAIL.try_with(|detail| detail.replace(Some(text)));
    code
}

/// What a function gives that answers with a code.
pub(crate) fn code(result: Result<(), Failure>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(failure) => keep(&failure),
    }
}

/// What a code means.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_strerror(error: i32) -> *const c_char {
    let meaning = usize::try_from(error).ok().and_then(|n| MEANING.get(n));
    meaning.unwrap_or(&c"there is no such code").as_ptr()
}

/// The code of this thread's last failure.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_last_error() -> i32 {
    CODE.get()
}

/// The sentence of this thread's last failure.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_detail() -> *const c_char {
    DETAIL
        .try_with(|detail| detail.borrow().as_ref().map(|text| text.as_ptr()))
        .ok()
        .flatten()
        .unwrap_or(c"".as_ptr())
}
