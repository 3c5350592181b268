//! The layout of the kernel's views, mapped by hand: what a call costs there, as times on a real
//! processor. One page of stubs, made by the encoder, is mapped again and again, as the module
//! does it; behind it lie the slots, here in ordinary memory.

use std::ptr::null_mut;

use trampfd_sys::TRAMPFD_TABLE_SIZE;
use trampfd_text::encode::{self, Arch};

use crate::peers::{Bare, WithContext};

const PAGE: usize = 4096;
const STRIDE: usize = 32;
/// DWARF number of rdx, which carries the third integer argument.
const REG: u16 = 1;

/// Pairs of views, enough of them for a number of slots.
///
/// # Invariants
///
/// `pairs` are start addresses of mappings of two views each, made by `new` and unmapped by
/// `drop`.
#[derive(Debug)]
pub struct Table {
    pairs: Vec<usize>,
}

impl Table {
    /// Views for `slots` slots.
    ///
    /// # Panics
    ///
    /// Where they cannot be mapped, as under a policy against new code.
    pub fn new(slots: usize) -> Table {
        let mut page = vec![0; PAGE];
        encode::encode_page(Arch::X86_64, REG, TRAMPFD_TABLE_SIZE as i64, STRIDE, &mut page)
            .expect("a page of stubs");
        let per_table = TRAMPFD_TABLE_SIZE / STRIDE;
        let pairs = (0..slots.div_ceil(per_table)).map(|_| pair(&page)).collect();
        Table { pairs }
    }

    /// Binds slot `n`; the pointer calls `code` with `data` as its third argument.
    pub fn bind(&self, n: usize, code: WithContext, data: *const [u64; 2]) -> Bare {
        let per_table = TRAMPFD_TABLE_SIZE / STRIDE;
        let stub = self.pairs[n / per_table] + n % per_table * STRIDE;
        let slot = std::ptr::with_exposed_provenance_mut::<[usize; 2]>(stub + TRAMPFD_TABLE_SIZE);
        // SAFETY: by the invariant; the stub is one that loads these two words and jumps.
        unsafe {
            slot.write([data.expose_provenance(), code as usize]);
            std::mem::transmute::<usize, Bare>(stub)
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for &start in &self.pairs {
            // SAFETY: by the invariant.
            unsafe {
                libc::munmap(std::ptr::with_exposed_provenance_mut(start), 2 * TRAMPFD_TABLE_SIZE)
            };
        }
    }
}

/// One pair of views; the code view is the same physical page throughout.
fn pair(page: &[u8]) -> usize {
    // SAFETY: a file and mappings of its own; the fixed ones lie inside the first.
    unsafe {
        let file = libc::memfd_create(c"stubs".as_ptr(), libc::MFD_CLOEXEC);
        assert!(file >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        assert_eq!(libc::write(file, page.as_ptr().cast(), PAGE), PAGE as isize);
        let start = libc::mmap(
            null_mut(),
            2 * TRAMPFD_TABLE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert!(start != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        for at in (0..TRAMPFD_TABLE_SIZE).step_by(PAGE) {
            let view = libc::mmap(
                start.byte_add(at),
                PAGE,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                file,
                0,
            );
            assert!(view != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        }
        libc::close(file);
        start.expose_provenance()
    }
}
