//! Memory for cranelift-jit on systems where nothing that is or was writable may be executed.
//!
//! ```
//! use cranelift_codegen::ir::{InstBuilder, types};
//! use cranelift_codegen::settings::{self, Configurable};
//! use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
//! use cranelift_jit::{JITBuilder, JITModule};
//! use cranelift_module::{Linkage, Module, default_libcall_names};
//! use trampfd_code::vm::Options;
//! use trampfd_code_cranelift::StagedMemoryProvider;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut flags = settings::builder();
//! flags.set("is_pic", "false")?; // as cranelift-jit asks
//! let isa = cranelift_native::builder()?.finish(settings::Flags::new(flags))?;
//! let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
//! builder.memory_provider(Box::new(StagedMemoryProvider::new(Options::default())?));
//! let mut module = JITModule::new(builder);
//!
//! let mut context = module.make_context();
//! context.func.signature.returns.push(cranelift_codegen::ir::AbiParam::new(types::I32));
//! let mut scratch = FunctionBuilderContext::new();
//! let mut body = FunctionBuilder::new(&mut context.func, &mut scratch);
//! let block = body.create_block();
//! body.switch_to_block(block);
//! let answer = body.ins().iconst(types::I32, 42);
//! body.ins().return_(&[answer]);
//! body.seal_all_blocks();
//! body.finalize(module.isa().frontend_config());
//! let id = module.declare_function("answer", Linkage::Export, &context.func.signature)?;
//! module.define_function(id, &mut context)?;
//! module.finalize_definitions()?;
//!
//! let code = module.get_finalized_function(id);
//! // SAFETY: the function that was compiled above; its module is not freed before the call.
//! let answer = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(code) };
//! assert_eq!(answer(), 42);
//! # Ok(())
//! # }
//! ```

use std::io;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{ModuleError, ModuleResult};
use trampfd_code::stage::{self, Kind, Stage};
use trampfd_code::vm::{Meter, Options};

/// What [`JITBuilder::memory_provider`](cranelift_jit::JITBuilder::memory_provider) takes: code
/// and data of one module, in reach of each other, out of a [`Stage`].
///
/// As with cranelift-jit's own providers, code that was finalised stays until the process ends,
/// so that pointers to it stay valid, but for
/// [`JITModule::free_memory`](cranelift_jit::JITModule::free_memory).
#[derive(Debug)]
pub struct StagedMemoryProvider {
    /// None when it was freed.
    stage: Option<Stage>,
    meter: Meter,
    finalized: bool,
}

impl StagedMemoryProvider {
    /// With memory as [`Stage::new`] has it.
    ///
    /// # Errors
    ///
    /// Those of [`Stage::new`].
    pub fn new(options: Options) -> Result<StagedMemoryProvider, stage::Error> {
        Ok(Stage::new(options)?.into())
    }

    /// Counts what is asked of the kernel: a clone of it can be kept when a module has the
    /// provider.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl From<Stage> for StagedMemoryProvider {
    fn from(stage: Stage) -> StagedMemoryProvider {
        let meter = stage.meter().clone();
        StagedMemoryProvider { stage: Some(stage), meter, finalized: false }
    }
}

impl JITMemoryProvider for StagedMemoryProvider {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let stage = self.stage.as_mut().ok_or_else(freed)?;
        let kind = match kind {
            JITMemoryKind::Executable => Kind::Code,
            JITMemoryKind::ReadOnly => Kind::ReadOnly,
            JITMemoryKind::Writable => Kind::ReadWrite,
        };
        let align = usize::try_from(align).map_err(io::Error::other)?;
        stage.allocate(kind, size, align).map_err(io::Error::other)
    }

    unsafe fn free_memory(&mut self) {
        self.stage = None;
    }

    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        let failed = |err| ModuleError::Allocation { err };
        if branch_protection == BranchProtection::BTI {
            let why = "branch target identification is not supported for staged code";
            return Err(failed(io::Error::new(io::ErrorKind::Unsupported, why)));
        }
        let stage = self.stage.as_mut().ok_or_else(|| failed(freed()))?;
        // Part of it may be final even if it fails.
        self.finalized = true;
        stage.finalise().map_err(|error| failed(io::Error::other(error)))
    }
}

impl Drop for StagedMemoryProvider {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take().filter(|_| self.finalized) {
            stage.leak();
        }
    }
}

fn freed() -> io::Error {
    io::Error::other("the memory of this module was freed")
}
