//! closure-ffi on memory of this crate: closures of the three kinds, as C functions. Says by its
//! status whether it could.

use std::process::ExitCode;

use closure_ffi::{BareFn, BareFnMut, BareFnOnce};
use trampfd_code_closure_ffi::CodeAlloc;

/// How a program under a policy ends, and what it looks at.
#[path = "../../../tests/support/client.rs"]
pub mod client;

fn main() -> ExitCode {
    client::run(|| {
        use_closures(&CodeAlloc::new()?);
        Ok(())
    })
}

/// Closures of the three kinds, that borrow and that own.
pub fn use_closures(memory: &CodeAlloc) {
    let array = [0, 5, 10, 15];
    let index = BareFn::new_c_in(|n: usize| array[n], memory.clone());
    let mut sum = 0;
    let add = BareFnMut::new_c_in(|n: u32| sum += n, memory.clone());
    let text = String::from("owned");
    let length = BareFnOnce::new_c_in(move || text.len(), memory.clone());
    assert_eq!(memory.allocator().statistics().live, 3);
    let (add_pointer, index_pointer) = (add.bare(), index.bare());
    // SAFETY: they are there, and called by this thread alone; the last one once.
    unsafe {
        assert_eq!(index_pointer(3), 15);
        add_pointer(5);
        add_pointer(7);
        assert_eq!(length.leak()(), 5);
    }
    drop((index, add));
    assert_eq!(sum, 12);
}
