//! Closures whose signature is known only at run time.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::fmt;
use std::sync::Arc;

use trampfd_text::plan::{Callee, Plan, Scalar};

use crate::block::{self, Block};
use crate::builder::Builder;
use crate::error::{Backend, Error};
use crate::plans::Planner;
use crate::types::{Type, TypeError};

/// Argument types and result type of a C function, known at run time.
///
/// They are classified once, here: which registers, which words of the stack. Signatures are
/// cheap to clone.
#[derive(Clone)]
pub struct Signature(Arc<Shape>);

/// # Invariants
///
/// `plan` is the plan of these types.
struct Shape {
    args: Box<[Type]>,
    result: Type,
    plan: &'static Plan,
}

impl Signature {
    /// A function with these arguments and this result.
    ///
    /// # Errors
    ///
    /// [`TypeError::Void`] and [`TypeError::Array`] for what is no argument or result,
    /// [`TypeError::TooLarge`] for arguments that together are too large.
    pub fn new(args: &[Type], result: Type) -> Result<Signature, TypeError> {
        let mut planner = Planner::new(result.returned()?);
        for arg in args {
            planner.arg(arg.class()?);
        }
        let plan = planner.finish()?;
        Ok(Signature(Arc::new(Shape { args: args.into(), result, plan })))
    }

    /// The arguments.
    pub fn args(&self) -> &[Type] {
        &self.0.args
    }

    /// The result.
    pub fn result(&self) -> &Type {
        &self.0.result
    }

    pub(crate) fn plan(&self) -> &'static Plan {
        self.0.plan
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("");
        self.args().iter().for_each(|arg| {
            tuple.field(arg);
        });
        tuple.finish()?;
        write!(f, " -> {:?}", self.result())
    }
}

/// A Rust type that is the same as one of the scalar [`Type`]s.
///
/// # Safety
///
/// A value of a type for which `is` is true can be read and written as `Self`, whatever its bytes
/// are.
pub unsafe trait CValue: Copy {
    /// Whether this is that type.
    fn is(ty: &Type) -> bool;
}

macro_rules! values {
    ($($t:ty => $scalar:pat,)*) => {$(
        // SAFETY: the same size, and every pattern of bytes is a value.
        unsafe impl CValue for $t {
            fn is(ty: &Type) -> bool {
                matches!(ty.scalar(), Some($scalar))
            }
        }
    )*};
}
values! {
    i8 => Scalar::Int(1, _),
    u8 => Scalar::Int(1, _),
    i16 => Scalar::Int(2, _),
    u16 => Scalar::Int(2, _),
    i32 => Scalar::Int(4, _),
    u32 => Scalar::Int(4, _),
    i64 => Scalar::Int(8, _),
    u64 => Scalar::Int(8, _),
    isize => Scalar::Int(8, _),
    usize => Scalar::Int(8, _),
    i128 => Scalar::Wide,
    u128 => Scalar::Wide,
    f32 => Scalar::F32,
    f64 => Scalar::F64,
}
// SAFETY: a thin pointer is a word.
unsafe impl<T> CValue for *const T {
    fn is(ty: &Type) -> bool {
        usize::is(ty)
    }
}
// SAFETY: a thin pointer is a word.
unsafe impl<T> CValue for *mut T {
    fn is(ty: &Type) -> bool {
        usize::is(ty)
    }
}

/// An argument that is not there, or a type that is not the one of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature has no such argument, or another type there")
    }
}

impl std::error::Error for Mismatch {}

/// A call of a [`DynClosure`]: its arguments and the place of its result.
///
/// # Invariants
///
/// `args` points to as many pointers as the signature has arguments, each to a value of its type;
/// `result` to room for the result.
pub struct DynCall<'a> {
    shape: &'a Shape,
    args: *const *mut u8,
    result: *mut u8,
}

