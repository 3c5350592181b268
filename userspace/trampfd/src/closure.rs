//! Closures: a function with its state, as a C function pointer.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, align_of, size_of};

use trampfd_text::arch;
use trampfd_text::table::{SPARE, Slot, StaticTable};

use crate::backend::kernel;
use crate::backend::text::{Diagnosis, Growth};
use crate::builder::Builder;
use crate::call::{Boxed, Call, Function, FunctionMut, Handler, shim};
use crate::error::{Backend, Error};
use crate::pointer::FnPointer;
use crate::{fork, objects, slots};

/// A Rust function with its data, as a C function pointer of type `S`.
///
/// `S` is the type of the pointer, for example `unsafe extern "C" fn(i32, f64) -> f64`. What the
/// closure holds is not part of the type, so it can be named in structs. The pointer works as
/// long as the closure lives; [`leak`](Closure::leak) makes that for ever.
///
/// ```
/// use trampfd::Closure;
/// // What a C library would do: call a function pointer, with no user data.
/// fn library(callback: unsafe extern "C" fn(i32) -> i32) -> i32 {
///     unsafe { callback(20) }
/// }
/// let offset = Closure::new(|a: i32, offset: &i32| a + offset, 22)?;
/// assert_eq!(library(offset.as_ptr()), 42);
/// # Ok::<(), trampfd::Error>(())
/// ```
///
/// Threads: the pointer may be called from any number of threads at once, and the closure may be
/// dropped by any thread. After fork parent and child each have their own closures; neither sees
/// what the other makes or drops.
///
/// A panic in a closure ends the process, as in any `extern "C"` function. With
/// [`new_unwind`](Closure::new_unwind) it goes on into the caller.
///
/// # Invariants
///
/// `stub` is the address of a live stub of table `S::PLAN.table()`, its low bits the flags below;
/// the stub's slot holds the address of a value that `drop` drops.
pub struct Closure<S: FnPointer> {
    stub: usize,
    drop: Option<unsafe fn(*mut u8)>,
    signature: PhantomData<S>,
}

/// The stub is one of the kernel service.
const KERNEL: usize = 1;
/// The slot is cleared as soon as the closure is dropped.
const AT_ONCE: usize = 2;
/// Both; a stub is aligned to more than that.
const FLAGS: usize = KERNEL | AT_ONCE;

// SAFETY: `Closure` is made of what is Send and Sync only; `Local` and `LocalMut`, which hold
// what is not, take that away again.
unsafe impl<S: FnPointer> Send for Closure<S> {}
// SAFETY: as above; the pointer may be called by any thread.
unsafe impl<S: FnPointer> Sync for Closure<S> {}

