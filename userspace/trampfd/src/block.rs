//! Blocks: the memory of dynamic closures, each with its stub.
//!
//! On static text every slot of the table of dynamic closures has a block of its own for ever, so
//! that making and freeing a closure is one step on one list:
//!
//! ```text
//!   stub ──► slot { data ─► block, code ─► plan.enter, spare }      32 bytes
//!            block { cell { plan, callee ─┐ }, stub, slot }         64 bytes, or larger from malloc
//!                    callee ◄─────────────┘ { signature, handler, data }, spare
//! ```
//!
//! A larger block is put in its place while it lives; `spare[0]` of the slot remembers the own
//! one. With the kernel service the stub's cell (16 bytes in the table's own memory) is what the
//! stub loads the address of, and the block comes from malloc.

use core::mem::offset_of;
use core::ptr::{NonNull, null, null_mut};

use trampfd_text::arch;
use trampfd_text::plan::{CALLEE_AT, Callee, Cell, Foreign, Plan};
use trampfd_text::table::{Slot, StaticTable};

use crate::backend::kernel;
use crate::backend::text::Diagnosis;
use crate::builder::Builder;
use crate::error::{Backend, Error};
use crate::{objects, plans, slots, sys};

/// A dynamic closure's own memory.
///
/// The first 32 bytes are the library's. So are bytes 32 to 56 the callee, which is read at each
/// call: on 64-bit architectures that is the layout of libffi's `ffi_closure`.
///
/// # Invariants
///
/// `stub` is the address of the block's stub. The low bits of `slot` are the flags below, the
/// others, on static text, the address of the stub's slot. `cell.callee` points to `callee`.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Block {
    cell: Cell,
    stub: usize,
    slot: usize,
    /// What is called.
    pub callee: Callee,
    /// The owner's.
    pub spare: usize,
}

/// Bytes of a block from a slab.
pub(crate) const SIZE: usize = size_of::<Block>();

const _: () = assert!(offset_of!(Block, callee) == CALLEE_AT && SIZE == 64);
// `arch::freed` finds the stub there.
const _: () = assert!(offset_of!(Block, stub) == 16);

/// The stub is one of the kernel service.
const KERNEL: usize = 1;
/// The block is from malloc, in place of the slot's own.
const LARGE: usize = 2;
const FLAGS: usize = KERNEL | LARGE;

/// What a cell of the kernel service has for a plan while nothing is bound.
static UNBOUND: Foreign = Foreign { enter: arch::unbound, target: 0 };

impl Block {
    #[inline(always)]
    fn flags(&self) -> usize {
        self.slot & FLAGS
    }

    /// Address of the stub.
    #[inline(always)]
    pub(crate) fn stub(&self) -> usize {
        self.stub
    }

    pub(crate) fn backend(&self) -> Backend {
        if self.flags() & KERNEL != 0 { Backend::Kernel } else { Backend::Text }
    }

    /// The slot of a block on static text.
    #[inline(always)]
    fn slot(&self) -> *mut Slot {
        core::ptr::with_exposed_provenance_mut(self.slot & !FLAGS)
    }
}

/// The table of dynamic closures.
const fn table() -> &'static StaticTable {
    arch::static_table(arch::DYNAMIC)
}

/// The code of a slot that nobody has.
const fn freed() -> extern "C" fn() {
    arch::freed::<Diagnosis>(arch::DYNAMIC)
}

/// Memory for `count` blocks.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub(crate) fn map(count: usize) -> Result<*mut Block, Error> {
    sys::map_anonymous(count * SIZE)
        .map(core::ptr::with_exposed_provenance_mut)
        .map_err(|_| Error::NoMemory)
}

/// Gives each of the slots `first..end` the next block.
///
/// # Safety
///
/// The slots are of the table of dynamic closures and were never used, `blocks` is memory from
/// [`map`] for as many.
pub(crate) unsafe fn pair(
    first: *mut Slot,
    end: *mut Slot,
    blocks: *mut Block,
    table: &StaticTable,
) {
    let (mut slot, mut block) = (first, blocks);
    while slot != end {
        let stub = slot.expose_provenance().wrapping_add_signed(-table.distance());
        // SAFETY: by the contract.
        unsafe {
            (*block).cell = Cell { plan: null(), callee: &raw const (*block).callee };
            (*block).stub = stub;
            (*block).slot = slot.expose_provenance();
            (*slot).data = block.expose_provenance();
            (*slot).code = freed() as usize;
        }
        slot = slot.wrapping_add(1);
        block = block.wrapping_add(1);
    }
}

