//! Static trampoline text: what trampfd jumps through when there is no kernel service, and what
//! needs no generated code in either case.
//!
//! - [`table`]: one table of stubs per data register, assembled into the program's own text,
//!   with its slots in `.bss` at a distance that the linker knows;
//! - [`entry`]: the entry for signatures that leave no integer argument register free;
//! - [`plan`]: what the entries for signatures known only at run time go by;
//! - [`arch`]: these for the architecture that is compiled for, and its argument
//!   registers. All that differs by architecture is in one folder of that name;
//! - [`encode`]: stubs of every architecture as bytes, written and read on any host.
//!
//! What is never here: allocation, system calls, policy. This crate is a part of `trampfd` and
//! promises nothing to others.

#![no_std]

pub mod arch;
pub mod encode;
pub mod entry;
pub mod plan;
pub mod table;
