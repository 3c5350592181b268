//! Which pointers live, and which frames are gone.
//!
//! GCC says when a function is entered whose nested function's address is taken, and when it is
//! left, but not which: `deleted` has no argument. And it does not say that a function was left by
//! longjmp. So the stack pointer of the caller is kept with each pointer:
//!
//! ```text
//!   high addresses                      this thread's list, on its own stack
//!     main()                              top ─► slot { chain, function, sp, older } ─► ..
//!      ├─ f()  ◄──────── sp, chain ─────────────────────────────────┘
//!      └─ g()  ◄──────── sp, chain ───────┘
//!     ─────── stack pointer of the caller: what is below it is gone
//! ```
//!
//! - A pointer belongs to the frame that both `sp` and the chain lie in. If the caller's stack
//!   pointer is above both, that frame is gone: returned from, or left by longjmp or an exception.
//!   This is looked at whenever the thread makes or drops a pointer.
//! - Of those that are left, the one made last is dropped: it is the caller's, because frames
//!   nest. (Functions inlined into one frame nest as well, whatever the order of their chains.)
//! - A chain with one function has one pointer. If it is made again, the first was left behind.
//!
//! Frames on other stacks (coroutines, signal stacks) are in one list for all threads, because a
//! coroutine may go on in another thread. There the pointer is dropped whose frame is the nearest
//! above the caller's stack pointer. Nothing on such a stack is found to be gone by comparison:
//! nobody says where it begins.
//!
//! A signal handler may interrupt any of this and make pointers itself. While the thread's list is
//! being changed, `busy` says so, and the handler's go to the other list, whose lock is held with
//! all signals blocked.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence};

use trampfd_text::table::Slot;

use crate::{arch, die, pool};

/// Slots that a thread takes at once: 4 cache lines.
const BATCH: u32 = 8;
/// Free slots that a thread keeps.
const KEEP: usize = 64;
/// Pointers of frames in the same place that are looked at, at most: more than one function has, and
/// than there are sizes of frames that a loop leaves by longjmp.
const OVERLAPPING: usize = 32;
/// The stack of the first thread: the kernel maps nothing else within this of its top.
const FIRST_STACK: usize = 128 << 20;
/// A frame that is farther from a stack pointer than this is not the caller's.
const NEAR: usize = 8 << 20;

/// One thread's record. Zero before the thread's first use.
///
/// # Invariants
///
/// `low..high` is the thread's own stack. `top` is a list of slots of pointers that live on it,
/// the last made first; `free` one of `kept` slots that are disarmed. Both are linked by
/// `spare[1]`; `spare[0]` of a slot in `top` is the stack pointer of the frame that made it.
/// Only the thread itself, while `busy` is its caller's stack pointer, changes them.
#[repr(C)]
pub(crate) struct Thread {
    low: AtomicUsize,
    high: AtomicUsize,
    busy: AtomicUsize,
    top: AtomicPtr<Slot>,
    free: AtomicPtr<Slot>,
    kept: AtomicUsize,
    keep: AtomicUsize,
}

/// The pointer that a frame asks for.
#[derive(Clone, Copy)]
struct Wanted {
    chain: usize,
    function: usize,
    sp: usize,
}

impl Wanted {
    /// Whether `slot` is this same pointer, which a frame that is gone left there.
    ///
    /// # Safety
    ///
    /// `slot` is in a list of the caller.
    unsafe fn is(&self, slot: *mut Slot) -> bool {
        // SAFETY: by the contract.
        unsafe { (*slot).data == self.chain && (*slot).code == self.function }
    }

    /// Fills a slot.
    ///
    /// # Safety
    ///
    /// `slot` is the caller's.
    #[inline(always)]
    unsafe fn fill(&self, slot: *mut Slot) {
        // SAFETY: by the contract.
        unsafe {
            (*slot).spare[0] = self.sp;
            pool::arm(slot, self.chain, self.function);
        }
    }
}

