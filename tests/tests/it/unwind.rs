//! The unwinder walks through stubs and entries: a panic and a backtrace from inside a closure,
//! and a backtrace in a signal handler at every single instruction of the way there and back.
//! A wrong line of unwind information ends a process in most cases, so each has its own.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use trampfd::{Builder, Closure, FnPointer, Signature, Type, raw};
use trampfd_tests::{all_good, alone, alone_cases};

use crate::arch;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_GetGR(frame: *mut c_void, register: c_int) -> usize;
    fn _Unwind_FindEnclosingFunction(pc: *mut c_void) -> *mut c_void;
}

/// Whether the unwinder comes from here to a frame of `function`.
fn reaches(function: usize) -> bool {
    reaches_with(function, &[])
}

/// Whether the unwinder comes from here to a frame of `function`, and has found what that frame
/// has in these registers.
fn reaches_with(function: usize, registers: &[(c_int, usize)]) -> bool {
    struct Search<'a> {
        function: usize,
        registers: &'a [(c_int, usize)],
        found: bool,
    }
    extern "C" fn visit(frame: *mut c_void, search: *mut c_void) -> c_int {
        // SAFETY: the search of `reaches_with`; a frame of the unwinder.
        unsafe {
            let search = &mut *search.cast::<Search<'_>>();
            let ip = std::ptr::with_exposed_provenance_mut(_Unwind_GetIP(frame));
            if _Unwind_FindEnclosingFunction(ip) as usize != search.function {
                return 0;
            }
            let is = |&(register, value): &_| _Unwind_GetGR(frame, register) == value;
            search.found = search.registers.iter().all(is);
            // Anything but 0 ends the walk.
            1
        }
    }
    let mut search = Search { function, registers, found: false };
    // SAFETY: `visit` gets the search that it expects.
    unsafe { _Unwind_Backtrace(visit, (&raw mut search).cast()) };
    search.found
}

/// One signature for each table, the entry, and stack arguments with and without it.
macro_rules! signatures {
    ($m:ident) => {
        $m! {
            "rdi": ();
            "rsi": (i64);
            "rdx": (i64, *const u8);
            "rcx": (i64, f64, i64, i64);
            "r8": (i64, i64, i64, i64);
            "r9": (i64, i64, i64, i64, i64);
            "entry": (i64, i64, i64, i64, i64, i64);
            "entry, stack": (i64, i64, i64, i64, i64, i64, i64, f64, i32, u8, i64, i64);
            "stack": (f64, f64, f64, f64, f64, f64, f64, f64, f64, f64, f64, f64);
        }
    };
}

const CASES: &[&str] = &["rdi", "rsi", "rdx", "rcx", "r8", "r9", "entry", "entry, stack", "stack"];

/// The last of `count` closures that all live on.
fn nth<S: FnPointer>(count: usize, mut make: impl FnMut() -> Closure<S>) -> Closure<S> {
    let mut last = make();
    for _ in 1..count {
        std::mem::forget(std::mem::replace(&mut last, make()));
    }
    last
}

/// More than a static table, or a table of the service, has.
const MANY: usize = 16_384 + 100;

/// Calls a closure that panics and catches what comes back.
fn panics(builder: &Builder, case: &str) {
    macro_rules! each {
        ($($name:literal: ($($t:ty),*);)*) => {
            match case {
                $($name => {
                    type S = unsafe extern "C" fn($($t),*) -> u64;
                    #[inline(never)]
                    extern "C-unwind" fn caller(f: unsafe extern "C-unwind" fn($($t),*) -> u64) -> u64 {
                        // SAFETY: the closure lives. The arguments are of no interest.
                        unsafe { f($(std::mem::zeroed::<$t>()),*) + 1 }
                    }
                    let function = caller as *const () as usize;
                    let f = builder
                        .closure_unwind::<S, _, _, _>(
                            move |$(_: $t,)* text: &String| -> u64 {
                                assert!(reaches(function), "the caller is not in the backtrace");
                                panic!("{text}")
                            },
                            String::from("out of the closure"),
                        )
                        .unwrap();
                    for _ in 0..100 {
                        let end = catch_unwind(AssertUnwindSafe(|| caller(f.as_ptr())));
                        let panic = end.expect_err("a panic");
                        assert_eq!(panic.downcast_ref::<String>().unwrap(), "out of the closure");
                    }
                })*
                _ => panic!("no case {case}"),
            }
        };
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if !text.contains("out of the closure") {
            eprintln!("{text}");
        }
    }));
    signatures!(each);
}

#[test]
#[expect(clippy::redundant_closure, reason = "the closure's type names the test")]
fn a_panic_of_c_unwind_goes_on_into_the_caller() {
    all_good(&alone_cases(CASES, |builder, case| panics(builder, case)));
}

