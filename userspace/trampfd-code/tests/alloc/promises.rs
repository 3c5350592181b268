//! One thread.

use std::error::Error as _;
use std::rc::Rc;
use std::sync::Arc;

use trampfd_code::alloc::{Error, Granularity, Info, JitAllocator, Options, Span};
use trampfd_code::vm::{self, Write};

use crate::arch::{TRAP, returns};
use crate::support::alone::alone;
use crate::support::policy::refuse;
use crate::{allocator, bytes};

const WRITES: [Write; 2] = [Write::Alias, Write::Pwrite];

/// Releases what may be no block.
fn release(allocator: &JitAllocator, rx: *const u8) -> Result<(), Error> {
    // SAFETY: the callers give blocks of theirs, or what is refused.
    unsafe { allocator.release(rx) }
}

fn call(rx: *const u8) -> u32 {
    // SAFETY: the callers have put `returns` there.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> u32>(rx)() }
}

#[test]
fn code_runs_and_is_replaced() {
    for write in WRITES {
        let allocator = allocator(write, |_| ());
        let mut spans: Vec<_> = (0..1000).map(|_| allocator.alloc(6).unwrap()).collect();
        for (value, span) in (0..).zip(&mut spans) {
            span.write(0, &returns(value)).unwrap();
        }
        for (value, span) in (0..).zip(&spans) {
            assert_eq!(call(span.rx()), value);
        }
        spans[7].write(1, &4711u32.to_le_bytes()).unwrap();
        assert_eq!((call(spans[7].rx()), call(spans[8].rx())), (4711, 8));
        drop(spans);
        assert_eq!(allocator.statistics().live, 0);
    }
}

/// jit-allocator 0.2 places D over C.
#[test]
fn jit_allocators_overlap_is_not_here() {
    let allocator = allocator(Write::Alias, |_| ());
    let [a, b, c] = [31 * 64, 64, 64].map(|len| allocator.alloc_block(len).unwrap());
    release(&allocator, b).unwrap();
    let d = allocator.alloc_block(128).unwrap();
    let end = |rx: *const u8| rx.addr() + allocator.query(rx).unwrap().len;
    assert!(end(d) <= c.addr() || end(c) <= d.addr(), "{d:?} over {c:?}");
    for rx in [a, c, d] {
        release(&allocator, rx).unwrap();
    }
}

/// AsmJit takes the second release for one of the neighbour.
#[test]
fn asmjits_double_release_is_refused() {
    let allocator = allocator(Write::Alias, |_| ());
    let [a, b, c] = [64, 64, 64].map(|len| allocator.alloc_block(len).unwrap());
    release(&allocator, a).unwrap();
    for _ in 0..2 {
        assert!(
            matches!(release(&allocator, a), Err(Error::AlreadyReleased(at)) if at == a.addr())
        );
    }
    release(&allocator, b).unwrap();
    // Joined with others, they are told from blocks still.
    for rx in [a, b] {
        assert!(matches!(release(&allocator, rx), Err(Error::AlreadyReleased(_))));
    }
    assert_eq!(allocator.query(c).map(|info| info.start), Some(c));
    assert!(allocator.query(a).is_none());
    release(&allocator, c).unwrap();
}

#[test]
fn only_the_first_byte_of_a_block_releases_it() {
    for len in [640, 100_000] {
        let allocator = allocator(Write::Alias, |_| ());
        let rx = allocator.alloc_block(len).unwrap();
        for at in [1, 63, 64, 65, len - 1] {
            let inside = rx.wrapping_add(at);
            let right = matches!(release(&allocator, inside), Err(Error::Interior { address, start })
                if (address, start) == (inside.addr(), rx.addr()));
            assert!(right, "at {at} of {len}");
        }
        let elsewhere = Box::new(0u8);
        let refused = release(&allocator, &*elsewhere);
        assert!(matches!(refused, Err(Error::NotOurs(_))));
        let other = crate::allocator(Write::Alias, |_| ());
        assert!(matches!(release(&other, rx), Err(Error::NotOurs(_))));
        // SAFETY: it is refused.
        let shrunk = unsafe { other.shrink(rx, 1) };
        assert!(matches!(shrunk, Err(Error::NotOurs(_))));
        release(&allocator, rx).unwrap();
        assert!(matches!(release(&allocator, rx), Err(Error::AlreadyReleased(_))));
    }
}

