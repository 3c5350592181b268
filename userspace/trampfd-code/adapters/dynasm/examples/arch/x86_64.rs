//! dynasm-rs on memory of this crate, code for x86-64. Says by its status whether it could.
//!
//! ```text
//!  sum:     a loop, with labels of the four kinds, that calls `triple`, and reads a constant
//!  triple:  ->number * its argument
//!  back:    calls the program, by a distance where it is near and by an address where it is not
//! ```

use std::mem;
use std::process::ExitCode;
use std::sync::Arc;

use dynasmrt::x64::X64Relocation;
use dynasmrt::{AssemblyOffset, DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use trampfd_code::alloc::{Granularity, JitAllocator, Options};
use trampfd_code::vm::Write;
use trampfd_code_dynasm::{Assembler, Code};

/// How a program under a policy ends, and what it looks at.
#[path = "../../../../tests/support/client.rs"]
pub mod client;

use client::Result;

fn main() -> ExitCode {
    client::run(|| allocators()?.iter().try_for_each(use_functions))
}

/// What compiled code calls.
pub extern "C" fn double(x: i64) -> i64 {
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

/// Of C's.
pub type Unary = extern "C" fn(i64) -> i64;

/// What begins at `code`.
pub(crate) fn function(code: *const u8) -> Unary {
    // SAFETY: a function of this type, and the tests call it while its code is there.
    unsafe { mem::transmute::<*const u8, Unary>(code) }
}

/// Code of [`functions`], called and given back, many times.
pub fn use_functions(allocator: &Arc<JitAllocator>) -> Result {
    for _ in 0..100 {
        let Functions { assembler, sum, triple, back } = functions();
        let code: Code<Arc<JitAllocator>> = assembler.finish(allocator.clone())?;
        assert_eq!(function(code.ptr(sum))(10), 3 * 55);
        assert_eq!(function(code.label(triple)?)(14), 42);
        assert_eq!(function(code.ptr(back))(21), 42);
    }
    assert_eq!(allocator.statistics().live, 0);
    Ok(())
}

/// Both ways in which code gets in.
pub fn allocators() -> Result<[Arc<JitAllocator>; 2]> {
    let with = |write| {
        let mut options = Options::default();
        options.memory.write = write;
        options.granularity = Granularity::B128;
        JitAllocator::with(&options).map(Arc::new)
    };
    Ok([with(Write::Pwrite)?, with(Write::Alias)?])
}
