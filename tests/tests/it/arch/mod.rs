//! The architecture that is compiled for. Each file exports the same names:
//!
//! | name | what |
//! |---|---|
//! | `call_stepped` | calls a C function, with a signal after each instruction until it is back |
//! | `KEPT` | registers that a callee must keep, and what is in them during `call_stepped` |
//! | `keeping`, `faults` | a function before another, that sees which registers that one did not keep |
//! | `aligned`, `MISALIGNED` | a handler before another, that sees whether the stack is aligned |
//! | `chain` | returns what is in the static chain register |
//! | `pc` | where a signal handler's thread was interrupted |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
