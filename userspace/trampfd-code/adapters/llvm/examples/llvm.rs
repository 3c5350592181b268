//! LLVM's MCJIT on memory of this crate: two modules with their data, that call each other and the
//! program, and whose callers the unwinder knows. Says by its status whether it could.

use std::ffi::{CStr, CString, c_char, c_void};
use std::process::ExitCode;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{mem, ptr};

use llvm_sys::LLVMModule;
use llvm_sys::core::*;
use llvm_sys::execution_engine::*;
use llvm_sys::ir_reader::LLVMParseIRInContext;
use llvm_sys::prelude::LLVMContextRef;
use llvm_sys::support::LLVMAddSymbol;
use llvm_sys::target::*;
use llvm_sys::target_machine::LLVMCodeModel;
use trampfd_code::vm::Options;
use trampfd_code_llvm::{MemoryManager, Watch};

/// How a program under a policy ends, and what it looks at.
#[path = "../../../tests/support/client.rs"]
pub mod client;

use client::Result;

fn main() -> ExitCode {
    client::run(|| {
        let (engine, watch) = staged(Options::default(), DEFAULT)?;
        use_engine(&engine, Some(&watch))
    })
}

/// What compiled code calls: far from it, in the program. It sees whether the unwinder knows its
/// caller.
pub(crate) extern "C" fn host(x: i32, caller: *const c_void) -> i32 {
    #[repr(C)]
    struct Bases([usize; 3]);
    unsafe extern "C" {
        fn _Unwind_Find_FDE(pc: *const c_void, bases: *mut Bases) -> *const c_void;
    }
    let mut bases = Bases([0; 3]);
    // SAFETY: looks up an address, whatever it is.
    if unsafe { _Unwind_Find_FDE(caller, &mut bases) }.is_null() {
        UNKNOWN_CALLERS.fetch_add(1, Ordering::Relaxed);
    }
    3 * x
}

static UNKNOWN_CALLERS: AtomicI32 = AtomicI32::new(0);

/// An engine and its context.
pub struct Engine {
    /// LLVM's.
    pub engine: LLVMExecutionEngineRef,
    context: LLVMContextRef,
}

impl Engine {
    /// On `memory`, or on LLVM's own if there is none.
    pub fn new(memory: Option<MemoryManager>, model: LLVMCodeModel) -> Engine {
        static ONCE: Once = Once::new();
        // SAFETY: LLVM's rules: the engine owns its modules and the memory manager.
        unsafe {
            ONCE.call_once(|| {
                LLVMLinkInMCJIT();
                assert_eq!(LLVM_InitializeNativeTarget(), 0);
                assert_eq!(LLVM_InitializeNativeAsmPrinter(), 0);
                LLVMAddSymbol(c"host".as_ptr(), host as *mut c_void);
            });
            let context = LLVMContextCreate();
            let mut options: LLVMMCJITCompilerOptions = mem::zeroed();
            let size = mem::size_of_val(&options);
            LLVMInitializeMCJITCompilerOptions(&mut options, size);
            options.CodeModel = model;
            options.OptLevel = 2;
            options.MCJMM = memory.map_or(ptr::null_mut(), MemoryManager::into_raw);
            let first = LLVMModuleCreateWithNameInContext(c"first".as_ptr(), context);
            let (mut engine, mut error) = (ptr::null_mut(), ptr::null_mut());
            let failed = LLVMCreateMCJITCompilerForModule(
                &mut engine,
                first,
                &mut options,
                size,
                &mut error,
            );
            assert_eq!(failed, 0, "{:?}", message(error));
            Engine { engine, context }
        }
    }

    /// A module, by its text.
    pub fn add(&self, text: &str) {
        // SAFETY: LLVM copies the text, and its buffer is given to the parser.
        unsafe {
            let (start, len) = (text.as_ptr().cast(), text.len());
            let buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(start, len, c"text".as_ptr());
            let mut module: *mut LLVMModule = ptr::null_mut();
            let mut error = ptr::null_mut();
            let failed = LLVMParseIRInContext(self.context, buffer, &mut module, &mut error);
            assert_eq!(failed, 0, "{:?}", message(error));
            LLVMAddModule(self.engine, module);
        }
    }

    /// Of a function, compiled when it is first asked for.
    pub fn address(&self, name: &str) -> u64 {
        let name = CString::new(name).unwrap();
        // SAFETY: an engine that is there.
        let address = unsafe { LLVMGetFunctionAddress(self.engine, name.as_ptr()) };
        assert_ne!(address, 0);
        address
    }

    /// Of the type that [`module`]'s have.
    pub fn function(&self, name: &str) -> extern "C" fn(i32) -> i32 {
        // SAFETY: all functions of these tests have this type.
        unsafe { mem::transmute::<u64, extern "C" fn(i32) -> i32>(self.address(name)) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: nothing of it is called after this.
        unsafe {
            LLVMDisposeExecutionEngine(self.engine);
            LLVMContextDispose(self.context);
        }
    }
}

/// What LLVM says.
fn message(text: *mut c_char) -> Option<String> {
    // SAFETY: a message of LLVM's, or none.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// A module with a function `f{number}` of x, a constant table, a variable and two calls: of the
/// program, and, but for number 0, of the function before. Its value is
/// `host(x) + table[x & 3] + calls until now + f{number - 1}(x)`, with a table of 10 to 13.
pub fn module(number: usize) -> String {
    let (declare, call) = match number.checked_sub(1) {
        None => (String::new(), "%below = add i32 0, 0".to_owned()),
        Some(below) => {
            (format!("declare i32 @f{below}(i32)"), format!("%below = call i32 @f{below}(i32 %x)"))
        }
    };
    format!(
        "@table{number} = constant [4 x i32] [i32 10, i32 11, i32 12, i32 13]
         @count{number} = global i32 0
         declare i32 @host(i32, i8*)
         {declare}
         define i32 @f{number}(i32 %x) uwtable {{
           %self = bitcast i32 (i32)* @f{number} to i8*
           %far = call i32 @host(i32 %x, i8* %self)
           {call}
           %old = load volatile i32, i32* @count{number}
           %new = add i32 %old, 1
           store volatile i32 %new, i32* @count{number}
           %i = and i32 %x, 3
           %place = getelementptr [4 x i32], [4 x i32]* @table{number}, i32 0, i32 %i
           %entry = load volatile i32, i32* %place
           %a = add i32 %far, %entry
           %b = add i32 %a, %new
           %c = add i32 %b, %below
           ret i32 %c
         }}"
    )
}

/// Two modules, one added when the other runs.
pub fn use_engine(engine: &Engine, watch: Option<&Watch>) -> Result {
    let check = || watch.map_or(Ok(()), Watch::check);
    engine.add(&module(0));
    let f0 = engine.function("f0");
    check()?;
    assert_eq!(f0(2), 6 + 12 + 1);
    engine.add(&module(1));
    let f1 = engine.function("f1");
    check()?;
    assert_eq!(f1(3), 9 + 13 + 1 + (9 + 13 + 2));
    assert_eq!(f0(0), 10 + 3);
    assert_eq!(UNKNOWN_CALLERS.load(Ordering::Relaxed), 0);
    Ok(())
}

/// An engine on our memory, and what can be seen of that.
pub fn staged(options: Options, model: LLVMCodeModel) -> Result<(Engine, Watch)> {
    let memory = MemoryManager::new(options)?;
    let watch = memory.watch();
    Ok((Engine::new(Some(memory), model), watch))
}

/// MCJIT's own choice.
pub const DEFAULT: LLVMCodeModel = LLVMCodeModel::LLVMCodeModelJITDefault;
