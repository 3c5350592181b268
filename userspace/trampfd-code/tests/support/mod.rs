//! What the test programs of this crate and of its adapters share.

// None of them needs all of it.
#![allow(dead_code)]

pub mod alone;
pub mod faults;
pub mod maps;
pub mod policy;
