//! libffi's own functions, for what is left to it.
//!
//! The names `trampfd_ffi_real_..` are given by the linker: in the drop-in to the functions of the
//! libffi that is linked in, in the preload library to those below, which look for the libffi of
//! the process.

use core::ffi::{CStr, c_int, c_void};
use core::mem::transmute;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::ffi::CString;

use crate::ffi::{Cif, Closure, Fun, Status};

unsafe extern "C" {
    fn trampfd_ffi_real_prep_closure_loc(
        closure: *mut Closure,
        cif: *const Cif,
        fun: Option<Fun>,
        user_data: *mut (),
        codeloc: *const c_void,
    ) -> Status;

    fn trampfd_ffi_real_closure_free(closure: *mut c_void);
}

/// libffi's own `ffi_prep_closure_loc`.
///
/// # Safety
///
/// As for that.
pub unsafe fn prep_closure_loc(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    // SAFETY: by the contract.
    unsafe { trampfd_ffi_real_prep_closure_loc(closure, cif, fun, user_data, codeloc) }
}

/// libffi's own `ffi_closure_free`, for what is not ours.
///
/// # Safety
///
/// As for that.
pub unsafe fn closure_free(closure: *mut c_void) {
    // SAFETY: by the contract.
    unsafe { trampfd_ffi_real_closure_free(closure) };
}

/// `trampfd_ffi_real_closure_free` of the drop-in: every closure that was allocated is ours, so
/// this is none, and stays.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_ffi_no_closure_free(_closure: *mut c_void) {}

/// libffi asks whether a closure has one of libffi's own static trampolines. In the drop-in none
/// has, so that what makes them is not linked in.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_ffi_no_tramp_is_present(_closure: *mut c_void) -> c_int {
    0
}

/// Fills one of those trampolines: there is none.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_ffi_no_tramp_set_parms(
    _tramp: *mut c_void,
    _target: *mut c_void,
    _data: *mut c_void,
) {
}

/// `trampfd_ffi_real_prep_closure_loc` of the preload library. `FFI_BAD_ABI` if the process has
/// no libffi.so.8: what is left to it cannot be done then.
///
/// # Safety
///
/// As for `ffi_prep_closure_loc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_ffi_next_prep_closure_loc(
    closure: *mut Closure,
    cif: *const Cif,
    fun: Option<Fun>,
    user_data: *mut (),
    codeloc: *const c_void,
) -> Status {
    type Prep = unsafe extern "C" fn(
        *mut Closure,
        *const Cif,
        Option<Fun>,
        *mut (),
        *const c_void,
    ) -> Status;
    static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    let Some(found) = find(&KNOWN, c"ffi_prep_closure_loc") else {
        return Status::BadAbi;
    };
    // SAFETY: libffi's function of that name, which has this type.
    let prep = unsafe { transmute::<*mut c_void, Prep>(found.as_ptr()) };
    // SAFETY: by the contract.
    unsafe { prep(closure, cif, fun, user_data, codeloc) }
}

/// `trampfd_ffi_real_closure_free` of the preload library.
///
/// # Safety
///
/// As for `ffi_closure_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trampfd_ffi_next_closure_free(closure: *mut c_void) {
    type Free = unsafe extern "C" fn(*mut c_void);
    static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    if let Some(found) = find(&KNOWN, c"ffi_closure_free") {
        // SAFETY: libffi's function of that name, which has this type.
        let free = unsafe { transmute::<*mut c_void, Free>(found.as_ptr()) };
        // SAFETY: by the contract.
        unsafe { free(closure) };
    }
}

/// The version of libffi's closure functions.
const VERSION: &CStr = c"LIBFFI_CLOSURE_8.0";

/// Looks for a function of the process's libffi, once.
fn find(known: &AtomicPtr<c_void>, name: &CStr) -> Option<NonNull<c_void>> {
    let found = NonNull::new(known.load(Ordering::Relaxed));
    found.or_else(|| {
        let found = look_up(name)?;
        known.store(found.as_ptr(), Ordering::Relaxed);
        Some(found)
    })
}

#[cold]
fn look_up(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: names are C strings; RTLD_NEXT is what follows this library.
    let next = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), VERSION.as_ptr()) };
    if let Some(found) = NonNull::new(next) {
        pin(found);
        return Some(found);
    }
    // Not in the global scope: loaded RTLD_LOCAL, perhaps under a name of its own.
    let mut names: Vec<CString> = Vec::new();
    // SAFETY: `visit` gets the list that it expects. It only copies names: what it is called
    // under is a lock that dlopen takes, too.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut names).cast()) };
    names.iter().find_map(|library| in_library(library, name))
}

/// The function in a library that is loaded, and is from now on never unloaded.
fn in_library(library: &CStr, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: names are C strings. Nothing is loaded, so no foreign code runs.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if handle.is_null() {
            return None;
        }
        let versioned = libc::dlvsym(handle, name.as_ptr(), VERSION.as_ptr());
        let found = NonNull::new(versioned)
            // Some builds of libffi have no versions.
            .or_else(|| NonNull::new(libc::dlsym(handle, name.as_ptr())));
        if found.is_none_or(is_ours) {
            libc::dlclose(handle);
            return None;
        }
        found
    }
}

/// Keeps the library of a function loaded for ever.
fn pin(function: NonNull<c_void>) {
    if let Some(library) = library_of(function) {
        // SAFETY: a C string; nothing is loaded.
        unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    }
}

/// Whether the function lies in this library.
fn is_ours(function: NonNull<c_void>) -> bool {
    let here = NonNull::new(trampfd_ffi_next_closure_free as *mut c_void);
    here.is_some_and(|here| library_of(here) == library_of(function))
}

fn library_of(function: NonNull<c_void>) -> Option<&'static CStr> {
    // SAFETY: plain numbers and pointers, written by dladdr; the name belongs to the loader and
    // lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let known = libc::dladdr(function.as_ptr(), &raw mut info) != 0;
        (known && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))
    }
}

/// Collects the loaded libraries whose file names begin with `libffi`: those that are packed into
/// Python wheels have longer names, and sonames.
///
/// # Safety
///
/// Called by dl_iterate_phdr with a `Vec<CString>`.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    names: *mut c_void,
) -> c_int {
    // SAFETY: both are what dl_iterate_phdr was called with and promises.
    let (info, names) = unsafe { (&*info, &mut *names.cast::<Vec<CString>>()) };
    if !info.dlpi_name.is_null() {
        // SAFETY: a C string of the loader.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) };
        let file = path.to_bytes().rsplit(|&byte| byte == b'/').next();
        if file.is_some_and(|file| file.starts_with(b"libffi")) {
            names.push(path.to_owned());
        }
    }
    0
}
