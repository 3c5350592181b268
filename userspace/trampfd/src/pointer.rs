//! Which C function types a closure can have, and where each of their arguments is.
//!
//! A [`FnPointer`] is the type of the pointer that C gets, `unsafe extern "C" fn(i32, f64) -> f64`
//! or its `"C-unwind"` form. Its arguments and result are [`Arg`] and [`Ret`]: the primitive C
//! types, never references, whose lifetime would be the caller's choice.

use trampfd_text::arch::{self, Place, Regs};

/// A type that C passes as one argument: an integer of up to 64 bits, `bool`, `f32`, `f64`, a
/// thin pointer or `Option` of a function pointer.
///
/// # Safety
///
/// `from_word` gives the value that the C ABI passes in an argument register or stack word with
/// these bits, and `FLOAT` says which kind of register that is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type that a C caller can pass to a closure",
    label = "not a C scalar or pointer",
    note = "arguments are integers, bool, f32, f64, thin raw pointers and Option<extern fn>; take a raw pointer instead of a reference or Box"
)]
pub unsafe trait Arg: Copy + 'static {
    /// Passed in a floating-point register.
    const FLOAT: bool;
    /// The value, out of the bits of its register or stack word; what lies above the type's own
    /// width is no part of the value (psABI x86-64, section 3.2.3).
    fn from_word(word: u64) -> Self;
}

/// A type that a closure can return to C: an [`Arg`] or `()`.
///
/// # Safety
///
/// The type is returned as C returns it from an `extern "C"` function of Rust.
#[diagnostic::on_unimplemented(
    message = "a closure cannot return `{Self}` to C",
    label = "not a C scalar, pointer or ()",
    note = "results are integers, bool, f32, f64, thin raw pointers, Option<extern fn> and ()"
)]
pub unsafe trait Ret: 'static {}

// SAFETY: a C function that returns void.
unsafe impl Ret for () {}

macro_rules! scalar {
    ($float:literal: $($t:ty = |$w:ident| $value:expr;)*) => {$(
        // SAFETY: a primitive C type; the low bits of the word are its value.
        unsafe impl Arg for $t {
            const FLOAT: bool = $float;
            #[inline(always)]
            fn from_word($w: u64) -> Self { $value }
        }
        // SAFETY: a primitive C type.
        unsafe impl Ret for $t {}
    )*};
}
scalar! { false:
    i8 = |w| w as i8;
    u8 = |w| w as u8;
    i16 = |w| w as i16;
    u16 = |w| w as u16;
    i32 = |w| w as i32;
    u32 = |w| w as u32;
    i64 = |w| w as i64;
    u64 = |w| w;
    isize = |w| w as isize;
    usize = |w| w as usize;
    bool = |w| w as u8 != 0;
}
scalar! { true:
    f32 = |w| f32::from_bits(w as u32);
    f64 = |w| f64::from_bits(w);
}

// SAFETY: a thin pointer is one integer word.
unsafe impl<T: 'static> Arg for *const T {
    const FLOAT: bool = false;
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        core::ptr::with_exposed_provenance(word as usize)
    }
}
// SAFETY: a thin pointer is one integer word.
unsafe impl<T: 'static> Ret for *const T {}
// SAFETY: a thin pointer is one integer word.
unsafe impl<T: 'static> Arg for *mut T {
    const FLOAT: bool = false;
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        core::ptr::with_exposed_provenance_mut(word as usize)
    }
}
// SAFETY: a thin pointer is one integer word.
unsafe impl<T: 'static> Ret for *mut T {}

/// The arguments of a signature, as a tuple.
///
/// # Safety
///
/// `FLOAT` has one entry for each argument, in order, and `load` reads argument `n` from where
/// [`arch::place`] says.
pub unsafe trait Args: Sized + 'static {
    /// For each argument, whether it is floating-point.
    const FLOAT: &'static [bool];

    /// Reads the arguments.
    ///
    /// # Safety
    ///
    /// `regs` is what a caller of this signature left.
    unsafe fn load(regs: &Regs) -> Self;
}

/// What a list of arguments uses up, and so which table serves it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of integer arguments.
    ints: usize,
    /// Some argument is passed on the stack.
    pub stack: bool,
}

impl Plan {
    /// Counts the arguments.
    pub const fn of(float: &[bool]) -> Plan {
        let mut plan = Plan { ints: 0, stack: false };
        let mut n = 0;
        while n < float.len() {
            plan.ints += !float[n] as usize;
            plan.stack |= matches!(arch::place(float, n), Place::Stack(_));
            n += 1;
        }
        plan
    }

    /// No integer argument register is left for the data pointer.
    pub const fn framed(&self) -> bool {
        self.ints >= arch::INT_REGS.len()
    }

    /// The table whose register carries the data pointer: the next free integer argument
    /// register's, or the static chain register's.
    pub const fn table(&self) -> usize {
        if self.framed() { arch::INT_REGS.len() } else { self.ints }
    }
}

/// The type of a C function pointer that a closure can be: `unsafe extern "C" fn(A, ..) -> R` or
/// `unsafe extern "C-unwind" fn(A, ..) -> R`, of 0 to 12 arguments.
///
/// # Safety
///
/// `Self` is a function pointer with arguments `Args` and result `Ret`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signature of a closure",
    label = "not `unsafe extern \"C\" fn(..) -> ..` of C scalars and pointers",
    note = "a signature is `unsafe extern \"C\" fn(A, ..) -> R` with 0 to 12 arguments; the pointer that C gets is unsafe to call, because it does not keep the closure alive"
)]
pub unsafe trait FnPointer: Copy + 'static {
    /// The arguments, as a tuple.
    type Args: Args;
    /// The result.
    type Ret: Ret;
    /// The same signature with the ABI "C-unwind".
    type Unwind: FnPointer<Args = Self::Args, Ret = Self::Ret>;
    /// A panic goes on into the caller, instead of ending the process.
    const UNWIND: bool;
    /// Which table serves this signature.
    const PLAN: Plan = Plan::of(<Self::Args as Args>::FLOAT);

    /// The pointer to a stub.
    fn from_stub(stub: usize) -> Self;
}

