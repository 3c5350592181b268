//! Fetches packages of any suite by name and unpacks them without installing
//! anything: kernels for the test machines, foreign test suites.
//!
//! | file | knows |
//! |---|---|
//! | `apt.rs` | a private apt folder over the machine's own mirror |
//! | `process.rs` | running other programs, one run in a folder at a time |
//! | `files.rs` | files that need not be there |
//! | `error.rs` | the error of all of them |

pub mod apt;
pub mod error;
pub mod files;
pub mod process;
