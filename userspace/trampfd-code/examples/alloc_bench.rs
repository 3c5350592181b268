//! Timings, for those who work on the allocator.
use std::time::Instant;
use trampfd_code::alloc::{JitAllocator, Options};
use trampfd_code::vm::Write;

static CODE: [u8; 4096] = [0x90; 4096];

fn pairs(a: &JitAllocator, size: usize, count: usize) -> f64 {
    let t = Instant::now();
    for _ in 0..count {
        let mut s = a.alloc(size).unwrap();
        s.write(0, &CODE[..size]).unwrap();
        std::hint::black_box(s.rx());
    }
    t.elapsed().as_nanos() as f64 / count as f64
}
fn pairs_raw(a: &JitAllocator, size: usize, count: usize) -> f64 {
    let t = Instant::now();
    for _ in 0..count {
        let (rx, rw) = a.alloc_raw(size).unwrap();
        unsafe { rw.copy_from_nonoverlapping(CODE.as_ptr(), size) };
        unsafe { a.release(rx) }.unwrap();
    }
    t.elapsed().as_nanos() as f64 / count as f64
}
fn best(n: usize, mut f: impl FnMut() -> f64) -> f64 {
    (0..n).map(|_| f()).fold(f64::MAX, f64::min)
}
fn main() {
    let only = std::env::args().nth(1);
    let mut o = Options::default();
    o.memory.write = Write::Alias;
    let a = JitAllocator::with(&o).unwrap();
    if only.is_none() {
    for size in [64, 256, 4096] {
        println!("alias {size}: {:.1} raw {:.1}", best(50, || pairs(&a, size, 20000)), best(50, || pairs_raw(&a, size, 20000)));
    }
    let mut p = Options::default();
    p.memory.write = Write::Pwrite;
    let p = JitAllocator::with(&p).unwrap();
    for size in [64, 256, 4096] {
        println!("pwrite {size}: {:.1}", best(20, || pairs(&p, size, 5000)));
    }
    for size in [64, 256, 4096] {
        let t: Vec<f64> = std::thread::scope(|s| {
            let h: Vec<_> = (0..2).map(|_| s.spawn(|| best(50, || pairs(&a, size, 20000)))).collect();
            h.into_iter().map(|h| h.join().unwrap()).collect()
        });
        println!("2 threads {size}: {t:.1?}");
    }
    }
    let b = JitAllocator::with(&o).unwrap();
    let mut x = 1u64;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((x >> 40) as usize % 10000, 8 + (x >> 20 & 1023) as usize)
    };
    let mut live: Vec<*const u8> = (0..10000).map(|_| b.alloc_block(next().1).unwrap()).collect();
    for _ in 0..10 {
        let t = Instant::now();
        for _ in 0..200_000 {
            let (at, size) = next();
            unsafe { b.release(live[at]) }.unwrap();
            live[at] = b.alloc_block(size).unwrap();
        }
        let s = b.statistics();
        println!("replace {:.1} ns, used/reserved {:.3} side {} frag {:.3} runs {} largest {}", t.elapsed().as_nanos() as f64 / 200_000.0,
            s.used as f64 / s.reserved as f64, s.side_data, s.fragmentation(), s.free_runs, s.largest_free);
    }
}
