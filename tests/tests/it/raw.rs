//! Stubs and blocks for other languages: every register, every size, and the misuses that are
//! promised an answer.

use std::collections::HashSet;
use std::ptr::{NonNull, null_mut};

use trampfd::raw::{self, Block, CHAIN, Callee, Class, Plan, Planner, Returned, Scalar, Stub};
use trampfd::{Backend, Builder, DynClosure, Error, Signature, Type};
use trampfd_tests::{alone_cases, alone_well, each, fork_well};

use crate::arch;

type Six = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> usize;

/// What the target of a stub sees: one digit of 16 bits for each integer argument.
extern "C" fn digits(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
    [a, b, c, d, e, f].into_iter().fold(0, |sum, digit| (sum << 8) + digit)
}

extern "C" fn other(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
    !digits(a, b, c, d, e, f)
}

fn data(n: usize) -> *mut () {
    std::ptr::without_provenance_mut(n)
}

/// A stub for register number `n` of [`raw::registers`].
fn stub(builder: &Builder, n: usize, value: usize) -> Stub {
    let reg = raw::registers()[n];
    let code = if reg == CHAIN { arch::chain as *const () } else { digits as *const () };
    // SAFETY: they take anything in any register.
    unsafe { Stub::new(builder, reg, code, data(value)) }.unwrap()
}

/// Calls it with 1 to 6 in the argument registers.
fn call(code: *const ()) -> usize {
    // SAFETY: a live stub whose target takes six words, or one that traps, which is tested.
    unsafe { std::mem::transmute::<*const (), Six>(code)(1, 2, 3, 4, 5, 6) }
}

/// What [`call`] gives for a stub of register number `n` that loads `value`.
fn expected(n: usize, value: usize) -> usize {
    if raw::registers()[n] == CHAIN {
        return value;
    }
    let mut args = [1, 2, 3, 4, 5, 6];
    args[n] = value;
    let [a, b, c, d, e, f] = args;
    digits(a, b, c, d, e, f)
}

#[test]
fn a_stub_loads_each_register_and_no_other() {
    each(|builder| {
        assert_eq!(raw::registers().last(), Some(&CHAIN));
        let different: HashSet<_> = raw::registers().iter().collect();
        assert_eq!(different.len(), 7);
        for n in 0..raw::registers().len() {
            let all: Vec<Stub> = (0..200).map(|value| stub(builder, n, value)).collect();
            for (value, stub) in all.iter().enumerate().step_by(13) {
                assert_eq!(call(stub.as_ptr()), expected(n, value), "register {n}");
                assert_eq!(stub.backend(), builder.backend().unwrap());
            }
            let addresses: HashSet<_> = all.iter().map(Stub::as_ptr).collect();
            assert_eq!(addresses.len(), 200);
        }
    });
}

#[test]
fn other_registers_and_targets_that_are_no_text_are_refused() {
    each(|builder| {
        for reg in (0..200).chain([u16::MAX]).filter(|reg| !raw::registers().contains(reg)) {
            // SAFETY: it is not made.
            let error = unsafe { Stub::new(builder, reg, digits as *const (), data(1)) };
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Register { reg: named } if named == reg), "{error:?}");
            assert!(error.to_string().contains(&reg.to_string()), "{error}");
        }
        let heap = Box::new([0xc3u8; 64]);
        static CONSTANT: [u8; 16] = [0xc3; 16];
        for code in [heap.as_ptr(), CONSTANT.as_ptr(), std::ptr::null()] {
            for &reg in raw::registers() {
                // SAFETY: it is not made.
                let error = unsafe { Stub::new(builder, reg, code.cast(), data(1)) }.unwrap_err();
                assert!(
                    matches!(error, Error::NotText { code: named } if named == code.addr()),
                    "{error:?}"
                );
            }
        }
    });
}

#[test]
fn a_stub_can_be_changed_on_static_text_only() {
    each(|builder| {
        for n in 0..6 {
            let mut stub = stub(builder, n, 7);
            // SAFETY: it takes anything; nobody calls the stub meanwhile.
            let set = unsafe { stub.set(other as *const (), data(9)) };
            match stub.backend() {
                Backend::Text => {
                    set.unwrap();
                    assert_eq!(call(stub.as_ptr()), !expected(n, 9));
                    let text = "no code";
                    // SAFETY: it is refused.
                    let error = unsafe { stub.set(text.as_ptr().cast(), data(1)) }.unwrap_err();
                    assert!(matches!(error, Error::NotText { .. }), "{error:?}");
                    assert_eq!(call(stub.as_ptr()), !expected(n, 9));
                    stub.disarm();
                    // SAFETY: as above.
                    unsafe { stub.set(digits as *const (), data(11)) }.unwrap();
                    assert_eq!(call(stub.as_ptr()), expected(n, 11));
                }
                _ => {
                    assert!(matches!(set, Err(Error::Unsupported { .. })), "{set:?}");
                    stub.disarm();
                    assert_eq!(call(stub.as_ptr()), expected(n, 7));
                }
            }
        }
    });
}

