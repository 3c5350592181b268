//! Types and signatures of C, as handles.
//!
//! ```text
//!   trampfd_type       1 .. 29: a scalar     above: address of a Box<Type>
//!   trampfd_signature  Arc<Signature>: one count is the caller's, one each closure's
//! ```

use std::sync::Arc;

use trampfd::{Signature, Type};

use crate::error::{Failure, keep};

/// `trampfd_type`.
pub type Handle = usize;

/// The scalars, from `TRAMPFD_VOID` on.
static SCALARS: [Type; 29] = [
    Type::VOID,
    Type::BOOL,
    Type::I8,
    Type::U8,
    Type::I16,
    Type::U16,
    Type::I32,
    Type::U32,
    Type::I64,
    Type::U64,
    Type::I128,
    Type::U128,
    Type::F32,
    Type::F64,
    Type::LONG_DOUBLE,
    Type::COMPLEX_F32,
    Type::COMPLEX_F64,
    Type::COMPLEX_LONG_DOUBLE,
    Type::POINTER,
    Type::CHAR,
    Type::SHORT,
    Type::USHORT,
    Type::INT,
    Type::UINT,
    Type::LONG,
    Type::ULONG,
    Type::LONG_LONG,
    Type::ULONG_LONG,
    Type::SIZE,
];

/// Numbers below are no addresses: the first page is never mapped.
const FIRST_ADDRESS: Handle = 4096;

/// The type of a handle.
///
/// # Safety
///
/// If it is an address, [`give`] gave it and it was not freed. It is not freed while the result is
/// used.
unsafe fn get<'a>(handle: Handle) -> Result<&'a Type, Failure> {
    match handle {
        0 => Err(Failure::Invalid("a type is 0: making it failed, or it was forgotten")),
        // SAFETY: by the contract.
        FIRST_ADDRESS.. => Ok(unsafe { &*core::ptr::with_exposed_provenance::<Type>(handle) }),
        _ => SCALARS.get(handle - 1).ok_or(Failure::Invalid("no type has this number")),
    }
}

/// The types of an array of handles.
///
/// # Safety
///
/// `handles` points to `count` handles that [`get`] may be asked for, or is null.
unsafe fn list(handles: *const Handle, count: usize) -> Result<Vec<Type>, Failure> {
    if handles.is_null() && count != 0 {
        return Err(Failure::Invalid("the list of types is null, but not empty"));
    }
    if count > usize::from(u16::MAX) {
        return Err(Failure::Type(trampfd::TypeError::TooLarge));
    }
    // SAFETY: by the contract.
    (0..count).map(|n| unsafe { get(*handles.add(n)).cloned() }).collect()
}

/// A handle for a new type; 0 for an error, which is kept.
fn give(made: Result<Type, Failure>) -> Handle {
    match made {
        Ok(ty) => Box::into_raw(Box::new(ty)).expose_provenance(),
        Err(failure) => {
            keep(&failure);
            0
        }
    }
}

/// A structure.
///
/// # Safety
///
/// `members` points to `count` types, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_struct(members: *const Handle, count: usize) -> Handle {
    // SAFETY: by the contract.
    give(unsafe { list(members, count) }.and_then(|all| Ok(Type::structure(&all)?)))
}

/// A union.
///
/// # Safety
///
/// As for [`trampfd_struct`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_union(members: *const Handle, count: usize) -> Handle {
    // SAFETY: by the contract.
    give(unsafe { list(members, count) }.and_then(|all| Ok(Type::union(&all)?)))
}

/// An array.
///
/// # Safety
///
/// `element` is a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_array(element: Handle, count: usize) -> Handle {
    // SAFETY: by the contract.
    give(unsafe { get(element) }.and_then(|element| Ok(Type::array(element, count)?)))
}

/// Gives a type back.
///
/// # Safety
///
/// `handle` is a type, or 0, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_type_free(handle: Handle) {
    if handle >= FIRST_ADDRESS {
        let address = core::ptr::with_exposed_provenance_mut::<Type>(handle);
        // SAFETY: by the contract, from `give`.
        drop(unsafe { Box::from_raw(address) });
    }
}

/// An answer about a type; `or` for an error, which is kept.
///
/// # Safety
///
/// `handle` is a type.
unsafe fn ask(handle: Handle, or: usize, what: impl Fn(&Type) -> Option<usize>) -> usize {
    // SAFETY: by the contract.
    let answer = unsafe { get(handle) }
        .and_then(|ty| what(ty).ok_or(Failure::Invalid("the type has no such part")));
    answer.unwrap_or_else(|failure| {
        keep(&failure);
        or
    })
}

/// Bytes of a type.
///
/// # Safety
///
/// `handle` is a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_sizeof(handle: Handle) -> usize {
    // SAFETY: by the contract.
    unsafe { ask(handle, 0, |ty| Some(ty.size())) }
}

/// Alignment of a type.
///
/// # Safety
///
/// `handle` is a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_alignof(handle: Handle) -> usize {
    // SAFETY: by the contract.
    unsafe { ask(handle, 0, |ty| Some(ty.align())) }
}

/// Bytes to member or element `n`.
///
/// # Safety
///
/// `handle` is a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_offsetof(handle: Handle, n: usize) -> usize {
    // SAFETY: by the contract.
    unsafe { ask(handle, usize::MAX, |ty| ty.offset(n)) }
}

/// A signature; null for an error, which is kept.
///
/// # Safety
///
/// `args` points to `count` types, or is null; `result` is a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_signature_new(
    args: *const Handle,
    count: usize,
    result: Handle,
) -> *const Signature {
    // SAFETY: by the contract.
    let made = unsafe { list(args, count) }
        // SAFETY: by the contract.
        .and_then(|args| Ok(Signature::new(&args, unsafe { get(result) }?.clone())?));
    match made {
        Ok(signature) => Arc::into_raw(Arc::new(signature)),
        Err(failure) => {
            keep(&failure);
            core::ptr::null()
        }
    }
}

/// Gives the caller's count of a signature back.
///
/// # Safety
///
/// `signature` is null, or from [`trampfd_signature_new`] and not given back before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_signature_free(signature: *const Signature) {
    if !signature.is_null() {
        // SAFETY: by the contract.
        drop(unsafe { Arc::from_raw(signature) });
    }
}
