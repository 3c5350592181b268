//! What differs by architecture, under the same names in each file.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod this;

pub(crate) use this::{TRAP, flush, thread_pointer};