#[test]
fn a_disarmed_or_dropped_stub_traps() {
    let mut cases = Vec::new();
    for n in ["0", "1", "2", "3", "4", "5", "6"] {
        cases.extend([format!("disarmed {n}"), format!("dropped {n}"), format!("raw {n}")]);
    }
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    let ends = trampfd_tests::alone_cases_on(&[Backend::Text], &cases, |builder, case| {
        let (how, n) = case.split_once(' ').unwrap();
        let mut stub = stub(builder, n.parse().unwrap(), 7);
        let stale = stub.as_ptr();
        eprintln!("stub {:#018x}", stale as usize);
        match how {
            "disarmed" => stub.disarm(),
            "dropped" => drop(stub),
            // SAFETY: it came from there.
            _ => drop(unsafe { Stub::from_raw(stub.into_raw()) }.unwrap()),
        }
        eprintln!("it answered {}", call(stale));
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGILL);
        let stub = end.stderr.lines().next().unwrap().to_owned();
        let says = format!("trampfd: a freed closure was called, {stub}");
        assert!(end.stderr.contains(&says), "{case}: {}", end.stderr);
        assert!(!end.stderr.contains("it answered"), "{case}: {}", end.stderr);
    }
}

/// With the kernel service stubs are cleared together, at latest after 256.
#[test]
fn a_dropped_stub_traps_after_256_others() {
    let ends = alone_cases(&["0", "2", "5", "6"], |builder, n| {
        let n = n.parse().unwrap();
        let all: Vec<Stub> = (0..257).map(|value| stub(builder, n, value)).collect();
        let first = all[0].as_ptr();
        drop(all);
        eprintln!("it answered {}", call(first));
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGILL);
        assert!(!end.stderr.contains("it answered"), "{case}: {}", end.stderr);
    }
}

#[test]
fn a_stub_is_taken_back_by_its_address() {
    each(|builder| {
        for n in 0..raw::registers().len() {
            let raw: Vec<*const ()> =
                (0..100).map(|value| stub(builder, n, value).into_raw()).collect();
            assert_eq!(call(raw[99]), expected(n, 99));
            for (value, &stub) in raw.iter().enumerate() {
                // SAFETY: it came from `into_raw`.
                let back = unsafe { Stub::from_raw(stub) }.unwrap();
                assert_eq!(back.as_ptr(), stub);
                assert_eq!(back.backend(), builder.backend().unwrap());
                if value % 37 == 0 {
                    assert_eq!(call(back.as_ptr()), expected(n, value));
                }
            }
        }
    });
}

#[test]
fn what_is_no_stub_is_not_taken_for_one() {
    each(|builder| {
        let stub = stub(builder, 2, 7);
        let zeroes = [0u8; 32];
        // SAFETY: the stub has more bytes.
        let inside = unsafe { stub.as_ptr().cast::<u8>().add(4) };
        for address in [zeroes.as_ptr(), inside, digits as *const u8] {
            // SAFETY: so many bytes can be read there.
            let error = unsafe { Stub::from_raw(address.cast()) };
            let named = address.addr();
            assert!(
                matches!(error, Err(Error::NoStub { address }) if address == named),
                "{error:?}"
            );
            // SAFETY: as above.
            assert!(unsafe { raw::block_of(address.cast()) }.is_none());
        }
    });
}

#[test]
fn stubs_are_a_childs_own() {
    each(|builder| {
        let mut all: Vec<Stub> = (0..500).map(|value| stub(builder, 2, value)).collect();
        let stubs: Vec<*const ()> = all.iter().map(Stub::as_ptr).collect();
        fork_well(|| {
            all.drain(..400);
            let more: Vec<Stub> = (0..600).map(|value| stub(builder, 2, 1000 + value)).collect();
            assert_eq!(call(more[599].as_ptr()), expected(2, 1599));
            assert_eq!(call(all[0].as_ptr()), expected(2, 400));
        });
        for (value, &stub) in stubs.iter().enumerate().step_by(61) {
            assert_eq!(call(stub), expected(2, value));
        }
    });
}

// ---- blocks ----------------------------------------------------------------------------------