impl<S: FnPointer> Closure<S> {
    /// Makes a C function pointer that calls `f` with the C arguments and `&data`.
    ///
    /// `f` is a function or closure `Fn(A, .., &D) -> R` that names the types of its arguments,
    /// or a pointer `extern "C" fn(A, .., &D) -> R`. Up to 16 bytes of `f` and `data` together
    /// need no allocation.
    ///
    /// # Errors
    ///
    /// [`Error::Growth`], [`Error::NotText`] (for a pointer that lies in no text),
    /// [`Error::Sealed`], and with the kernel service [`Error::Quota`], [`Error::NoMemory`],
    /// [`Error::Unavailable`], [`Error::Service`].
    #[inline]
    pub fn new<F, D, M>(f: F, data: D) -> Result<Self, Error>
    where
        F: Handler<S, D, M> + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        Builder::new().closure(f, data)
    }

    /// Makes a C function pointer that calls `f`, which captures what it needs.
    ///
    /// # Errors
    ///
    /// As for [`new`](Closure::new).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use std::sync::Arc;
    /// let count = Arc::new(AtomicU32::new(0));
    /// let seen = count.clone();
    /// let callback = trampfd::Closure::from_fn(move |_: *const u8| {
    ///     seen.fetch_add(1, Ordering::Relaxed);
    /// })?;
    /// unsafe { callback.as_ptr()(std::ptr::null()) };
    /// assert_eq!(count.load(Ordering::Relaxed), 1);
    /// # Ok::<(), trampfd::Error>(())
    /// ```
    #[inline]
    pub fn from_fn<F>(f: F) -> Result<Self, Error>
    where
        F: Function<S> + Send + Sync + 'static,
    {
        Builder::new().closure_from_fn(f)
    }

    /// Like [`new`](Closure::new), for a pointer with the ABI "C-unwind": a panic unwinds into
    /// the caller, which must be prepared for it.
    ///
    /// # Errors
    ///
    /// As for [`new`](Closure::new).
    #[inline]
    pub fn new_unwind<F, D, M>(f: F, data: D) -> Result<Closure<S::Unwind>, Error>
    where
        F: Handler<S, D, M> + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        make(&Builder::new(), f.with(data))
    }

    /// Like [`from_fn`](Closure::from_fn), for a pointer with the ABI "C-unwind".
    ///
    /// # Errors
    ///
    /// As for [`new`](Closure::new).
    #[inline]
    pub fn from_fn_unwind<F>(f: F) -> Result<Closure<S::Unwind>, Error>
    where
        F: Function<S> + Send + Sync + 'static,
    {
        make(&Builder::new(), f.value())
    }

    /// A closure that borrows, or that holds what belongs to one thread.
    ///
    /// # Errors
    ///
    /// As for [`new`](Closure::new).
    ///
    /// ```
    /// use std::cell::Cell;
    /// let sum = Cell::new(0);
    /// let add = trampfd::Closure::local(|a: i32| sum.set(sum.get() + a))?;
    /// unsafe { add.as_ptr()(40) };
    /// unsafe { add.as_ptr()(2) };
    /// assert_eq!(sum.get(), 42);
    /// # Ok::<(), trampfd::Error>(())
    /// ```
    #[inline]
    pub fn local<'a, F>(f: F) -> Result<Local<'a, S>, Error>
    where
        F: Function<S> + 'a,
    {
        Builder::new().local(f)
    }

    /// A closure that changes what it holds, an `FnMut`.
    ///
    /// # Errors
    ///
    /// As for [`new`](Closure::new).
    ///
    /// ```
    /// let mut seen = Vec::new();
    /// let mut push = trampfd::Closure::local_mut(|a: u8| seen.push(a))?;
    /// unsafe { push.as_ptr()(7) };
    /// drop(push);
    /// assert_eq!(seen, [7]);
    /// # Ok::<(), trampfd::Error>(())
    /// ```
    #[inline]
    pub fn local_mut<'a, F>(f: F) -> Result<LocalMut<'a, S>, Error>
    where
        F: FunctionMut<S> + 'a,
    {
        Builder::new().local_mut(f)
    }

    /// The function pointer. To call it is safe as long as the closure lives.
    #[inline]
    pub fn as_ptr(&self) -> S {
        S::from_stub(self.stub & !FLAGS)
    }

    /// The function pointer, for ever: the closure is never dropped.
    #[inline]
    pub fn leak(self) -> S {
        ManuallyDrop::new(self).as_ptr()
    }

    /// What made the stub.
    #[inline]
    pub fn backend(&self) -> Backend {
        if self.stub & KERNEL != 0 { Backend::Kernel } else { Backend::Text }
    }
}

impl<S: FnPointer> Drop for Closure<S> {
    #[inline]
    fn drop(&mut self) {
        let stub = self.stub & !FLAGS;
        if self.stub & KERNEL != 0 {
            // SAFETY: by the invariant.
            unsafe { drop_kernel(stub, self.stub & AT_ONCE != 0, self.drop) };
            return;
        }
        let n = const { S::PLAN.table() };
        let slot = stub.wrapping_add_signed(const { table::<S>() }.distance());
        let slot = core::ptr::with_exposed_provenance_mut::<Slot>(slot);
        // SAFETY: by the invariant; from here on nothing refers to the slot.
        unsafe {
            let value = (*slot).data;
            // The jump first: a stub that is called by mistake must not get a new value with old
            // code.
            slots::store(
                &raw mut (*slot).code,
                const { arch::freed::<Diagnosis>(S::PLAN.table()) } as usize,
            );
            slots::store(&raw mut (*slot).data, stub);
            if let Some(drop) = self.drop {
                drop(core::ptr::with_exposed_provenance_mut(value));
            }
            slots::put(n, slot);
        }
    }
}

/// Drops the value of a kernel stub and gives its slot back.
///
/// # Safety
///
/// `stub` is a live stub of the kernel service, whose value `drop` drops.
#[cold]
unsafe fn drop_kernel(stub: usize, at_once: bool, drop: Option<unsafe fn(*mut u8)>) {
    // SAFETY: by the contract. The cell is read before the slot is cleared.
    let cell = unsafe { kernel::cell(stub) };
    if let Some(drop) = drop {
        // The slot goes back only after the value was dropped: the cell is its room.
        // SAFETY: by the contract.
        unsafe { drop(cell) };
    }
    kernel::put(stub, at_once);
}

