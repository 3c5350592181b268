//! One way to make and to call `int(int, int)` for each that is compared. All compute the same,
//! and each holds two words, 16 bytes.

use closure_ffi::BareFnSync;
use libffi::high::Closure2;
use trampfd::{Backend, Builder, Closure};

/// The type of the pointer.
pub type Bare = unsafe extern "C" fn(i32, i32) -> i32;
/// The type of a function that gets its context as an argument, as C interfaces with user data do.
pub type WithContext = unsafe extern "C" fn(i32, i32, *const [u64; 2]) -> i32;

/// What all compute, `N` making it a function of its own.
#[inline(always)]
pub fn compute<const N: i32>(a: i32, b: i32, data: &[u64; 2]) -> i32 {
    a.wrapping_add(b ^ N).wrapping_add(data[0] as i32)
}

/// The function that passes the context itself.
///
/// # Safety
///
/// `data` is valid.
pub unsafe extern "C" fn with_context<const N: i32>(a: i32, b: i32, data: *const [u64; 2]) -> i32 {
    // SAFETY: by the contract.
    compute::<N>(a, b, unsafe { &*data })
}

/// A function that looks something up in its context by its argument, as callbacks do.
#[inline(always)]
pub fn look_up(a: i32, b: i32, data: &[u64; 2]) -> i32 {
    (data[(a & 1) as usize] as i32).wrapping_add(b)
}

/// The same as a function that is passed its context.
///
/// # Safety
///
/// `data` is valid.
pub unsafe extern "C" fn look_up_context(a: i32, b: i32, data: *const [u64; 2]) -> i32 {
    // SAFETY: by the contract.
    look_up(a, b, unsafe { &*data })
}

/// Ours, on static text.
#[inline(always)]
pub fn ours<const N: i32>(data: [u64; 2]) -> Closure<Bare> {
    Builder::new()
        .require(Backend::Text)
        .closure(|a: i32, b: i32, data: &[u64; 2]| compute::<N>(a, b, data), data)
        .expect("a closure")
}

/// That of closure-ffi.
#[inline(always)]
pub fn closure_ffi<const N: i32>(data: [u64; 2]) -> BareFnSync<'static, Bare> {
    BareFnSync::new(move |a: i32, b: i32| compute::<N>(a, b, &data))
}

/// That of libffi-rs; it borrows what it calls.
#[inline(always)]
pub fn libffi<F: Fn(i32, i32) -> i32>(f: &F) -> Closure2<'_, i32, i32, i32> {
    Closure2::new(f)
}

/// The pointer of a libffi-rs closure.
pub fn libffi_pointer(closure: &Closure2<i32, i32, i32>) -> Bare {
    let pointer: *const _ = closure.code_ptr();
    // SAFETY: the wrapper is a transparent struct of this function pointer.
    unsafe { pointer.cast::<Bare>().read() }
}
