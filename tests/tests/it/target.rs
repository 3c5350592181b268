//! A trampoline leads to text or is refused.

use trampfd::{Builder, Closure, Error};
use trampfd_tests::each;

type One = unsafe extern "C" fn(i32) -> i32;
type Handler = extern "C" fn(i32, &u64) -> i32;

static CONSTANT: [u64; 8] = [0xc3; 8];
static mut VARIABLE: [u64; 8] = [0xc3; 8];

/// A closure whose handler is said to lie at `address`.
fn at(builder: &Builder, address: usize) -> Result<Closure<One>, Error> {
    // SAFETY: it is never called.
    let handler = unsafe { std::mem::transmute::<usize, Handler>(address) };
    builder.closure(handler, 7)
}

fn refused(builder: &Builder, address: usize, what: &str) {
    match at(builder, address) {
        Err(Error::NotText { code }) => assert_eq!(code, address),
        other => panic!("{what}: {other:?}"),
    }
    // SAFETY: as in `at`.
    let handler = unsafe { std::mem::transmute::<usize, Handler>(address) };
    match builder.prewarm::<One, _, u64, _>(1, handler) {
        Err(Error::NotText { code }) => assert_eq!(code, address),
        other => panic!("prewarm, {what}: {other:?}"),
    }
}

fn map(prot: i32) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    assert_ne!(p, libc::MAP_FAILED);
    p as usize
}

#[test]
fn what_is_no_text_is_refused() {
    each(|builder| {
        let heap = Box::new([0xc3u64; 8]);
        let stack = [0xc3u64; 8];
        refused(builder, heap.as_ptr() as usize, "heap");
        refused(builder, stack.as_ptr() as usize, "stack");
        refused(builder, CONSTANT.as_ptr() as usize, "constants");
        refused(builder, &raw const VARIABLE as usize, "variables");
        refused(builder, 0x1000, "nothing");
        refused(builder, usize::MAX - 4096, "no address of a program");
        // A mapping that is executable, and nobody's text.
        refused(builder, map(libc::PROT_READ | libc::PROT_EXEC), "anonymous code");
        refused(builder, map(libc::PROT_READ), "anonymous data");
        // SAFETY: asks a number.
        let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
        assert_ne!(vdso, 0);
        refused(builder, vdso + 0x800, "vDSO");
    });
}

#[test]
fn a_target_that_a_shim_calls_is_looked_at_too() {
    // No register is left that the stub could pass the data in.
    type Six = unsafe extern "C" fn(i32, i32, i32, i32, i32, i32) -> i32;
    type SixHandler = extern "C" fn(i32, i32, i32, i32, i32, i32, &u64) -> i32;
    // The data is in a box.
    type LargeHandler = extern "C" fn(i32, &[u64; 9]) -> i32;
    each(|builder| {
        let address = CONSTANT.as_ptr() as usize;
        // SAFETY: they are never called.
        let (six, large) = unsafe {
            (
                std::mem::transmute::<usize, SixHandler>(address),
                std::mem::transmute::<usize, LargeHandler>(address),
            )
        };
        let errors = [
            builder.closure::<Six, _, _, _>(six, 7).map(drop),
            builder.prewarm::<Six, _, u64, _>(1, six),
            builder.closure::<One, _, _, _>(large, [7; 9]).map(drop),
            builder.prewarm::<One, _, [u64; 9], _>(1, large),
        ];
        for (n, result) in errors.into_iter().enumerate() {
            assert!(matches!(result, Err(Error::NotText { .. })), "{n}: {result:?}");
        }
    });
}

#[test]
fn a_refusal_names_the_address() {
    each(|builder| {
        let error = at(builder, CONSTANT.as_ptr() as usize).unwrap_err();
        let address = format!("{:#x}", CONSTANT.as_ptr() as usize);
        assert!(error.to_string().starts_with(&address), "{error}");
    });
}

#[test]
fn refusals_leave_the_good_targets_alone() {
    extern "C" fn good(a: i32, n: &u64) -> i32 {
        a + *n as i32
    }
    each(|builder| {
        for _ in 0..100 {
            refused(builder, CONSTANT.as_ptr() as usize, "constants");
            let f: Closure<One> = builder.closure(good as Handler, 2u64).unwrap();
            // SAFETY: the closure lives.
            assert_eq!(unsafe { f.as_ptr()(40) }, 42);
        }
    });
}

#[test]
fn a_function_of_the_c_library_is_text() {
    each(|builder| {
        // SAFETY: a C function that gets one argument more than it looks at.
        let abs =
            unsafe { std::mem::transmute::<unsafe extern "C" fn(i32) -> i32, Handler>(libc::abs) };
        let f: Closure<One> = builder.closure(abs, 1u64).unwrap();
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(-42) }, 42);
    });
}