#[test]
fn memory_never_taken_is_no_block() {
    let allocator = allocator(Write::Alias, |_| ());
    let rx = allocator.alloc_block(64).unwrap();
    for at in [64, 128, 60_000, 1 << 20, 63 << 20] {
        let free = rx.wrapping_add(at);
        assert!(matches!(release(&allocator, free), Err(Error::AlreadyReleased(_))), "at {at}");
        assert!(allocator.query(free).is_none(), "at {at}");
    }
}

#[test]
fn sizes_are_rounded_up_to_the_granularity() {
    for granularity in [Granularity::B64, Granularity::B128, Granularity::B256] {
        let step = granularity.bytes();
        let allocator = allocator(Write::Alias, |options| options.granularity = granularity);
        for (len, whole) in [(1, step), (step, step), (step + 1, 2 * step), (16_384, 16_384)] {
            let span = allocator.alloc(len).unwrap();
            assert_eq!(span.len(), len);
            assert_eq!(allocator.query(span.rx()), Some(Info { start: span.rx(), len: whole }));
        }
    }
}

#[test]
fn what_cannot_be_is_said() {
    let allocator = allocator(Write::Alias, |_| ());
    assert!(matches!(allocator.alloc(0), Err(Error::Empty)));
    for len in [1 << 46, isize::MAX as usize, usize::MAX] {
        assert!(matches!(allocator.alloc(len), Err(Error::Memory(_))), "{len}");
    }
    let mut span = allocator.alloc(100).unwrap();
    for (at, len) in [(100, 1), (0, 101), (usize::MAX, 1)] {
        let refused = span.write(at, &vec![0; len]);
        assert!(matches!(refused, Err(Error::OutOfRange { block: 100, .. })), "{at} {len}");
    }
    assert!(matches!(span.shrink(101), Err(Error::OutOfRange { .. })));
    assert!(matches!(span.shrink(0), Err(Error::Empty)));
    for block in [0, 4096, 100_000, 32 << 20] {
        let options = |options: &mut Options| options.block = block;
        let mut wrong = Options::default();
        options(&mut wrong);
        assert!(matches!(JitAllocator::with(&wrong), Err(Error::BlockSize(len)) if len == block));
    }
}

#[test]
fn large_pages_are_refused_by_name() {
    let mut options = Options::default();
    options.memory.large_pages = true;
    let refused = JitAllocator::with(&options).unwrap_err();
    assert!(matches!(refused, Error::Memory(vm::Error::LargePages)));
    assert_eq!(refused.source().unwrap().to_string(), "large pages: not with dual mapping");
}

#[test]
fn what_a_span_shrinks_by_is_free() {
    for (len, kept) in [(8192, 100), (1 << 20, 5000)] {
        let allocator = allocator(Write::Pwrite, |_| ());
        let mut span = allocator.alloc(len).unwrap();
        span.write(0, &vec![7; len]).unwrap();
        let used = allocator.statistics().used;
        span.shrink(kept).unwrap();
        let whole = allocator.query(span.rx()).unwrap().len;
        assert_eq!((span.len(), allocator.statistics().used), (kept, whole));
        assert!(whole < used);
        assert_eq!(bytes(span.rx(), kept), vec![7; kept]);
        assert!(allocator.query(span.rx().wrapping_add(whole)).is_none());
        assert!(matches!(span.write(kept, &[0]), Err(Error::OutOfRange { .. })));
        span.release().unwrap();
        assert_eq!(allocator.statistics().used, 0);
    }
}

