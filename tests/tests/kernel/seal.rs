//! After a seal nothing about trampolines changes any more, in the process and its children.

use trampfd::{Backend, Builder, Closure, Error, Signature, Type, Unavailable, raw, support};
use trampfd_tests::{all_good, alone_cases_on, alone_on, fork, fork_well};

type One = unsafe extern "C" fn(usize) -> usize;

/// The one kind of closure that is prewarmed.
fn adder(builder: &Builder, n: usize) -> Result<Closure<One>, Error> {
    builder.closure(handler, n)
}

fn handler(a: usize, n: &usize) -> usize {
    a + n
}

fn other(builder: &Builder) -> Result<Closure<One>, Error> {
    builder.closure_from_fn(|a: usize| a)
}

fn prewarm(builder: &Builder, count: usize) {
    builder.prewarm::<One, _, usize, _>(count, handler).unwrap();
}

fn is_sealed<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Sealed)), "{result:?}");
}

/// `body` after a seal with ten closures ahead; each test in a process of its own.
fn sealed(body: impl Fn(&Builder), builder: &Builder) {
    prewarm(builder, 10);
    builder.seal().unwrap();
    body(builder);
}

#[test]
fn what_was_prewarmed_can_be_had_and_no_more() {
    let end = alone_on(Backend::Kernel, |builder| {
        let before = adder(builder, 77).unwrap();
        sealed(
            |builder| {
                let mut all = Vec::new();
                while let Ok(f) = adder(builder, all.len()) {
                    all.push(f);
                }
                assert!((10..=12).contains(&all.len()), "{} closures", all.len());
                is_sealed(adder(builder, 1));
                is_sealed(other(builder));
                is_sealed(builder.prewarm::<One, _, usize, _>(1, handler));
                is_sealed(builder.seal());
                // Not from static text either.
                is_sealed(Closure::<One>::new(handler, 1usize));
                is_sealed(Closure::<One>::from_fn(|a: usize| a));
                for (n, f) in all.iter().enumerate() {
                    // SAFETY: the closure lives.
                    assert_eq!(unsafe { f.as_ptr()(7) }, 7 + n);
                }
            },
            builder,
        );
        // SAFETY: the closure lives.
        assert_eq!(unsafe { before.as_ptr()(1) }, 78);
    });
    end.is_good();
}

#[test]
fn a_closure_dropped_after_the_seal_is_retired() {
    let end = alone_on(Backend::Kernel, |builder| {
        sealed(
            |builder| {
                let mut made = 0;
                // Each is dropped at once, and none comes back.
                while adder(builder, made).is_ok() {
                    made += 1;
                    assert!(made < 20, "a slot came back after the seal");
                }
                assert!(made >= 10);
            },
            builder,
        );
    });
    end.is_good();
}

#[test]
fn a_closure_dropped_before_the_seal_traps_after_it() {
    let end = alone_on(Backend::Kernel, |builder| {
        let f = adder(builder, 1).unwrap();
        let stale = f.as_ptr();
        drop(f);
        builder.seal().unwrap();
        // SAFETY: it traps, which is what is tested.
        eprintln!("it answered {}", unsafe { stale(1) });
    });
    end.is_killed_by(libc::SIGILL);
}

#[test]
fn dynamic_closures_live_on_after_the_seal_and_trap_when_they_are_dropped() {
    let ends = alone_cases_on(&[Backend::Kernel], &["live", "dropped"], |builder, case| {
        let signature = Signature::new(&[Type::SIZE], Type::SIZE).unwrap();
        let make = |n: usize| {
            builder.dynamic(
                &signature,
                |call, n: &usize| {
                    let a = call.arg::<usize>(0).unwrap_or(0);
                    let _ = call.set(a + n);
                },
                n,
            )
        };
        let call = |f: *const ()| {
            // SAFETY: of this signature; it lives, or traps, which is what is tested.
            unsafe { std::mem::transmute::<*const (), One>(f)(1) }
        };
        let mut all: Vec<_> = (0..20).map(|n| make(n).unwrap()).collect();
        builder.seal().unwrap();
        // What was bound ahead can be had still: as many as are bound at once, at most.
        let error = loop {
            match make(all.len()) {
                Ok(f) => all.push(f),
                Err(error) => break error,
            }
            assert!(all.len() < 100, "dynamic closures have no end after the seal");
        };
        is_sealed(Err::<(), _>(error));
        // SAFETY: it is not made.
        is_sealed(unsafe {
            raw::Stub::new(builder, raw::CHAIN, support as *const (), std::ptr::null_mut())
        });
        for (n, f) in all.iter().enumerate() {
            assert_eq!(call(f.as_ptr()), 1 + n);
        }
        if case == "dropped" {
            let stale = all.swap_remove(3);
            let stub = stale.as_ptr();
            drop(stale);
            eprintln!("it answered {}", call(stub));
        }
    });
    for (case, end) in ends {
        match &*case {
            "live" => end.is_good(),
            _ => end.is_killed_by(libc::SIGILL),
        }
        assert!(!end.stderr.contains("it answered"), "{}", end.stderr);
    }
}

