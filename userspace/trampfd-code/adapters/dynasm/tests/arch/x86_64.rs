//! `dynasm!` and this crate's assembler, where nothing that was writable may be executed.
//!
//! ```text
//!  what is emitted       jumps and calls to labels of each kind, and to values outside
//!  encode(BASE)          the same bytes as dynasmrt's VecAssembler has for BASE
//!  finish(allocator)     those for where the block lies: near a value, or out of its reach
//! ```

#![cfg(target_arch = "x86_64")]

use dynasmrt::x64::X64Relocation;
use dynasmrt::{AssemblyOffset, DynasmApi, DynasmError, DynasmLabelApi, dynasm};
use trampfd_code::alloc::{self, JitAllocator, Options};
use trampfd_code::vm::Place;
use trampfd_code_dynasm::{Assembler, Error};

#[path = "../../../../tests/support/mod.rs"]
mod support;

#[allow(dead_code)] // main
#[path = "../../examples/arch/x86_64.rs"]
mod example;

use example::{allocators, client, double, function, use_functions};
use support::alone::alone;
use support::policy::refuse_exec_gain;

#[test]
fn functions_call_each_other_and_the_program_and_have_their_constants() {
    allocators().unwrap().iter().try_for_each(use_functions).unwrap();
    client::nothing_is_writable_and_executable().unwrap();
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        allocators().unwrap().iter().try_for_each(use_functions).unwrap();
    });
}

#[test]
fn dynasmrts_own_memory_does_not_work_there() {
    alone(|| {
        let emit = |buffer: &mut dynasmrt::mmap::MutableBuffer| {
            buffer.set_len(1);
            buffer[0] = 0xc3;
        };
        let mut before = dynasmrt::mmap::MutableBuffer::new(4096).unwrap();
        emit(&mut before);
        before.make_exec().unwrap();
        refuse_exec_gain();
        let mut after = dynasmrt::mmap::MutableBuffer::new(4096).unwrap();
        emit(&mut after);
        after.make_exec().unwrap_err();
    });
}

#[test]
fn code_for_an_address_is_that_of_dynasmrts_own_assembler() {
    const BASE: usize = 0x1234_5670_0000;
    fn emit<A: DynasmLabelApi<Relocation = X64Relocation>>(assembler: &mut A) {
        let near = (BASE + 0x1000) as *const u8;
        dynasm!(assembler
            ; .arch x64
            ; ->start:
            ; jmp ->end
            ; call extern near as usize
            ; first:
            ; jz <first
            ; jnz >second
            ; jmp >first
            ; lea rax, [->start + 4]
            ; .align 32
            ; second:
            ; jmp <first
            ; first:
            ; jmp <first
            ; .abs64 ->start
            ; .rel32 extern near as usize
            ; ->end:
            ; ret
        );
    }
    let mut ours = Assembler::<X64Relocation>::new();
    emit(&mut ours);
    let mut theirs = dynasmrt::VecAssembler::<X64Relocation>::new(BASE);
    emit(&mut theirs);
    assert_eq!(ours.encode(BASE).unwrap(), theirs.finalize().unwrap());
}

#[test]
fn a_value_in_reach_is_called_by_its_distance_and_another_is_an_error() {
    let emit = || {
        let mut assembler = Assembler::<X64Relocation>::new();
        dynasm!(assembler
            ; .arch x64
            ; jmp extern double as *const () as usize
        );
        assembler
    };
    let mut options = Options::default();
    let here = double as *const () as usize;
    options.memory.place = Place::Near { address: here, within: 1 << 31 };
    let near = JitAllocator::with(&options).unwrap();
    let code = emit().finish(&near).unwrap();
    assert_eq!(function(code.ptr(AssemblyOffset(0)))(21), 42);

    options.memory.place = Place::Near { address: here ^ 1 << 45, within: 1 << 31 };
    let far = JitAllocator::with(&options).unwrap();
    let error = emit().finish(&far).unwrap_err();
    assert!(matches!(error, Error::Assembly(DynasmError::ImpossibleRelocation(_))), "{error:?}");
    assert_eq!(far.statistics().live, 0);
}

#[test]
fn what_cannot_be_assembled_is_an_error() {
    let allocator = JitAllocator::new().unwrap();
    let empty = Assembler::<X64Relocation>::new().finish(&allocator).unwrap_err();
    assert!(matches!(empty, Error::Memory(alloc::Error::Empty)), "{empty:?}");

    let wrong: [fn(&mut Assembler<X64Relocation>); 5] = [
        |code| dynasm!(code ; .arch x64 ; jmp ->nowhere),
        |code| dynasm!(code ; .arch x64 ; jmp >nowhere),
        |code| dynasm!(code ; .arch x64 ; jmp <nowhere),
        |code| dynasm!(code ; .arch x64 ; ->twice: ; ->twice: ; ret),
        |code| {
            let label = code.new_dynamic_label();
            dynasm!(code ; .arch x64 ; jmp BYTE =>label ; .align 256 ; =>label ; ret);
        },
    ];
    for emit in wrong {
        let mut assembler = Assembler::new();
        emit(&mut assembler);
        let error = assembler.finish(&allocator).unwrap_err();
        assert!(matches!(error, Error::Assembly(_)), "{error:?}");
    }
    let mut other = Assembler::<X64Relocation>::new();
    let label = other.new_dynamic_label();
    dynasm!(other ; .arch x64 ; ret);
    let code = other.finish(&allocator).unwrap();
    code.label(label).unwrap_err();
    drop(code);
    assert_eq!(allocator.statistics().live, 0);
}
