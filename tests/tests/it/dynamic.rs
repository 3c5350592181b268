//! A dynamic closure gets what its C caller passed and returns what it is asked for, for every
//! class of type and every mixture of them. Types, signatures and callers are of
//! `tests/build/dynamic.rs`; what the C compiler says of a type is what counts.

use std::collections::HashSet;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use trampfd::raw::{self, Class, Leaf, Plan, Planner, Returned, Scalar};
use trampfd::{DynCall, Mismatch, Signature, Type, TypeError};
use trampfd_tests::{alone_well, each};

use crate::arch;

include!(concat!(env!("OUT_DIR"), "/dynamic.rs"));

/// Result type of a function that returns nothing.
const VOID: u16 = 0xffff;

type Code = *const ();

#[repr(C)]
struct CLeaf {
    at: u32,
    len: u32,
    draw: u32,
    scalar: u32,
}

#[repr(C)]
struct CType {
    size: usize,
    align: usize,
    offsets: *const usize,
    members: usize,
    leaves: *const CLeaf,
    count: usize,
}

#[repr(C)]
struct CValue {
    bytes: *mut u8,
    ty: u32,
}

#[repr(C)]
struct CSignature {
    values: *const CValue,
    call: unsafe extern "C" fn(Code) -> c_int,
    noisy: Option<unsafe extern "C" fn(Code) -> c_int>,
    wide: Option<unsafe extern "C" fn(Code) -> c_int>,
}

// SAFETY: constants of C; the values that they point to are written once, by `compiled`.
unsafe impl Sync for CType {}
// SAFETY: as above.
unsafe impl Sync for CValue {}
// SAFETY: as above.
unsafe impl Sync for CSignature {}

unsafe extern "C" {
    static dynamic_0_types: CType;
    static dynamic_0_sigs: CSignature;
    static dynamic_0_type_count: u32;
    static dynamic_0_sig_count: u32;
    static dynamic_2_types: CType;
    static dynamic_2_sigs: CSignature;
    static dynamic_2_type_count: u32;
    static dynamic_2_sig_count: u32;
}

impl CType {
    fn offsets(&self) -> &[usize] {
        // SAFETY: as `tests/build/dynamic.rs` writes it.
        unsafe { std::slice::from_raw_parts(self.offsets, self.members) }
    }

    /// The scalars in it. A complex long double is two.
    fn leaves(&self) -> &[CLeaf] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.leaves, self.count) }
    }

    /// Whether the bytes that count are the same.
    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        a.len() == self.size
            && b.len() == self.size
            && self.leaves().iter().all(|leaf| {
                let bytes = leaf.at as usize..(leaf.at + leaf.len) as usize;
                a[bytes.clone()] == b[bytes]
            })
    }
}

/// The callers, as compiled with one level of optimisation.
struct Compiled {
    types: &'static [CType],
    signatures: &'static [CSignature],
}

/// One signature.
#[derive(Clone, Copy)]
struct Case {
    n: usize,
    types: &'static [CType],
    args: &'static [u16],
    result: u16,
    c: &'static CSignature,
}

impl Compiled {
    fn cases(&'static self) -> impl Iterator<Item = Case> {
        SIGNATURES.iter().zip(self.signatures).enumerate().map(|(n, (&(args, result), c))| Case {
            n,
            types: self.types,
            args,
            result,
            c,
        })
    }
}

impl Case {
    /// The bytes that C passes for argument `n`, or wants for a result (behind the last argument).
    fn value(&self, n: usize) -> &'static [u8] {
        // SAFETY: as `tests/build/dynamic.rs` writes it, and not written any more.
        unsafe {
            let value = &*self.c.values.add(n);
            std::slice::from_raw_parts(value.bytes, self.types[value.ty as usize].size)
        }
    }

    fn result_value(&self) -> &'static [u8] {
        if self.result == VOID { &[] } else { self.value(self.args.len()) }
    }

    fn name(&self, types: &[Type]) -> String {
        let args: Vec<_> = self.args.iter().take(20).map(|&t| &types[usize::from(t)]).collect();
        let result = types.get(usize::from(self.result)).unwrap_or(&Type::VOID);
        format!("{}: {args:?} -> {result:?}", self.n)
    }

    fn signature(&self, types: &[Type]) -> Signature {
        let args: Vec<Type> = self.args.iter().map(|&t| types[usize::from(t)].clone()).collect();
        let result = types.get(usize::from(self.result)).cloned().unwrap_or(Type::VOID);
        Signature::new(&args, result).unwrap()
    }

    /// The functions of C that call a closure, and which.
    fn callers(&self) -> impl Iterator<Item = (&'static str, unsafe extern "C" fn(Code) -> c_int)> {
        let all = [("call", Some(self.c.call)), ("noisy", self.c.noisy), ("wide", self.c.wide)];
        all.into_iter().filter_map(|(name, f)| f.map(|f| (name, f)))
    }
}

