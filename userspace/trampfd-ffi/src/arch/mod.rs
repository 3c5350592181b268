//! What differs by architecture, one file each:
//!
//! | name | what it is |
//! |---|---|
//! | `NATIVE_ABI` | libffi's number of the convention that [`trampfd::raw`] knows |
//! | `LEAVES`, `leaves` | what a small structure holds, seen as libffi sees it |
//! | `entry_of` | where libffi's own entry for a closure is, in a closure that libffi has prepared |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
