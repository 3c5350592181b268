//! Raw closures: their functions get the arguments as words in a row instead of pointers.
//!
//! | | libffi's raw words | Java's |
//! |---|---|---|
//! | integers of up to 32 bits | extended to one word | the same |
//! | 64 bits, `double` | one word | one word, and one unused behind it |
//! | `float` | the low half of one word | the same |
//! | pointer | one word | one word |
//! | structure, complex number | its address | none: refused when the closure is prepared |
//! | other | as many words as it needs | the same |
//!
//! In between stands a function that translates. libffi gives it the closure's code address to
//! find the closure by, which is right only where both are one; here it gets the closure's own.

use core::ffi::c_void;
use core::ptr::{addr_of_mut, copy_nonoverlapping};

use crate::closure::prep;
use crate::ffi::{self, Cif, Fun, RawClosure, RawFun, Status, Type, Word};

/// # Safety
///
/// As for `ffi_prep_raw_closure_loc`, with the closure as its own code address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_raw_closure(
    closure: *mut RawClosure,
    cif: *const Cif,
    fun: Option<RawFun>,
    user_data: *mut (),
) -> Status {
    // SAFETY: by the contract.
    unsafe { ffi_prep_raw_closure_loc(closure, cif, fun, user_data, closure.cast()) }
}

/// # Safety
///
/// `closure` is a `ffi_raw_closure` of the caller, `cif` was prepared, and both live until the
/// closure is called for the last time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_raw_closure_loc(
    closure: *mut RawClosure,
    cif: *const Cif,
    fun: Option<RawFun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract.
    unsafe { prep_raw(closure, cif, fun, user_data, codeloc, translate::<Plain>) }
}

/// # Safety
///
/// As for `ffi_prep_java_raw_closure_loc`, with the closure as its own code address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_java_raw_closure(
    closure: *mut RawClosure,
    cif: *const Cif,
    fun: Option<RawFun>,
    user_data: *mut (),
) -> Status {
    // SAFETY: by the contract.
    unsafe { ffi_prep_java_raw_closure_loc(closure, cif, fun, user_data, closure.cast()) }
}

/// `FFI_BAD_ARGTYPE` where an argument is a structure, a complex number or a `long double`, which
/// Java does not have: libffi ends the process at the first call.
///
/// # Safety
///
/// As for `ffi_prep_raw_closure_loc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_prep_java_raw_closure_loc(
    closure: *mut RawClosure,
    cif: *const Cif,
    fun: Option<RawFun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract, prepared.
    let known = unsafe { (*cif).arguments().all(|kind| Java::knows(kind.code)) };
    if !known {
        return Status::BadArgtype;
    }
    // SAFETY: by the contract.
    unsafe { prep_raw(closure, cif, fun, user_data, codeloc, translate::<Java>) }
}

/// # Safety
///
/// As for `ffi_prep_raw_closure_loc`; `translate` is [`translate`].
unsafe fn prep_raw(
    closure: *mut RawClosure,
    cif: *const Cif,
    fun: Option<RawFun>,
    user_data: *mut (),
    codeloc: *const c_void,
    translate: Fun,
) -> Status {
    // SAFETY: by the contract; a raw closure begins with a closure.
    unsafe {
        let inner = addr_of_mut!((*closure).closure);
        let status = prep(inner, cif, Some(translate), closure.cast(), codeloc);
        if status == Status::Ok {
            (*closure).fun = fun;
            (*closure).user_data = user_data;
        }
        status
    }
}

/// How arguments become words.
trait Packing {
    /// Whether an argument of this type can be packed.
    fn knows(code: u16) -> bool;

    /// Words of an argument.
    fn words(kind: &Type) -> usize;
}

struct Plain;

impl Packing for Plain {
    fn knows(_code: u16) -> bool {
        true
    }

    fn words(kind: &Type) -> usize {
        match kind.code {
            ffi::STRUCT | ffi::COMPLEX => 1,
            _ => kind.size.div_ceil(size_of::<Word>()),
        }
    }
}

struct Java;

impl Packing for Java {
    fn knows(code: u16) -> bool {
        matches!(code, ffi::UINT8..=ffi::SINT64 | ffi::FLOAT | ffi::DOUBLE | ffi::POINTER)
    }

    fn words(kind: &Type) -> usize {
        match kind.code {
            ffi::UINT64 | ffi::SINT64 | ffi::DOUBLE => 2,
            _ => 1,
        }
    }
}

/// Words that need no memory but the stack.
const FEW: usize = 32;

/// The function of the inner closure.
///
/// # Safety
///
/// `data` is the raw closure, prepared for `cif`; result and arguments are those of such a call.
unsafe extern "C-unwind" fn translate<P: Packing>(
    cif: *const (),
    result: *mut u8,
    args: *const *mut u8,
    data: *mut (),
) {
    let (cif, closure) = (cif.cast::<Cif>(), data.cast::<RawClosure>());
    // SAFETY: by the contract.
    unsafe {
        let count = (*cif).arguments().map(P::words).sum::<usize>();
        let (mut few, mut many) = ([0; FEW], Vec::new());
        let words = if count <= FEW {
            &mut few[..]
        } else {
            many.resize(count, 0);
            &mut many[..]
        };
        let mut at = 0;
        for (n, kind) in (*cif).arguments().enumerate() {
            pack(kind, *args.add(n), &mut words[at]);
            at += P::words(kind);
        }
        if let Some(fun) = (*closure).fun {
            fun(cif, result, words.as_mut_ptr(), (*closure).user_data);
        }
    }
}

/// Writes an argument where its words begin.
///
/// # Safety
///
/// `arg` points to a value of type `kind`, and there are as many words as that packing wants.
unsafe fn pack(kind: &Type, arg: *mut u8, word: *mut Word) {
    // SAFETY: by the contract; arguments are aligned as their types are.
    unsafe {
        *word = match kind.code {
            ffi::UINT8 => Word::from(*arg),
            ffi::SINT8 => i64::from(*arg.cast::<i8>()) as Word,
            ffi::UINT16 => Word::from(*arg.cast::<u16>()),
            ffi::SINT16 => i64::from(*arg.cast::<i16>()) as Word,
            ffi::UINT32 => Word::from(*arg.cast::<u32>()),
            ffi::SINT32 => i64::from(*arg.cast::<i32>()) as Word,
            ffi::STRUCT | ffi::COMPLEX => arg.expose_provenance() as Word,
            _ => return copy_nonoverlapping(arg, word.cast(), kind.size),
        }
    }
}