/// A stub for code and data that a caller names is in the kernel's pages: no run is bound ahead.
#[test]
fn a_raw_stub_lives_on_after_the_seal() {
    let end = alone_on(Backend::Kernel, |builder| {
        extern "C" fn third(_: usize, _: usize, data: usize) -> usize {
            data
        }
        let data = std::ptr::without_provenance_mut(42);
        // SAFETY: it takes anything.
        let make = || unsafe { raw::Stub::new(builder, 1, third as *const (), data) };
        let stub = make().unwrap();
        builder.seal().unwrap();
        is_sealed(make());
        // SAFETY: a function of two words, beyond which it gets the data.
        let got = unsafe {
            let f: unsafe extern "C" fn(usize, usize) -> usize = std::mem::transmute(stub.as_ptr());
            f(1, 2)
        };
        assert_eq!(got, 42);
    });
    end.is_good();
}

#[test]
fn children_are_sealed_too() {
    let end = alone_on(Backend::Kernel, |builder| {
        sealed(
            |builder| {
                let f = adder(builder, 1).unwrap();
                let check = || {
                    // SAFETY: the closure lives.
                    assert_eq!(unsafe { f.as_ptr()(1) }, 2);
                    is_sealed(other(builder));
                    is_sealed(builder.seal());
                    // SAFETY: the closure lives.
                    assert_eq!(unsafe { adder(builder, 5).unwrap().as_ptr()(1) }, 6);
                };
                fork_well(|| {
                    check();
                    fork_well(check);
                });
                check();
            },
            builder,
        );
    });
    end.is_good();
}

#[test]
fn a_childs_seal_leaves_the_parent_free() {
    let end = alone_on(Backend::Kernel, |builder| {
        let f = adder(builder, 1).unwrap();
        fork_well(|| {
            builder.seal().unwrap();
            is_sealed(other(builder));
        });
        let all: Vec<_> = (0..2000).map(|n| adder(builder, n).unwrap()).collect();
        other(builder).unwrap();
        // SAFETY: the closures live.
        assert_eq!(unsafe { f.as_ptr()(1) + all[40].as_ptr()(1) }, 43);
    });
    end.is_good();
}

#[test]
fn views_cannot_be_unmapped_where_the_seal_says_so() {
    let end = alone_on(Backend::Kernel, |builder| {
        let f = adder(builder, 1).unwrap();
        let sealed = builder.seal().unwrap();
        // SAFETY: mseal of nothing: whether the call exists.
        let there = unsafe { libc::syscall(462, 0, 0, 0) } == 0;
        assert_eq!(sealed.mseal, there);
        if sealed.mseal {
            let size = trampfd_sys::TRAMPFD_TABLE_SIZE;
            let page = f.as_ptr() as usize & !0xfff;
            // SAFETY: one page of a view, which is refused in any case, and a whole view, if the
            // stub lies in its first page, which the seal refuses.
            unsafe {
                assert_eq!(libc::munmap(page as *mut _, size), -1);
                assert_eq!(libc::munmap((page + size) as *mut _, size), -1);
            }
        }
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(1) }, 2);
    });
    end.is_good();
}

#[test]
fn support_says_that_the_process_is_sealed() {
    let end = alone_on(Backend::Kernel, |builder| {
        builder.seal().unwrap();
        assert!(matches!(support().kernel, Err(Unavailable::Sealed)), "{:?}", support());
    });
    end.is_good();
}

#[test]
fn no_fd_of_the_device_is_left_after_the_seal() {
    let end = alone_on(Backend::Kernel, |builder| {
        adder(builder, 1).unwrap();
        let fds = || {
            let names = std::fs::read_dir("/proc/self/fd").unwrap();
            let targets = names.filter_map(|name| std::fs::read_link(name.ok()?.path()).ok());
            targets.filter(|target| target.ends_with("trampfd")).count()
        };
        assert_eq!(fds(), 1);
        builder.seal().unwrap();
        assert_eq!(fds(), 0);
    });
    end.is_good();
}

#[test]
fn prewarmed_closures_of_each_kind_survive_the_seal() {
    let cases = &["small", "large", "entry"];
    all_good(&alone_cases_on(&[Backend::Kernel], cases, |builder, case| {
        type Long = unsafe extern "C" fn(u8, u8, u8, u8, u8, u8, usize) -> usize;
        let large = |a: usize, n: &[usize; 9]| a + n[8];
        let long = |_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, a: usize, n: &usize| a + n;
        match case {
            "small" => prewarm(builder, 700),
            "large" => builder.prewarm::<One, _, [usize; 9], _>(700, large).unwrap(),
            _ => builder.prewarm::<Long, _, usize, _>(700, long).unwrap(),
        }
        builder.seal().unwrap();
        for n in 0..700 {
            // SAFETY: the closures live.
            let got = unsafe {
                match case {
                    "small" => adder(builder, n).unwrap().leak()(1),
                    "large" => builder.closure::<One, _, _, _>(large, [n; 9]).unwrap().leak()(1),
                    _ => builder.closure::<Long, _, _, _>(long, n).unwrap().leak()(
                        0, 0, 0, 0, 0, 0, 1,
                    ),
                }
            };
            assert_eq!(got, n + 1);
        }
    }));
}

#[test]
fn exec_ends_the_seal() {
    // The process of this test was started by exec; a sealed one starts it again.
    let end = alone_on(Backend::Kernel, |builder| {
        if std::env::var_os("TRAMPFD_TEST_AGAIN").is_some() {
            adder(builder, 1).unwrap();
            return;
        }
        builder.seal().unwrap();
        let end = fork(|| {
            let mut again = std::process::Command::new("/proc/self/exe");
            again.args(std::env::args_os().skip(1)).env("TRAMPFD_TEST_AGAIN", "1");
            let error = std::os::unix::process::CommandExt::exec(&mut again);
            panic!("exec: {error}");
        });
        assert!(end.success(), "{end}");
    });
    end.is_good();
}