#[test]
fn a_panic_of_c_ends_the_process() {
    let ends = alone(|builder| {
        let f: Closure<unsafe extern "C" fn(i32)> =
            builder.closure(|_: i32, text: &&str| panic!("{text}"), "out of the closure").unwrap();
        // SAFETY: the closure lives.
        let _ = catch_unwind(AssertUnwindSafe(|| unsafe { f.as_ptr()(1) }));
        eprintln!("still here");
    });
    for end in ends {
        end.is_killed_by(libc::SIGABRT);
        assert!(end.stderr.contains("out of the closure"), "{}", end.stderr);
        assert!(end.stderr.contains("cannot unwind"), "{}", end.stderr);
        assert!(!end.stderr.contains("still here"), "{}", end.stderr);
    }
}

#[test]
fn a_panic_of_c_ends_the_process_through_the_entry() {
    type Long = unsafe extern "C" fn(i64, i64, i64, i64, i64, i64, i64);
    let ends = alone(|builder| {
        let f: Closure<Long> = builder
            .closure_from_fn(|_: i64, _: i64, _: i64, _: i64, _: i64, _: i64, _: i64| {
                panic!("out of the closure")
            })
            .unwrap();
        // SAFETY: the closure lives.
        let _ = catch_unwind(AssertUnwindSafe(|| unsafe { f.as_ptr()(1, 2, 3, 4, 5, 6, 7) }));
    });
    for end in ends {
        end.is_killed_by(libc::SIGABRT);
        assert!(end.stderr.contains("cannot unwind"), "{}", end.stderr);
    }
}

#[test]
fn a_closure_works_on_after_it_panicked() {
    trampfd_tests::alone_well(|builder| {
        std::panic::set_hook(Box::new(|_| ()));
        let f = builder
            .closure_unwind::<unsafe extern "C" fn(u32) -> u32, _, _, _>(
                |a: u32, odd: &u32| if a % 2 == *odd { panic!("odd") } else { a },
                1,
            )
            .unwrap();
        for a in 0..1000 {
            // SAFETY: the closure lives.
            let end = catch_unwind(AssertUnwindSafe(|| unsafe { f.as_ptr()(a) }));
            assert_eq!(end.ok(), (a % 2 == 0).then_some(a));
        }
    });
}

/// What the handler of single steps saw.
struct Steps {
    /// Start of the stub that is walked through.
    stub: AtomicUsize,
    /// Instructions, and those of them in the stub.
    all: AtomicUsize,
    in_stub: AtomicUsize,
    /// Instructions from which the unwinder did not come to the caller, the first of them.
    bad: AtomicUsize,
    first_bad: AtomicUsize,
}

static STEPS: Steps = Steps {
    stub: AtomicUsize::new(0),
    all: AtomicUsize::new(0),
    in_stub: AtomicUsize::new(0),
    bad: AtomicUsize::new(0),
    first_bad: AtomicUsize::new(0),
};

const STUB_LEN: usize = 32;

extern "C" fn stepped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own, valid during the handler.
    let pc = arch::pc(unsafe { &*context.cast::<libc::ucontext_t>() });
    STEPS.all.fetch_add(1, Ordering::Relaxed);
    let in_stub = pc.wrapping_sub(STEPS.stub.load(Ordering::Relaxed)) < STUB_LEN;
    STEPS.in_stub.fetch_add(in_stub.into(), Ordering::Relaxed);
    // lld writes no unwind information for the PLT; the frames below it are as good as any.
    // SAFETY: looks an address up.
    let known = unsafe { !_Unwind_FindEnclosingFunction((pc + 1) as *mut c_void).is_null() };
    if (in_stub || known)
        && !reaches_with(arch::call_stepped as *const () as usize, &arch::KEPT)
        && STEPS.bad.fetch_add(1, Ordering::Relaxed) == 0
    {
        STEPS.first_bad.store(pc, Ordering::Relaxed);
    }
}

