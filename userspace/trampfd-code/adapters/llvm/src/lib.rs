//! Memory for LLVM's MCJIT on systems where nothing that is or was writable may be executed,
//! through LLVM's C interface (LLVM 14).
//!
//! ```
//! use llvm_sys::execution_engine::*;
//! use trampfd_code::vm::Options;
//! use trampfd_code_llvm::MemoryManager;
//!
//! # use llvm_sys::{core::*, ir_reader::*, target::*};
//! # use std::{mem, ptr};
//! # fn parse(text: &std::ffi::CStr) -> llvm_sys::prelude::LLVMModuleRef {
//! #     // SAFETY: LLVM copies the text, and its buffer is given to the parser.
//! #     unsafe {
//! #         let (text, len) = (text.as_ptr(), text.count_bytes());
//! #         let buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(text, len, text);
//! #         let mut module = ptr::null_mut();
//! #         let context = LLVMGetGlobalContext();
//! #         assert_eq!(LLVMParseIRInContext(context, buffer, &mut module, ptr::null_mut()), 0);
//! #         module
//! #     }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = MemoryManager::new(Options::default())?;
//! let watch = memory.watch();
//! // SAFETY: LLVM's rules: the engine owns the module and the memory manager.
//! unsafe {
//!     LLVMLinkInMCJIT();
//!     LLVM_InitializeNativeTarget();
//!     LLVM_InitializeNativeAsmPrinter();
//!     let module = parse(c"define i32 @answer() { ret i32 42 }");
//!
//!     let mut options: LLVMMCJITCompilerOptions = mem::zeroed();
//!     let size = mem::size_of_val(&options);
//!     LLVMInitializeMCJITCompilerOptions(&mut options, size);
//!     options.MCJMM = memory.into_raw();
//!     let (mut engine, mut error) = (ptr::null_mut(), ptr::null_mut());
//!     let failed =
//!         LLVMCreateMCJITCompilerForModule(&mut engine, module, &mut options, size, &mut error);
//!     assert_eq!(failed, 0);
//!
//!     let answer = LLVMGetFunctionAddress(engine, c"answer".as_ptr());
//!     watch.check()?; // MCJIT does not tell
//!     let answer = mem::transmute::<u64, extern "C" fn() -> i32>(answer);
//!     assert_eq!(answer(), 42);
//!     LLVMDisposeExecutionEngine(engine);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Code models
//!
//! All sections of an engine lie in reach of each other, and MCJIT's own code model (large) needs
//! no more. The small one is shorter, but MCJIT does not make it position-independent: it needs
//! addresses of 31 bits. [`low_addresses`] gives options for that; calls to the program, which
//! lies elsewhere, go through stubs of LLVM's. LLVM does not tell when an address does not fit.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use llvm_sys::execution_engine::{LLVMDisposeMCJITMemoryManager, LLVMMCJITMemoryManagerRef};
use trampfd_code::stage::{Error, Stage};
use trampfd_code::vm::{Meter, Options, Place, Stats};

mod callbacks;

/// A memory manager of LLVM's whose memory is a [`Stage`]: for one engine.
#[derive(Debug)]
pub struct MemoryManager {
    /// Owned, until [`MemoryManager::into_raw`].
    raw: LLVMMCJITMemoryManagerRef,
    watch: Watch,
}

impl MemoryManager {
    /// With memory as [`Stage::new`] has it.
    ///
    /// # Errors
    ///
    /// Those of [`Stage::new`].
    pub fn new(options: Options) -> Result<MemoryManager, Error> {
        Ok(Stage::new(options)?.into())
    }

    /// For `LLVMMCJITCompilerOptions::MCJMM`. The engine that is made with it owns it; without
    /// one, `LLVMDisposeMCJITMemoryManager` gives all back.
    pub fn into_raw(self) -> LLVMMCJITMemoryManagerRef {
        std::mem::ManuallyDrop::new(self).raw
    }

    /// What can be seen of it when an engine owns it.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

impl From<Stage> for MemoryManager {
    fn from(stage: Stage) -> MemoryManager {
        let watch = Watch { meter: stage.meter().clone(), failure: Arc::default() };
        let raw = callbacks::create(stage, watch.clone());
        MemoryManager { raw, watch }
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        // SAFETY: `raw` is owned, by its invariant, and no engine has it.
        unsafe { LLVMDisposeMCJITMemoryManager(self.raw) };
    }
}

/// What happens in a [`MemoryManager`].
#[derive(Clone, Debug)]
pub struct Watch {
    meter: Meter,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Watch {
    /// Whether all code for which addresses were asked can run. To be called after
    /// `LLVMGetFunctionAddress` and its like, and before what they return: MCJIT does not pass
    /// errors on, and code that has failed is not executable.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]. Nothing more of this engine becomes executable after it.
    pub fn check(&self) -> Result<(), Failure> {
        self.failure().clone().map_or(Ok(()), Err)
    }

    /// What was asked of the kernel until now.
    pub fn stats(&self) -> Stats {
        self.meter.stats()
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Why an engine's code cannot run.
#[derive(Clone, Debug)]
pub struct Failure {
    what: &'static str,
    error: Arc<Error>,
}

impl Failure {
    fn new(what: &'static str, error: Error) -> Failure {
        Failure { what, error: Arc::new(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

/// `options` with all memory in the lowest 2 GiB, as MCJIT's small code model needs it.
pub fn low_addresses(options: Options) -> Options {
    let mut options = options;
    options.place = Place::Near { address: 1 << 30, within: 1 << 30 };
    options
}
