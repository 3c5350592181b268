//! cranelift-jit on memory of this crate: two sets of functions with their data, that call each
//! other and the program. Says by its status whether it could.

use std::mem;
use std::process::ExitCode;

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITMemoryProvider, JITModule};
use cranelift_module::{DataDescription, FuncId, Linkage, Module, default_libcall_names};
use trampfd_code::vm::{Meter, Options};
use trampfd_code_cranelift::StagedMemoryProvider;

/// How a program under a policy ends, and what it looks at.
#[path = "../../../tests/support/client.rs"]
pub mod client;

use client::Result;

fn main() -> ExitCode {
    client::run(|| use_module(&mut staged()?.0))
}

/// A module on `memory`, or on cranelift-jit's own if there is none.
pub fn module(memory: Option<Box<dyn JITMemoryProvider + Send>>) -> JITModule {
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

/// A module on our memory, and what counts its calls.
pub fn staged() -> Result<(JITModule, Meter)> {
    let memory = StagedMemoryProvider::new(Options::default())?;
    let meter = memory.meter().clone();
    Ok((module(Some(Box::new(memory))), meter))
}

/// What compiled code calls: far from it, in the program.
extern "C" fn triple(x: i64) -> i64 {
    3 * x
}

/// Of an integer.
pub fn unary(module: &JITModule) -> Signature {
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// Defines `name`, of `x`: `callee(x) + constant`, where the constant is read-only data, and adds
/// one to a counter, which is writable data.
pub fn define(module: &mut JITModule, name: &str, callee: FuncId, constant: i64) -> FuncId {
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

/// Of C's.
pub type Unary = extern "C" fn(i64) -> i64;

/// The code of a function that is final.
pub fn function(module: &JITModule, id: FuncId) -> Unary {
    // SAFETY: a function of this type, and the tests do not free it before its last call.
    unsafe { mem::transmute::<*const u8, Unary>(module.get_finalized_function(id)) }
}

/// Two sets: one that calls the program, one that calls the first.
pub fn use_module(module: &mut JITModule) -> Result {
    let signature = unary(module);
    let import = module.declare_function("triple", Linkage::Import, &signature)?;
    let first = define(module, "first", import, 10);
    let second = define(module, "second", first, 100);
    module.finalize_definitions()?;
    assert_eq!(function(module, first)(2), 6 + 10 + 1000);
    // The first counts again, then the second.
    assert_eq!(function(module, second)(2), 6 + 10 + 2000 + 100 + 1000);
    let third = define(module, "third", second, 1);
    module.finalize_definitions()?;
    assert_eq!(function(module, third)(0), 10 + 3000 + 100 + 2000 + 1 + 1000);
    Ok(())
}