/// A handler: the sum of its first two arguments, words, and data.
///
/// # Safety
///
/// Called for a signature with two words and a word as result.
unsafe extern "C-unwind" fn sum(
    signature: *const (),
    result: *mut u8,
    args: *const *mut u8,
    data: *mut (),
) {
    // SAFETY: by the contract.
    unsafe {
        let word = |n| (*args.add(n)).cast::<usize>().read();
        result.cast::<usize>().write(word(0) + word(1) + data.addr() + signature.addr());
    }
}

/// Three words more than a short entry takes.
///
/// # Safety
///
/// Called for a signature with seven words and a word as result.
unsafe extern "C-unwind" fn last(
    _: *const (),
    result: *mut u8,
    args: *const *mut u8,
    data: *mut (),
) {
    // SAFETY: by the contract.
    unsafe { result.cast::<usize>().write((*args.add(6)).cast::<usize>().read() + data.addr()) };
}

fn plan(count: usize) -> &'static Plan {
    let word = Scalar::Int(8, false);
    let mut planner = Planner::new(Returned::scalar(word));
    (0..count).for_each(|_| planner.arg(Class::scalar(word)));
    planner.finish().unwrap()
}

/// Has the block's stub call `handler` with `data`.
fn bind(block: NonNull<Block>, handler: raw::Handler, count: usize, value: usize) {
    // SAFETY: a live block; a handler for signatures of so many words.
    unsafe {
        (*block.as_ptr()).callee =
            Callee { signature: std::ptr::null(), handler: Some(handler), data: data(value) };
        raw::bind(block, plan(count));
    }
}

fn call_block(block: NonNull<Block>, a: usize, b: usize) -> usize {
    type Seven = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize) -> usize;
    // SAFETY: a live block, or one that traps; a function of no more than so many words.
    unsafe {
        let f: Seven = std::mem::transmute(raw::stub(block));
        f(a, b, 0, 0, 0, 0, 70)
    }
}

#[test]
fn blocks_of_every_size_are_the_callers() {
    each(|builder| {
        let sizes = [0, 32, 56, 57, 63, 64, 65, 80, 100, 128, 1000, 4096, 100_000, 1 << 20];
        let mut all: Vec<(NonNull<Block>, usize)> = Vec::new();
        for round in 0..3 {
            for size in sizes {
                let block = raw::alloc(builder, size).unwrap();
                assert_eq!(block.as_ptr().addr() % 16, 0, "{size}");
                bind(block, sum, 2, round);
                // What is behind the callee is the owner's.
                let size = size.max(64);
                // SAFETY: a block of so many bytes.
                unsafe {
                    let rest = block.as_ptr().cast::<u8>();
                    rest.add(56).write_bytes(0xa5, size - 56);
                }
                all.push((block, size));
            }
        }
        for (n, &(block, size)) in all.iter().enumerate() {
            assert_eq!(call_block(block, 10, 20), 30 + n / sizes.len(), "{size}");
            // SAFETY: a live block.
            unsafe {
                let rest = std::slice::from_raw_parts(block.as_ptr().cast::<u8>(), size);
                assert!(rest[56..].iter().all(|&byte| byte == 0xa5), "{size}");
                let code = raw::stub(block);
                assert_eq!(raw::block_of(code), Some(block));
                assert_eq!(raw::block_at(block.as_ptr().cast()), Some(block));
                assert!(raw::in_block(code) && raw::in_block(code.byte_add(5)));
                if n % 2 == 0 {
                    raw::free(block);
                }
            }
        }
        for (n, &(block, size)) in all.iter().enumerate().skip(1).step_by(2) {
            assert_eq!(call_block(block, 10, 20), 30 + n / sizes.len(), "{size}");
            // SAFETY: a live block.
            unsafe { raw::free(raw::block_of(raw::stub(block)).unwrap()) };
        }
    });
}

#[test]
fn only_the_head_of_a_new_block_is_written() {
    alone_well(|builder| {
        let block = raw::alloc(builder, 64).unwrap();
        // SAFETY: a live block of 64 bytes.
        unsafe { block.as_ptr().cast::<u8>().add(32).write_bytes(0x5a, 32) };
        if builder.backend().unwrap() == Backend::Kernel {
            return; // its blocks are malloc's
        }
        // SAFETY: nobody uses it.
        unsafe { raw::free(block) };
        let again = raw::alloc(builder, 64).unwrap();
        assert_eq!(again, block, "the one that was just given back");
        // SAFETY: a live block of 64 bytes.
        let bytes = unsafe { again.as_ptr().cast::<[u8; 64]>().read() };
        assert_eq!(bytes[32..], [0x5a; 32]);
        // SAFETY: nobody uses it.
        unsafe { raw::free(again) };
    });
}