#[test]
fn a_writer_is_the_block_as_a_slice() {
    for write in WRITES {
        let allocator = allocator(write, |_| ());
        let mut span = allocator.alloc(200).unwrap();
        span.write(0, &[1; 200]).unwrap();
        let mut writer = span.writer().unwrap();
        assert_eq!(*writer, [1; 200]);
        writer[..6].copy_from_slice(&returns(3));
        writer.finish().unwrap();
        assert_eq!((call(span.rx()), bytes(span.rx(), 200)[199]), (3, 1));
        if write == Write::Pwrite {
            span.writer().unwrap()[1] = 9;
            assert_eq!(call(span.rx()), 3, "not finished");
        }
    }
}

#[test]
fn a_span_may_keep_its_allocator() {
    let shared = Arc::new(allocator(Write::Alias, |_| ()));
    let mut span = Span::new(shared.clone(), 6).unwrap();
    drop(shared);
    span.write(0, &returns(5)).unwrap();
    assert_eq!((call(span.rx()), span.allocator().statistics().live), (5, 1));
    let shared = span.allocator().meter().clone();
    span.release().unwrap();
    assert_eq!(shared.stats().mappings, 0, "the allocator is gone with its last span");

    let local = Rc::new(allocator(Write::Alias, |_| ()));
    let rx = Span::new(local.clone(), 6).unwrap().into_raw();
    assert_eq!((Rc::strong_count(&local), local.statistics().live), (1, 1));
    release(&local, rx).unwrap();
}

#[test]
fn the_alias_is_given_where_there_is_one() {
    let with = allocator(Write::Alias, |_| ());
    let (rx, rw) = with.alloc_raw(6).unwrap();
    // SAFETY: the block is this test's.
    unsafe { rw.copy_from_nonoverlapping(returns(8).as_ptr(), 6) };
    assert_eq!(call(rx), 8);
    let without = allocator(Write::Pwrite, |_| ());
    assert!(matches!(without.alloc_raw(6), Err(Error::NoAlias)));
    assert_eq!(without.statistics().live, 0);
    assert!(without.alloc(6).unwrap().rw().unwrap().is_none());
}

#[test]
fn free_memory_traps_if_asked() {
    for write in WRITES {
        let allocator = allocator(write, |options| options.fill = true);
        let mut span = allocator.alloc(640).unwrap();
        assert_eq!(bytes(span.rx(), 60_000), [TRAP; 60_000], "new memory");
        span.write(0, &[1; 640]).unwrap();
        span.shrink(65).unwrap();
        assert_eq!(bytes(span.rx(), 128), [1; 128], "what is kept");
        assert_eq!(bytes(span.rx().wrapping_add(128), 512), [TRAP; 512], "shrunk");
        let rx = span.rx();
        drop(span);
        assert_eq!(bytes(rx, 640), [TRAP; 640], "released");
    }
    let without = allocator(Write::Alias, |_| ());
    let mut span = without.alloc(64).unwrap();
    span.write(0, &[1; 64]).unwrap();
    let rx = span.rx();
    drop(span);
    assert_eq!(bytes(rx, 64), [1; 64], "not asked for");
}

/// KiB of memory that the system has for code here.
fn resident(rx: *const u8) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().unwrap_or("");
        if let Some((start, end)) = range.split_once('-')
            && let (Ok(start), Ok(end)) =
                (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            inside = (start..end).contains(&rx.addr());
        } else if inside && let Some(rest) = line.strip_prefix("Rss:") {
            return rest.trim().trim_end_matches(" kB").parse().unwrap();
        }
    }
    panic!("{rx:?} is not mapped");
}

#[test]
fn immediate_release_gives_pages_back() {
    for (immediate, write) in [(true, Write::Alias), (true, Write::Pwrite), (false, Write::Alias)] {
        let allocator = allocator(write, |options| options.immediate_release = immediate);
        let mut spans: Vec<_> = (0..512).map(|_| allocator.alloc(4096).unwrap()).collect();
        for span in &mut spans {
            span.write(0, &[1; 4096]).unwrap();
        }
        let rx = spans[0].rx();
        assert!(spans.iter().map(|span| bytes(span.rx(), 4096)[5]).all(|byte| byte == 1));
        assert_eq!((allocator.statistics().reserved, resident(rx)), (2 << 20, 2048));
        drop(spans);
        let kept = allocator.statistics().reserved;
        assert_eq!(resident(rx), kept >> 10, "{write:?}");
        assert!(kept <= if immediate { 0 } else { 576 << 10 }, "{kept}");
        // And it is taken again.
        let mut span = allocator.alloc(6).unwrap();
        span.write(0, &returns(1)).unwrap();
        assert_eq!(call(span.rx()), 1);
    }
}