/// The callers without and with optimisation, their values filled.
fn compiled() -> &'static [Compiled; 2] {
    static COMPILED: OnceLock<[Compiled; 2]> = OnceLock::new();
    COMPILED.get_or_init(|| {
        // SAFETY: tables of so many entries, as `tests/build/dynamic.rs` writes them.
        let all = unsafe {
            let slice =
                |types: *const CType, n: u32, signatures: *const CSignature, m: u32| Compiled {
                    types: std::slice::from_raw_parts(types, n as usize),
                    signatures: std::slice::from_raw_parts(signatures, m as usize),
                };
            [
                slice(
                    &raw const dynamic_0_types,
                    dynamic_0_type_count,
                    &raw const dynamic_0_sigs,
                    dynamic_0_sig_count,
                ),
                slice(
                    &raw const dynamic_2_types,
                    dynamic_2_type_count,
                    &raw const dynamic_2_sigs,
                    dynamic_2_sig_count,
                ),
            ]
        };
        let mut random = 0x7472_616d_7066_6464u64;
        for compiled in &all {
            assert_eq!(compiled.signatures.len(), SIGNATURES.len());
            for ((args, result), c) in SIGNATURES.iter().zip(compiled.signatures) {
                let count = args.len() + usize::from(*result != VOID);
                // SAFETY: as above; nobody reads them yet.
                unsafe {
                    let values = std::slice::from_raw_parts(c.values, count);
                    values.iter().for_each(|value| fill(compiled.types, value, &mut random));
                }
            }
        }
        all
    })
}