impl DynCall<'_> {
    /// Number of arguments.
    pub fn len(&self) -> usize {
        self.shape.args.len()
    }

    /// There are no arguments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Argument `n`. Integers may be read with or without sign.
    ///
    /// # Errors
    ///
    /// [`Mismatch`].
    #[inline]
    pub fn arg<T: CValue>(&self, n: usize) -> Result<T, Mismatch> {
        match self.shape.args.get(n) {
            Some(ty) if T::is(ty) => {
                // SAFETY: by the invariant, and that of `CValue`.
                Ok(unsafe { (*self.args.add(n)).cast::<T>().read_unaligned() })
            }
            _ => Err(Mismatch),
        }
    }

    /// The bytes of argument `n`, whatever its type: for structures, unions, `long double` and
    /// complex numbers.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if there is no such argument.
    pub fn bytes(&self, n: usize) -> Result<&[u8], Mismatch> {
        let ty = self.shape.args.get(n).ok_or(Mismatch)?;
        // SAFETY: by the invariant; nobody writes to it during the call.
        Ok(unsafe { core::slice::from_raw_parts(*self.args.add(n), ty.size()) })
    }

    /// Sets the result. It is zero as long as that was not done.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if it has another type.
    #[inline]
    pub fn set<T: CValue>(&mut self, value: T) -> Result<(), Mismatch> {
        if !T::is(&self.shape.result) {
            return Err(Mismatch);
        }
        // SAFETY: by the invariant, and that of `CValue`.
        unsafe { self.result.cast::<T>().write_unaligned(value) };
        Ok(())
    }

    /// The bytes of the result, to be written.
    pub fn result_bytes(&mut self) -> &mut [u8] {
        // SAFETY: by the invariant; zeroed before the handler was called.
        unsafe { core::slice::from_raw_parts_mut(self.result, self.shape.result.size()) }
    }
}

impl fmt::Debug for DynCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynCall")
            .field("args", &self.shape.args)
            .field("result", &self.shape.result)
            .finish_non_exhaustive()
    }
}

/// A function with its data as a C function pointer, of a signature known only at run time.
///
/// ```
/// use trampfd::{DynClosure, Signature, Type};
/// let signature = Signature::new(&[Type::I32, Type::F64], Type::F64)?;
/// let closure = DynClosure::new(
///     &signature,
///     |call, factor: &f64| {
///         if let (Ok(a), Ok(b)) = (call.arg::<i32>(0), call.arg::<f64>(1)) {
///             let _ = call.set((f64::from(a) + b) * factor);
///         }
///     },
///     2.0,
/// )?;
/// let f: unsafe extern "C" fn(i32, f64) -> f64 = unsafe { std::mem::transmute(closure.as_ptr()) };
/// assert_eq!(unsafe { f(20, 1.0) }, 42.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Threads, fork and panics are as for [`Closure`](crate::Closure). A closure of which every type
/// is known when the program is compiled is better a `Closure`: its call marshals nothing.
///
/// # Invariants
///
/// `block` is a block of its own, bound, whose callee's data is a `Held<F, D>` that `drop` drops.
pub struct DynClosure {
    block: NonNull<Block>,
    drop: unsafe fn(*mut ()),
    owns: PhantomData<Signature>,
}

// SAFETY: what it holds is Send and Sync, see `new`.
unsafe impl Send for DynClosure {}
// SAFETY: as above; the pointer may be called by any thread.
unsafe impl Sync for DynClosure {}

/// What a dynamic closure holds.
struct Held<F, D> {
    signature: Signature,
    handler: F,
    data: D,
}

impl DynClosure {
    /// Makes a C function pointer of this signature that calls `handler` with the call and
    /// `&data`.
    ///
    /// # Errors
    ///
    /// [`Error::Growth`], [`Error::NoMemory`], [`Error::Sealed`], and with the kernel service
    /// [`Error::Quota`], [`Error::Unavailable`], [`Error::Service`].
    pub fn new<F, D>(signature: &Signature, handler: F, data: D) -> Result<DynClosure, Error>
    where
        F: Fn(&mut DynCall<'_>, &D) + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        DynClosure::build(&Builder::new(), signature, handler, data)
    }