#[test]
fn pages_of_large_blocks_come_and_go_with_them() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut span = allocator.alloc(1_000_000).unwrap();
    span.write(0, &vec![1; 1_000_000]).unwrap();
    let rx = span.rx();
    assert_eq!(bytes(rx, 1_000_000), vec![1; 1_000_000]);
    assert_eq!((allocator.statistics().reserved, resident(rx)), (245 * 4096, 980));
    span.shrink(4096).unwrap();
    assert_eq!((allocator.statistics().reserved, resident(rx)), (4096, 4));
    drop(span);
    assert_eq!((allocator.statistics().reserved, resident(rx)), (0, 0));
}

#[test]
fn more_than_one_region_of_address_space() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut huge: Vec<_> = (0..3).map(|_| allocator.alloc(200 << 20).unwrap()).collect();
    for span in &mut huge {
        let end = span.len() - 6;
        span.write(end, &returns(9)).unwrap();
        assert_eq!(call(span.rx().wrapping_add(end)), 9);
        assert_eq!(allocator.query(span.rx().wrapping_add(end)).unwrap().start, span.rx());
    }
    assert!(allocator.statistics().regions >= 3);
}

#[test]
fn statistics_add_up() {
    let allocator = allocator(Write::Alias, |_| ());
    let spans: Vec<_> = (0..100).map(|_| allocator.alloc(1024).unwrap()).collect();
    let full = allocator.statistics();
    assert_eq!((full.used, full.reserved, full.blocks, full.live), (102_400, 128 << 10, 2, 100));
    assert_eq!((full.free_runs, full.largest_free, full.fragmentation()), (1, 28_672, 0.0));
    // Every second one.
    let kept: Vec<_> = spans.into_iter().step_by(2).collect();
    let half = allocator.statistics();
    assert_eq!((half.used, half.live, half.free()), (51_200, 50, 79_872));
    // 49 of a block each, the last one joined with what follows it, or the other way round.
    assert!((50..=51).contains(&half.free_runs), "{half:?}");
    assert!(half.fragmentation() > 0.6 && half.fragmentation() < 0.65, "{half:?}");
    assert!(half.side_data > 4096, "{half:?}");
    assert_eq!(half.system, allocator.meter().stats());
    drop(kept);
    let none = allocator.statistics();
    assert_eq!((none.used, none.live, none.free_runs, none.largest_free), (0, 0, 2, 64 << 10));
}

#[test]
fn ten_thousand_blocks_waste_little() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut draw = crate::Draw(5);
    let mut live: Vec<_> =
        (0..10_000).map(|_| allocator.alloc(8 + draw.below(1024)).unwrap()).collect();
    for _ in 0..100_000 {
        let at = draw.below(live.len());
        live.swap_remove(at);
        live.push(allocator.alloc(8 + draw.below(1024)).unwrap());
    }
    let all = allocator.statistics();
    assert!(all.used as f64 >= 0.88 * all.reserved as f64, "{all:?}");
}

#[test]
fn short_blocks_make_room_for_a_long_one() {
    let allocator = allocator(Write::Alias, |_| ());
    // All of one piece of memory.
    let short: Vec<_> = (0..1024).map(|_| allocator.alloc(64).unwrap()).collect();
    let before = allocator.statistics();
    assert_eq!((before.blocks, before.free()), (1, 0));
    let kept: Vec<_> =
        short.into_iter().enumerate().filter(|(n, _)| n % 32 == 0).map(|(_, span)| span).collect();
    let long: Vec<_> = kept.iter().map(|_| allocator.alloc(31 * 64).unwrap()).collect();
    assert_eq!(allocator.statistics().reserved, before.reserved);
    assert_eq!(allocator.statistics().live, kept.len() + long.len());
    assert_eq!(allocator.statistics().free(), 0);
}

