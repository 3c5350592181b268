//! `dynasm!` and this crate's assembler, where nothing that was writable may be executed.
//!
//! ```text
//!  sum:     a loop, with labels of the four kinds, that calls `triple`, and reads a constant
//!  triple:  ->number * its argument
//!  back:    calls the program, by a distance where it is near and by an address where it is not
//! ```

#![cfg(target_arch = "x86_64")]

use std::sync::Arc;
use std::{fs, mem};

use dynasmrt::x64::X64Relocation;
use dynasmrt::{AssemblyOffset, DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, dynasm};
use trampfd_code::alloc::{self, Granularity, JitAllocator, Options};
use trampfd_code::vm::{Place, Write};
use trampfd_code_dynasm::{Assembler, Code, Error};

#[path = "../../../../tests/support/mod.rs"]
mod support;

use support::alone::alone;
use support::policy::refuse_exec_gain;

/// What compiled code calls.
extern "C" fn double(x: i64) -> i64 {
    2 * x
}

struct Functions {
    assembler: Assembler<X64Relocation>,
    sum: AssemblyOffset,
    triple: DynamicLabel,
    back: AssemblyOffset,
}

fn functions() -> Functions {
    let mut assembler = Assembler::new();
    let triple = assembler.new_dynamic_label();
    let sum = assembler.offset();
    dynasm!(assembler
        ; .arch x64
        ; push rbx
        ; push r12
        ; sub rsp, 8
        ; mov rbx, rdi
        ; xor r12d, r12d
        ; test rbx, rbx
        ; jz >end
        ; again:
        ; mov rdi, rbx
        ; call =>triple
        ; add r12, rax
        ; dec rbx
        ; jnz <again
        ; end:
        ; mov rax, r12
        ; add rsp, 8
        ; pop r12
        ; pop rbx
        ; ret
        ; .align 16
        ; =>triple
        ; mov rax, rdi
        ; imul rax, [->number]
        ; ret
        ; .align 8
        ; ->number:
        ; .i64 3
    );
    let back = assembler.offset();
    dynasm!(assembler
        ; .arch x64
        ; sub rsp, 8
        ; mov rax, QWORD double as *const () as i64
        ; call rax
        // Where it lies itself: by an address of its own, and by its distance.
        ; lea rcx, [->here]
        ; mov rdx, QWORD [->address]
        ; sub rcx, rdx
        ; add rax, rcx
        ; ->here:
        ; add rsp, 8
        ; ret
        ; .align 8
        ; ->address:
        ; .abs64 ->here
    );
    Functions { assembler, sum, triple, back }
}

type Unary = extern "C" fn(i64) -> i64;

fn call(code: *const u8, x: i64) -> i64 {
    // SAFETY: a function of this type, in code that is there.
    unsafe { mem::transmute::<*const u8, Unary>(code)(x) }
}

fn use_functions(allocator: &Arc<JitAllocator>) {
    for _ in 0..100 {
        let Functions { assembler, sum, triple, back } = functions();
        let code: Code<Arc<JitAllocator>> = assembler.finish(allocator.clone()).unwrap();
        assert_eq!(call(code.ptr(sum), 10), 3 * 55);
        assert_eq!(call(code.label(triple).unwrap(), 14), 42);
        assert_eq!(call(code.ptr(back), 21), 42);
    }
    for row in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        assert!(!row.contains(" rwx"), "{row}");
    }
    assert_eq!(allocator.statistics().live, 0);
}

/// Both ways in which code gets in.
fn allocators() -> [Arc<JitAllocator>; 2] {
    [Write::Pwrite, Write::Alias].map(|write| {
        let mut options = Options::default();
        options.memory.write = write;
        options.granularity = Granularity::B128;
        Arc::new(JitAllocator::with(&options).unwrap())
    })
}

#[test]
fn functions_call_each_other_and_the_program_and_have_their_constants() {
    allocators().iter().for_each(use_functions);
}

#[test]
fn it_works_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        allocators().iter().for_each(use_functions);
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
    assert_eq!(call(code.ptr(AssemblyOffset(0)), 21), 42);

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
