//! The way up: what a stub jumps to, and how it calls what the user gave.
//!
//! For each kind of closure the compiler makes one *shim*. It is entered with the registers as
//! the C caller left them and the address of a [`Call`] value in the register that the stub
//! loads, takes the arguments from where the calling convention put them, and calls the value.
//! Which shim, is decided by the signature alone, in constants:
//!
//! | signature | stub loads | jumps to |
//! |---|---|---|
//! | an integer argument register is left, no stack arguments | that register | [`in_registers`] |
//! | the same with stack arguments (floating-point ones) | that register | [`on_stack`] |
//! | all integer argument registers used | static chain register | `arch::entry`, which calls [`framed`](Framed::shim) |

use core::cell::UnsafeCell;
use core::marker::PhantomData;

use trampfd_text::arch::{self, Frame, Place};
use trampfd_text::entry::Framed;

use crate::signature::{Arg, Args, Ret, Signature};

/// Floating-point arguments that can be on the stack while an integer argument register is free:
/// of 12 arguments, those beyond the floating-point registers.
const STACK_WORDS: usize = 4;

/// What the caller of a stub left, as the shim sees it.
///
/// # Invariants
///
/// `ints` and `floats` hold the argument registers. `stack` and `frame` are such that the stack
/// words which the signature has can be read through one of them.
#[derive(Debug)]
pub struct Regs {
    ints: [u64; arch::INT_REGS.len()],
    floats: [u64; arch::FLOAT_REGS],
    stack: [u64; STACK_WORDS],
    frame: *const Frame,
}

impl Regs {
    /// The word of the argument at `place`.
    ///
    /// # Safety
    ///
    /// The signature has an argument at `place`.
    #[inline(always)]
    pub unsafe fn word(&self, place: Place) -> u64 {
        match place {
            Place::Int(n) => self.ints[n],
            Place::Float(n) => self.floats[n],
            Place::Stack(n) if self.frame.is_null() => self.stack[n],
            // SAFETY: by the invariant, the frame is there, and has this word.
            Place::Stack(n) => unsafe { Frame::stack_word(self.frame, n) },
        }
    }
}

/// A value that can be called with arguments `A`.
///
/// # Safety
///
/// `call` calls what the value holds, once.
pub unsafe trait Call<A, R>: Sized {
    /// # Safety
    ///
    /// `value` points to a live value that no other call or owner has a `&mut` to.
    unsafe fn call(value: *const Self, args: A) -> R;

    /// A C function that can be jumped to without a shim: it takes the arguments, and the
    /// address of this value as a further one.
    #[inline(always)]
    fn target(&self) -> Option<usize> {
        None
    }
}

/// A function with user data beside it.
#[derive(Debug)]
pub struct WithData<F, D> {
    pub(crate) f: F,
    pub(crate) data: D,
}

/// A closure that holds all it needs.
#[derive(Debug)]
pub struct Alone<F>(pub(crate) F);

/// A closure that changes what it holds.
#[derive(Debug)]
pub struct Mutable<F>(pub(crate) UnsafeCell<F>);

/// A C function that takes the user data as its last argument, with the data.
///
/// # Invariants
///
/// The address of the value is the address of `data`, so that a stub can pass it to `f`.
#[repr(C)]
#[derive(Debug)]
pub struct Pointer<P, D> {
    pub(crate) data: D,
    pub(crate) f: P,
}

/// A value that is too large for a slot, behind a pointer that fits.
#[derive(Debug)]
pub struct Boxed<V>(pub(crate) Box<V>);

// SAFETY: calls what the box holds.
unsafe impl<V: Call<A, R>, A, R> Call<A, R> for Boxed<V> {
    #[inline(always)]
    unsafe fn call(value: *const Self, args: A) -> R {
        // SAFETY: the caller's promise, for a value that owns its content.
        unsafe { V::call(&raw const *(*value).0, args) }
    }
}