/// A block of at least `size` bytes. Its stub traps until something is bound to it.
///
/// # Errors
///
/// [`Error::Growth`], [`Error::NoMemory`], and those of the kernel service.
#[inline(always)]
pub(crate) fn alloc(builder: &Builder, size: usize) -> Result<NonNull<Block>, Error> {
    match builder.choose()? {
        Backend::Text => {
            let slot = slots::take(arch::DYNAMIC, const { table() }, builder.growth)?;
            // SAFETY: a slot of this table has its block, and is ours now.
            let own = unsafe { core::ptr::with_exposed_provenance_mut::<Block>((*slot).data) };
            if size <= SIZE {
                // SAFETY: never null.
                return Ok(unsafe { NonNull::new_unchecked(own) });
            }
            alloc_large(slot, own, size)
        }
        Backend::Kernel => alloc_kernel(size),
    }
}

/// The same for at most [`SIZE`] bytes, if this thread has a block already. Never calls anything.
#[inline(always)]
pub(crate) fn recent(builder: &Builder, size: usize) -> Option<NonNull<Block>> {
    if size > SIZE || !builder.is_text() {
        return None;
    }
    let slot = slots::recent(arch::DYNAMIC)?;
    // SAFETY: a slot of this table has its block, and is ours now.
    NonNull::new(unsafe { core::ptr::with_exposed_provenance_mut(slot.as_ref().data) })
}

#[cold]
fn alloc_large(slot: *mut Slot, own: *mut Block, size: usize) -> Result<NonNull<Block>, Error> {
    let Some(block) = malloc(size) else {
        // SAFETY: it was taken from there.
        unsafe { slots::put(arch::DYNAMIC, slot) };
        return Err(Error::NoMemory);
    };
    // SAFETY: new memory, and a slot of ours.
    unsafe {
        init(block, (*own).stub, (*own).slot | LARGE);
        (*slot).spare[0] = own.expose_provenance();
        slots::store(&raw mut (*slot).data, block.as_ptr().expose_provenance());
    }
    Ok(block)
}

#[cold]
fn alloc_kernel(size: usize) -> Result<NonNull<Block>, Error> {
    let block = malloc(size.max(SIZE)).ok_or(Error::NoMemory)?;
    let code = arch::any as *const () as usize;
    let stub = match kernel::take(kernel::Kind { reg: arch::CHAIN_REG, code }) {
        Ok(stub) => stub,
        Err(error) => {
            // SAFETY: it came from malloc.
            unsafe { libc::free(block.as_ptr().cast()) };
            return Err(error);
        }
    };
    // SAFETY: new memory; the stub is ours, and so is its cell.
    unsafe {
        init(block, stub, KERNEL);
        let callee = &raw const (*block.as_ptr()).callee;
        cell(stub).write(Cell { plan: (&raw const UNBOUND).cast(), callee });
    }
    Ok(block)
}

/// # Safety
///
/// `block` is memory of the caller.
unsafe fn init(block: NonNull<Block>, stub: usize, slot: usize) {
    let block = block.as_ptr();
    // SAFETY: by the contract.
    unsafe {
        (*block).cell = Cell { plan: null(), callee: &raw const (*block).callee };
        (*block).stub = stub;
        (*block).slot = slot;
    }
}

/// The cell of a stub of the kernel service.
///
/// # Safety
///
/// As for [`kernel::cell`].
unsafe fn cell(stub: usize) -> *mut Cell {
    const { assert!(size_of::<Cell>() == kernel::CELL) };
    // SAFETY: by the contract.
    unsafe { kernel::cell(stub) }.cast()
}

/// Memory aligned to 16.
fn malloc(size: usize) -> Option<NonNull<Block>> {
    const { assert!(align_of::<Block>() <= align_of::<libc::max_align_t>()) };
    // SAFETY: any size.
    NonNull::new(unsafe { libc::malloc(size) }.cast())
}

