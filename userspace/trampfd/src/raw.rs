//! Building blocks for interfaces of other languages: stubs and blocks that nobody ties to what
//! they call.
//!
//! | | for | frees |
//! |---|---|---|
//! | [`Stub`] | a pair of code and data, in a register of choice | its owner, by [`Stub::from_raw`] from the address alone |
//! | [`Block`] | closures of any signature in the shape of libffi's | [`free`], from the block or by [`block_of`] from the stub |

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use trampfd_text::arch;
use trampfd_text::table::{Slot, StaticTable};

use crate::backend::kernel;
use crate::backend::text::Diagnosis;
use crate::builder::Builder;
use crate::dynamic::Signature;
use crate::error::{Backend, Error};
use crate::{block, objects, slots};

pub use crate::block::Block;
pub use crate::plans::Planner;
pub use trampfd_text::arch::{Class, MAX_IN_REGISTERS, Returned};
pub use trampfd_text::plan::{CALLEE_AT, Callee, Handler, Leaf, Plan, Scalar};

/// DWARF number (psABI) of the static chain register.
pub const CHAIN: u16 = arch::CHAIN_REG;

/// The registers that a [`Stub`] can load, as DWARF numbers: the integer argument registers in
/// order, then the static chain register.
pub const fn registers() -> &'static [u16] {
    const ALL: [u16; arch::INT_REGS.len() + 1] = {
        let mut all = [CHAIN; arch::INT_REGS.len() + 1];
        let mut n = 0;
        while n < arch::INT_REGS.len() {
            all[n] = arch::INT_REGS[n];
            n += 1;
        }
        all
    };
    &ALL
}

/// The static tables, by number.
static TABLES: [&StaticTable; arch::INT_REGS.len() + 1] = {
    let mut all = [arch::static_table(0); arch::INT_REGS.len() + 1];
    let mut n = 0;
    while n < all.len() {
        all[n] = arch::static_table(n);
        n += 1;
    }
    all
};

/// The codes of their freed slots.
static FREED: [extern "C" fn(); arch::INT_REGS.len() + 1] = {
    let mut all = [arch::freed::<Diagnosis>(0); arch::INT_REGS.len() + 1];
    let mut n = 0;
    while n < all.len() {
        all[n] = arch::freed::<Diagnosis>(n);
        n += 1;
    }
    all
};

/// A stub that loads a value into a register and jumps. Gives it back when it is dropped.
///
/// # Invariants
///
/// `stub` is the address of a live stub of table number `n`, of the kernel service if `kernel`.
#[derive(Debug)]
pub struct Stub {
    stub: usize,
    n: u8,
    kernel: bool,
}

impl Stub {
    /// A stub that loads `data` into the register `reg` and jumps to `code`.
    ///
    /// With the kernel service each one is a system call: code and data are in the kernel's
    /// pages, where nobody else can write them.
    ///
    /// # Errors
    ///
    /// [`Error::Register`] if `reg` is none of [`registers`], [`Error::NotText`] if `code` lies in
    /// no text, [`Error::Growth`], and those of the kernel service.
    ///
    /// # Safety
    ///
    /// When the stub is called, `code` is a function that takes what the caller passes and what
    /// `reg` holds.
    #[inline]
    pub unsafe fn new(
        builder: &Builder,
        reg: u16,
        code: *const (),
        data: *mut (),
    ) -> Result<Stub, Error> {
        let code = code.expose_provenance();
        let n = number(reg).ok_or(Error::Register { reg })?;
        let backend = builder.choose()?;
        let stub = match backend {
            Backend::Text => {
                objects::check_text(code)?;
                let slot = slots::take(n, TABLES[n], builder.growth)?;
                // SAFETY: a slot of ours.
                unsafe { fill(slot, code, data) };
                slot.expose_provenance().wrapping_add_signed(-TABLES[n].distance())
            }
            Backend::Kernel => kernel::take_one(reg, code, data.expose_provenance())?,
        };
        Ok(Stub { stub, n: n as u8, kernel: backend == Backend::Kernel })
    }

    /// The stub.
    #[inline]
    pub fn as_ptr(&self) -> *const () {
        core::ptr::with_exposed_provenance(self.stub)
    }

