//! The architecture that is compiled for. Each file exports the same names:
//!
//! | name | what |
//! |---|---|
//! | `call_stepped` | calls a C function, with a signal after each instruction until it is back |
//! | `KEPT` | registers that a callee must keep, and what is in them during `call_stepped` |
//! | `pc` | where a signal handler's thread was interrupted |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