fn handle(signal: c_int, handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)) {
    // SAFETY: an all-zero sigaction is one; the handler is a function of this program.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// All steps were good; `least` of them were seen at all, and the stub's three.
fn good_steps(least: usize) {
    let [all, in_stub, bad, first] = [&STEPS.all, &STEPS.in_stub, &STEPS.bad, &STEPS.first_bad]
        .map(|n| n.load(Ordering::Relaxed));
    let stub = STEPS.stub.load(Ordering::Relaxed);
    assert_eq!(bad, 0, "of {all} instructions; the first at {first:#x}, the stub at {stub:#x}");
    assert!(in_stub >= 3, "{in_stub} of {all} instructions in the stub");
    assert!(all >= least, "{all} instructions");
}

/// Walks through the `count`th closure of a case.
fn walk(builder: &Builder, case: &str, count: usize) {
    macro_rules! each {
        ($($name:literal: ($($t:ty),*);)*) => {
            match case {
                $($name => {
                    type S = unsafe extern "C" fn($($t),*) -> usize;
                    let f: Closure<S> = nth(count, || {
                        builder.closure(|$(_: $t,)* data: &usize| *data, 42usize).unwrap()
                    });
                    f.leak() as usize
                })*
                _ => panic!("no case {case}"),
            }
        };
    }
    // Whatever the unwinder allocates, it does here.
    assert!(!reaches(1));
    let stub = signatures!(each);
    STEPS.stub.store(stub, Ordering::Relaxed);
    handle(libc::SIGTRAP, stepped);
    // SAFETY: a closure that was leaked; arguments that it does not look at.
    assert_eq!(unsafe { arch::call_stepped(stub, 7) }, 42);
    good_steps(8);
}

#[test]
fn every_instruction_of_a_call_unwinds_to_the_caller() {
    all_good(&alone_cases(CASES, |builder, case| walk(builder, case, 1)));
}

#[test]
fn every_instruction_unwinds_in_tables_that_were_added_too() {
    all_good(&alone_cases(&["rdi", "entry"], |builder, case| walk(builder, case, MANY)));
}

#[test]
fn every_instruction_unwinds_on_the_way_to_the_trap_of_a_freed_closure() {
    /// The process ends in the handler of SIGILL: well if all steps were good.
    extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
        good_steps(4);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    let freed = |builder: &Builder, case: &str| {
        let builder = builder.clear_at_once(true);
        macro_rules! each {
            ($($name:literal: ($($t:ty),*);)*) => {
                match case {
                    $($name => {
                        let f: Closure<unsafe extern "C" fn($($t),*) -> usize> = builder
                            .closure(|$(_: $t,)* data: &usize| *data, 42usize)
                            .unwrap();
                        f.as_ptr() as usize
                    })*
                    _ => panic!("no case {case}"),
                }
            };
        }
        assert!(!reaches(1));
        let stub = signatures!(each);
        STEPS.stub.store(stub, Ordering::Relaxed);
        handle(libc::SIGTRAP, stepped);
        handle(libc::SIGILL, trapped);
        // SAFETY: it traps, which is what is tested.
        unsafe { arch::call_stepped(stub, 7) };
        panic!("a freed closure returned");
    };
    all_good(&alone_cases(CASES, |builder, case| freed(builder, case)));
}

// ---- dynamic closures ------------------------------------------------------------------------

/// A signature for each entry and each end of it.
const DYNAMIC: &[&str] = &[
    "two, int",
    "two, i32",
    "two, u32",
    "two, void",
    "four, int",
    "four, i32",
    "four, u32",
    "four, void",
    "none",
    "ints, i8",
    "ints, u8",
    "ints, i16",
    "ints, u16",
    "ints, i32",
    "ints, u32",
    "ints, int",
    "ints, void",
    "floats",
    "two floats",
    "two ints",
    "int and float",
    "float and int",
    "st",
    "two of st",
    "memory",
    "apart",
    "stack",
];

fn dynamic_signature(case: &str) -> Signature {
    let pair = |a, b| Type::structure(&[a, b]).unwrap();
    let large = Type::structure(&[Type::array(&Type::U64, 9).unwrap()]).unwrap();
    let ints = || vec![Type::I64; 5];
    let (args, result) = match case {
        "two, int" => (vec![Type::I64], Type::I64),
        "two, i32" => (vec![Type::I64; 2], Type::I32),
        "two, u32" => (vec![Type::I64; 2], Type::U32),
        "two, void" => (vec![], Type::VOID),
        "four, int" => (vec![Type::I64; 3], Type::I64),
        "four, i32" => (vec![Type::I64; 4], Type::I32),
        "four, u32" => (vec![Type::I64; 4], Type::U32),
        "four, void" => (vec![Type::I64; 4], Type::VOID),
        "none" => (vec![], Type::F32),
        "ints, i8" => (ints(), Type::I8),
        "ints, u8" => (ints(), Type::U8),
        "ints, i16" => (ints(), Type::I16),
        "ints, u16" => (ints(), Type::U16),
        "ints, i32" => (ints(), Type::I32),
        "ints, u32" => (ints(), Type::U32),
        "ints, int" => (ints(), Type::I64),
        "ints, void" => (ints(), Type::VOID),
        "floats" => (vec![Type::F64; 2], Type::F64),
        "two floats" => (vec![Type::F64, Type::I8], Type::COMPLEX_F64),
        "two ints" => (vec![Type::F64], Type::I128),
        "int and float" => (vec![Type::F64; 9], pair(Type::I64, Type::F64)),
        "float and int" => (vec![Type::F64, Type::I64], pair(Type::F64, Type::I64)),
        "st" => (vec![Type::LONG_DOUBLE], Type::LONG_DOUBLE),
        "two of st" => (vec![Type::I64], Type::COMPLEX_LONG_DOUBLE),
        "memory" => (vec![Type::I64], large),
        "apart" => (vec![pair(Type::I64, Type::F32), pair(Type::F64, Type::I8)], Type::I64),
        "stack" => (vec![Type::I64; 33], Type::I64),
        _ => panic!("no case {case}"),
    };
    Signature::new(&args, result).unwrap()
}

/// A block whose stub calls `handler` by the plan of this case.
fn bound(builder: &Builder, case: &str, handler: raw::Handler) -> usize {
    let block = raw::alloc(builder, 64).unwrap();
    let plan = raw::plan(&dynamic_signature(case));
    for entry in [plan.enter, plan.finish] {
        // SAFETY: looks an address up.
        let known = unsafe { _Unwind_FindEnclosingFunction((entry + 1) as *mut c_void) } as usize;
        assert_eq!(known, entry, "{case}: no unwind information");
    }
    // SAFETY: a new block; a handler that looks at no argument.
    unsafe {
        (*block.as_ptr()).callee = raw::Callee {
            signature: std::ptr::null(),
            handler: Some(handler),
            data: std::ptr::null_mut(),
        };
        raw::bind(block, plan);
        raw::stub(block) as usize
    }
}

/// What a hidden first argument may point to.
static ROOM: [AtomicUsize; 9] = [const { AtomicUsize::new(0) }; 9];

#[test]
fn a_panic_goes_through_every_dynamic_entry_into_the_caller() {
    #[inline(never)]
    extern "C-unwind" fn caller(stub: usize) -> usize {
        let first = ROOM.as_ptr() as usize;
        // SAFETY: a live stub, whose handler looks at no argument.
        unsafe {
            let f: unsafe extern "C-unwind" fn(usize) -> usize = std::mem::transmute(stub);
            f(first) + 1
        }
    }
    /// # Safety
    ///
    /// It may always be called.
    unsafe extern "C-unwind" fn panics(_: *const (), _: *mut u8, _: *const *mut u8, _: *mut ()) {
        assert!(reaches(caller as *const () as usize), "the caller is not in the backtrace");
        panic!("out of the handler");
    }
    all_good(&alone_cases(DYNAMIC, |builder, case| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.to_string();
            if !text.contains("out of the handler") {
                eprintln!("{text}");
            }
        }));
        let stub = bound(builder, case, panics);
        for _ in 0..100 {
            let end = catch_unwind(AssertUnwindSafe(|| caller(stub)));
            let panic = end.expect_err("a panic");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"out of the handler"));
        }
    }));
}