    pub(crate) fn build<F, D>(
        builder: &Builder,
        signature: &Signature,
        handler: F,
        data: D,
    ) -> Result<DynClosure, Error>
    where
        F: Fn(&mut DynCall<'_>, &D) + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        let block = block::alloc(builder, block::SIZE)?;
        let held = Box::new(Held { signature: signature.clone(), handler, data });
        let callee = Callee {
            signature: Arc::as_ptr(&signature.0).cast(),
            handler: Some(handle::<F, D>),
            data: Box::into_raw(held).cast(),
        };
        // SAFETY: a new block, and a callee for signatures of this plan.
        unsafe {
            (*block.as_ptr()).callee = callee;
            block::bind(block, signature.0.plan);
        }
        Ok(DynClosure { block, drop: drop_held::<F, D>, owns: PhantomData })
    }

    /// The function pointer, to be cast to its type. It may be called as long as the closure
    /// lives.
    pub fn as_ptr(&self) -> *const () {
        // SAFETY: by the invariant.
        core::ptr::with_exposed_provenance(unsafe { self.block.as_ref() }.stub())
    }

    /// The function pointer, for ever: the closure is never dropped.
    pub fn leak(self) -> *const () {
        ManuallyDrop::new(self).as_ptr()
    }

    /// What made the stub.
    pub fn backend(&self) -> Backend {
        // SAFETY: by the invariant.
        unsafe { self.block.as_ref() }.backend()
    }
}

impl Drop for DynClosure {
    fn drop(&mut self) {
        // SAFETY: by the invariant. The stub traps before its data is gone.
        unsafe {
            let held = self.block.as_ref().callee.data;
            block::free(self.block);
            (self.drop)(held);
        }
    }
}

impl fmt::Debug for DynClosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynClosure")
            .field("stub", &self.as_ptr())
            .field("backend", &self.backend())
            .finish()
    }
}

/// The handler of the stubs of dynamic closures.
///
/// # Safety
///
/// Called by the entry of a block whose callee's data is a `Held<F, D>`.
unsafe extern "C-unwind" fn handle<F, D>(
    shape: *const (),
    result: *mut u8,
    args: *const *mut u8,
    held: *mut (),
) where
    F: Fn(&mut DynCall<'_>, &D),
{
    /// A panic that would leave it ends the process.
    extern "C" fn never_unwinds(f: impl FnOnce()) {
        f();
    }
    // SAFETY: by the contract; the closure is not dropped during a call.
    let (shape, held) = unsafe { (&*shape.cast::<Shape>(), &*held.cast::<Held<F, D>>()) };
    // SAFETY: room for the result.
    unsafe { zero(result, shape.result.size()) };
    never_unwinds(|| (held.handler)(&mut DynCall { shape, args, result }, &held.data));
}

/// # Safety
///
/// `size` bytes can be written at `place`.
#[inline(always)]
unsafe fn zero(place: *mut u8, size: usize) {
    // SAFETY: by the contract.
    unsafe {
        match size {
            // Most results; for these a call of memset would take longer than all the rest.
            4 => place.cast::<u32>().write_unaligned(0),
            8 => place.cast::<u64>().write_unaligned(0),
            16 => place.cast::<u128>().write_unaligned(0),
            _ => place.write_bytes(0, size),
        }
    }
}

/// # Safety
///
/// `held` is the content of a `Box<Held<F, D>>` that nobody else drops.
unsafe fn drop_held<F, D>(held: *mut ()) {
    // SAFETY: by the contract.
    let held = unsafe { Box::from_raw(held.cast::<Held<F, D>>()) };
    drop(held.signature);
    drop(held.handler);
    drop(held.data);
}
