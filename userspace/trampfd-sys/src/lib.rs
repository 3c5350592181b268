//! The kernel contract of trampfd, as Rust types: a mirror of `linux/trampfd.h`.
//!
//! Each struct, field and number has the name, type and value that it has in the header, which is
//! the contract: how sizes and flags are checked, which errno means what, and how a table is
//! mapped stands there. A test lets a C compiler compare this crate with the header field by
//! field.
//!
//! Nothing here calls the kernel; the crate `trampfd` does.

#![no_std]

mod uapi;

pub use uapi::*;