/// What `__gcc_nested_func_ptr_created` goes on with.
///
/// # Safety
///
/// Called by it only: `sp` is its caller's stack pointer, `thread` this thread's record.
pub(crate) unsafe extern "C" fn created(
    chain: usize,
    function: usize,
    dst: *mut usize,
    sp: usize,
    thread: *const Thread,
) {
    let wanted = Wanted { chain, function, sp };
    // SAFETY: by the contract; `dst` is the caller's, by GCC's.
    unsafe {
        let thread = &*thread;
        let slot = if thread.enter(sp) {
            let slot = thread.push(wanted);
            thread.leave();
            slot
        } else {
            elsewhere::push(wanted)
        };
        *dst = pool::stub(slot);
    }
}

/// What `__gcc_nested_func_ptr_deleted` goes on with.
///
/// # Safety
///
/// As for [`created`].
pub(crate) unsafe extern "C" fn deleted(sp: usize, thread: *const Thread) {
    // SAFETY: by the contract.
    unsafe {
        let thread = &*thread;
        if thread.enter(sp) {
            let found = thread.pop(sp);
            thread.leave();
            if found {
                return;
            }
        }
        elsewhere::pop(sp);
    }
}

/// The slot after `slot` in its list.
///
/// # Safety
///
/// `slot` is in a list of the caller.
#[inline(always)]
unsafe fn next(slot: *mut Slot) -> *mut Slot {
    // SAFETY: linked by the second spare word.
    core::ptr::with_exposed_provenance_mut(unsafe { (*slot).spare[1] })
}

/// # Safety
///
/// `slot` is the caller's.
#[inline(always)]
unsafe fn link(slot: *mut Slot, next: *mut Slot) {
    // SAFETY: by the contract.
    unsafe { (*slot).spare[1] = next.expose_provenance() };
}

impl Thread {
    #[inline(always)]
    fn on_stack(&self, address: usize) -> bool {
        let low = self.low.load(Ordering::Relaxed);
        address.wrapping_sub(low) < self.high.load(Ordering::Relaxed).wrapping_sub(low)
    }

