//! Memory for compilers that write where the code will run.
//!
//! Many compilers know one address of their code only: they write there, and jump there. Such
//! memory cannot be made executable in place, where what was written must not be executed; but
//! other memory, with the same content, can take its place. That is done here: the content goes
//! into a file for code, and the file's R-X view is mapped over the pages that were written.
//!
//! ```text
//!                  staged                             finalised
//!  address A  ┌──────────────┐               ┌──────────────────────────┐
//!             │ private, RW  │  ── pwrite ─► │ file for code, R-X view  │  address A
//!             └──────────────┘               └──────────────────────────┘
//! ```

mod error;
mod in_place;

pub use error::Error;
pub use in_place::{Published, publish_in_place, unpublish_in_place};

use crate::vm::{self, Options, Write};

/// An alias would be of use to nobody.
fn written_once(options: &Options) -> Options {
    let write = match options.write {
        Write::Pwrite => Write::Pwrite,
        Write::Any | Write::Alias => Write::Any,
    };
    Options { write, ..options.clone() }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Memory(vm::Error::System { what, error })
}
