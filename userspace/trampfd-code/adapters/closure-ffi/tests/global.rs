//! As the one allocator of a program: needs the feature `global`, in a build without closure-ffi's
//! own.

use std::sync::LazyLock;

use closure_ffi::{BareFn, global_jit_alloc};
use trampfd_code_closure_ffi::CodeAlloc;

static MEMORY: LazyLock<CodeAlloc> = LazyLock::new(|| CodeAlloc::new().expect("code memory"));
global_jit_alloc!(MEMORY);

#[test]
fn it_serves_those_who_name_no_allocator() {
    let array = [0, 5, 10];
    let index = BareFn::new_c(|n: usize| array[n]);
    assert_eq!(MEMORY.allocator().statistics().live, 1);
    let pointer = index.bare();
    // SAFETY: it is there.
    assert_eq!(unsafe { pointer(2) }, 10);
    drop(index);
    assert_eq!(MEMORY.allocator().statistics().live, 0);
}
