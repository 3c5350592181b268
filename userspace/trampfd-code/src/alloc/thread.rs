//! Which heaps a thread owns.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

use super::heap::{Heap, Owner};
use super::state::{Inner, State};

thread_local! {
    /// The heap used last, and the number of its allocator.
    static LAST: Cell<(u64, *const Heap)> = const { Cell::new((0, ptr::null())) };
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned(Vec::new())) };
}

/// Heaps that this thread owns.
///
/// # Invariants
///
/// A heap of an entry is of the state with that number, and this thread owns it.
struct Owned(Vec<Entry>);

struct Entry {
    /// The number of its state.
    state: u64,
    heap: *const Heap,
    allocator: Weak<Inner>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        LAST.set((0, ptr::null()));
        for Entry { state: id, heap, allocator } in self.0.drain(..) {
            // The state of a parent process is left alone.
            if let Some(inner) = allocator.upgrade()
                && let state = inner.newest()
                && (state.id, state.is_ours()) == (id, true)
            {
                // SAFETY: by the invariant; the state is there as long as `inner`.
                if let Some(owner) = unsafe { (*heap).owner() } {
                    owner.leave(&inner);
                }
            }
        }
    }
}

/// A number that no other thread has while this one is there, and not 0.
#[inline(always)]
pub(super) fn me() -> usize {
    LAST.with(|last| ptr::from_ref(last).addr())
}

/// The heap that this thread used last, if it is of this allocator, and this process.
#[inline(always)]
pub(super) fn last(inner: &Inner) -> Option<Owner<'_>> {
    let (id, heap) = LAST.get();
    if id != inner.id {
        return None;
    }
    // SAFETY: of a state of this allocator, so it is there; owned by this thread, as `LAST` is
    // cleared before it leaves it. Nobody calls this who has an `Owner`.
    unsafe { (*heap).is_ours().then(|| (*heap).as_owner()) }
}

/// The heap of this thread, if it has one; `state` is that of this process.
#[inline(always)]
pub(super) fn owned<'a>(inner: &'a Inner, state: &'a State) -> Option<Owner<'a>> {
    last(inner).or_else(|| search(inner, state))
}

#[cold]
fn search<'a>(inner: &Inner, state: &'a State) -> Option<Owner<'a>> {
    let find = |owned: &RefCell<Owned>| {
        let owned = owned.borrow();
        owned.0.iter().find(|entry| entry.state == state.id).map(|entry| entry.heap)
    };
    let heap = OWNED.try_with(find).ok()??;
    LAST.set((inner.id, heap));
    // SAFETY: by the invariant of `Owned`; as above.
    unsafe { (*heap).owner() }
}

/// Calls `then` with a heap of this thread.
#[cold]
pub(super) fn own<T>(inner: &Arc<Inner>, state: &State, then: impl FnOnce(Owner<'_>) -> T) -> T {
    state.own_heap(inner, |owner| {
        let heap = owner.heap();
        let note = |owned: &RefCell<Owned>| {
            let entries = &mut owned.borrow_mut().0;
            entries.retain(|entry| entry.allocator.strong_count() > 0);
            entries.push(Entry { state: state.id, heap, allocator: Arc::downgrade(inner) });
        };
        let noted = OWNED.try_with(note).is_ok();
        let result = then(owner);
        if noted {
            LAST.set((inner.id, heap));
        // The thread is ending: nobody would leave it later.
        // SAFETY: `then` has let go of its `Owner`.
        } else if let Some(owner) = unsafe { heap.owner() } {
            owner.leave(inner);
        }
        result
    })
}