#[test]
fn a_block_calls_what_it_is_bound_to_now() {
    each(|builder| {
        for size in [64, 65] {
            let block = raw::alloc(builder, size).unwrap();
            for round in 0..20 {
                bind(block, sum, 2, round);
                assert_eq!(call_block(block, 1, 2), 3 + round);
                // Another shape; then what is called alone.
                bind(block, last, 7, round);
                assert_eq!(call_block(block, 1, 2), 70 + round);
                // SAFETY: a live block that nobody calls just now.
                unsafe { (*block.as_ptr()).callee.data = data(1000) };
                assert_eq!(call_block(block, 1, 2), 1070);
                // SAFETY: a live block; the target takes anything.
                unsafe { raw::bind_foreign(block, arch::chain as *const ()) }.unwrap();
                assert_eq!(call_block(block, 1, 2), block.as_ptr().addr());
            }
            // SAFETY: it is refused.
            let error = unsafe { raw::bind_foreign(block, block.as_ptr().cast()) }.unwrap_err();
            assert!(matches!(error, Error::NotText { .. }), "{error:?}");
            assert_eq!(call_block(block, 1, 2), block.as_ptr().addr(), "still");
            // SAFETY: nobody uses it.
            unsafe { raw::free(block) };
        }
    });
}

#[test]
fn an_unbound_or_freed_block_traps() {
    let cases = &["new", "new large", "again", "freed", "freed large", "freed foreign"];
    let ends = alone_cases(cases, |builder, case| {
        let large = case.ends_with("large");
        let alloc = || raw::alloc(builder, if large { 200 } else { 64 }).unwrap();
        let block = alloc();
        // SAFETY: a live block, given back at most once.
        let stub = unsafe {
            let stub = raw::stub(block);
            if !case.starts_with("new") {
                bind(block, sum, 2, 1);
                assert_eq!(call_block(block, 1, 2), 4);
                if case.ends_with("foreign") {
                    raw::bind_foreign(block, arch::chain as *const ()).unwrap();
                }
                raw::free(block);
            }
            if case == "again" { raw::stub(alloc()) } else { stub }
        };
        eprintln!("stub {:#018x}", stub as usize);
        // SAFETY: it traps, which is what is tested.
        let got = unsafe {
            let f: unsafe extern "C" fn(usize, usize) -> usize = std::mem::transmute(stub);
            f(1, 2)
        };
        eprintln!("it answered {got}");
    });
    for (case, end) in ends {
        end.is_killed_by(libc::SIGILL);
        assert!(!end.stderr.contains("it answered"), "{case}: {}", end.stderr);
        if end.backend == Backend::Text {
            let stub = end.stderr.lines().next().unwrap().to_owned();
            let says = format!("trampfd: a freed closure was called, {stub}\n");
            assert!(end.stderr.contains(&says), "{case}: {}", end.stderr);
        }
    }
}

#[test]
fn what_is_no_block_is_not_taken_for_one() {
    alone_well(|builder| {
        let block = raw::alloc(builder, 64).unwrap();
        // SAFETY: a live block of 64 bytes.
        let copy = Box::new(unsafe { block.as_ptr().cast::<[usize; 8]>().read() });
        let zeroes = Box::new([0usize; 8]);
        // SAFETY: memory of so many bytes, and null.
        unsafe {
            assert_eq!(raw::block_at(copy.as_ptr().cast_mut().cast()), None, "a copy");
            assert_eq!(raw::block_at(zeroes.as_ptr().cast_mut().cast()), None);
            assert_eq!(raw::block_at(null_mut()), None);
            assert_eq!(raw::block_of(digits as *const ()), None);
            assert!(!raw::in_block(digits as *const ()));
        }
        // A stub that nobody ever had: text as any other.
        let table = trampfd_text::arch::static_table(trampfd_text::arch::DYNAMIC);
        let never = table.code() + (table.len - 1) * trampfd_text::arch::SLOT_STRIDE;
        // SAFETY: text of this program.
        unsafe {
            assert!(!raw::in_block(std::ptr::with_exposed_provenance(never)));
            assert_eq!(raw::block_of(std::ptr::with_exposed_provenance(never)), None);
        }
    });
}

