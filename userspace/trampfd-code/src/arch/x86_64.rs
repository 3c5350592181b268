//! x86-64.
//!
//! ```text
//!  free code     cc cc cc cc ..      int3: SIGTRAP wherever a jump lands
//! ```

/// What free memory is filled with: an instruction that traps at every byte.
pub(crate) const TRAP: &[u8] = &[0xcc];

/// Instruction and data caches are coherent (Intel SDM vol. 3A, 11.6 "Self-modifying code"; AMD
/// APM vol. 2, 7.6.1): a jump to the new code is enough.
#[inline]
pub(crate) fn flush(_start: *const u8, _len: usize) {}

/// What addresses of thread-local variables are counted from.
#[inline]
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reads the word that the ABI has there, the thread pointer itself (psABI for TLS).
    unsafe {
        core::arch::asm!(
            "mov {}, fs:0",
            out(reg) pointer,
            options(nostack, preserves_flags, readonly, pure),
        )
    };
    pointer
}
