//! What it costs to make a closure and to drop it.

use std::hint::black_box;

use trampfd::{Backend, Builder, Closure};

use crate::clock::{self, Lane};
use crate::peers::{self, Bare};
use crate::table::{Row, Target};

const PAIRS: usize = 10_000;
const ROUNDS: usize = 1_000;

/// Makes and drops a closure that holds `words` words.
#[inline(never)]
fn pairs<const WORDS: usize>() {
    let builder = Builder::new().require(Backend::Text);
    for n in 0..PAIRS as u64 {
        let data = [black_box(n); WORDS];
        let closure: Closure<Bare> = builder
            .closure(|a: i32, b: i32, data: &[u64; WORDS]| a + b + data[0] as i32, data)
            .expect("a closure");
        black_box(closure.as_ptr());
    }
}

#[inline(never)]
fn malloc_pairs<const WORDS: usize>() {
    for n in 0..PAIRS as u64 {
        let data = [black_box(n); WORDS];
        // SAFETY: memory of the size that is written, freed once.
        unsafe {
            let memory = libc::malloc(size_of::<[u64; WORDS]>()).cast::<[u64; WORDS]>();
            assert!(!memory.is_null());
            memory.write(data);
            libc::free(black_box(memory).cast());
        }
    }
}

#[inline(never)]
fn closure_ffi_pairs() {
    for n in 0..PAIRS as u64 {
        black_box(peers::closure_ffi::<1>([black_box(n); 2]).bare());
    }
}

#[inline(never)]
fn libffi_pairs() {
    for n in 0..PAIRS as u64 {
        let data = [black_box(n); 2];
        let f = move |a: i32, b: i32| peers::compute::<1>(a, b, &data);
        black_box(peers::libffi_pointer(&peers::libffi(&f)));
    }
}

/// Create and drop, the same few slots again and again.
pub fn hot() -> Vec<Row> {
    let times = clock::run(
        ROUNDS,
        PAIRS,
        &mut [
            Lane::new(pairs::<2>),
            Lane::new(pairs::<4>),
            Lane::new(malloc_pairs::<4>),
            Lane::new(pairs::<16>),
            Lane::new(malloc_pairs::<16>),
            Lane::new(closure_ffi_pairs),
            Lane::new(libffi_pairs),
        ],
    );
    let row = |what: &str, value, target| {
        Row::new(format!("create + drop, text: {what}"), value, "ns", target)
    };
    vec![
        row("16 bytes captured", times.median(0), Target::Most(6.0)),
        row("16 bytes captured, best batch", times.min(0), Target::None),
        row("32 bytes captured", times.median(1), Target::None),
        row("malloc + free of 32 bytes", times.median(2), Target::None),
        row("32 bytes captured, beyond malloc + free", times.difference(1, 2), Target::Most(4.0)),
        row("128 bytes captured", times.median(3), Target::None),
        row("malloc + free of 128 bytes", times.median(4), Target::None),
        row("128 bytes captured, beyond malloc + free", times.difference(3, 4), Target::Most(4.0)),
        row("closure-ffi, 16 bytes captured", times.median(5), Target::None),
        row("libffi-rs, 16 bytes captured", times.median(6), Target::None),
    ]
}
