//! Rust closures as C function pointers, on systems where no memory may be writable and
//! executable.
//!
//! Many C interfaces take a bare function pointer and no user data. [`Closure`] makes such a
//! pointer out of a function and its state:
//!
//! ```
//! use std::sync::Mutex;
//! use trampfd::Closure;
//!
//! let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
//! let log = seen.clone();
//! let callback = Closure::from_fn(move |event: i32, weight: f64| {
//!     log.lock().unwrap().push((event, weight));
//!     0i32
//! })?;
//! let for_c: unsafe extern "C" fn(i32, f64) -> i32 = callback.as_ptr();
//! # unsafe { for_c(1, 0.5) };
//! # assert_eq!(*seen.lock().unwrap(), [(1, 0.5)]);
//! # Ok::<(), trampfd::Error>(())
//! ```
//!
//! No code is generated. The pointer leads to a *stub* that loads a register and jumps; which
//! register, is the next one that the C signature leaves free, so the compiled closure is entered
//! directly. Stubs come from one of two backends, chosen at run time:
//!
//! | backend | stubs | their values | where |
//! |---|---|---|---|
//! | [`Backend::Kernel`] | pages of the kernel, R-X | pages of the kernel, R--, written by ioctl only, sealable | the module trampfd is loaded |
//! | [`Backend::Text`] | the program's own text | `.bss` | everywhere |
//!
//! [`support`] says which can be had and why not; [`Builder`] asks for one.
//!
//! [`DynClosure`] is the same for a signature known only at run time, with structures and all
//! other C types by value; [`raw`] has what interfaces of other languages are built of.
//!
//! What a [`Closure`] can be: `unsafe extern "C" fn` of 0 to 12 arguments that are integers, `bool`,
//! `f32`, `f64`, thin pointers or `Option` of function pointers, with such a result or none.

#![warn(missing_debug_implementations)]

mod arity;
mod backend;
mod block;
mod builder;
mod call;
mod closure;
mod dynamic;
mod error;
mod fork;
mod objects;
mod plans;
mod pointer;
pub mod raw;
mod service;
mod slots;
mod sys;
mod types;
mod unwind;

pub use backend::text::Growth;
pub use builder::{Builder, Sealed};
pub use call::{ByFn, ByPointer, Call, Function, FunctionMut, Handler};
pub use closure::{Closure, Local, LocalMut};
pub use dynamic::{CValue, DynCall, DynClosure, Mismatch, Signature};
pub use error::{Backend, Error, Unavailable};
pub use pointer::{Arg, Args, FnPointer, Ret};
pub use service::{Service, Support, support};
pub use types::{Type, TypeError};
