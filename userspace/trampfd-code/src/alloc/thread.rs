//! Which heaps a thread owns.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

use super::heap::{Heap, Owner};
use super::state::{Inner, State};

thread_local! {
    /// The heap used last, and the number of its state.
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
                unsafe { (*heap).owner() }.leave(&inner, state);
            }
        }
    }
}

/// The heap that this thread used last, if it is of this state.
#[inline(always)]
pub(super) fn owned_last(state: &State) -> Option<Owner<'_>> {
    let (id, heap) = LAST.get();
    // SAFETY: by the invariant of `Owned`. The state is there, so its heaps are.
    (id == state.id).then(|| unsafe { (*heap).owner() })
}

/// The heap of this thread, if it has one.
#[inline(always)]
pub(super) fn owned(state: &State) -> Option<Owner<'_>> {
    if let Some(owner) = owned_last(state) {
        return Some(owner);
    }
    let heap = search(state.id)?;
    // SAFETY: as above.
    Some(unsafe { (*heap).owner() })
}

#[cold]
fn search(id: u64) -> Option<*const Heap> {
    let find = |owned: &RefCell<Owned>| {
        owned.borrow().0.iter().find(|entry| entry.state == id).map(|entry| entry.heap)
    };
    let heap = OWNED.try_with(find).ok()??;
    LAST.set((id, heap));
    Some(heap)
}

/// Calls `then` with a heap of this thread.
#[cold]
pub(super) fn own<T>(inner: &Arc<Inner>, state: &State, then: impl FnOnce(Owner<'_>) -> T) -> T {
    state.own_heap(|owner| {
        let heap = ptr::from_ref(owner.heap());
        let note = |owned: &RefCell<Owned>| {
            let entries = &mut owned.borrow_mut().0;
            entries.retain(|entry| entry.allocator.strong_count() > 0);
            entries.push(Entry { state: state.id, heap, allocator: Arc::downgrade(inner) });
        };
        let noted = OWNED.try_with(note).is_ok();
        let result = then(owner);
        if noted {
            LAST.set((state.id, heap));
        } else {
            // The thread is ending: nobody would leave it later.
            // SAFETY: owned by this thread, which has no other `Owner` of it.
            unsafe { (*heap).owner() }.leave(inner, state);
        }
        result
    })
}