macro_rules! signature {
    ($($A:ident $n:literal),*) => {
        // SAFETY: one entry and one load for each argument, in order.
        unsafe impl<$($A: Arg),*> Args for ($($A,)*) {
            const FLOAT: &'static [bool] = &[$($A::FLOAT),*];

            #[allow(clippy::unused_unit, reason = "no arguments are a unit")]
            #[inline(always)]
            unsafe fn load(_regs: &Regs) -> Self {
                ($(
                    // SAFETY: the caller left these registers for this list of arguments.
                    $A::from_word(unsafe { _regs.word(const { arch::place(Self::FLOAT, $n) }) }),
                )*)
            }
        }
        signature!(@pointer "C" false $($A)*);
        signature!(@pointer "C-unwind" true $($A)*);
        signature!(@word extern "C" fn $($A)*);
        signature!(@word unsafe extern "C" fn $($A)*);
    };
    (@pointer $abi:literal $unwind:literal $($A:ident)*) => {
        // SAFETY: the macro repeats one list of arguments.
        unsafe impl<R: Ret, $($A: Arg),*> FnPointer for unsafe extern $abi fn($($A),*) -> R {
            type Args = ($($A,)*);
            type Ret = R;
            type Unwind = unsafe extern "C-unwind" fn($($A),*) -> R;
            const UNWIND: bool = $unwind;

            #[inline(always)]
            fn from_stub(stub: usize) -> Self {
                let stub = core::ptr::with_exposed_provenance::<()>(stub);
                // SAFETY: a stub is the entry of a function of this signature; the result is an
                // unsafe fn, so that calling it is the caller's promise that it is still there.
                unsafe { core::mem::transmute::<*const (), Self>(stub) }
            }
        }
    };
    (@word $($kw:ident)+ $abi:literal fn $($A:ident)*) => {
        // SAFETY: a nullable function pointer is one integer word.
        unsafe impl<R: 'static, $($A: 'static),*> Arg for Option<$($kw)+ $abi fn($($A),*) -> R> {
            const FLOAT: bool = false;
            #[inline(always)]
            fn from_word(word: u64) -> Self {
                let f = core::ptr::with_exposed_provenance::<()>(word as usize);
                // SAFETY: Option of a function pointer has the layout of a nullable pointer; the
                // C caller passed one of this type.
                unsafe { core::mem::transmute::<*const (), Self>(f) }
            }
        }
        // SAFETY: a nullable function pointer is one integer word.
        unsafe impl<R: 'static, $($A: 'static),*> Ret for Option<$($kw)+ $abi fn($($A),*) -> R> {}
    };
}
crate::arity::each_arity!(signature);

#[cfg(test)]
mod tests {
    use super::*;

    /// Integer and floating-point arguments, as in "ifi": integer, float, integer.
    fn floats(arguments: &str) -> Vec<bool> {
        arguments.chars().map(|c| c == 'f').collect()
    }

    #[test]
    fn the_plan_is_that_of_the_psabi() {
        // (arguments, table, framed, some on the stack), by section 3.2.3 of the x86-64 psABI.
        let cases = [
            ("", 0, false, false),
            ("i", 1, false, false),
            ("f", 0, false, false),
            ("ifif", 2, false, false),
            ("iiiii", 5, false, false),
            ("iiiii_ffffffff", 5, false, false),
            ("iiiiii", 6, true, false),
            ("iiiiiiffffff", 6, true, false),
            ("iiiiiii", 6, true, true),
            ("iiiiiiiiiiii", 6, true, true),
            ("ffffffff", 0, false, false),
            ("fffffffff", 0, false, true),
            ("iffffffffff", 1, false, true),
            ("ffffffffffff", 0, false, true),
            ("fffffffffiii", 3, false, true),
        ];
        for (arguments, table, framed, stack) in cases {
            let plan = Plan::of(&floats(&arguments.replace('_', "")));
            assert_eq!(
                (plan.table(), plan.framed(), plan.stack),
                (table, framed, stack),
                "{arguments}"
            );
        }
    }

    #[test]
    fn every_argument_has_a_place_of_its_own() {
        let case = "ifiifffiiffffifi";
        let floats = floats(case);
        let places: Vec<Place> = (0..floats.len()).map(|n| arch::place(&floats, n)).collect();
        use Place::{Float, Int, Stack};
        assert_eq!(
            places,
            [
                Int(0),
                Float(0),
                Int(1),
                Int(2),
                Float(1),
                Float(2),
                Float(3),
                Int(3),
                Int(4),
                Float(4),
                Float(5),
                Float(6),
                Float(7),
                Int(5),
                Stack(0),
                Stack(1),
            ]
        );
    }

    #[test]
    fn narrow_arguments_ignore_the_bits_above() {
        let word = 0xdead_beef_cafe_ff01;
        assert!(bool::from_word(word));
        assert!(!bool::from_word(word - 1));
        assert_eq!(i8::from_word(word), 1);
        assert_eq!(i16::from_word(word), -255);
        assert_eq!(u32::from_word(word), 0xcafe_ff01);
        assert_eq!(f32::from_word(0xffff_ffff_3f80_0000), 1.0);
    }
}