    /// Loads and jumps differently from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotText`]; [`Error::Unsupported`] with the kernel service, which changes no live
    /// stub: make another one.
    ///
    /// # Safety
    ///
    /// As for [`new`](Stub::new); nobody calls the stub just now.
    #[inline]
    pub unsafe fn set(&mut self, code: *const (), data: *mut ()) -> Result<(), Error> {
        if self.kernel {
            return Err(Error::Unsupported {
                backend: Backend::Kernel,
                what: "change a live trampoline",
            });
        }
        let code = code.expose_provenance();
        objects::check_text(code)?;
        // SAFETY: a slot of ours.
        unsafe { fill(self.slot(), code, data) };
        Ok(())
    }

    /// The stub traps from now on, as a freed one does, until it is [`set`](Stub::set) again. With
    /// the kernel service it stays as it is.
    #[inline]
    pub fn disarm(&mut self) {
        if !self.kernel {
            // SAFETY: a slot of ours. The jump first: no new data with old code.
            unsafe {
                let slot = self.slot();
                slots::store(&raw mut (*slot).code, FREED[usize::from(self.n)] as usize);
                slots::store(&raw mut (*slot).data, self.stub);
            }
        }
    }

    /// What made the stub.
    pub fn backend(&self) -> Backend {
        if self.kernel { Backend::Kernel } else { Backend::Text }
    }

    /// The stub, which nobody gives back but [`from_raw`](Stub::from_raw).
    #[inline]
    pub fn into_raw(self) -> *const () {
        ManuallyDrop::new(self).as_ptr()
    }

    /// Takes back what [`into_raw`](Stub::into_raw) gave.
    ///
    /// # Errors
    ///
    /// [`Error::NoStub`] if there is none at this address, or a free one.
    ///
    /// # Safety
    ///
    /// Some 20 bytes can be read at `stub`. If it is a stub, it came from `into_raw` and nobody
    /// else takes it back.
    pub unsafe fn from_raw(stub: *const ()) -> Result<Stub, Error> {
        let none = || Error::NoStub { address: stub.addr() };
        // SAFETY: by the contract.
        let (reg, slot) = unsafe { arch::read_stub(stub.cast()) }.ok_or_else(none)?;
        let n = number(reg).ok_or_else(none)?;
        let stub = stub.expose_provenance();
        // A text slot is never at the kernel's distance but by chance.
        let distance = slot.wrapping_sub(stub);
        let kernel = distance == kernel::DISTANCE
            && (TABLES[n].distance() as usize != distance || kernel::owns(stub));
        // SAFETY: by the contract.
        let of_table = || unsafe { arch::table_number(core::ptr::with_exposed_provenance(stub)) };
        if !kernel && (TABLES[n].distance() as usize != distance || of_table() != n) {
            return Err(none());
        }
        let stub = Stub { stub, n: n as u8, kernel };
        // SAFETY: a slot of a table of ours.
        if !kernel && [0, FREED[n] as usize].contains(unsafe { &(*stub.slot()).code }) {
            core::mem::forget(stub);
            return Err(none());
        }
        Ok(stub)
    }

    /// The slot, on static text.
    #[inline]
    fn slot(&self) -> *mut Slot {
        let table = TABLES[usize::from(self.n)];
        core::ptr::with_exposed_provenance_mut(self.stub.wrapping_add_signed(table.distance()))
    }
}

impl Drop for Stub {
    #[inline]
    fn drop(&mut self) {
        if self.kernel {
            kernel::put(self.stub, false);
            return;
        }
        self.disarm();
        // SAFETY: by the invariant.
        unsafe { slots::put(usize::from(self.n), self.slot()) };
    }
}

/// The number of the table whose stubs load `reg`.
#[inline]
fn number(reg: u16) -> Option<usize> {
    registers().iter().position(|&known| known == reg)
}

/// Fills a slot, whoever may call its stub meanwhile: never new data with old code.
///
/// # Safety
///
/// The slot is the caller's, and freed or not called.
#[inline]
unsafe fn fill(slot: *mut Slot, code: usize, data: *mut ()) {
    // SAFETY: by the contract.
    unsafe {
        slots::store(&raw mut (*slot).data, data.expose_provenance());
        slots::store(&raw mut (*slot).code, code);
    }
}

/// A block of at least `size` bytes, aligned to 16, with its stub, which traps until something is
/// bound to it. Blocks of up to 64 bytes need no allocation. Only the first 32 bytes, which are
/// the library's, are written.
///
/// # Errors
///
/// [`Error::Growth`], [`Error::NoMemory`], [`Error::Sealed`], and those of the kernel service.
#[inline]
pub fn alloc(builder: &Builder, size: usize) -> Result<NonNull<Block>, Error> {
    block::alloc(builder, size)
}

