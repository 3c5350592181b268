//! Closures: the pointer that C calls is all that there is of them.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::sync::Arc;

use trampfd::raw::{self, Block, Callee, Handler, Stub};
use trampfd::{Backend, Builder, Signature, support};

use crate::error::{Failure, code, keep};

/// `TRAMPFD_ARG(0)`.
const ARG: i32 = 256;
/// `TRAMPFD_CHAIN`.
const CHAIN: i32 = 511;

/// A function, or null.
pub type Function = *const ();

/// The builder of a backend's number.
fn builder(backend: i32) -> Result<Builder, Failure> {
    match backend {
        0 => Ok(Builder::new()),
        1 => Ok(Builder::new().require(Backend::Kernel)),
        2 => Ok(Builder::new().require(Backend::Text)),
        _ => Err(Failure::Invalid("no backend has this number")),
    }
}

/// The number of a backend.
fn number(backend: Backend) -> i32 {
    match backend {
        Backend::Kernel => 1,
        Backend::Text => 2,
        _ => 0,
    }
}

/// The register of a number of the header, as DWARF number.
fn register(reg: i32) -> Option<u16> {
    // The last of them is the static chain register.
    let (_, args) = raw::registers().split_last()?;
    match reg {
        CHAIN => Some(raw::CHAIN),
        ARG..CHAIN => args.get(usize::try_from(reg - ARG).ok()?).copied(),
        _ => u16::try_from(reg).ok().filter(|reg| raw::registers().contains(reg)),
    }
}

/// What a function that makes closures gives.
fn pointer(made: Result<Function, Failure>) -> Function {
    made.unwrap_or_else(|failure| {
        keep(&failure);
        core::ptr::null()
    })
}

/// Whether closures of this backend can be made.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_support(backend: i32) -> i32 {
    let kernel = || {
        let kernel = support().kernel;
        kernel.map(drop).map_err(|reason| {
            trampfd::Error::Unavailable { backend: Backend::Kernel, reason }.into()
        })
    };
    code(match builder(backend) {
        Err(failure) => Err(failure),
        Ok(_) if backend == 1 => kernel(),
        Ok(_) => Ok(()),
    })
}

/// The backend of closures without wishes.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_default_backend() -> i32 {
    match Builder::new().backend() {
        Ok(backend) => number(backend),
        Err(error) => {
            keep(&error.into());
            0
        }
    }
}

/// Seals the process.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_seal() -> i32 {
    code(Builder::new().seal().map(drop).map_err(Failure::from))
}

/// The DWARF number of a register of the header.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_register(reg: i32) -> i32 {
    register(reg).map_or(-1, i32::from)
}

/// A closure of a register.
///
/// # Safety
///
/// When it is called, `code` is a function that takes what the caller passes and what the register
/// holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_new(code: Function, data: *mut c_void, reg: i32) -> Function {
    // SAFETY: by the contract.
    unsafe { trampfd_new_on(0, code, data, reg) }
}

/// The same of a backend of choice.
///
/// # Safety
///
/// As for [`trampfd_new`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_new_on(
    backend: i32,
    code: Function,
    data: *mut c_void,
    reg: i32,
) -> Function {
    let make = || {
        if code.is_null() {
            return Err(Failure::Invalid("the function is null"));
        }
        let reg = register(reg).ok_or(trampfd::Error::Register { reg: reg as u16 })?;
        // SAFETY: by the contract.
        let stub = unsafe { Stub::new(&builder(backend)?, reg, code, data.cast()) }?;
        Ok(stub.into_raw())
    };
    pointer(make())
}

/// A closure of a signature.
///
/// # Safety
///
/// `signature` is null, or from `trampfd_signature_new` and not given back. `handler` is null, or
/// a handler for this signature and `data` as long as the closure is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_dyn_new(
    signature: *const Signature,
    handler: Option<Handler>,
    data: *mut c_void,
) -> Function {
    // SAFETY: by the contract.
    unsafe { trampfd_dyn_new_on(0, signature, handler, data) }
}

/// The same of a backend of choice.
///
/// # Safety
///
/// As for [`trampfd_dyn_new`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_dyn_new_on(
    backend: i32,
    signature: *const Signature,
    handler: Option<Handler>,
    data: *mut c_void,
) -> Function {
    let make = || {
        if signature.is_null() || handler.is_none() {
            return Err(Failure::Invalid("the signature or the handler is null"));
        }
        let block = raw::alloc(&builder(backend)?, size_of::<Block>())?;
        // SAFETY: by the contract. The block is new; it keeps a count of the signature, which the
        // handler gets and `trampfd_free` gives back.
        unsafe {
            Arc::increment_strong_count(signature);
            (*block.as_ptr()).callee =
                Callee { signature: signature.cast(), handler, data: data.cast() };
            (*block.as_ptr()).spare = signature.expose_provenance();
            raw::bind(block, raw::plan(&*signature));
            Ok(raw::stub(block))
        }
    };
    pointer(make())
}

/// A closure, found by its pointer.
enum Found {
    Register(Stub),
    Dynamic(NonNull<Block>),
}

/// # Safety
///
/// Some 20 bytes can be read at `closure`; if they are a stub, it is a closure of this library
/// that nobody else looks for now, to free it.
unsafe fn find(closure: Function) -> Result<Found, Failure> {
    if closure.is_null() {
        return Err(Failure::Invalid("the closure is null"));
    }
    // SAFETY: by the contract.
    unsafe {
        if raw::is_block(closure)
            && let Some(block) = raw::block_of(closure)
        {
            return Ok(Found::Dynamic(block));
        }
        Ok(Found::Register(Stub::from_raw(closure)?))
    }
}

/// The backend of a closure.
///
/// # Safety
///
/// `closure` is a closure of this library, or code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_backend(closure: Function) -> i32 {
    // SAFETY: by the contract.
    let backend = match unsafe { find(closure) } {
        // SAFETY: a live block.
        Ok(Found::Dynamic(block)) => unsafe { raw::backend(block) },
        Ok(Found::Register(stub)) => {
            let backend = stub.backend();
            stub.into_raw();
            backend
        }
        Err(failure) => {
            keep(&failure);
            return 0;
        }
    };
    number(backend)
}

/// Gives a closure back.
///
/// # Safety
///
/// `closure` is null, code, or a closure of this library that nobody calls any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_free(closure: Function) -> i32 {
    if closure.is_null() {
        return 0;
    }
    // SAFETY: by the contract.
    let freed = unsafe { find(closure) }.map(|found| match found {
        Found::Register(stub) => drop(stub),
        // SAFETY: the block is live, and its count of the signature is its own.
        Found::Dynamic(block) => unsafe {
            let signature = block.as_ref().spare;
            raw::free(block);
            let signature = core::ptr::with_exposed_provenance::<Signature>(signature);
            drop(Arc::from_raw(signature));
        },
    });
    code(freed)
}