macro_rules! call {
    ($($A:ident $n:literal),*) => {
        #[allow(non_snake_case, reason = "argument types name the arguments")]
        // SAFETY: one call.
        unsafe impl<F, D, R, $($A),*> Call<($($A,)*), R> for WithData<F, D>
        where
            F: Fn($($A,)* &D) -> R,
        {
            #[inline(always)]
            unsafe fn call(value: *const Self, ($($A,)*): ($($A,)*)) -> R {
                // SAFETY: live, by the contract.
                let value = unsafe { &*value };
                (value.f)($($A,)* &value.data)
            }
        }
        #[allow(non_snake_case, reason = "argument types name the arguments")]
        // SAFETY: one call.
        unsafe impl<D, R, $($A),*> Call<($($A,)*), R> for Pointer<extern "C" fn($($A,)* &D) -> R, D> {
            #[inline(always)]
            unsafe fn call(value: *const Self, ($($A,)*): ($($A,)*)) -> R {
                // SAFETY: live, by the contract.
                let value = unsafe { &*value };
                (value.f)($($A,)* &value.data)
            }

            #[inline(always)]
            fn target(&self) -> Option<usize> {
                Some(self.f as *const () as usize)
            }
        }
        #[allow(non_snake_case, reason = "argument types name the arguments")]
        // SAFETY: one call.
        unsafe impl<F, R, $($A),*> Call<($($A,)*), R> for Alone<F>
        where
            F: Fn($($A),*) -> R,
        {
            #[inline(always)]
            unsafe fn call(value: *const Self, ($($A,)*): ($($A,)*)) -> R {
                // SAFETY: live, by the contract.
                unsafe { ((*value).0)($($A),*) }
            }
        }
        #[allow(non_snake_case, reason = "argument types name the arguments")]
        // SAFETY: one call.
        unsafe impl<F, R, $($A),*> Call<($($A,)*), R> for Mutable<F>
        where
            F: FnMut($($A),*) -> R,
        {
            #[inline(always)]
            unsafe fn call(value: *const Self, ($($A,)*): ($($A,)*)) -> R {
                // SAFETY: live and not in another call, by the contract.
                unsafe { (*(*value).0.get())($($A),*) }
            }
        }

        impl<F, D, R: Ret, $($A: Arg),*>
            Handler<unsafe extern "C" fn($($A),*) -> R, D, ByFn> for F
        where
            F: Fn($($A,)* &D) -> R,
        {
            type Value = WithData<F, D>;

            #[inline(always)]
            fn with(self, data: D) -> Self::Value {
                WithData { f: self, data }
            }

            #[inline(always)]
            fn target(&self) -> Option<usize> {
                None
            }
        }
        impl<D, R: Ret, $($A: Arg),*>
            Handler<unsafe extern "C" fn($($A),*) -> R, D, ByPointer>
            for extern "C" fn($($A,)* &D) -> R
        {
            type Value = Pointer<Self, D>;

            #[inline(always)]
            fn with(self, data: D) -> Self::Value {
                Pointer { data, f: self }
            }

            #[inline(always)]
            fn target(&self) -> Option<usize> {
                Some(*self as *const () as usize)
            }
        }
        impl<F, R: Ret, $($A: Arg),*> Function<unsafe extern "C" fn($($A),*) -> R> for F
        where
            F: Fn($($A),*) -> R,
        {
            type Value = Alone<F>;

            #[inline(always)]
            fn value(self) -> Self::Value {
                Alone(self)
            }
        }
        impl<F, R: Ret, $($A: Arg),*> FunctionMut<unsafe extern "C" fn($($A),*) -> R> for F
        where
            F: FnMut($($A),*) -> R,
        {
            type Value = Mutable<F>;

            #[inline(always)]
            fn value(self) -> Self::Value {
                Mutable(UnsafeCell::new(self))
            }
        }
    };
}
crate::arity::each_arity!(call);

/// How a [`Handler`] is given: as something that implements `Fn`.
#[derive(Debug)]
pub struct ByFn;
/// How a [`Handler`] is given: as an `extern "C" fn` pointer.
#[derive(Debug)]
pub struct ByPointer;

/// What [`Closure::new`](crate::Closure::new) takes: a Rust function or closure
/// `Fn(A, .., &D) -> R`, or a pointer `extern "C" fn(A, .., &D) -> R`. `M` says which of the two.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle calls of a C function pointer with data `{D}`",
    label = "not a function of C scalars and then `&{D}`",
    note = "write the types of all arguments, the last being `&{D}`: `|a: i32, data: &{D}| ..`",
    note = "an `extern \"C\"` item implements no `Fn`: pass it as `item as extern \"C\" fn(_, &_) -> _`, with one `_` for each argument",
    note = "arguments and results are C scalars and thin pointers, at most 12 arguments"
)]
pub trait Handler<S: Signature, D, M> {
    /// Function and data together.
    type Value: Call<S::Args, S::Ret>;
    /// Puts them together.
    fn with(self, data: D) -> Self::Value;
    /// What [`Call::target`] of the value will be.
    fn target(&self) -> Option<usize>;
}

/// What [`Closure::from_fn`](crate::Closure::from_fn) takes: `Fn(A, ..) -> R`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle calls of a C function pointer",
    label = "not a function of C scalars",
    note = "write the types of all arguments: `|a: i32, b: f64| ..`",
    note = "arguments and results are C scalars and thin pointers, at most 12 arguments; a closure that changes what it captures goes to `Closure::local_mut`"
)]
pub trait Function<S: Signature> {
    /// The closure, callable.
    type Value: Call<S::Args, S::Ret>;
    /// Wraps it.
    fn value(self) -> Self::Value;
}

