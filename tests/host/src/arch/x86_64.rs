//! x86-64.
//!
//! The numbers of its system calls, as a filter sees them:
//!
//! ```text
//!   0 ────────────────── 0x4000_0000 ──────────────────►
//!     calls of x86-64      calls of x32: the same architecture to seccomp, other numbers
//! ```

/// What seccomp calls this architecture (linux/audit.h).
pub const AUDIT_ARCH: u32 = 0xc000_003e;
/// System calls from here on are those of x32.
pub const OTHER_CALLS: u32 = 0x4000_0000;
/// The loader of the C library, as the psABI names it.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
