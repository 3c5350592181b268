//! MCJIT itself, on memory that was never writable where it is executable.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{fs, mem, ptr};

use llvm_sys::LLVMModule;
use llvm_sys::core::*;
use llvm_sys::execution_engine::*;
use llvm_sys::ir_reader::LLVMParseIRInContext;
use llvm_sys::prelude::LLVMContextRef;
use llvm_sys::support::LLVMAddSymbol;
use llvm_sys::target::*;
use llvm_sys::target_machine::LLVMCodeModel;
use trampfd_code::stage::Stage;
use trampfd_code::vm::{Options, Place};
use trampfd_code_llvm::{MemoryManager, Watch, low_addresses};

#[path = "../../../tests/support/mod.rs"]
mod support;

use support::alone::{alone, output_of};
use support::policy::refuse_exec_gain;

/// What compiled code calls: far from it, in the program. It sees whether the unwinder knows its
/// caller.
extern "C" fn host(x: i32, caller: *const c_void) -> i32 {
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
struct Engine {
    engine: LLVMExecutionEngineRef,
    context: LLVMContextRef,
}

impl Engine {
    /// On `memory`, or on LLVM's own if there is none.
    fn new(memory: Option<MemoryManager>, model: LLVMCodeModel) -> Engine {
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

    fn add(&self, text: &str) {
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

    fn address(&self, name: &str) -> u64 {
        let name = CString::new(name).unwrap();
        // SAFETY: an engine that is there.
        let address = unsafe { LLVMGetFunctionAddress(self.engine, name.as_ptr()) };
        assert_ne!(address, 0);
        address
    }

    fn function(&self, name: &str) -> extern "C" fn(i32) -> i32 {
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

fn message(text: *mut c_char) -> Option<String> {
    // SAFETY: a message of LLVM's, or none.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// A module with a function `f{number}` of x, a constant table, a variable and two calls: of the
/// program, and, but for number 0, of the function before. Its value is
/// `host(x) + table[x & 3] + calls until now + f{number - 1}(x)`, with a table of 10 to 13.
fn module(number: usize) -> String {
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
fn use_engine(engine: &Engine, watch: Option<&Watch>) {
    let check = || watch.map_or(Ok(()), Watch::check).unwrap();
    engine.add(&module(0));
    let f0 = engine.function("f0");
    check();
    assert_eq!(f0(2), 6 + 12 + 1);
    engine.add(&module(1));
    let f1 = engine.function("f1");
    check();
    assert_eq!(f1(3), 9 + 13 + 1 + (9 + 13 + 2));
    assert_eq!(f0(0), 10 + 3);
    assert_eq!(UNKNOWN_CALLERS.load(Ordering::Relaxed), 0);
    for row in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        assert!(!row.contains(" rwx"), "{row}");
    }
}

fn staged(options: Options, model: LLVMCodeModel) -> (Engine, Watch) {
    let memory = MemoryManager::new(options).unwrap();
    let watch = memory.watch();
    (Engine::new(Some(memory), model), watch)
}

const DEFAULT: LLVMCodeModel = LLVMCodeModel::LLVMCodeModelJITDefault;
const SMALL: LLVMCodeModel = LLVMCodeModel::LLVMCodeModelSmall;

#[test]
fn modules_call_each_other_and_the_program_and_have_their_data() {
    let (engine, watch) = staged(Options::default(), DEFAULT);
    use_engine(&engine, Some(&watch));
}

#[test]
fn sections_are_what_they_are_for_and_no_more() {
    let (engine, watch) = staged(Options::default(), DEFAULT);
    use_engine(&engine, Some(&watch));
    // SAFETY: an engine that is there.
    let data = |name: &CStr| unsafe { LLVMGetGlobalValueAddress(engine.engine, name.as_ptr()) };
    assert_eq!(access(engine.address("f0")), "r-xs");
    assert_eq!(access(data(c"table0")), "r--p");
    assert_eq!(access(data(c"count0")), "rw-p");
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        let (engine, watch) = staged(Options::default(), DEFAULT);
        use_engine(&engine, Some(&watch));
    });
}

#[test]
fn llvms_own_memory_does_not_work_there() {
    let output = output_of(|| {
        // Works, without the policy.
        use_engine(&Engine::new(None, DEFAULT), None);
        println!("works without");
        refuse_exec_gain();
        use_engine(&Engine::new(None, DEFAULT), None);
    });
    assert!(String::from_utf8_lossy(&output.stdout).contains("works without"));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", output.status);
}

#[test]
fn the_small_code_model_works_at_low_addresses() {
    alone(|| {
        refuse_exec_gain();
        let (engine, watch) = staged(low_addresses(Options::default()), SMALL);
        use_engine(&engine, Some(&watch));
        let address = engine.address("f0");
        assert!(address < 1 << 31, "{address:#x}");
        assert!((host as *const () as u64).abs_diff(address) > 1 << 31, "the program is not far");
    });
}

#[test]
fn a_module_takes_three_system_calls_and_no_mapping_of_its_own() {
    let (engine, watch) = staged(Options::default(), DEFAULT);
    let mut before = None;
    for number in 0..100 {
        engine.add(&module(number));
        let function = engine.function(&format!("f{number}"));
        watch.check().unwrap();
        let now = watch.stats();
        if let Some((calls, mappings)) = before {
            assert_eq!((now.system_calls, now.mappings), (calls + 3, mappings));
        }
        before = Some((now.system_calls, now.mappings));
        if number == 99 {
            // Each is called once now.
            assert_eq!(function(1), 100 * (3 + 11 + 1));
        }
    }
}

#[test]
fn a_panic_of_the_program_passes_through() {
    extern "C-unwind" fn refuse(x: i32) -> i32 {
        resume_unwind(Box::new(x))
    }
    let (engine, watch) = staged(Options::default(), DEFAULT);
    // SAFETY: a function of the type that is declared below.
    unsafe { LLVMAddSymbol(c"refuse".as_ptr(), refuse as *mut c_void) };
    engine.add(
        "declare i32 @refuse(i32)
         define i32 @ask(i32 %x) uwtable {
           %y = call i32 @refuse(i32 %x)
           %z = add i32 %y, 1
           ret i32 %z
         }",
    );
    let address = engine.address("ask");
    watch.check().unwrap();
    // SAFETY: its type.
    let ask = unsafe { mem::transmute::<u64, extern "C-unwind" fn(i32) -> i32>(address) };
    let thrown = catch_unwind(|| ask(8)).unwrap_err();
    assert_eq!(thrown.downcast_ref(), Some(&8));
}

#[test]
fn modules_that_are_finalised_at_once_take_three_system_calls() {
    let (engine, watch) = staged(Options::default(), DEFAULT);
    engine.add(&module(0));
    engine.address("f0");
    let before = watch.stats();
    (1..50).for_each(|number| engine.add(&module(number)));
    let function = engine.function("f49");
    watch.check().unwrap();
    assert_eq!(watch.stats().system_calls - before.system_calls, 3);
    assert_eq!(function(1), 50 * (3 + 11 + 1));
}

#[test]
fn an_engine_gives_its_memory_back() {
    let (engine, watch) = staged(Options::default(), DEFAULT);
    use_engine(&engine, Some(&watch));
    assert!(watch.stats().reserved > 0);
    drop(engine);
    assert_eq!(watch.stats().reserved, 0);
    // The unwinder does not look for what is not there any more.
    assert!(catch_unwind(|| resume_unwind(Box::new(()))).is_err());
    let memory = MemoryManager::new(Options::default()).unwrap();
    let watch = memory.watch();
    drop(memory);
    assert_eq!(watch.stats().reserved, 0);
}

#[test]
fn memory_that_cannot_be_had_is_told_and_does_not_end_the_process() {
    let mut options = Options::default();
    options.place = Place::Near { address: 1 << 30, within: 256 << 10 };
    let stage = Stage::with_room(options, 64 << 10).unwrap();
    let memory = MemoryManager::from(stage);
    let watch = memory.watch();
    let engine = Engine::new(Some(memory), DEFAULT);
    engine.add(
        "@all = internal global [1048576 x i8] zeroinitializer
         define i32 @large(i32 %x) {
           %place = getelementptr [1048576 x i8], [1048576 x i8]* @all, i32 0, i32 %x
           store volatile i8 1, i8* %place
           ret i32 %x
         }",
    );
    let address = engine.address("large");
    let failure = watch.check().unwrap_err();
    let cause = std::error::Error::source(&failure).expect("a cause");
    assert!(cause.to_string().contains("no memory"), "{failure}: {cause}");
    assert!(!is_executable(address));
    // Nor what comes after it.
    engine.add(&module(0));
    assert!(!is_executable(engine.address("f0")));
    watch.check().unwrap_err();
}

#[test]
fn code_that_cannot_be_made_executable_is_told() {
    alone(|| {
        let (engine, watch) = staged(Options::default(), DEFAULT);
        engine.add(&module(0));
        let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a limit on what this process writes to files, which is no signal's business.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &none), 0);
        }
        let address = engine.address("f0");
        let failure = watch.check().unwrap_err();
        assert_eq!(failure.to_string(), "LLVM's code could not be made executable");
        assert!(!is_executable(address));
    });
}

fn is_executable(address: u64) -> bool {
    access(address).starts_with("r-x")
}

/// How the page at `address` is mapped: "r-xs", for instance.
fn access(address: u64) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let row = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address).then(|| rest[..4].to_owned())
    });
    row.unwrap_or_else(|| "none".into())
}
