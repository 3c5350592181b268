//! Code that dynasm-rs assembles, in memory of `trampfd_code`: on systems where nothing that is or
//! was writable may be executed.
//!
//! dynasmrt's own assemblers put code into pages that they make writable and executable in turn.
//! [`Assembler`] takes the place of its `VecAssembler`: everything that `dynasm!` can emit, and
//! what depends on the address is filled in when the code gets one.
//!
//! ```
//! use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
//! use trampfd_code::alloc::JitAllocator;
//! use trampfd_code_dynasm::Assembler;
//!
//! let mut assembler = Assembler::<dynasmrt::x64::X64Relocation>::new();
//! let answer = assembler.offset();
//! dynasm!(assembler
//!     ; .arch x64
//!     ; mov eax, DWORD [->number]
//!     ; ret
//!     ; ->number:
//!     ; .i32 42
//! );
//! let allocator = JitAllocator::new()?;
//! let code = assembler.finish(&allocator)?;
//! # if std::env::consts::ARCH == "x86_64" {
//! // SAFETY: the function that was assembled above, and `code` is still there.
//! let answer: extern "C" fn() -> i32 = unsafe { std::mem::transmute(code.ptr(answer)) };
//! assert_eq!(answer(), 42);
//! # }
//! # Ok::<(), trampfd_code_dynasm::Error>(())
//! ```
//!
//! Code that is its own file, shared by processes, is what `trampfd_code::cache` is for: dynasmrt's
//! `VecAssembler` serves it as it is, as the example `calc` of `trampfd_code` shows.

mod assembler;
mod error;

pub use assembler::Assembler;
pub use error::Error;

use dynasmrt::components::LabelRegistry;
use dynasmrt::{AssemblyOffset, DynamicLabel};
use trampfd_code::alloc::{Handle, Span};

/// Code where it can be executed, given back when it is dropped: who calls it answers for its
/// being there still.
#[derive(Debug)]
pub struct Code<A: Handle> {
    span: Span<A>,
    labels: LabelRegistry,
}

impl<A: Handle> Code<A> {
    /// The address of what was assembled at `offset`.
    ///
    /// # Panics
    ///
    /// If that is behind the code.
    pub fn ptr(&self, offset: AssemblyOffset) -> *const u8 {
        assert!(offset.0 <= self.span.len(), "{} of {} bytes", offset.0, self.span.len());
        self.span.rx().wrapping_add(offset.0)
    }

    /// The address of a dynamic label. It has to be one of this code's assembler: labels are
    /// numbers, and those of another have the same.
    ///
    /// # Errors
    ///
    /// [`Error::Assembly`]: it was not placed.
    pub fn label(&self, label: DynamicLabel) -> Result<*const u8, Error> {
        Ok(self.ptr(self.labels.resolve_dynamic(label)?))
    }

    /// The memory.
    pub fn span(&self) -> &Span<A> {
        &self.span
    }

    /// The memory without its labels: to be written again, or kept by its address only.
    pub fn into_span(self) -> Span<A> {
        self.span
    }
}
