//! cranelift-jit itself, on memory that was never writable where it is executable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fs, mem};

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{
    ArenaMemoryProvider, BranchProtection, JITBuilder, JITMemoryKind, JITMemoryProvider, JITModule,
};
use cranelift_module::{
    DataDescription, FuncId, FuncOrDataId, Linkage, Module, default_libcall_names,
};
use trampfd_code::stage::Stage;
use trampfd_code::vm::{Meter, Options};
use trampfd_code_cranelift::StagedMemoryProvider;

#[path = "../../../tests/support/mod.rs"]
mod support;

use support::alone::alone;
use support::policy::refuse_exec_gain;

/// A module on `memory`, or on cranelift-jit's own if there is none.
fn module(memory: Option<Box<dyn JITMemoryProvider + Send>>) -> JITModule {
    let mut flags = settings::builder();
    flags.set("is_pic", "false").unwrap();
    flags.set("use_colocated_libcalls", "false").unwrap();
    let isa = cranelift_native::builder().unwrap().finish(settings::Flags::new(flags)).unwrap();
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    builder.symbol("triple", triple as *const u8);
    if let Some(memory) = memory {
        builder.memory_provider(memory);
    }
    JITModule::new(builder)
}

fn staged() -> (JITModule, Meter) {
    let memory = StagedMemoryProvider::new(Options::default()).unwrap();
    let meter = memory.meter().clone();
    (module(Some(Box::new(memory))), meter)
}

/// What compiled code calls: far from it, in the program.
extern "C" fn triple(x: i64) -> i64 {
    3 * x
}

fn unary(module: &JITModule) -> Signature {
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// Defines `name`, of `x`: `callee(x) + constant`, where the constant is read-only data, and adds
/// one to a counter, which is writable data.
fn define(module: &mut JITModule, name: &str, callee: FuncId, constant: i64) -> FuncId {
    let mut data = DataDescription::new();
    data.define(constant.to_le_bytes().into());
    let number = format!("{name} number");
    let number = module.declare_data(&number, Linkage::Local, false, false).unwrap();
    module.define_data(number, &data).unwrap();
    data.clear();
    data.define_zeroinit(8);
    let counter = format!("{name} counter");
    let counter = module.declare_data(&counter, Linkage::Local, true, false).unwrap();
    module.define_data(counter, &data).unwrap();

    let mut context = module.make_context();
    context.func.signature = unary(module);
    let mut scratch = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = body.create_block();
    body.append_block_params_for_function_params(block);
    body.switch_to_block(block);
    let x = body.block_params(block)[0];
    let callee = module.declare_func_in_func(callee, body.func);
    let call = body.ins().call(callee, &[x]);
    let result = body.inst_results(call)[0];
    let number = module.declare_data_in_func(number, body.func);
    let number = body.ins().symbol_value(types::I64, number);
    let number = body.ins().load(types::I64, MemFlagsData::trusted(), number, 0);
    let sum = body.ins().iadd(result, number);
    let counter = module.declare_data_in_func(counter, body.func);
    let counter = body.ins().symbol_value(types::I64, counter);
    let count = body.ins().load(types::I64, MemFlagsData::trusted(), counter, 0);
    let count = body.ins().iadd_imm_s(count, 1);
    body.ins().store(MemFlagsData::trusted(), count, counter, 0);
    let count = body.ins().imul_imm_s(count, 1000);
    let sum = body.ins().iadd(sum, count);
    body.ins().return_(&[sum]);
    body.seal_all_blocks();
    body.finalize(module.isa().frontend_config());
    let id = module.declare_function(name, Linkage::Export, &context.func.signature).unwrap();
    module.define_function(id, &mut context).unwrap();
    id
}

type Unary = extern "C" fn(i64) -> i64;

fn function(module: &JITModule, id: FuncId) -> Unary {
    // SAFETY: a function of this type, and the tests do not free it before its last call.
    unsafe { mem::transmute::<*const u8, Unary>(module.get_finalized_function(id)) }
}

/// Two sets: one that calls the program, one that calls the first.
fn use_module(module: &mut JITModule) {
    let signature = unary(module);
    let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let first = define(module, "first", import, 10);
    let second = define(module, "second", first, 100);
    module.finalize_definitions().unwrap();
    assert_eq!(function(module, first)(2), 6 + 10 + 1000);
    // The first counts again, then the second.
    assert_eq!(function(module, second)(2), 6 + 10 + 2000 + 100 + 1000);
    let third = define(module, "third", second, 1);
    module.finalize_definitions().unwrap();
    assert_eq!(function(module, third)(0), 10 + 3000 + 100 + 2000 + 1 + 1000);
    for row in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        assert!(!row.contains(" rwx"), "{row}");
    }
}