/// What [`Closure::local_mut`](crate::Closure::local_mut) takes: `FnMut(A, ..) -> R`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle calls of a C function pointer",
    label = "not a function of C scalars",
    note = "write the types of all arguments: `|a: i32, b: f64| ..`",
    note = "arguments and results are C scalars and thin pointers, at most 12 arguments"
)]
pub trait FunctionMut<S: Signature> {
    /// The closure, callable.
    type Value: Call<S::Args, S::Ret>;
    /// Wraps it.
    fn value(self) -> Self::Value;
}

/// The shim of signature `S` and value `V`.
struct Shim<S, V>(PhantomData<(S, V)>);

/// The code that a stub of signature `S` jumps to for a value `V`, whose address it loads.
pub(crate) const fn shim<S: Signature, V: Call<S::Args, S::Ret>>() -> *const () {
    if S::PLAN.framed() {
        arch::entry::<Shim<S, V>> as *const ()
    } else if S::PLAN.stack {
        on_stack::<S, V> as *const ()
    } else {
        in_registers::<S, V> as *const ()
    }
}

/// Calls the value, as the ABI of `S` wants it: where a panic would leave a function of the ABI
/// "C", Rust prints it and ends the process.
///
/// # Safety
///
/// The registers are those that a caller of `S` left; `value` is live.
#[inline(always)]
unsafe fn up<S: Signature, V: Call<S::Args, S::Ret>>(value: *const V, regs: Regs) -> S::Ret {
    #[inline(always)]
    extern "C" fn never_unwinds<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    // SAFETY: both by the contract.
    let call = || unsafe { V::call(value, S::Args::load(&regs)) };
    if S::UNWIND { call() } else { never_unwinds(call) }
}

/// Entered by a stub that loads an integer argument register, for a signature without stack
/// arguments. Every argument register is a parameter, whether the signature uses it or not: the
/// ones that it does not use are never looked at.
#[allow(clippy::too_many_arguments, reason = "one for each argument register")]
unsafe extern "C-unwind" fn in_registers<S: Signature, V: Call<S::Args, S::Ret>>(
    i0: u64,
    i1: u64,
    i2: u64,
    i3: u64,
    i4: u64,
    i5: u64,
    f0: f64,
    f1: f64,
    f2: f64,
    f3: f64,
    f4: f64,
    f5: f64,
    f6: f64,
    f7: f64,
) -> S::Ret {
    let ints = [i0, i1, i2, i3, i4, i5];
    let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
    let value = core::ptr::with_exposed_provenance(ints[S::PLAN.table()] as usize);
    // SAFETY: entered from a stub of this signature, which loaded the value's address.
    unsafe {
        up::<S, V>(value, Regs { ints, floats, stack: [0; STACK_WORDS], frame: core::ptr::null() })
    }
}

/// The same for a signature with stack arguments: words that follow the return address.
#[allow(clippy::too_many_arguments, reason = "one for each argument register and stack word")]
unsafe extern "C-unwind" fn on_stack<S: Signature, V: Call<S::Args, S::Ret>>(
    i0: u64,
    i1: u64,
    i2: u64,
    i3: u64,
    i4: u64,
    i5: u64,
    f0: f64,
    f1: f64,
    f2: f64,
    f3: f64,
    f4: f64,
    f5: f64,
    f6: f64,
    f7: f64,
    s0: u64,
    s1: u64,
    s2: u64,
    s3: u64,
) -> S::Ret {
    let ints = [i0, i1, i2, i3, i4, i5];
    let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
    let value = core::ptr::with_exposed_provenance(ints[S::PLAN.table()] as usize);
    // SAFETY: entered from a stub of this signature, which loaded the value's address.
    unsafe {
        up::<S, V>(value, Regs { ints, floats, stack: [s0, s1, s2, s3], frame: core::ptr::null() })
    }
}

impl<S: Signature, V: Call<S::Args, S::Ret>> Framed for Shim<S, V> {
    type Ret = S::Ret;

    unsafe extern "C-unwind" fn shim(
        i0: u64,
        i1: u64,
        i2: u64,
        i3: u64,
        i4: u64,
        frame: *const Frame,
        f0: f64,
        f1: f64,
        f2: f64,
        f3: f64,
        f4: f64,
        f5: f64,
        f6: f64,
        f7: f64,
    ) -> S::Ret {
        // SAFETY: `arch::entry` passes its frame, with the data pointer of the stub.
        let (value, i5) = unsafe { ((*frame).data, (*frame).last_int) };
        let ints = [i0, i1, i2, i3, i4, i5];
        let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
        let value = core::ptr::with_exposed_provenance(value);
        // SAFETY: entered from a stub of this signature.
        unsafe { up::<S, V>(value, Regs { ints, floats, stack: [0; STACK_WORDS], frame }) }
    }
}
