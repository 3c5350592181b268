//! What an allocator of code promises.

#[path = "alloc/arch/x86_64.rs"]
mod arch;
#[path = "alloc/children.rs"]
mod children;
#[path = "alloc/model.rs"]
mod model;
#[path = "alloc/promises.rs"]
mod promises;
#[path = "support/mod.rs"]
mod support;
#[path = "alloc/threads.rs"]
mod threads;

use trampfd_code::alloc::{JitAllocator, Options};
use trampfd_code::vm::Write;

/// An allocator that writes so, changed from the default by `change`.
fn allocator(write: Write, change: impl FnOnce(&mut Options)) -> JitAllocator {
    let mut options = Options::default();
    options.memory.write = write;
    change(&mut options);
    JitAllocator::with(&options).expect("memory for code")
}

/// What can be read at `rx`.
fn bytes<'a>(rx: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the callers read blocks that they have.
    unsafe { std::slice::from_raw_parts(rx, len) }
}

/// Numbers that look drawn, the same for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
