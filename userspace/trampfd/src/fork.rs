//! fork: the child gets free lists that are whole and locks that are free.
//!
//! fork(2) of the C library is what is seen here. A child made by a bare clone(2) system call
//! while another thread holds a lock finds it locked, as it finds malloc's.

use core::cell::UnsafeCell;
use std::sync::{MutexGuard, Once};

use crate::backend::kernel;
use crate::{objects, plans, slots};

type Guards = (
    MutexGuard<'static, kernel::Service>,
    MutexGuard<'static, slots::All>,
    MutexGuard<'static, Vec<usize>>,
    MutexGuard<'static, plans::All>,
);

/// The locks, while a fork is under way.
struct Held(UnsafeCell<Option<Guards>>);

// SAFETY: touched only between `before` and `after`, by the thread that forks, which holds the
// locks then: a second fork waits for them in `before`.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Takes the locks, in the order in which the library takes them.
unsafe extern "C" fn before() {
    let mut service = kernel::lock();
    // A child must not find slots that were freed but can still be called; if the kernel refuses
    // now, they stay on the list, in the child too.
    let _ = service.flush();
    let guards = (service, slots::lock(), objects::lock(), plans::lock());
    // SAFETY: this thread holds the locks.
    unsafe { *HELD.0.get() = Some(guards) };
}

unsafe extern "C" fn after() {
    // SAFETY: this thread took the locks in `before`; in the child it is the only one.
    drop(unsafe { (*HELD.0.get()).take() });
}

/// Registers the handlers, once.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: functions of this program. It fails only without memory; then a child of a
        // fork that meets a locked lock waits for ever, as without this.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    });
}
