//! The way up: how what the user gave is called with what C passed.
//!
//! For each kind of closure the compiler makes one *shim*, of those in `trampfd_text::entry`. It
//! takes the arguments from where the calling convention put them, and calls the [`Call`] value
//! whose address the stub loaded. Which shim, is decided by the signature alone, in constants.

use core::cell::UnsafeCell;
use core::marker::PhantomData;

use trampfd_text::arch::{self, Regs};
use trampfd_text::entry::Callee;

use crate::pointer::{Arg, Args, FnPointer, Ret};

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
    note = "arguments and results are integers of up to 64 bits, bool, f32, f64, thin raw pointers and `Option` of function pointers, at most 12 arguments; what C passes by address is a raw pointer, not a reference"
)]
pub trait Handler<S: FnPointer, D, M> {
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
    note = "arguments and results are integers of up to 64 bits, bool, f32, f64, thin raw pointers and `Option` of function pointers, at most 12 arguments; what C passes by address is a raw pointer, not a reference",
    note = "an `extern \"C\"` item implements no `Fn`: wrap it, `|a: i32| item(a)`",
    note = "a closure that changes what it captures goes to `Closure::local_mut`"
)]
pub trait Function<S: FnPointer> {
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
    note = "arguments and results are integers of up to 64 bits, bool, f32, f64, thin raw pointers and `Option` of function pointers, at most 12 arguments; what C passes by address is a raw pointer, not a reference"
)]
pub trait FunctionMut<S: FnPointer> {
    /// The closure, callable.
    type Value: Call<S::Args, S::Ret>;
    /// Wraps it.
    fn value(self) -> Self::Value;
}

/// The shim of signature `S` and value `V`.
struct Shim<S, V>(PhantomData<(S, V)>);

impl<S: FnPointer, V: Call<S::Args, S::Ret>> Callee for Shim<S, V> {
    type Ret = S::Ret;

    const TABLE: usize = S::PLAN.table();

    #[inline(always)]
    unsafe fn call(data: usize, regs: &Regs) -> S::Ret {
        #[inline(always)]
        extern "C" fn never_unwinds<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        let value = core::ptr::with_exposed_provenance::<V>(data);
        // SAFETY: entered from a stub of this signature, which loaded the value's address.
        let call = || unsafe { V::call(value, S::Args::load(regs)) };
        // Where a panic would leave a function of the ABI "C", Rust prints it and aborts.
        if S::UNWIND { call() } else { never_unwinds(call) }
    }
}

/// The code that a stub of signature `S` jumps to for a value `V`, whose address it loads.
pub(crate) const fn shim<S: FnPointer, V: Call<S::Args, S::Ret>>() -> *const () {
    if S::PLAN.framed() {
        arch::entry::<Shim<S, V>> as *const ()
    } else if S::PLAN.stack {
        arch::on_stack::<Shim<S, V>> as *const ()
    } else {
        arch::in_registers::<Shim<S, V>> as *const ()
    }
}