#[test]
fn functions_call_each_other_and_the_program_and_have_their_data() {
    use_module(&mut staged().0);
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        use_module(&mut staged().0);
    });
}

#[test]
fn cranelifts_own_providers_do_not_work_there() {
    alone(|| {
        refuse_exec_gain();
        let works = |mut module: JITModule| {
            let signature = unary(&module);
            let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
            define(&mut module, "first", import, 10);
            module.finalize_definitions().is_ok()
        };
        assert!(!works(module(None)));
        let arena = ArenaMemoryProvider::new_with_size(1 << 20).unwrap();
        let arena = module(Some(Box::new(arena)));
        assert!(catch_unwind(AssertUnwindSafe(|| works(arena))).is_err());
    });
}

#[test]
fn a_set_takes_three_system_calls_and_no_mapping_of_its_own() {
    let (mut module, meter) = staged();
    let signature = unary(&module);
    let mut callee = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let mut before = None;
    for i in 0..100 {
        callee = define(&mut module, &format!("f{i}"), callee, i);
        module.finalize_definitions().unwrap();
        let now = meter.stats();
        if let Some((calls, mappings)) = before {
            assert_eq!((now.system_calls, now.mappings), (calls + 3, mappings));
        }
        before = Some((now.system_calls, now.mappings));
    }
    let numbers: i64 = (0..100).sum();
    assert_eq!(function(&module, callee)(1), 3 + numbers + 100 * 1000);
}

#[test]
fn memory_is_what_it_is_for_and_no_more() {
    let (mut module, _) = staged();
    let signature = unary(&module);
    let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    let id = define(&mut module, "first", import, 10);
    module.finalize_definitions().unwrap();
    assert_eq!(access(module.get_finalized_function(id)), "r-xs");
    for (name, want) in [("first number", "r--p"), ("first counter", "rw-p")] {
        let Some(FuncOrDataId::Data(id)) = module.get_name(name) else { panic!("{name}") };
        assert_eq!(access(module.get_finalized_data(id).0), want, "{name}");
    }
}

/// How the page at `ptr` is mapped: "r-xs", for instance.
fn access(ptr: *const u8) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let row = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&(ptr as usize)).then(|| rest[..4].to_owned())
    });
    row.unwrap_or_else(|| "none".into())
}

#[test]
fn code_stays_when_its_module_is_dropped_but_not_when_it_is_freed() {
    for free in [false, true] {
        let (mut module, meter) = staged();
        let signature = unary(&module);
        let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
        let id = define(&mut module, "first", import, 10);
        module.finalize_definitions().unwrap();
        let first = function(&module, id);
        assert_eq!(first(1), 3 + 10 + 1000);
        assert!(meter.stats().reserved > 0);
        if free {
            // SAFETY: nothing of it is called after this.
            unsafe { module.free_memory() };
            assert_eq!(meter.stats().reserved, 0);
        } else {
            drop(module);
            assert_eq!(first(1), 3 + 10 + 2000);
        }
    }
}

#[test]
fn code_that_was_never_finalised_is_given_back() {
    let (mut module, meter) = staged();
    let signature = unary(&module);
    let import = module.declare_function("triple", Linkage::Import, &signature).unwrap();
    define(&mut module, "first", import, 10);
    drop(module);
    assert_eq!(meter.stats().reserved, 0);
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let stage = Stage::with_room(Options::default(), 1 << 20).unwrap();
    let mut memory = StagedMemoryProvider::from(stage);
    memory.allocate(1 << 40, 16, JITMemoryKind::Executable).unwrap_err();
    memory.allocate(16, 3, JITMemoryKind::ReadOnly).unwrap_err();
    memory.finalize(BranchProtection::BTI).unwrap_err();
    memory.allocate(16, 16, JITMemoryKind::Writable).unwrap();
    memory.finalize(BranchProtection::None).unwrap();
    // SAFETY: nothing of it is used after this.
    unsafe { memory.free_memory() };
    memory.allocate(16, 16, JITMemoryKind::Writable).unwrap_err();
    memory.finalize(BranchProtection::None).unwrap_err();
}
