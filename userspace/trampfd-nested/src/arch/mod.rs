//! The architecture that is compiled for. Each file exports the same names:
//!
//! | name | what |
//! |---|---|
//! | `__gcc_nested_func_ptr_created`, `__gcc_nested_func_ptr_deleted` | the entries, which add the caller's stack pointer and this thread's record |
//! | `thread` | this thread's record |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
