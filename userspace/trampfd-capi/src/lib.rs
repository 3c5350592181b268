//! The library for C and all that can call it: `libtrampfd.so.0`. What each function promises
//! stands in `include/trampfd.h`; here is how.
//!
//! | file | what |
//! |---|---|
//! | `closures.rs` | closures of either kind: the pointer alone is the closure |
//! | `types.rs` | types and signatures: handles |
//! | `error.rs` | codes, and what is kept of this thread's last error |
//!
//! The runtime of nested functions (`trampfd-nested`) is in the same library.

#![warn(missing_debug_implementations)]

mod closures;
mod error;
mod types;

pub use closures::*;
pub use error::*;
pub use types::*;

pub use trampfd_nested as nested;

/// `TRAMPFD_VERSION` of this library.
#[unsafe(no_mangle)]
pub extern "C" fn trampfd_version() -> u32 {
    const fn number(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(number) => number,
            Err(_) => panic!("no number"),
        }
    }
    const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    VERSION
}