/// Gives a block back, and its stub.
///
/// # Safety
///
/// `block` came from [`alloc`], and nothing refers to it but calls made by mistake.
#[inline(always)]
pub(crate) unsafe fn free(block: NonNull<Block>) {
    // SAFETY: by the contract.
    unsafe {
        if block.as_ref().flags() != 0 {
            return free_other(block);
        }
        let slot = block.as_ref().slot();
        slots::store(&raw mut (*slot).code, const { freed() } as usize);
        slots::put(arch::DYNAMIC, slot);
    }
}

/// # Safety
///
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_other(block: NonNull<Block>) {
    // SAFETY: by the contract; what has a flag came from malloc.
    unsafe {
        let stub = block.as_ref().stub();
        if block.as_ref().flags() & KERNEL != 0 {
            (*cell(stub)).plan = (&raw const UNBOUND).cast();
            kernel::put(stub, false);
        } else {
            let slot = block.as_ref().slot();
            slots::store(&raw mut (*slot).code, const { freed() } as usize);
            slots::store(&raw mut (*slot).data, (*slot).spare[0]);
            slots::put(arch::DYNAMIC, slot);
        }
        libc::free(block.as_ptr().cast());
    }
}

/// From now on the stub calls the block's callee with arguments as `plan` says.
///
/// # Safety
///
/// The block is the caller's. While its stub is called, its callee is one for signatures of this
/// plan.
#[inline(always)]
pub(crate) unsafe fn bind(block: NonNull<Block>, plan: &'static Plan) {
    let at = block.as_ptr();
    // SAFETY: by the contract. The plan is there before the jump to what reads it.
    unsafe {
        slots::store((&raw mut (*at).cell.plan).cast(), (&raw const *plan).expose_provenance());
        if (*at).flags() & KERNEL != 0 {
            (*cell((*at).stub())).plan = plan;
        } else {
            slots::store(&raw mut (*(*at).slot()).code, plan.enter);
        }
    }
}

/// From now on the stub loads the block's address into the static chain register and jumps to
/// `entry`.
///
/// # Errors
///
/// [`Error::NotText`].
///
/// # Safety
///
/// The block is the caller's, and `entry` is code that expects that.
pub(crate) unsafe fn bind_foreign(block: NonNull<Block>, entry: usize) -> Result<(), Error> {
    objects::check_text(entry)?;
    let at = block.as_ptr();
    // SAFETY: by the contract.
    unsafe {
        if (*at).flags() & KERNEL != 0 {
            (*cell((*at).stub())).plan = (&raw const *plans::foreign(entry)).cast();
        } else {
            slots::store(&raw mut (*(*at).slot()).code, entry);
        }
    }
    Ok(())
}

/// Whether this is a block: the pointer to its callee says so, which leads into itself.
///
/// # Safety
///
/// At `block`, which is a multiple of 8, 32 bytes can be read.
#[inline(always)]
pub(crate) unsafe fn is_block(block: NonNull<Block>) -> bool {
    // By words, as it may be something else.
    let callee = block.cast::<usize>().as_ptr().wrapping_add(offset_of!(Cell, callee) / 8);
    // SAFETY: by the contract.
    unsafe { callee.read() == block.addr().get() + CALLEE_AT }
}

/// The block whose stub `code` is; null if there is no stub of a dynamic closure's kind at `code`,
/// or one that never had a block.
///
/// # Safety
///
/// The bytes of a stub can be read at `code`; if they are those of a stub that loads the static
/// chain register, it is one of a block.
pub(crate) unsafe fn of_stub(code: usize) -> *mut Block {
    // SAFETY: by the contract.
    unsafe {
        match arch::read_stub(core::ptr::with_exposed_provenance(code)) {
            Some((reg, slot)) if reg == arch::CHAIN_REG => {
                let slot = core::ptr::with_exposed_provenance::<Slot>(slot);
                // A cell or a block, which begins with one; nothing if the slot was never used.
                let cell = core::ptr::with_exposed_provenance::<Cell>((*slot).data);
                let callee = cell.as_ref().map_or(null(), |cell| cell.callee);
                if callee.is_null() {
                    return null_mut();
                }
                callee.wrapping_byte_sub(CALLEE_AT).cast_mut().cast()
            }
            _ => null_mut(),
        }
    }
}
