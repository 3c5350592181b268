//! A word of each thread that costs no call to reach, also in a shared library.
//!
//! ```text
//!   executable       mov $offset, %r        what the linker makes of it
//!   shared library   mov offset(%rip), %r   filled in when the library is loaded
//!   both             mov %fs:(%r), %r       the word of this thread
//! ```
//!
//! Rust's thread locals of a shared library are found by a call of `__tls_get_addr` each time.
//! This is the other model (initial exec): the loader keeps a little room for libraries that
//! are loaded later, of which 8 bytes are taken.

use core::arch::{asm, global_asm};

/// The word's name: each version of this crate in a program has its own.
macro_rules! word {
    () => {
        concat!("trampfd_thread_word_", env!("CARGO_PKG_VERSION"))
    };
}

global_asm!(
    concat!(".pushsection .tbss.", word!(), ",\"awT\",@nobits"),
    concat!(".globl ", word!()),
    concat!(".hidden ", word!()),
    concat!(".type ", word!(), ",@object"),
    concat!(".size ", word!(), ",8"),
    ".p2align 3",
    concat!(word!(), ":"),
    ".zero 8",
    ".popsection",
    options(att_syntax)
);

/// The word of this thread: 0 until it is set.
#[inline(always)]
pub fn thread_word() -> usize {
    let word;
    // SAFETY: reads a word that is there as long as the thread.
    unsafe {
        asm!(
            concat!("mov ", word!(), "@gottpoff(%rip), {word}"),
            "mov %fs:({word}), {word}",
            word = out(reg) word,
            options(att_syntax, pure, readonly, nostack, preserves_flags)
        );
    }
    word
}

/// Sets the word of this thread.
pub fn set_thread_word(word: usize) {
    // SAFETY: writes a word that only this module reads.
    unsafe {
        asm!(
            concat!("mov ", word!(), "@gottpoff(%rip), {at}"),
            "mov {word}, %fs:({at})",
            at = out(reg) _,
            word = in(reg) word,
            options(att_syntax, nostack, preserves_flags)
        );
    }
}
