//! Unwind information for stubs that lie in no loaded object.

use trampfd_text::arch;

unsafe extern "C" {
    /// Of the unwinder that Rust's standard library is linked to (libgcc or LLVM libunwind).
    fn __register_frame(eh_frame: *const u8);
}

/// Lets the unwinder walk through stubs in `[start, start + len)`. A stub jumps, so it is in a
/// backtrace only when a signal interrupts it. The mapping must stay for ever.
pub(crate) fn register(start: usize, len: usize) {
    let section: &'static mut [u8] = Box::leak(Box::new(arch::eh_frame(start, len)));
    // SAFETY: a well-formed .eh_frame section that is never freed.
    unsafe { __register_frame(section.as_ptr()) };
}
