//! What LLVM calls.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::error::Error as _;
use std::ffi::{CString, c_char, c_uint, c_void};
use std::fmt::Write as _;
use std::ptr;

use llvm_sys::core::LLVMCreateMessage;
use llvm_sys::execution_engine::{LLVMCreateSimpleMCJITMemoryManager, LLVMMCJITMemoryManagerRef};
use llvm_sys::prelude::LLVMBool;
use trampfd_code::stage::{Kind, Stage};

use super::{Failure, Watch};

/// What LLVM passes to each callback.
///
/// # Invariants
///
/// LLVM calls one callback at a time, [`destroy`] last and once. `scratch` are allocations of
/// the global allocator, with their layouts, not null.
struct State {
    stage: Stage,
    watch: Watch,
    /// LLVM ends the process where it gets no memory. So it gets this, which is never executed.
    scratch: Vec<(*mut u8, Layout)>,
}

impl State {
    fn allocate(&mut self, kind: Kind, len: usize, align: usize) -> *mut u8 {
        match self.stage.allocate(kind, len, align) {
            Ok(ptr) => ptr,
            Err(error) => {
                self.fail(Failure::new("LLVM got no memory for a section", error));
                self.scratch(len, align).unwrap_or(ptr::null_mut())
            }
        }
    }

    fn scratch(&mut self, len: usize, align: usize) -> Option<*mut u8> {
        let layout = Layout::from_size_align(len.max(1), align).ok()?;
        // SAFETY: the layout's size is not 0.
        let ptr = unsafe { alloc_zeroed(layout) };
        if ptr.is_null() {
            return None;
        }
        self.scratch.push((ptr, layout));
        Some(ptr)
    }

    fn finalise(&mut self) -> Result<(), Failure> {
        // Code may refer to what is not there.
        self.watch.check()?;
        self.stage.finalise().map_err(|error| {
            self.fail(Failure::new("LLVM's code could not be made executable", error))
        })
    }

    /// The first failure is the one to tell of.
    fn fail(&self, failure: Failure) -> Failure {
        self.watch.failure().get_or_insert(failure).clone()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for &(ptr, layout) in &self.scratch {
            // SAFETY: by the invariant of `scratch`; LLVM has no use for it after `destroy`.
            unsafe { dealloc(ptr, layout) };
        }
    }
}

pub(super) fn create(stage: Stage, watch: Watch) -> LLVMMCJITMemoryManagerRef {
    let state = Box::new(State { stage, watch, scratch: Vec::new() });
    let state = Box::into_raw(state).cast();
    // SAFETY: callbacks for what `state` is. It is null for callbacks that are null only.
    unsafe {
        LLVMCreateSimpleMCJITMemoryManager(
            state,
            allocate_code,
            allocate_data,
            finalise,
            Some(destroy),
        )
    }
}

/// # Safety
///
/// `state` is of [`create`], and by the invariants of [`State`] nobody else uses it now.
unsafe fn state<'a>(state: *mut c_void) -> &'a mut State {
    // SAFETY: the caller's contract.
    unsafe { &mut *state.cast() }
}

extern "C" fn allocate_code(
    opaque: *mut c_void,
    len: usize,
    align: c_uint,
    _section: c_uint,
    _name: *const c_char,
) -> *mut u8 {
    // SAFETY: called by LLVM with what `create` gave it.
    unsafe { state(opaque) }.allocate(Kind::Code, len, aligned(align))
}

extern "C" fn allocate_data(
    opaque: *mut c_void,
    len: usize,
    align: c_uint,
    _section: c_uint,
    _name: *const c_char,
    read_only: LLVMBool,
) -> *mut u8 {
    let kind = if read_only != 0 { Kind::ReadOnly } else { Kind::ReadWrite };
    // SAFETY: as above.
    unsafe { state(opaque) }.allocate(kind, len, aligned(align))
}

/// LLVM's 0 is its own default.
fn aligned(align: c_uint) -> usize {
    if align == 0 { 16 } else { align as usize }
}

extern "C" fn finalise(opaque: *mut c_void, message: *mut *mut c_char) -> LLVMBool {
    // SAFETY: as above.
    let Err(failure) = unsafe { state(opaque) }.finalise() else { return 0 };
    if !message.is_null() {
        let mut text = failure.to_string();
        let mut cause = failure.source();
        while let Some(error) = cause {
            // A string has room.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: where LLVM wants the message, which it frees.
        unsafe { *message = LLVMCreateMessage(text.as_ptr()) };
    }
    1
}

extern "C" fn destroy(opaque: *mut c_void) {
    // SAFETY: of `create`, and LLVM is done with it.
    drop(unsafe { Box::from_raw(opaque.cast::<State>()) });
}
