//! How each part makes code and runs it.

use std::error::Error;
use std::ffi::CStr;
use std::io::Read;
use std::os::fd::FromRawFd;

use trampfd_code::stage::{Kind, Stage};
use trampfd_code::vm::{self, Meter, Options, Region, Write, report};

use crate::arch::answer;

type Result = std::result::Result<(), Box<dyn Error>>;

/// A part of the library.
pub struct Room {
    pub name: &'static str,
    /// It needs executable memory that is no private mapping of a file.
    pub anonymous: bool,
    pub run: fn() -> Result,
}

pub const ROOMS: &[Room] = &[
    Room { name: "report", anonymous: false, run: what_the_report_says },
    Room { name: "vm alias", anonymous: true, run: || region(Write::Alias) },
    Room { name: "vm pwrite", anonymous: true, run: || region(Write::Pwrite) },
    Room { name: "vm any", anonymous: true, run: || region(Write::Any) },
    Room { name: "stage", anonymous: true, run: stage },
];

fn call(code: *const u8) -> i32 {
    // SAFETY: the rooms put `answer` there before.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(code)() }
}

fn expect(what: &str, found: i32, wanted: i32) -> Result {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what} returned {found}, not {wanted}").into()),
    }
}

/// Whether one of the causes of an error is that there is no executable memory.
pub fn says_no_memory(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(vm::Error::NoExecutableMemory(attempts)) = error.downcast_ref() {
            return !attempts.is_empty();
        }
        cause = error.source();
    }
    false
}

/// Looks at this process's mappings, by the descriptor of /proc that the launcher leaves open for
/// that.
pub fn nothing_is_writable_and_executable() -> Result {
    let proc_fd: i32 = std::env::var("TRAMPFD_PROC")?.parse()?;
    let path: &CStr = c"self/maps";
    // SAFETY: a C string.
    let fd = unsafe { libc::openat(proc_fd, path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        // The launcher itself was started where there is none.
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT | libc::EBADF) => Ok(()),
            _ => Err(error.into()),
        };
    }
    // SAFETY: a new descriptor.
    let mut maps = unsafe { std::fs::File::from_raw_fd(fd) };
    let mut text = String::new();
    maps.read_to_string(&mut text)?;
    match text.lines().find(|line| line.contains(" rwx")) {
        Some(row) => Err(format!("writable and executable: {row}").into()),
        None => Ok(()),
    }
}

/// Its conclusions are what the library does.
fn what_the_report_says() -> Result {
    let report = report();
    let does = |write| {
        let mut options = Options::default();
        options.write = write;
        Region::new(1, &options, &Meter::new())
    };
    for (write, said) in
        [(Write::Any, report.anonymous_code()), (Write::Pwrite, report.code_without_alias())]
    {
        match (does(write), said) {
            (Ok(region), Ok(source)) if region.source() == source => {}
            (Err(does), Err(said)) if does.to_string() == said.to_string() => {}
            (does, said) => {
                return Err(format!("{write:?}: says {said:?}, and does {does:?}\n{report}").into());
            }
        }
    }
    match report.file_code() {
        Some(_) => Ok(()),
        None => Err(format!("no folder for code\n{report}").into()),
    }
}

fn region(write: Write) -> Result {
    let mut options = Options::default();
    options.write = write;
    let region = Region::new(8192, &options, &Meter::new())?;
    for n in [42, 43] {
        // SAFETY: nobody runs it.
        unsafe { region.write(4096, &answer(n)) }?;
        expect("the function", call(region.rx().wrapping_add(4096)), n.into())?;
    }
    Ok(())
}

fn stage() -> Result {
    let mut stage = Stage::new(Options::default())?;
    let mut earlier = Vec::new();
    for n in [42, 43] {
        let code = stage.allocate(Kind::Code, 6, 16)?;
        let data = stage.allocate(Kind::ReadOnly, 1, 1)?;
        // SAFETY: bytes of ours.
        unsafe {
            code.copy_from_nonoverlapping(answer(n).as_ptr(), 6);
            *data = n;
        }
        stage.finalise()?;
        earlier.push((code, n));
        for &(code, n) in &earlier {
            expect("the function", call(code), n.into())?;
        }
        // SAFETY: written above.
        expect("the constant", unsafe { *data }.into(), n.into())?;
    }
    Ok(())
}
