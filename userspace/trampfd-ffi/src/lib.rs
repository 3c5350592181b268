//! The closure half of libffi on trampfd's closures, as C functions with libffi's names.
//!
//! `scripts/libs` makes two shared libraries of it, which differ in where [`real`] finds libffi's
//! own `ffi_prep_closure_loc`:
//!
//! ```text
//!   libffi.so.8, the drop-in            libtrampfd-ffi-preload.so
//!   ├ ffi_closure_alloc ..  this crate   ├ ffi_closure_alloc ..  this crate
//!   ├ ffi_call_plan_alloc .. this crate  └ real: dlsym in the libffi.so.8 of the process
//!   ├ ffi_call, ffi_prep_cif, raw calls, go closures, types: libffi as libffi-sys carries it
//!   └ real: that libffi's function, renamed
//! ```
//!
//! | file | libffi's functions |
//! |---|---|
//! | [`closure`] | `ffi_closure_alloc`, `ffi_closure_free`, `ffi_prep_closure`, `ffi_prep_closure_loc` |
//! | [`raw_api`] | `ffi_prep_raw_closure`, `ffi_prep_java_raw_closure`, and those with `_loc` |
//! | [`call_plan`] | `ffi_call_plan_alloc`, `_invoke`, `_free`, `_size` |
//! | [`signature`] | none: from a `ffi_cif` to a plan of `trampfd` |
//! | [`ffi`] | none: the structures of `ffi.h` |

pub mod arch;
pub mod call_plan;
pub mod closure;
pub mod ffi;
pub mod raw_api;
pub mod real;
pub mod signature;
