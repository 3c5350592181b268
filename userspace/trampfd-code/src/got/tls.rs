//! Blocks of thread-local variables of sets, made for each thread on first use.
//!
//! ```text
//!  table entry: module, offset ──► get_addr ─┬─ 0        thread pointer + offset
//!                                            ├─ small    the C library's __tls_get_addr
//!                                            └─ ours     this thread's blocks ─► block + offset
//!  Module ── owns ──► blocks of all threads            (by number; made if not there)
//! ```

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// The C library numbers its modules from 1 on, and has fewer than these.
const FIRST: usize = 1 << 32;

/// A set's variables.
///
/// # Invariants
///
/// `image..image + image_len` can be read as long as this value is there (the set's pool goes
/// after it); `image_len <= layout.size()`. Each of `blocks` was allocated with `layout`, and is
/// freed once: by who takes it out of the list.
#[derive(Debug)]
pub(super) struct Module {
    number: usize,
    layout: Layout,
    image: AtomicUsize,
    image_len: usize,
    blocks: Mutex<Vec<usize>>,
}

static MODULES: Mutex<Option<HashMap<usize, Weak<Module>>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn find(number: usize) -> Option<Arc<Module>> {
    lock(&MODULES).as_ref()?.get(&number)?.upgrade()
}

impl Module {
    /// Variables of `len` bytes, of which the first `image_len` do not begin as zeros.
    pub(super) fn new(len: usize, align: usize, image_len: usize) -> Option<Arc<Module>> {
        static NEXT: AtomicUsize = AtomicUsize::new(FIRST);
        let layout = Layout::from_size_align(len.max(1), align).ok()?;
        if image_len > layout.size() {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (image, blocks) = (AtomicUsize::new(0), Mutex::default());
        let module = Arc::new(Module { number, layout, image, image_len, blocks });
        lock(&MODULES).get_or_insert_default().insert(number, Arc::downgrade(&module));
        Some(module)
    }

    /// What entries of the table call it.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Says what the variables begin as.
    ///
    /// # Safety
    ///
    /// As many bytes as [`Module::new`] was told can be read there as long as the module is there.
    pub(super) unsafe fn begin_as(&self, image: usize) {
        self.image.store(image, Ordering::Release);
    }

    fn block(&self) -> *mut u8 {
        // SAFETY: not of size 0.
        let block = unsafe { alloc::alloc_zeroed(self.layout) };
        if block.is_null() {
            // Nothing else can be answered: the caller is compiled code that reads the result.
            alloc::handle_alloc_error(self.layout);
        }
        let image = self.image.load(Ordering::Acquire) as *const u8;
        if !image.is_null() {
            // SAFETY: by the type's invariants; the block is new.
            unsafe { block.copy_from_nonoverlapping(image, self.image_len) };
        }
        lock(&self.blocks).push(block as usize);
        block
    }

    fn free(&self, block: *mut u8) {
        let mut blocks = lock(&self.blocks);
        let Some(at) = blocks.iter().position(|&known| known == block as usize) else { return };
        blocks.swap_remove(at);
        // SAFETY: allocated with this layout, and in no list any more.
        unsafe { alloc::dealloc(block, self.layout) };
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Some(modules) = lock(&MODULES).as_mut() {
            modules.remove(&self.number);
        }
        for block in self.blocks.get_mut().unwrap_or_else(|e| e.into_inner()).drain(..) {
            // SAFETY: allocated with this layout, and in no list any more.
            unsafe { alloc::dealloc(block as *mut u8, self.layout) };
        }
    }
}

type Blocks = HashMap<usize, *mut u8>;

/// Frees a thread's blocks when it ends.
struct AtEnd;

thread_local! {
    /// Not dropped, so that destructors of other variables find it: of [`AtEnd`] that comes
    /// first, what they use after it stays until the set is removed.
    static BLOCKS: Cell<*mut Blocks> = const { Cell::new(std::ptr::null_mut()) };
    static AT_END: AtEnd = const { AtEnd };
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        let blocks = BLOCKS.replace(std::ptr::null_mut());
        if blocks.is_null() {
            return;
        }
        // SAFETY: from `Box::into_raw` in `slow`, and known to nobody else any more.
        let blocks = unsafe { Box::from_raw(blocks) };
        for (number, block) in *blocks {
            if let Some(module) = find(number) {
                module.free(block);
            }
        }
    }
}

/// What an entry of the table tells.
#[repr(C)]
struct Index {
    module: usize,
    offset: usize,
}

/// The address of [`get_addr`], for tables.
pub(super) fn get_addr_address() -> usize {
    get_addr as *const () as usize
}

/// `__tls_get_addr` for loaded code.
///
/// # Safety
///
/// `index` is an entry of a set's table, of which the set is loaded.
unsafe extern "C" fn get_addr(index: *const Index) -> *mut u8 {
    unsafe extern "C" {
        fn __tls_get_addr(index: *const Index) -> *mut u8;
    }
    // SAFETY: the caller's contract.
    let Index { module, offset } = unsafe { index.read() };
    match module {
        0 => crate::arch::thread_pointer().wrapping_add(offset) as *mut u8,
        // SAFETY: the caller's contract: whoever resolved the symbol vouched for the module.
        1..FIRST => unsafe { __tls_get_addr(index) },
        _ => own(module).wrapping_add(offset),
    }
}

/// This thread's block of a set.
fn own(number: usize) -> *mut u8 {
    let blocks = BLOCKS.get();
    if !blocks.is_null() {
        // SAFETY: this thread's alone, from `Box::into_raw`; not borrowed elsewhere.
        if let Some(&block) = unsafe { &*blocks }.get(&number) {
            return block;
        }
    }
    slow(number)
}

#[cold]
fn slow(number: usize) -> *mut u8 {
    // The set is loaded, by the contract of `get_addr`; without it there is no answer.
    let Some(module) = find(number) else { std::process::abort() };
    let block = module.block();
    let _ = AT_END.try_with(|_| {});
    let mut blocks = BLOCKS.get();
    if blocks.is_null() {
        blocks = Box::into_raw(Box::default());
        BLOCKS.set(blocks);
    }
    // SAFETY: as in `own`.
    let blocks = unsafe { &mut *blocks };
    if blocks.len().is_power_of_two() {
        // Their sets are gone, and the blocks with them.
        let modules = lock(&MODULES);
        blocks.retain(|number, _| modules.as_ref().is_some_and(|all| all.contains_key(number)));
    }
    blocks.insert(number, block);
    block
}