/// Draws a value.
///
/// # Safety
///
/// A value of C that nobody else uses.
unsafe fn fill(types: &[CType], value: &CValue, random: &mut u64) {
    let ty = &types[value.ty as usize];
    // SAFETY: by the contract.
    let bytes = unsafe { std::slice::from_raw_parts_mut(value.bytes, ty.size) };
    for leaf in ty.leaves() {
        let at = leaf.at as usize;
        for byte in &mut bytes[at..at + leaf.len as usize] {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *byte = (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
        }
        match leaf.draw {
            1 => bytes[at] &= 1,
            2 => {
                // A number: its first bit is set, its exponent in the middle.
                bytes[at + 7] |= 0x80;
                bytes[at + 9] = bytes[at + 9] & 0x80 | 0x3f;
            }
            _ => {}
        }
    }
}

/// What the handlers complain about.
type Log = Arc<Mutex<Vec<String>>>;

fn complaints(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// Looks at all arguments and sets the result.
fn handler(call: &mut DynCall<'_>, (case, log): &(Case, Log)) {
    let complain = |text: String| log.lock().unwrap().push(text);
    if call.len() != case.args.len() || call.is_empty() != case.args.is_empty() {
        complain(format!("{} arguments", call.len()));
    }
    for (n, &t) in case.args.iter().enumerate() {
        let (ty, want) = (&case.types[usize::from(t)], case.value(n));
        let seen = call.bytes(n).unwrap_or_default();
        if !ty.same(seen, want) {
            complain(format!("argument {n} is {seen:02x?}, not {want:02x?}"));
        }
        if !typed(call, n, t, want) {
            complain(format!("argument {n} as a value of type {t}"));
        }
    }
    if call.bytes(case.args.len()).is_ok() {
        complain("one argument more".into());
    }
    if call.result_bytes().iter().any(|&byte| byte != 0) {
        complain("the result is not zero at first".into());
    }
    call.result_bytes().copy_from_slice(case.result_value());
}

/// Argument `n` read as the Rust type of its C type is these bytes, and nothing else can be read.
fn typed(call: &DynCall<'_>, n: usize, t: u16, want: &[u8]) -> bool {
    macro_rules! read {
        ($($t:ty)*) => {
            [$(call.arg::<$t>(n).map(|v| v.to_ne_bytes() == want).ok()),*]
        };
    }
    let seen = read!(i8 u8 i16 u16 i32 u32 i64 u64 isize usize f32 f64 i128 u128);
    let right: &[usize] = match t {
        0 | 1 | 8 | 9 => &[0, 1],
        2 | 3 => &[2, 3],
        4 | 5 => &[4, 5],
        6 | 7 | 10 => &[6, 7, 8, 9],
        11 => &[10],
        12 => &[11],
        13 | 14 => &[12, 13],
        _ => &[],
    };
    seen.iter().enumerate().all(|(i, seen)| *seen == right.contains(&i).then_some(true))
}

#[test]
fn types_are_laid_out_as_c_does() {
    let types = types();
    for compiled in compiled() {
        assert_eq!(types.len(), compiled.types.len());
        for (n, (ty, c)) in types.iter().zip(compiled.types).enumerate() {
            assert_eq!((ty.size(), ty.align()), (c.size, c.align), "{n}: {ty:?}");
            for (member, &offset) in c.offsets().iter().enumerate() {
                assert_eq!(ty.offset(member), Some(offset), "{n}: {ty:?}, member {member}");
            }
            assert_eq!(ty.offset(c.members), None, "{n}: {ty:?}");
        }
    }
}

#[test]
fn c_callers_reach_dynamic_closures() {
    alone_well(|builder| {
        let types = types();
        for case in compiled().iter().flat_map(Compiled::cases) {
            let log = Log::default();
            let signature = case.signature(&types);
            let f = builder.dynamic(&signature, handler, (case, log.clone())).unwrap();
            assert_eq!(f.backend(), builder.backend().unwrap());
            for (name, call) in case.callers() {
                // SAFETY: a caller of this signature; the closure lives.
                let wrong = unsafe { call(f.as_ptr()) };
                let seen = complaints(&log);
                assert!(seen.is_empty(), "{name} {}: {seen:?}", case.name(&types));
                assert_eq!(wrong, 0, "result of {name} {}", case.name(&types));
            }
        }
    });
}

/// A scalar by its number in `tests/build/dynamic.rs`; a complex number's parts.
fn scalar(n: u32) -> (Scalar, bool) {
    let int = |bytes| Scalar::Int(bytes, n.is_multiple_of(2));
    match n {
        0 | 1 | 8 => (int(1), false),
        2 | 3 => (int(2), false),
        4 | 5 => (int(4), false),
        6 | 7 => (int(8), false),
        9 => (Scalar::Int(1, false), false),
        10 => (Scalar::Int(8, false), false),
        11 | 16 => (Scalar::F32, n == 16),
        12 | 17 => (Scalar::F64, n == 17),
        13 | 14 => (Scalar::Wide, false),
        15 | 18 => (Scalar::LongDouble, n == 18),
        _ => panic!("no scalar {n}"),
    }
}

/// How a C type is passed and returned, from what C says of it alone.
fn classes(types: &[CType], t: u16) -> (Class, Returned) {
    let c = &types[usize::from(t)];
    if t < 19 {
        return match scalar(t.into()) {
            (part, true) => (Class::complex(part), Returned::complex(part)),
            (scalar, false) => (Class::scalar(scalar), Returned::scalar(scalar)),
        };
    }
    let leaves: Vec<Leaf> = c
        .leaves()
        .iter()
        .flat_map(|leaf| {
            let (scalar, complex) = scalar(leaf.scalar);
            let at = leaf.at as usize;
            let second = complex.then_some(Leaf { offset: at + scalar.size(), scalar });
            [Some(Leaf { offset: at, scalar }), second]
        })
        .flatten()
        .collect();
    let class = Class::compound(c.size, c.align, &leaves).unwrap();
    (class, Returned::compound(c.size, &leaves))
}

fn plan(case: &Case) -> &'static Plan {
    let returned = match case.result {
        VOID => Returned::Void,
        t => classes(case.types, t).1,
    };
    let mut planner = Planner::new(returned);
    case.args.iter().for_each(|&t| planner.arg(classes(case.types, t).0));
    planner.finish().unwrap()
}

/// What a raw handler has for data; [`arch::aligned`] goes on to the first.
#[repr(C)]
struct Raw {
    handler: raw::Handler,
    case: Case,
    log: Log,
}

/// # Safety
///
/// Called by a block bound to a plan of its case.
unsafe extern "C-unwind" fn raw_handler(
    signature: *const (),
    result: *mut u8,
    args: *const *mut u8,
    data: *mut (),
) {
    // SAFETY: by the contract.
    let Raw { case, log, .. } = unsafe { &*data.cast::<Raw>() };
    let complain = |text: String| log.lock().unwrap().push(text);
    if signature.addr() != 0x516 {
        complain(format!("signature {signature:?}"));
    }
    for (n, &t) in case.args.iter().enumerate() {
        let (ty, want) = (&case.types[usize::from(t)], case.value(n));
        // SAFETY: by the contract.
        let seen = unsafe { std::slice::from_raw_parts(*args.add(n), ty.size) };
        if !ty.same(seen, want) {
            complain(format!("argument {n} is {seen:02x?}, not {want:02x?}"));
        }
    }
    let value = case.result_value();
    // SAFETY: by the contract.
    unsafe { result.copy_from(value.as_ptr(), value.len()) };
}

/// One call at a time goes through [`arch::keeping`].
static KEEPING: Mutex<()> = Mutex::new(());

#[test]
fn registers_are_kept_and_handlers_have_an_aligned_stack() {
    alone_well(|builder| {
        let types = types();
        let block = raw::alloc(builder, 64).unwrap();
        for case in compiled().iter().flat_map(Compiled::cases) {
            let log = Log::default();
            let data = Raw { handler: raw_handler, case, log: log.clone() };
            // SAFETY: a block of this test's, bound to a plan of what calls it.
            unsafe {
                (*block.as_ptr()).callee = raw::Callee {
                    signature: std::ptr::without_provenance(0x516),
                    handler: Some(arch::aligned),
                    data: (&raw const data).cast_mut().cast(),
                };
                raw::bind(block, plan(&case));
            }
            let guard = KEEPING.lock().unwrap();
            // SAFETY: the block lives; the lock is held.
            let code = unsafe { arch::keeping(raw::stub(block)) };
            for (name, call) in case.callers() {
                // SAFETY: a caller of this signature.
                let wrong = unsafe { call(code) };
                let seen = complaints(&log);
                assert!(seen.is_empty(), "{name} {}: {seen:?}", case.name(&types));
                assert_eq!(wrong, 0, "result of {name} {}", case.name(&types));
            }
            assert_eq!(arch::faults(), 0, "registers, {}", case.name(&types));
            let misaligned = arch::MISALIGNED.load(Ordering::Relaxed);
            assert_eq!(misaligned, 0, "stack, {}", case.name(&types));
            drop(guard);
        }
        // SAFETY: nobody uses it any more.
        unsafe { raw::free(block) };
    });
}

#[test]
fn every_class_is_among_them() {
    let compiled = &compiled()[1];
    let all: Vec<_> = (0..compiled.types.len() as u16)
        .filter(|&t| compiled.cases().any(|case| case.args.contains(&t) && case.result == t))
        .map(|t| classes(compiled.types, t))
        .collect();
    let returned: HashSet<u8> = all.iter().map(|(_, returned)| *returned as u8).collect();
    for wanted in Returned::I8 as u8..=Returned::Memory as u8 {
        assert!(returned.contains(&wanted), "no result of kind {wanted}: {returned:?}");
    }
    let codes: HashSet<_> = all.iter().map(|(class, _)| class.code()).collect();
    for code in 1..=9 {
        assert!(codes.contains(&Some(code)), "no class with code {code}: {codes:?}");
    }
    for align in [8, 16] {
        let of_memory = compiled.types.iter().any(|c| c.size > 16 && c.align == align);
        assert!(codes.contains(&None) && of_memory, "nothing aligned to {align} in memory");
    }
    for count in [0, 1, 15, 16, 300, 5000] {
        assert!(SIGNATURES.iter().any(|(args, _)| args.len() == count), "{count} arguments");
    }
}

// ---- what cannot be --------------------------------------------------------------------------

#[test]
fn malformed_types_and_signatures_are_errors() {
    let array = Type::array(&Type::I32, 4).unwrap();
    let refused = |args: &[Type], result: Type| Signature::new(args, result).unwrap_err();
    assert_eq!(refused(&[Type::VOID], Type::VOID), TypeError::Void);
    assert_eq!(refused(&[Type::I32, Type::VOID], Type::I32), TypeError::Void);
    assert_eq!(refused(std::slice::from_ref(&array), Type::VOID), TypeError::Array);
    assert_eq!(refused(&[], array.clone()), TypeError::Array);
    // The most that a type may have, and the most that a call may pass.
    let huge = Type::array(&Type::U8, 1 << 30).unwrap();
    assert_eq!(Type::array(&Type::U8, (1 << 30) + 1), Err(TypeError::TooLarge));
    let huge = Type::structure(&[huge]).unwrap();
    assert_eq!(refused(std::slice::from_ref(&huge), Type::VOID), TypeError::TooLarge);
    assert_eq!(Type::structure(&[huge.clone(), Type::I8]), Err(TypeError::TooLarge));
    let half = Type::array(&Type::U8, (1 << 29) - 8).unwrap();
    let half = Type::structure(&[half]).unwrap();
    assert!(Signature::new(&[half.clone(), half.clone()], huge).is_ok());
    let three = [half.clone(), half.clone(), half];
    assert_eq!(refused(&three, Type::VOID), TypeError::TooLarge);
    for error in [
        TypeError::ZeroSized,
        TypeError::Void,
        TypeError::Array,
        TypeError::TooLarge,
        TypeError::TooDeep,
    ] {
        assert!(error.to_string().len() > 20, "{error:?}");
    }
}

/// What is made of two of itself, and so on, would have no end of parts: it costs little to make,
/// to compare, to print and to classify, or it is an error.
#[test]
fn what_doubles_with_each_level_takes_no_time() {
    for make in [Type::union, Type::structure] {
        let doubled = || {
            let mut levels = 0;
            let mut either = make(&[Type::F32, Type::I8]).unwrap();
            loop {
                levels += 1;
                match make(&[either.clone(), either.clone()]) {
                    Ok(larger) => either = larger,
                    Err(error) => break (either, error, levels),
                }
            }
        };
        let (one, error, levels) = doubled();
        assert_eq!(error, TypeError::TooLarge);
        assert!((10..30).contains(&levels), "{levels} levels");
        // The same, and no part of it in common.
        let (other, ..) = doubled();
        assert!(one == other);
        assert!(format!("{one:?}").len() < 4 << 20);
        Signature::new(&[one], other).unwrap();
    }
    // One of each is no more than its depth.
    let mut deep = Type::union(&[Type::F64, Type::I8]).unwrap();
    for _ in 1..64 {
        deep = Type::union(&[deep, Type::I16]).unwrap();
    }
    assert_eq!((deep.size(), deep.align()), (8, 8));
    assert_eq!(Type::union(std::slice::from_ref(&deep)), Err(TypeError::TooDeep));
    Signature::new(std::slice::from_ref(&deep), deep.clone()).unwrap();
}

#[test]
fn what_is_not_in_the_signature_is_a_mismatch() {
    each(|builder| {
        let pair = Type::structure(&[Type::I32, Type::I32]).unwrap();
        let args = [Type::I32, Type::F64, pair, Type::POINTER, Type::LONG_DOUBLE];
        let signature = Signature::new(&args, Type::U16).unwrap();
        let f = builder
            .dynamic(
                &signature,
                |call, seen: &Mutex<Vec<Result<(), Mismatch>>>| {
                    let mut seen = seen.lock().unwrap();
                    seen.extend([
                        call.arg::<i64>(0).map(drop),
                        call.arg::<f32>(0).map(drop),
                        call.arg::<f32>(1).map(drop),
                        call.arg::<u64>(1).map(drop),
                        call.arg::<u64>(2).map(drop),
                        call.arg::<i32>(3).map(drop),
                        call.arg::<f64>(4).map(drop),
                        call.arg::<u128>(4).map(drop),
                        call.arg::<i32>(5).map(drop),
                        call.arg::<i32>(usize::MAX).map(drop),
                        call.bytes(5).map(drop),
                        call.set(1u32),
                        call.set(1u8),
                        call.set(1f32),
                        call.set(std::ptr::null::<u8>()),
                    ]);
                    assert!(seen.drain(..).all(|seen| seen == Err(Mismatch)));
                    // Of the two sorts of integers each will do.
                    let good = call.arg::<i32>(0).map(drop).and(call.arg::<u32>(0).map(drop));
                    let pointer = call.arg::<*const u8>(3).map(drop).and(call.arg(3));
                    let pointer: Result<*mut (), _> = pointer;
                    seen.extend([good, pointer.map(drop), call.set(-2i16), call.set(0xfff0u16)]);
                },
                Mutex::new(Vec::new()),
            )
            .unwrap();
        #[repr(C)]
        struct Pair(i32, i32);
        // What follows is on the stack or beyond what is looked at.
        // SAFETY: so far the same arguments; the closure lives.
        let got = unsafe {
            let f: unsafe extern "C" fn(i32, f64, Pair, *const u8, u128) -> u16 =
                std::mem::transmute(f.as_ptr());
            f(1, 2.0, Pair(3, 4), std::ptr::null(), 5)
        };
        assert_eq!(got, 0xfff0);
        assert!(Mismatch.to_string().contains("another type"));
    });
}

#[test]
fn a_result_that_is_not_set_is_zero() {
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Two<A, B>(A, B);
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Large([u64; 40]);

    /// Sets every byte, or nothing.
    fn set_or_not(call: &mut DynCall<'_>, set: &AtomicUsize) {
        if set.load(Ordering::Relaxed) != 0 {
            call.result_bytes().fill(0xff);
        }
    }

    each(|builder| {
        macro_rules! check {
            ($($t:ty = $ty:expr, $zero:expr;)*) => {$(
                let signature = Signature::new(&[Type::I64], $ty).unwrap();
                let set = Arc::new(AtomicUsize::new(1));
                let f = builder
                    .dynamic(&signature, |call, set: &Arc<AtomicUsize>| set_or_not(call, set), set.clone())
                    .unwrap();
                // SAFETY: a function of this signature; the closure lives.
                unsafe {
                    let f: unsafe extern "C" fn(i64) -> $t = std::mem::transmute(f.as_ptr());
                    let full = std::hint::black_box(f)(1);
                    set.store(0, Ordering::Relaxed);
                    let zero: $t = std::hint::black_box(f)(1);
                    assert_ne!(full, $zero, "{}", stringify!($t));
                    assert_eq!(zero, $zero, "{}", stringify!($t));
                }
            )*};
        }
        let two = |a: Type, b: Type| Type::structure(&[a, b]).unwrap();
        let large = Type::structure(&[Type::array(&Type::U64, 40).unwrap()]).unwrap();
        check! {
            i8 = Type::I8, 0;
            u8 = Type::U8, 0;
            i16 = Type::I16, 0;
            u16 = Type::U16, 0;
            i32 = Type::I32, 0;
            u32 = Type::U32, 0;
            i64 = Type::I64, 0;
            i128 = Type::I128, 0;
            f32 = Type::F32, 0.0;
            f64 = Type::F64, 0.0;
            Two<i64, i64> = two(Type::I64, Type::I64), Two(0, 0);
            Two<f64, f64> = two(Type::F64, Type::F64), Two(0.0, 0.0);
            Two<i64, f64> = two(Type::I64, Type::F64), Two(0, 0.0);
            Two<f64, i64> = two(Type::F64, Type::I64), Two(0.0, 0);
            Large = large, Large([0; 40]);
        }
    });
}

// ---- the stack -------------------------------------------------------------------------------

/// Where a thread's stack ends for whom, from the lowest address: memory of somebody else, a page
/// that nobody may touch, the stack.
const OTHERS: usize = 64 << 10;
const GUARD: usize = 4 << 10;
/// Room for the caller's own 5,000 arguments, not for as many pointers to them.
const STACK: usize = 68 << 10;

static REGION: AtomicUsize = AtomicUsize::new(0);
static ENTRY: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_long_list_of_arguments_does_not_jump_over_the_guard_page() {
    use std::ffi::c_void;

    extern "C" fn faulted(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let region = REGION.load(Ordering::Relaxed);
        // SAFETY: the kernel's own, valid during the handler; memory of this test's.
        unsafe {
            let others = std::slice::from_raw_parts(region as *const u8, OTHERS);
            let pc = arch::pc(&*context.cast::<libc::ucontext_t>());
            let fault = ((*info).si_addr() as usize).wrapping_sub(region + OTHERS);
            let code = if pc.wrapping_sub(ENTRY.load(Ordering::Relaxed)) > 400 {
                2 // not where it was to be
            } else if fault >= GUARD {
                3 // not on the guard page
            } else if others.iter().any(|&byte| byte != 0) {
                4 // somebody else's memory was written
            } else {
                0
            };
            libc::_exit(code);
        }
    }

    extern "C" fn thread(case: *mut c_void) -> *mut c_void {
        let alternative = vec![0u8; 64 << 10].leak();
        // SAFETY: a stack of so many bytes; the caller's case and code.
        unsafe {
            let stack = libc::stack_t {
                ss_sp: alternative.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: alternative.len(),
            };
            assert_eq!(libc::sigaltstack(&stack, std::ptr::null_mut()), 0);
            let (call, code) = *case.cast::<(unsafe extern "C" fn(Code) -> c_int, Code)>();
            call(code);
        }
        std::process::exit(5) // there was room for all
    }

    alone_well(|builder| {
        let case = compiled()[1].cases().find(|case| case.args.len() == 5000).unwrap();
        ENTRY.store(plan(&case).enter, Ordering::Relaxed);
        let f =
            builder.dynamic(&case.signature(&types()), |_, ()| std::process::exit(6), ()).unwrap();
        let mut job = (case.c.call, f.as_ptr());
        // SAFETY: memory of this test's; a handler of it; a thread that gets what it expects.
        unsafe {
            let region = libc::mmap(
                std::ptr::null_mut(),
                OTHERS + GUARD + STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(region, libc::MAP_FAILED);
            REGION.store(region as usize, Ordering::Relaxed);
            assert_eq!(libc::mprotect(region.byte_add(OTHERS), GUARD, libc::PROT_NONE), 0);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = faulted as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
            let mut attr: libc::pthread_attr_t = std::mem::zeroed();
            assert_eq!(libc::pthread_attr_init(&mut attr), 0);
            let stack = region.byte_add(OTHERS + GUARD);
            assert_eq!(libc::pthread_attr_setstack(&mut attr, stack, STACK), 0);
            let mut id = std::mem::zeroed();
            let job = (&raw mut job).cast();
            assert_eq!(libc::pthread_create(&mut id, &attr, thread, job), 0);
            libc::pthread_join(id, std::ptr::null_mut());
        }
    });
}

// ---- plans -----------------------------------------------------------------------------------

fn plan_of(returned: Returned, args: &[Class]) -> *const Plan {
    let mut planner = Planner::new(returned);
    args.iter().for_each(|&arg| planner.arg(arg));
    planner.finish().unwrap()
}

#[test]
fn signatures_that_are_passed_alike_have_one_plan() {
    let int = Class::scalar(Scalar::Int(8, false));
    let char = Class::scalar(Scalar::Int(1, true));
    let double = Class::scalar(Scalar::F64);
    let long_double = Class::scalar(Scalar::LongDouble);
    let memory = |words: usize| Class::compound(8 * words, 8, &[]).unwrap();
    for n in [0, 1, 2, 14, 15, 16, 17, 200] {
        let of = |class| plan_of(Returned::I32, &vec![class; n]);
        assert_eq!(of(int), of(char), "{n} arguments");
        let all = [int, double, long_double, memory(3), memory(4)].map(of);
        let different: HashSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), if n == 0 { 1 } else { 5 }, "{n} arguments");
        assert_ne!(of(int), plan_of(Returned::U32, &vec![int; n]), "{n} arguments");
    }
    // No signature is taken for one with an argument more or less.
    let all: HashSet<_> = (0..40).map(|n| plan_of(Returned::Void, &vec![int; n])).collect();
    assert_eq!(all.len(), 40);
}

#[test]
fn a_thousand_structures_have_a_plan_each() {
    let plans = || -> Vec<usize> {
        let of = |n: usize| {
            let class = Class::compound(8 * n, 8, &[]).unwrap();
            plan_of(Returned::Memory, &[class, class]).addr()
        };
        (3..1003).map(of).collect()
    };
    // By threads that make the same ones at the same time.
    let all: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(plans)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|plans| *plans == all[0]));
    assert_eq!(all[0].iter().collect::<HashSet<_>>().len(), 1000);
}