impl<S: FnPointer> fmt::Debug for Closure<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closure")
            .field("stub", &format_args!("{:#x}", self.stub & !FLAGS))
            .field("backend", &self.backend())
            .finish()
    }
}

/// A closure that borrows for `'a`, or belongs to one thread: neither `Send` nor `Sync`.
///
/// The pointer must not be called after the closure was dropped, nor by a thread that may not
/// use what the closure holds.
pub struct Local<'a, S: FnPointer> {
    closure: Closure<S>,
    #[expect(dead_code, reason = "what it says is in its type")]
    borrows: Borrows<'a>,
}

/// Stands for what a closure holds: bound to one thread, and looked at when it is dropped, so
/// that it must not be dropped after what it borrows. ([`Closure`] has forgotten both.)
struct Borrows<'a>(PhantomData<(&'a (), *const ())>);

impl Drop for Borrows<'_> {
    fn drop(&mut self) {}
}

impl<'a, S: FnPointer> Local<'a, S> {
    pub(crate) fn of(closure: Closure<S>) -> Self {
        Local { closure, borrows: Borrows(PhantomData) }
    }

    /// The function pointer. To call it is safe as long as the closure lives, in this thread.
    #[inline]
    pub fn as_ptr(&self) -> S {
        self.closure.as_ptr()
    }

    /// What made the stub.
    #[inline]
    pub fn backend(&self) -> Backend {
        self.closure.backend()
    }
}

impl<S: FnPointer> Local<'static, S> {
    /// The function pointer, for ever: the closure is never dropped.
    #[inline]
    pub fn leak(self) -> S {
        self.closure.leak()
    }
}

impl<S: FnPointer> fmt::Debug for Local<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.closure.fmt(f)
    }
}

/// A closure that changes what it holds. Neither `Send` nor `Sync`.
///
/// The pointer must not be called after the closure was dropped, nor while a call of it runs.
pub struct LocalMut<'a, S: FnPointer>(Local<'a, S>);

impl<'a, S: FnPointer> LocalMut<'a, S> {
    pub(crate) fn of(closure: Closure<S>) -> Self {
        LocalMut(Local::of(closure))
    }

    /// The function pointer. To call it is safe as long as the closure lives, in this thread,
    /// and no other call of it runs.
    #[inline]
    pub fn as_ptr(&mut self) -> S {
        self.0.as_ptr()
    }

    /// What made the stub.
    #[inline]
    pub fn backend(&self) -> Backend {
        self.0.backend()
    }
}

impl<S: FnPointer> LocalMut<'static, S> {
    /// The function pointer, for ever: the closure is never dropped.
    #[inline]
    pub fn leak(self) -> S {
        self.0.leak()
    }
}

impl<S: FnPointer> fmt::Debug for LocalMut<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The static table of a signature.
const fn table<S: FnPointer>() -> &'static StaticTable {
    arch::static_table(S::PLAN.table())
}

/// A value of this type needs no allocation.
const fn fits<V>() -> bool {
    size_of::<V>() <= SPARE && align_of::<V>() <= SPARE
}

/// The function that drops what lies at an address, if there is anything to do.
const fn dropper<V>() -> Option<unsafe fn(*mut u8)> {
    /// # Safety
    ///
    /// A value of type `V` lies at `value`, and nobody else drops it.
    unsafe fn drop_at<V>(value: *mut u8) {
        // SAFETY: by the contract.
        unsafe { value.cast::<V>().drop_in_place() };
    }
    if core::mem::needs_drop::<V>() { Some(drop_at::<V>) } else { None }
}

/// # Safety
///
/// `value` is the content of a `Box<V>` that nobody else drops.
unsafe fn drop_box<V>(value: *mut u8) {
    // SAFETY: by the contract.
    drop(unsafe { Box::from_raw(value.cast::<V>()) });
}

/// Makes a closure of `value`.
#[inline(always)]
pub(crate) fn make<S, V>(builder: &Builder, value: V) -> Result<Closure<S>, Error>
where
    S: FnPointer,
    V: Call<S::Args, S::Ret>,
{
    match builder.choose()? {
        Backend::Text => make_text(builder.growth, value),
        Backend::Kernel => make_kernel(builder.at_once, value),
    }
}

