//! Pages: what can be had, what cannot be done with them, and what a child of fork can do.
//!
//! | file | promises |
//! |---|---|
//! | `sources.rs` | where pages come from, whatever is forbidden |
//! | `views.rs` | what cannot be done with them, and what is counted |
//! | `children.rs` | that a child of fork changes nothing of its parent's |
//! | `failures.rs` | that any system call may fail |
//! | `report.rs` | that the report says what is so |
//! | `pages.rs` | what tests do to pages past the library |

mod children;
mod failures;
mod pages;
mod report;
mod sources;
#[path = "../support/mod.rs"]
mod support;
mod views;

use support::maps::{row_of, rows};
use trampfd_code::vm::{Meter, Options, Region, Source, Write};

/// mov $n, %eax; ret
fn returns(n: u8) -> [u8; 6] {
    [0xb8, n, 0, 0, 0, 0xc3]
}

fn call(code: *const u8) -> i32 {
    // SAFETY: the tests write `returns` there before.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(code)() }
}

fn options(write: Write) -> Options {
    let mut options = Options::default();
    options.write = write;
    options
}

fn from(source: &Source, write: Write) -> Options {
    let mut options = options(write);
    options.sources = vec![source.clone()];
    options
}

/// The kinds of memfd that this kernel knows: before Linux 6.3 one.
fn memfds() -> Vec<Source> {
    let all = [(0x10, Source::MemfdExec), (8, Source::MemfdNoexecSeal), (0, Source::Memfd)];
    all.into_iter()
        .filter(|(flags, _)| pages::has_memfd(*flags))
        .map(|(_, source)| source)
        .collect()
}

/// A folder whose files may be executed.
fn folder() -> &'static str {
    // A test machine may have the second only.
    let there = |folder: &&str| std::path::Path::new(folder).is_dir();
    ["/dev/shm", "/tmp"].into_iter().find(there).unwrap()
}

fn folder_source() -> Source {
    Source::Folder(folder().into())
}

fn usable_sources() -> Vec<Source> {
    memfds().into_iter().chain([folder_source()]).collect()
}

/// Pages with a function at their beginning that returns 42.
fn region(options: &Options) -> Region {
    let region = Region::new(8192, options, &Meter::new()).unwrap();
    // SAFETY: nobody runs it.
    unsafe { region.write(0, &returns(42)) }.unwrap();
    assert_eq!(call(region.rx()), 42);
    region
}