/// # Safety
///
/// It may always be called.
unsafe extern "C-unwind" fn returns(_: *const (), _: *mut u8, _: *const *mut u8, _: *mut ()) {}

#[test]
fn every_instruction_of_a_dynamic_call_unwinds_to_the_caller() {
    all_good(&alone_cases(DYNAMIC, |builder, case| {
        assert!(!reaches(1));
        let stub = bound(builder, case, returns);
        STEPS.stub.store(stub, Ordering::Relaxed);
        handle(libc::SIGTRAP, stepped);
        // SAFETY: a live stub; a handler that looks at no argument.
        unsafe { arch::call_stepped(stub, ROOM.as_ptr() as usize) };
        good_steps(16);
    }));
}

#[test]
fn every_instruction_unwinds_on_the_way_to_another_librarys_entry() {
    all_good(&alone_cases(&["small", "large"], |builder, case| {
        assert!(!reaches(1));
        let block = raw::alloc(builder, if case == "large" { 100 } else { 64 }).unwrap();
        // SAFETY: a new block, to code that takes anything.
        let stub = unsafe {
            raw::bind_foreign(block, arch::chain as *const ()).unwrap();
            raw::stub(block) as usize
        };
        STEPS.stub.store(stub, Ordering::Relaxed);
        handle(libc::SIGTRAP, stepped);
        // SAFETY: a live stub.
        let chain = unsafe { arch::call_stepped(stub, 7) };
        assert_eq!(chain, block.as_ptr() as usize);
        good_steps(5);
    }));
}

#[test]
fn every_instruction_unwinds_on_the_way_to_the_trap_of_an_unbound_block() {
    extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
        good_steps(4);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    all_good(&alone_cases(&["small", "large"], |builder, case| {
        assert!(!reaches(1));
        let block = raw::alloc(builder, if case == "large" { 100 } else { 64 }).unwrap();
        // SAFETY: a new block.
        let stub = unsafe { raw::stub(block) } as usize;
        STEPS.stub.store(stub, Ordering::Relaxed);
        handle(libc::SIGTRAP, stepped);
        handle(libc::SIGILL, trapped);
        // SAFETY: it traps, which is what is tested.
        unsafe { arch::call_stepped(stub, 7) };
        panic!("an unbound block returned");
    }));
}