/// Where a stub jumps for a value stored as type `V`, which has this [`Call::target`].
#[inline(always)]
fn code_of<S, V>(target: Option<usize>) -> usize
where
    S: FnPointer,
    V: Call<S::Args, S::Ret>,
{
    match target {
        // The data pointer goes where the function expects its last argument.
        Some(code) if const { !S::PLAN.framed() } => code,
        _ => (const { shim::<S, V>() }) as usize,
    }
}

/// Looks at a target that the stub does not jump to: the shim calls it, and nobody else asks
/// whether it is text.
#[inline(always)]
fn check_called<S: FnPointer>(direct: bool, target: Option<usize>) -> Result<(), Error> {
    match target {
        Some(code) if !direct || const { S::PLAN.framed() } => objects::check_text(code),
        _ => Ok(()),
    }
}

#[inline(always)]
fn make_text<S, V>(growth: Growth, value: V) -> Result<Closure<S>, Error>
where
    S: FnPointer,
    V: Call<S::Args, S::Ret>,
{
    check_called::<S>(true, value.target())?;
    let code = code_of::<S, V>(value.target());
    objects::check_text(code)?;
    let table = const { table::<S>() };
    let slot = slots::take(const { S::PLAN.table() }, table, growth)?;
    // SAFETY: the slot is free, and ours. The value's address is stored before the jump to it.
    unsafe {
        let (data, drop) = if const { fits::<V>() } {
            let place = (&raw mut (*slot).spare).cast::<V>();
            place.write(value);
            (place.expose_provenance(), const { dropper::<V>() })
        } else {
            let drop: unsafe fn(*mut u8) = drop_box::<V>;
            (Box::into_raw(Box::new(value)).expose_provenance(), Some(drop))
        };
        slots::store(&raw mut (*slot).data, data);
        slots::store(&raw mut (*slot).code, code);
        let stub = slot.expose_provenance().wrapping_add_signed(-table.distance());
        Ok(Closure { stub, drop, signature: PhantomData })
    }
}

#[cold]
fn make_kernel<S, V>(at_once: bool, value: V) -> Result<Closure<S>, Error>
where
    S: FnPointer,
    V: Call<S::Args, S::Ret>,
{
    check_called::<S>(const { fits::<V>() }, value.target())?;
    if const { fits::<V>() } {
        fill_cell(at_once, value)
    } else {
        fill_cell(at_once, Boxed(Box::new(value)))
    }
}

fn fill_cell<S, V>(at_once: bool, value: V) -> Result<Closure<S>, Error>
where
    S: FnPointer,
    V: Call<S::Args, S::Ret>,
{
    const { assert!(fits::<Boxed<V>>() && kernel::CELL == SPARE) };
    let reg = const { table::<S>() }.reg;
    let code = code_of::<S, V>(value.target());
    let stub = kernel::take(kernel::Kind { reg, code })?;
    // SAFETY: the slot is bound to this kind and to its cell, and nobody has it.
    unsafe { kernel::cell(stub).cast::<V>().write(value) };
    let flags = KERNEL | if at_once { AT_ONCE } else { 0 };
    Ok(Closure { stub: stub | flags, drop: dropper::<V>(), signature: PhantomData })
}

/// Prepares `count` closures of the kind of `handler` ahead of need.
pub(crate) fn prewarm<S, F, D, M>(builder: &Builder, count: usize, handler: F) -> Result<(), Error>
where
    S: FnPointer,
    F: Handler<S, D, M>,
{
    let target = handler.target();
    match builder.choose()? {
        Backend::Text => {
            check_called::<S>(true, target)?;
            objects::check_text(code_of::<S, F::Value>(target))?;
            let n = const { S::PLAN.table() };
            slots::prewarm(n, const { table::<S>() }, builder.growth, count)
        }
        Backend::Kernel => {
            check_called::<S>(const { fits::<F::Value>() }, target)?;
            let reg = const { table::<S>() }.reg;
            let code = if const { fits::<F::Value>() } {
                code_of::<S, F::Value>(target)
            } else {
                (const { shim::<S, Boxed<F::Value>>() }) as usize
            };
            let count = u32::try_from(count).map_err(|_| Error::NoMemory)?;
            fork::prepare();
            kernel::lock().prewarm(kernel::Kind { reg, code }, count)
        }
    }
}