#[test]
fn a_block_costs_no_system_call() {
    let allocator = allocator(Write::Alias, |_| ());
    drop(allocator.alloc(1000).unwrap());
    let before = allocator.meter().stats();
    for _ in 0..100 {
        let mut spans: Vec<_> = (0..60).map(|_| allocator.alloc(1000).unwrap()).collect();
        spans[3].write(0, &[1; 1000]).unwrap();
    }
    assert_eq!(allocator.meter().stats(), before);
}

#[test]
fn after_the_alias_is_withdrawn_code_is_written_by_calls() {
    let allocator = allocator(Write::Alias, |_| ());
    let mut span = allocator.alloc(6).unwrap();
    span.write(0, &returns(1)).unwrap();
    // SAFETY: nobody else uses the allocator.
    unsafe { allocator.withdraw_alias() }.unwrap();
    assert_eq!((call(span.rx()), span.rw().unwrap()), (1, None));
    assert!(matches!(allocator.alloc_raw(6), Err(Error::NoAlias)));
    let calls = allocator.meter().stats().system_calls;
    span.write(0, &returns(2)).unwrap();
    assert_eq!((call(span.rx()), allocator.meter().stats().system_calls), (2, calls + 1));
    let mut large = allocator.alloc(100_000).unwrap();
    large.write(0, &returns(3)).unwrap();
    assert_eq!((call(large.rx()), large.rw().unwrap()), (3, None));
}

#[test]
fn an_alias_that_could_not_be_withdrawn_is_there_still() {
    alone(|| {
        let allocator = allocator(Write::Alias, |_| ());
        let mut span = allocator.alloc(6).unwrap();
        // What takes an alias away leaves its address reserved.
        refuse(&[(libc::SYS_mmap, 3, libc::MAP_FIXED | libc::MAP_ANONYMOUS)], libc::ENOMEM);
        for n in [1, 2] {
            // SAFETY: nobody has a pointer into it.
            let failed = unsafe { allocator.withdraw_alias() };
            assert!(matches!(failed, Err(Error::Memory(vm::Error::System { .. }))));
            assert!(span.rw().unwrap().is_some());
            span.write(0, &returns(n)).unwrap();
            assert_eq!(call(span.rx()), n);
        }
    });
}

#[test]
fn sealed_code_is_final() {
    let allocator = allocator(Write::Alias, |options| options.fill = true);
    let mut span = allocator.alloc(6).unwrap();
    span.write(0, &returns(1)).unwrap();
    let other = allocator.alloc(64).unwrap();
    let refused = allocator.seal_writes();
    assert!(matches!(refused, Err(Error::Memory(vm::Error::Aliased))), "{refused:?}");
    // SAFETY: nobody else uses the allocator.
    unsafe { allocator.withdraw_alias() }.unwrap();
    allocator.seal_writes().unwrap();
    assert!(matches!(span.write(0, &returns(2)), Err(Error::Sealed)));
    assert!(matches!(span.writer(), Err(Error::Sealed)));
    other.release().unwrap();
    for len in [64, 6, 100_000] {
        assert!(matches!(allocator.alloc(len), Err(Error::Sealed)), "{len}");
    }
    assert_eq!((call(span.rx()), allocator.statistics().live), (1, 1));
}

#[test]
fn sealed_pages_stay() {
    let allocator = allocator(Write::Pwrite, |_| ());
    let mut span = allocator.alloc(6).unwrap();
    span.write(0, &returns(1)).unwrap();
    let rx = span.rx();
    match allocator.seal_pages() {
        Ok(()) => {}
        Err(Error::Memory(vm::Error::System { error, .. }))
            if error.raw_os_error() == Some(libc::ENOSYS) =>
        {
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let page = (rx.addr() & !4095) as *mut libc::c_void;
    // SAFETY: it is refused.
    assert_eq!(unsafe { libc::munmap(page, 4096) }, -1);
    span.write(0, &returns(2)).unwrap();
    span.into_raw();
    drop(allocator);
    assert_eq!(call(rx), 2);
}
