//! Closures with wishes: which backend, how many ahead, and the seal.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::backend::kernel;
use crate::backend::text::Growth;
use crate::call::{Function, FunctionMut, Handler};
use crate::closure::{self, Closure, Local, LocalMut};
use crate::dynamic::{DynCall, DynClosure, Signature};
use crate::error::{Backend, Error};
use crate::fork;
use crate::pointer::FnPointer;

/// Makes closures as [`Closure`] does, with more said about how.
///
/// Without wishes the kernel service is used where it works, else static text; the choice is
/// made once, at the first closure of the process.
///
/// ```no_run
/// use trampfd::{Backend, Builder, Closure};
/// // A server that makes all its callbacks at start, and then no more.
/// let kernel = Builder::new().require(Backend::Kernel);
/// kernel.prewarm(64, |event: u32, session: &usize| (event as usize) < *session)?;
/// let sealed = kernel.seal()?;
/// println!("no trampoline can change now; not even be unmapped: {}", sealed.mseal);
/// let callback = kernel.closure(|event: u32, session: &usize| (event as usize) < *session, 7)?;
/// # Ok::<(), trampfd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Builder {
    require: Option<Backend>,
    pub(crate) at_once: bool,
    pub(crate) growth: Growth,
}

/// What a seal could do.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The views are sealed against munmap, mprotect and new mappings in their place as well
    /// (mseal, Linux 6.10).
    pub mseal: bool,
}

/// The choice where none is required: 0 not made yet, else a `Backend`.
static CHOICE: AtomicU8 = AtomicU8::new(0);
const TEXT: u8 = 1;
const KERNEL: u8 = 2;

impl Builder {
    /// No wishes.
    #[inline]
    pub const fn new() -> Builder {
        Builder { require: None, at_once: false, growth: Growth::Any }
    }

    /// This backend or none: where it cannot be had, making a closure is an error.
    #[inline]
    pub const fn require(mut self, backend: Backend) -> Builder {
        self.require = Some(backend);
        self
    }

    /// With the kernel service: a dropped closure's slot is cleared at once, by one call each,
    /// instead of together with up to 255 others. With static text that is always so.
    #[inline]
    pub const fn clear_at_once(mut self, yes: bool) -> Builder {
        self.at_once = yes;
        self
    }

    /// How the static tables may grow.
    #[inline]
    pub const fn growth(mut self, growth: Growth) -> Builder {
        self.growth = growth;
        self
    }

    /// Like [`Closure::new`].
    ///
    /// # Errors
    ///
    /// As for [`Closure::new`]; [`Error::Unavailable`] if the required backend is not to be had.
    #[inline]
    pub fn closure<S, F, D, M>(&self, f: F, data: D) -> Result<Closure<S>, Error>
    where
        S: FnPointer,
        F: Handler<S, D, M> + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        closure::make(self, f.with(data))
    }

    /// Like [`Closure::from_fn`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::closure`].
    #[inline]
    pub fn closure_from_fn<S, F>(&self, f: F) -> Result<Closure<S>, Error>
    where
        S: FnPointer,
        F: Function<S> + Send + Sync + 'static,
    {
        closure::make(self, f.value())
    }

    /// Like [`Closure::new_unwind`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::closure`].
    #[inline]
    pub fn closure_unwind<S, F, D, M>(&self, f: F, data: D) -> Result<Closure<S::Unwind>, Error>
    where
        S: FnPointer,
        F: Handler<S, D, M> + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        closure::make(self, f.with(data))
    }

    /// Like [`Closure::local`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::closure`].
    #[inline]
    pub fn local<'a, S, F>(&self, f: F) -> Result<Local<'a, S>, Error>
    where
        S: FnPointer,
        F: Function<S> + 'a,
    {
        closure::make(self, f.value()).map(Local::of)
    }

    /// Like [`Closure::local_mut`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::closure`].
    #[inline]
    pub fn local_mut<'a, S, F>(&self, f: F) -> Result<LocalMut<'a, S>, Error>
    where
        S: FnPointer,
        F: FunctionMut<S> + 'a,
    {
        closure::make(self, f.value()).map(LocalMut::of)
    }

    /// Like [`DynClosure::new`].
    ///
    /// # Errors
    ///
    /// As for [`DynClosure::new`]; [`Error::Unavailable`] if the required backend is not to be
    /// had.
    pub fn dynamic<F, D>(
        &self,
        signature: &Signature,
        handler: F,
        data: D,
    ) -> Result<DynClosure, Error>
    where
        F: Fn(&mut DynCall<'_>, &D) + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        DynClosure::build(self, signature, handler, data)
    }

    /// Prepares `count` closures of handler `f` with data of type `D`, so that making them later
    /// needs no call of the kernel. The handler itself is not kept: it only says which kind.
    ///
    /// # Errors
    ///
    /// As for [`Builder::closure`].
    pub fn prewarm<S, F, D, M>(&self, count: usize, f: F) -> Result<(), Error>
    where
        S: FnPointer,
        F: Handler<S, D, M> + Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        closure::prewarm::<S, F, D, M>(self, count, f)
    }

    /// Seals the process: clears the slots of dropped closures, has the kernel refuse any further
    /// change of trampolines and any further table (`TRAMPFD_SEAL_ALL`), seals the mappings where
    /// mseal(2) exists, and closes the device. From then on [`Closure::new`] gives what was
    /// prewarmed, once each, and then [`Error::Sealed`]; closures that were made go on working.
    /// A child of fork is sealed too, exec ends it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] on the text backend, whose slots are ordinary memory;
    /// [`Error::Unavailable`], [`Error::Service`]; [`Error::Sealed`] if it was done before.
    pub fn seal(&self) -> Result<Sealed, Error> {
        match self.choose()? {
            Backend::Text => Err(Error::Unsupported {
                backend: Backend::Text,
                what: "seal: its slots are ordinary memory",
            }),
            Backend::Kernel => {
                fork::prepare();
                let mseal = kernel::lock().seal()?;
                // What is made without wishes from now on must not fall back to static text.
                CHOICE.store(KERNEL, Ordering::Relaxed);
                Ok(Sealed { mseal })
            }
        }
    }

    /// The backend that closures of this builder are made by.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the required one is not to be had.
    #[inline(always)]
    pub fn backend(&self) -> Result<Backend, Error> {
        self.choose()
    }

    /// Whether the backend is static text; false also before that was found out.
    #[inline(always)]
    pub(crate) fn is_text(&self) -> bool {
        match self.require {
            Some(backend) => backend == Backend::Text,
            None => CHOICE.load(Ordering::Relaxed) == TEXT,
        }
    }

    #[inline(always)]
    pub(crate) fn choose(&self) -> Result<Backend, Error> {
        match self.require {
            Some(Backend::Text) => Ok(Backend::Text),
            Some(Backend::Kernel) => Ok(Backend::Kernel),
            None if CHOICE.load(Ordering::Relaxed) == TEXT => Ok(Backend::Text),
            None => Ok(first_choice()),
        }
    }
}

/// Makes the choice, or recalls it.
#[cold]
fn first_choice() -> Backend {
    match CHOICE.load(Ordering::Relaxed) {
        TEXT => Backend::Text,
        KERNEL => Backend::Kernel,
        _ => {
            fork::prepare();
            let (choice, backend) = match kernel::lock().probe() {
                Ok(_) => (KERNEL, Backend::Kernel),
                Err(_) => (TEXT, Backend::Text),
            };
            CHOICE.store(choice, Ordering::Relaxed);
            backend
        }
    }
}
