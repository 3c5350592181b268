//! Pages: what can be had, what cannot be done with them, and what a child of fork can do.

use std::io::ErrorKind;

use trampfd_code::vm::{CodeFile, Error, Meter, Options, Region, Source, Write};

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

#[test]
fn code_is_written_without_and_with_an_alias() {
    for (write, alias) in [(Write::Any, false), (Write::Pwrite, false), (Write::Alias, true)] {
        let region = Region::new(5000, &options(write), &Meter::new()).unwrap();
        assert_eq!(region.len(), 8192);
        assert_eq!(region.rw().is_some(), alias);
        for n in [42, 43] {
            // SAFETY: nobody runs it.
            unsafe { region.write(4096, &returns(n)) }.unwrap();
            assert_eq!(call(region.rx().wrapping_add(4096)), n.into());
        }
    }
}