#[test]
fn blocks_of_a_parent_are_not_changed_by_its_child() {
    each(|builder| {
        for size in [64, 100] {
            let block = |n| {
                let block = raw::alloc(builder, size).unwrap();
                bind(block, sum, 2, n);
                block
            };
            let all: Vec<NonNull<Block>> = (0..300).map(block).collect();
            fork_well(|| {
                // SAFETY: the child's own.
                all.iter().for_each(|&block| unsafe { raw::free(block) });
                let more: Vec<_> = (0..600).map(|n| block(5000 + n)).collect();
                assert_eq!(call_block(more[599], 1, 2), 5602);
            });
            for (n, &block) in all.iter().enumerate() {
                if n % 61 == 0 {
                    assert_eq!(call_block(block, 1, 2), 3 + n);
                }
                // SAFETY: nobody uses it.
                unsafe { raw::free(block) };
            }
        }
    });
}

// ---- many ------------------------------------------------------------------------------------

/// Bytes of memory that only this process has: pages written to, and page tables.
#[cfg(not(target_feature = "crt-static"))]
fn own_memory() -> usize {
    let line = |file: &str, name| {
        let text = std::fs::read_to_string(file).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        1024 * found.trim_end_matches("kB").trim().parse::<usize>().unwrap()
    };
    line("/proc/self/smaps_rollup", "Private_Dirty:") + line("/proc/self/status", "VmPTE:")
}

/// What a million blocks cost, with every stub's slot and every block in use. libffi's closures
/// are such blocks. On static text: with the kernel service it is a matter of its limits. Not in
/// test machines, whose emulator keeps a translation of each stub that is called.
#[cfg(not(target_feature = "crt-static"))]
#[test]
fn a_million_blocks_are_few_mappings_and_100_bytes_each() {
    const COUNT: usize = 1_000_000;
    let end = trampfd_tests::alone_on(Backend::Text, |builder| {
        let mut all: Vec<NonNull<Block>> = Vec::with_capacity(COUNT);
        all.resize(COUNT, NonNull::dangling());
        all.clear();
        let mappings = trampfd_tests::mappings().len();
        let memory = own_memory();
        for n in 0..COUNT {
            let block = raw::alloc(builder, 64).unwrap();
            bind(block, sum, 2, n);
            all.push(block);
        }
        let mappings = trampfd_tests::mappings().len() - mappings;
        assert!(mappings <= 500, "{mappings} mappings");
        for (n, &block) in all.iter().enumerate() {
            assert_eq!(call_block(block, 1, 2), 3 + n);
        }
        let bytes = (own_memory() - memory) as f64 / COUNT as f64;
        assert!((64.0..=100.0).contains(&bytes), "{bytes:.1} bytes each");
        let stubs: HashSet<_> = all.iter().map(|block| block.as_ptr()).collect();
        assert_eq!(stubs.len(), COUNT);
        // SAFETY: nobody uses them.
        all.drain(..).for_each(|block| unsafe { raw::free(block) });
        // What was given back is there again.
        let before = trampfd_tests::mappings().len();
        (0..COUNT).for_each(|n| bind(raw::alloc(builder, 64).unwrap(), sum, 2, n));
        assert_eq!(trampfd_tests::mappings().len(), before);
        trampfd_tests::no_writable_code();
    });
    end.is_good();
}

/// In programs that are optimised: it takes too long otherwise, and in test machines.
#[cfg(not(any(debug_assertions, target_feature = "crt-static")))]
#[test]
fn five_million_closures_can_live() {
    const COUNT: usize = 5_000_000;
    let end = trampfd_tests::alone_on(Backend::Text, |builder| {
        let signature = Signature::new(&[Type::SIZE], Type::SIZE).unwrap();
        let all: Vec<DynClosure> = (0..COUNT)
            .map(|n| {
                let add = |call: &mut trampfd::DynCall<'_>, n: &usize| {
                    let a = call.arg::<usize>(0).unwrap_or(0);
                    let _ = call.set(a + n);
                };
                builder.dynamic(&signature, add, n).unwrap()
            })
            .collect();
        for (n, f) in all.iter().enumerate() {
            // SAFETY: the closure lives.
            let f: unsafe extern "C" fn(usize) -> usize =
                unsafe { std::mem::transmute(f.as_ptr()) };
            // SAFETY: as above.
            assert_eq!(unsafe { f(1) }, n + 1);
        }
        let mappings = trampfd_tests::mappings().len();
        assert!(mappings < 5 * 500, "{mappings} mappings");
    });
    end.is_good();
}

/// The address of a closure's stub is that of its block.
#[test]
fn a_dynamic_closure_is_a_block() {
    each(|builder| {
        let signature = Signature::new(&[], Type::VOID).unwrap();
        let f: DynClosure = builder.dynamic(&signature, |_, ()| (), ()).unwrap();
        // SAFETY: a live stub.
        let block = unsafe { raw::block_of(f.as_ptr()) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { raw::stub(block) }, f.as_ptr());
    });
}
