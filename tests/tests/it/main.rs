//! One test binary: a module for each promise.
//!
//! A static build of it runs in test machines, where there is neither a source tree nor a
//! compiler.

mod arch;
mod builder;
#[cfg(not(target_feature = "crt-static"))]
mod compile_fail;
mod data;
mod dynamic;
mod dynamic_lives;
mod fork;
mod growth;
mod raw;
mod signature;
mod slots;
mod syscalls;
mod target;
mod unwind;

#[cfg(not(target_feature = "crt-static"))]
mod stub;
#[cfg(not(target_feature = "crt-static"))]
mod tidy;
#[cfg(not(target_feature = "crt-static"))]
mod uapi;
