//! Memory for the functions that closure-ffi makes of closures, on systems where nothing that is
//! or was writable may be executed.
//!
//! ```
//! use closure_ffi::BareFnMut;
//! use trampfd_code_closure_ffi::CodeAlloc;
//!
//! let memory = CodeAlloc::new()?;
//! let mut sum = 0;
//! let add = BareFnMut::new_c_in(|x: u32| sum += x, memory.clone());
//! // A function pointer without any argument for the closure's data.
//! let pointer: unsafe extern "C" fn(u32) = add.bare();
//! // SAFETY: `add` is still there, and nobody else calls it.
//! unsafe {
//!     pointer(40);
//!     pointer(2);
//! }
//! drop(add);
//! assert_eq!(sum, 42);
//! # Ok::<(), trampfd_code::alloc::Error>(())
//! ```
//!
//! closure-ffi writes through a pointer, so there is a writable alias of the code
//! ([`Write::Alias`]); children of fork do not have it. They can call what there was, and make
//! functions of their own.
//!
//! As the allocator of the whole program, with closure-ffi's feature `global_jit_alloc` and
//! without `default_jit_alloc`:
//!
//! ```text
//! static MEMORY: LazyLock<CodeAlloc> = LazyLock::new(|| CodeAlloc::new().expect("code memory"));
//! closure_ffi::global_jit_alloc!(MEMORY);
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use closure_ffi::JitAlloc;
use closure_ffi::jit_alloc::{JitAllocError, ProtectJitAccess};
use trampfd_code::alloc::{Error, JitAllocator, Options};
use trampfd_code::vm::{self, Write};

/// What closure-ffi's constructors that end in `_in` take. Clones share their memory, which is
/// there as long as one of them, or a function with one, is.
#[derive(Clone, Debug)]
pub struct CodeAlloc(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    allocator: JitAllocator,
    error: Mutex<Option<Error>>,
}

impl CodeAlloc {
    /// With [`Options::default`], and an alias.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::with`].
    pub fn new() -> Result<CodeAlloc, Error> {
        CodeAlloc::with(&Options::default())
    }

    /// With these options, but that there is an alias, whatever they say of it.
    ///
    /// # Errors
    ///
    /// Those of [`JitAllocator::with`].
    pub fn with(options: &Options) -> Result<CodeAlloc, Error> {
        let mut options = options.clone();
        options.memory.write = Write::Alias;
        let allocator = JitAllocator::with(&options)?;
        Ok(CodeAlloc(Arc::new(Shared { allocator, error: Mutex::new(None) })))
    }

    /// Where the memory comes from.
    pub fn allocator(&self) -> &JitAllocator {
        &self.0.allocator
    }

    /// Why closure-ffi was refused something last: its own error does not say.
    pub fn take_error(&self) -> Option<Error> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn told<T>(&self, result: Result<T, Error>) -> Result<T, JitAllocError> {
        result.map_err(|error| {
            *self.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            JitAllocError
        })
    }
}

impl JitAlloc for CodeAlloc {
    fn alloc(&self, size: usize) -> Result<(*const u8, *mut u8), JitAllocError> {
        self.told(self.0.allocator.alloc_raw(size))
    }

    unsafe fn release(&self, rx_ptr: *const u8) -> Result<(), JitAllocError> {
        // SAFETY: a block of the caller's, by this function's contract.
        self.told(unsafe { self.0.allocator.release(rx_ptr) })
    }

    /// Nothing: the two views are what they are.
    unsafe fn protect_jit_memory(&self, _: *const u8, _: usize, _: ProtectJitAccess) {}

    unsafe fn flush_instruction_cache(&self, rx_ptr: *const u8, size: usize) {
        vm::flush(rx_ptr, size);
    }
}
