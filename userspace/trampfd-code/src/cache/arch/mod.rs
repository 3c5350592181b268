//! What differs by architecture, under the same names in each file.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod this;

pub(super) use this::{MACHINE, STUB, enter, prepare, shared_stub, stub};
