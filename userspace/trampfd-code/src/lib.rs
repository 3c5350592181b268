//! Memory for code that is made at run time, on systems where no memory may be writable and
//! executable, nor executable that was ever written: what a JIT compiler needs.
//!
//! ```text
//!  cache      batches of code in files, verified, mapped R-X straight from them
//!  got        relocatable objects, loaded: GOT and stubs counted first, shared, in reach
//!  pool       sections by the caller's id, laid out at once, freed without touching others
//!  stage      the same for compilers that write where the code will run
//!  alloc      small blocks of code, as malloc
//!  ───────────────────────────────────────────────────────────────────────────
//!  vm         reserve, map, release; files for code; R-X views; what this system allows
//!  sys        every system call, counted
//! ```
//!
//! Each layer can be used alone. One rule holds in all of them: executable pages are a view,
//! through a descriptor that cannot write, of a file that no path leads to; those of `cache`, of a
//! file that stays, privately. So no page is writable and executable at any time. Code gets in by
//! pwrite(2), or through a second, writable view ([`vm::Write`]), or is in the file already.
//!
//! Linux only. Nothing here needs the kernel service.

mod arch;
mod extents;
mod sys;

pub mod alloc;
pub mod cache;
pub mod got;
pub mod pool;
pub mod stage;
pub mod vm;