/// What [`alloc`] gives where that needs nothing but a block which this thread gave back before;
/// `None` where it needs more. Never calls anything, so that its caller needs no frame.
#[inline(always)]
pub fn recent(builder: &Builder, size: usize) -> Option<NonNull<Block>> {
    block::recent(builder, size)
}

/// The stub of a block.
///
/// # Safety
///
/// `block` came from [`alloc`] and was not given back.
#[inline]
pub unsafe fn stub(block: NonNull<Block>) -> *const () {
    // SAFETY: by the contract.
    core::ptr::with_exposed_provenance(unsafe { block.as_ref() }.stub())
}

/// The block whose stub is `code`; `None` if there is no stub there.
///
/// # Safety
///
/// Some 16 bytes can be read at `code`; if they are a stub that loads the static chain register,
/// it is one of a live block.
#[inline]
pub unsafe fn block_of(code: *const ()) -> Option<NonNull<Block>> {
    // SAFETY: by the contract.
    NonNull::new(unsafe { block::of_stub(code.expose_provenance()) })
}

/// The block at `address`; `None` if there is none, whatever else is there.
///
/// # Safety
///
/// `address` is null, or a multiple of 8 at which 32 bytes can be read. It is not the former place
/// of a block that was given back.
#[inline]
pub unsafe fn block_at(address: *mut ()) -> Option<NonNull<Block>> {
    // SAFETY: by the contract.
    NonNull::new(address.cast()).filter(|&block| unsafe { block::is_block(block) })
}

/// Whether `code` points into the stub of a block, to its start or not.
///
/// # Safety
///
/// If `code` points into text, that can be read.
pub unsafe fn in_block(code: *const ()) -> bool {
    let start = code.expose_provenance() & !(arch::SLOT_STRIDE - 1);
    // SAFETY: by the contract; what lies in one page with it can be read as well.
    unsafe { !block::of_stub(start).is_null() }
}

/// Whether `code` is the stub of a block that something is bound to, and not a [`Stub`] or
/// something else.
///
/// # Safety
///
/// Some 20 bytes can be read at `code`; if they are a stub, it is one of a live block or `Stub`.
pub unsafe fn is_block(code: *const ()) -> bool {
    let stub = code.expose_provenance();
    // SAFETY: by the contract; a live stub's slot can be read.
    unsafe {
        let Some((CHAIN, slot)) = arch::read_stub(code.cast()) else { return false };
        let distance = slot.wrapping_sub(stub);
        let slot = core::ptr::with_exposed_provenance::<Slot>(slot);
        if distance == const { arch::static_table(arch::DYNAMIC) }.distance() as usize
            && arch::table_number(code.cast()) == arch::DYNAMIC
        {
            let freed = const { arch::freed::<Diagnosis>(arch::DYNAMIC) };
            return ![0, freed as usize].contains(&(*slot).code);
        }
        distance == kernel::DISTANCE
            && kernel::owns(stub)
            && (*slot).code == arch::any as *const () as usize
    }
}

/// What made the stub of a block.
///
/// # Safety
///
/// `block` came from [`alloc`] and was not given back.
pub unsafe fn backend(block: NonNull<Block>) -> Backend {
    // SAFETY: by the contract.
    unsafe { block.as_ref() }.backend()
}

/// The plan of a signature, to [`bind`] a block to.
pub fn plan(signature: &Signature) -> &'static Plan {
    signature.plan()
}

/// Gives a block back, and its stub.
///
/// # Safety
///
/// `block` came from [`alloc`], and nobody uses it or calls its stub any more.
#[inline]
pub unsafe fn free(block: NonNull<Block>) {
    // SAFETY: by the contract.
    unsafe { block::free(block) };
}

/// From now on the stub calls the block's callee, which is read at each call, with arguments as
/// `plan` says. A block may be bound again.
///
/// # Safety
///
/// `block` came from [`alloc`] and was not given back. When its stub is called, its callee is one
/// for signatures of this plan.
#[inline]
pub unsafe fn bind(block: NonNull<Block>, plan: &'static Plan) {
    // SAFETY: by the contract.
    unsafe { block::bind(block, plan) };
}

/// From now on the stub loads the block's address into the static chain register and jumps to
/// `entry`: another library's way of calling closures of this layout.
///
/// # Errors
///
/// [`Error::NotText`].
///
/// # Safety
///
/// `block` came from [`alloc`] and was not given back. `entry` expects such a closure there.
pub unsafe fn bind_foreign(block: NonNull<Block>, entry: *const ()) -> Result<(), Error> {
    // SAFETY: by the contract.
    unsafe { block::bind_foreign(block, entry.expose_provenance()) }
}