    /// Begins a change of the lists; false where that is not to be done.
    #[inline(always)]
    fn enter(&self, sp: usize) -> bool {
        if self.busy.load(Ordering::Relaxed) == 0 && self.on_stack(sp) {
            self.busy.store(sp, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            return true;
        }
        self.enter_slowly(sp)
    }

    #[cold]
    fn enter_slowly(&self, sp: usize) -> bool {
        if self.high.load(Ordering::Relaxed) == 0 {
            self.start();
        }
        // A change that is under way was interrupted by a signal handler, whose frames are below.
        // If not, a handler has left it by longjmp: its stores leave the lists right, whichever
        // was the last, but for a slot that is in none.
        let interrupted = self.busy.load(Ordering::Relaxed) > sp;
        if interrupted || !self.on_stack(sp) {
            return false;
        }
        self.busy.store(sp, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        true
    }

    #[inline(always)]
    fn leave(&self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.store(0, Ordering::Relaxed);
    }

    /// Gives back what lies below `sp`.
    #[inline(always)]
    fn reclaim(&self, sp: usize) {
        loop {
            let top = self.top.load(Ordering::Relaxed);
            // SAFETY: by the invariant.
            unsafe {
                if top.is_null() || self.frame(top) >= sp {
                    return;
                }
                self.top.store(next(top), Ordering::Release);
                self.release(top);
            }
        }
    }

    /// An address in the frame of a pointer, the highest that is known. Where the chain lies on no
    /// stack (the sanitizers' copies of frames), its frame is never found to be gone.
    ///
    /// # Safety
    ///
    /// `slot` is in the list of this thread.
    #[inline(always)]
    unsafe fn frame(&self, slot: *mut Slot) -> usize {
        // SAFETY: by the contract.
        let (chain, sp) = unsafe { ((*slot).data, (*slot).spare[0]) };
        if self.on_stack(chain) { chain.max(sp) } else { usize::MAX }
    }

    /// # Safety
    ///
    /// Between `enter` and `leave`.
    #[inline(always)]
    unsafe fn push(&self, wanted: Wanted) -> *mut Slot {
        self.reclaim(wanted.sp);
        let top = self.top.load(Ordering::Relaxed);
        // The frame's end, as far as it is known. Frames that begin above it are outer ones.
        let end = if self.on_stack(wanted.chain) { wanted.chain } else { wanted.sp };
        // SAFETY: by the invariant.
        unsafe {
            let slot = if !top.is_null() && (*top).spare[0] <= end {
                self.replace(wanted, end)
            } else {
                null_mut()
            };
            let slot = if slot.is_null() { self.take() } else { slot };
            wanted.fill(slot);
            link(slot, self.top.load(Ordering::Relaxed));
            self.top.store(slot, Ordering::Release);
            slot
        }
    }

    /// Looks at pointers whose frames began below the end of this one: they are of this frame, or
    /// of one that is gone and lay in the same place. Gives back those that are surely gone, and
    /// answers with this same pointer, taken out; null if it is not there.
    ///
    /// # Safety
    ///
    /// As for `push`.
    #[cold]
    unsafe fn replace(&self, wanted: Wanted, end: usize) -> *mut Slot {
        let mut same = null_mut();
        let mut before: *mut Slot = null_mut();
        let mut slot = self.top.load(Ordering::Relaxed);
        for _ in 0..OVERLAPPING {
            // SAFETY: by the invariant.
            unsafe {
                if slot.is_null() || (*slot).spare[0] > end {
                    break;
                }
                let following = next(slot);
                let is_same = wanted.is(slot);
                // A frame's stack pointer only sinks while something lives in it.
                let is_gone = (*slot).spare[0] < wanted.sp
                    && (*slot).data < wanted.chain
                    && self.on_stack((*slot).data);
                if is_same || is_gone {
                    if before.is_null() {
                        self.top.store(following, Ordering::Release);
                    } else {
                        link(before, following);
                    }
                    if is_same {
                        same = slot;
                    } else {
                        self.release(slot);
                    }
                } else {
                    before = slot;
                }
                slot = following;
            }
        }
        same
    }

    /// Drops the pointer that the frame at `sp` made last. False if there is none.
    ///
    /// # Safety
    ///
    /// Between `enter` and `leave`.
    #[inline(always)]
    unsafe fn pop(&self, sp: usize) -> bool {
        self.reclaim(sp);
        let top = self.top.load(Ordering::Relaxed);
        if top.is_null() {
            return false;
        }
        // SAFETY: by the invariant.
        unsafe {
            self.top.store(next(top), Ordering::Release);
            self.release(top);
        }
        true
    }

    /// A free slot.
    #[inline(always)]
    fn take(&self) -> *mut Slot {
        if self.free.load(Ordering::Relaxed).is_null() {
            self.refill();
        }
        let slot = self.free.load(Ordering::Relaxed);
        // SAFETY: by the invariant; `refill` leaves at least one.
        unsafe { self.free.store(next(slot), Ordering::Release) };
        self.kept.store(self.kept.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
        slot
    }

    #[cold]
    fn refill(&self) {
        let count = if self.keep.load(Ordering::Relaxed) == 0 { 1 } else { BATCH };
        // SAFETY: the slots are ours.
        if let Err(why) = pool::take(count, |slot| unsafe { self.keep(slot) }) {
            die(why);
        }
    }

    /// Takes a slot out of use.
    ///
    /// # Safety
    ///
    /// The slot is this thread's and in no list.
    #[inline(always)]
    unsafe fn release(&self, slot: *mut Slot) {
        // SAFETY: by the contract.
        unsafe {
            pool::disarm(slot);
            if self.kept.load(Ordering::Relaxed) < self.keep.load(Ordering::Relaxed) {
                self.keep(slot);
            } else {
                pool::put(slot);
            }
        }
    }

    /// Puts a slot on the list of free ones.
    ///
    /// # Safety
    ///
    /// As for `release`.
    #[inline(always)]
    unsafe fn keep(&self, slot: *mut Slot) {
        // SAFETY: by the contract.
        unsafe { link(slot, self.free.load(Ordering::Relaxed)) };
        self.free.store(slot, Ordering::Release);
        self.kept.store(self.kept.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Finds out where the thread's stack is, and has its end give back its slots.
    fn start(&self) {
        let (low, high) = stack();
        // SAFETY: the record is there as long as the thread; a key of ours.
        let told = key().is_some_and(|key| unsafe {
            libc::pthread_setspecific(key, core::ptr::from_ref(self).cast()) == 0
        });
        self.keep.store(if told { KEEP } else { 0 }, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        self.high.store(high, Ordering::Relaxed);
    }
}

/// Bounds of this thread's stack; (1, 1) where they cannot be had.
fn stack() -> (usize, usize) {
    // SAFETY: system calls and the C library's own questions, with places for the answers.
    unsafe {
        if libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) {
            // The C library would read /proc. The name of the program is the highest string there.
            let top = libc::getauxval(libc::AT_EXECFN) as usize;
            let mut limit: libc::rlimit = core::mem::zeroed();
            let asked = libc::getrlimit(libc::RLIMIT_STACK, &mut limit) == 0;
            let len = if asked { limit.rlim_cur as usize } else { FIRST_STACK };
            return (top.saturating_sub(len.min(FIRST_STACK)).max(1), top.max(1));
        }
        let mut attr: libc::pthread_attr_t = core::mem::zeroed();
        let (mut low, mut len) = (null_mut(), 0);
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attr) != 0 {
            return (1, 1);
        }
        let answered = libc::pthread_attr_getstack(&attr, &mut low, &mut len) == 0;
        libc::pthread_attr_destroy(&mut attr);
        if answered { (low.addr(), low.addr() + len) } else { (1, 1) }
    }
}

/// The key whose value's destructor is [`end`]; made once.
fn key() -> Option<libc::pthread_key_t> {
    /// The key plus one; 0: none yet.
    static KEY: AtomicUsize = AtomicUsize::new(0);
    let number = |known: usize| (known - 1) as libc::pthread_key_t;
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Some(number(known));
    }
    let mut key = 0;
    // SAFETY: writes the key; who comes second takes the first one's.
    unsafe {
        if libc::pthread_key_create(&mut key, Some(end)) != 0 {
            return None;
        }
        match KEY.compare_exchange(0, key as usize + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(key),
            Err(known) => {
                libc::pthread_key_delete(key);
                Some(number(known))
            }
        }
    }
}

/// The thread ends: gives back all that it has. Should another destructor still need a pointer,
/// the thread starts anew and this is called again.
///
/// # Safety
///
/// Called by the C library with this thread's record.
unsafe extern "C" fn end(_record: *mut libc::c_void) {
    // SAFETY: the record of the thread that runs.
    let thread = unsafe { &*arch::thread() };
    thread.busy.store(usize::MAX, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    for list in [&thread.top, &thread.free] {
        let mut slot = list.swap(null_mut(), Ordering::Relaxed);
        while !slot.is_null() {
            // SAFETY: by the invariant; it is in no list any more.
            unsafe {
                let rest = next(slot);
                pool::disarm(slot);
                pool::put(slot);
                slot = rest;
            }
        }
    }
    thread.kept.store(0, Ordering::Relaxed);
    thread.low.store(0, Ordering::Relaxed);
    thread.high.store(0, Ordering::Relaxed);
    thread.leave();
}

/// Pointers of frames that are on no thread's own stack, or were made by a signal handler that
/// interrupted a change.
mod elsewhere {
    use super::*;

    /// Those that live, linked by `spare[1]`, the last made first. Changed under the lock.
    static LIST: AtomicPtr<Slot> = AtomicPtr::new(null_mut());
    static LOCKED: AtomicBool = AtomicBool::new(false);

    /// The lock, and all signals blocked: a handler that ran meanwhile could wait for its own
    /// thread.
    struct Lock {
        signals: libc::sigset_t,
    }

    impl Lock {
        fn take() -> Lock {
            // SAFETY: sets of signals.
            let signals = unsafe {
                let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
                libc::sigfillset(&mut all);
                libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
                before
            };
            while LOCKED.swap(true, Ordering::Acquire) {
                // SAFETY: a system call.
                unsafe { libc::sched_yield() };
            }
            Lock { signals }
        }
    }

    impl Drop for Lock {
        fn drop(&mut self) {
            LOCKED.store(false, Ordering::Release);
            // SAFETY: the set from before.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.signals, null_mut()) };
        }
    }

    /// Runs when the program or library is loaded: pthread_atfork calls malloc, which a signal
    /// handler that needs the lock may have interrupted.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static PREPARE: extern "C" fn() = prepare;

    extern "C" fn prepare() {
        // SAFETY: a function of ours. It fails only without memory; then a child of a fork that
        // meets the lock held waits for ever.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }

    /// The thread that held the lock is not in the child. Its change was one store, or none.
    extern "C" fn in_child() {
        LOCKED.store(false, Ordering::Release);
    }

    /// An address in the frame: the chain, where that lies on the same stack.
    ///
    /// # Safety
    ///
    /// The lock is held, `slot` in the list.
    unsafe fn frame(slot: *mut Slot) -> usize {
        // SAFETY: by the contract.
        let (chain, sp) = unsafe { ((*slot).data, (*slot).spare[0]) };
        if chain.wrapping_sub(sp) < NEAR { chain } else { sp }
    }

    /// The first slot of the list that `wanted` is true for, taken out; null if there is none.
    ///
    /// # Safety
    ///
    /// The lock is held.
    unsafe fn take_first(wanted: impl Fn(*mut Slot) -> bool) -> *mut Slot {
        let mut before: *mut Slot = null_mut();
        let mut slot = LIST.load(Ordering::Relaxed);
        // SAFETY: slots in the list, under the lock.
        unsafe {
            while !slot.is_null() {
                if wanted(slot) {
                    if before.is_null() {
                        LIST.store(next(slot), Ordering::Release);
                    } else {
                        link(before, next(slot));
                    }
                    break;
                }
                before = slot;
                slot = next(slot);
            }
        }
        slot
    }

    #[cold]
    pub(super) fn push(wanted: Wanted) -> *mut Slot {
        let lock = Lock::take();
        // SAFETY: under the lock; what is taken is ours.
        unsafe {
            let mut slot = take_first(|slot| wanted.is(slot));
            if slot.is_null()
                && let Err(why) = pool::take(1, |taken| slot = taken)
            {
                die(why);
            }
            wanted.fill(slot);
            link(slot, LIST.load(Ordering::Relaxed));
            LIST.store(slot, Ordering::Release);
            drop(lock);
            slot
        }
    }

    /// Drops the pointer that was made last of those in the frame nearest above `sp`, if there is
    /// one near.
    #[cold]
    pub(super) fn pop(sp: usize) {
        let _lock = Lock::take();
        // SAFETY: under the lock; what is taken is ours.
        unsafe {
            let distance = |slot| frame(slot).wrapping_sub(sp);
            let mut nearest = NEAR;
            let mut slot = LIST.load(Ordering::Relaxed);
            while !slot.is_null() {
                nearest = nearest.min(distance(slot));
                slot = next(slot);
            }
            // Of one frame are those that began below the nearest chain.
            let in_frame = |slot: *mut Slot| {
                distance(slot) < NEAR && (*slot).spare[0] <= sp.wrapping_add(nearest)
            };
            let slot = if nearest < NEAR { take_first(in_frame) } else { null_mut() };
            if !slot.is_null() {
                pool::disarm(slot);
                pool::put(slot);
            }
        }
    }
}
