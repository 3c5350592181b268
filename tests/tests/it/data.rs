//! What a closure holds arrives whole, whatever its size and alignment, and is dropped exactly
//! once, by whichever thread drops the closure.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trampfd::{Builder, Closure, Local, LocalMut};
use trampfd_tests::each;

type Plain = unsafe extern "C" fn(usize) -> usize;

/// Counts in `dropped` that it was.
struct Counted<V>(V, Arc<AtomicUsize>);

impl<V> Drop for Counted<V> {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

fn count() -> Arc<AtomicUsize> {
    Arc::default()
}

/// A closure over `value` says whether it finds `value` in its place, aligned.
fn arrives<V: PartialEq + Copy + Send + Sync + 'static>(builder: &Builder, value: V) {
    let seen = move |data: &V| {
        let place: *const V = data;
        usize::from(place.is_aligned() && *data == value)
    };
    let f: Closure<Plain> =
        builder.closure(move |a: usize, data: &V| a + seen(data), value).unwrap();
    let g: Closure<Plain> = builder.closure_from_fn(move |a: usize| a + seen(&value)).unwrap();
    // SAFETY: the closures live.
    unsafe {
        assert_eq!(f.as_ptr()(40), 41, "{} bytes", size_of::<V>());
        assert_eq!(g.as_ptr()(41), 42, "{} bytes", size_of::<V>());
    }

    // Alone, so that nothing but the value is in the slot.
    extern "C" fn pass<V>(out: usize, data: &V) -> usize
    where
        V: Copy,
    {
        // SAFETY: the test passes the address of a V.
        unsafe { *core::ptr::with_exposed_provenance_mut::<V>(out) = *data };
        (data as *const V).addr() % align_of::<V>()
    }
    let pass: Closure<Plain> =
        builder.closure(pass::<V> as extern "C" fn(_, &V) -> _, value).unwrap();
    let mut out = std::mem::MaybeUninit::<V>::uninit();
    // SAFETY: the closure lives and writes `out`.
    unsafe {
        assert_eq!(pass.as_ptr()(out.as_mut_ptr().expose_provenance()), 0, "aligned");
        assert!(out.assume_init() == value, "{} bytes", size_of::<V>());
    }
}

#[test]
fn data_of_every_size_arrives() {
    each(|builder| {
        arrives(builder, ());
        macro_rules! sizes {
            ($($n:literal)*) => {$(
                arrives::<[u8; $n]>(builder, std::array::from_fn(|i| i as u8 ^ 0x5a));
            )*};
        }
        sizes! { 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 24 31 32 33 64 100 4096 10000 }
        arrives(builder, (1u8, 2u64));
        arrives(builder, u128::MAX - 7);
        arrives(builder, "text".len());
    });
}

#[test]
fn over_aligned_data_is_aligned() {
    #[derive(Clone, Copy, PartialEq)]
    #[repr(align(32))]
    struct A32(u8);
    #[derive(Clone, Copy, PartialEq)]
    #[repr(align(64))]
    struct A64([u8; 65]);
    #[derive(Clone, Copy, PartialEq)]
    #[repr(align(128))]
    struct Nothing;
    #[derive(Clone, Copy, PartialEq)]
    #[repr(align(16))]
    struct A16(u64, u64);
    each(|builder| {
        for n in 0..40 {
            arrives(builder, A32(n));
            arrives(builder, A64([n; 65]));
            arrives(builder, Nothing);
            arrives(builder, A16(1, n.into()));
        }
    });
}

#[test]
fn a_function_without_state_is_a_closure() {
    extern "C" fn twice(a: usize) -> usize {
        2 * a
    }
    fn rust(a: usize, data: &usize) -> usize {
        a - data
    }
    each(|builder| {
        let f: Closure<Plain> = builder.closure_from_fn(|a: usize| twice(a)).unwrap();
        let g: Closure<Plain> = builder.closure(rust, 2usize).unwrap();
        // SAFETY: the closures live.
        unsafe {
            assert_eq!(f.as_ptr()(21), 42);
            assert_eq!(g.as_ptr()(44), 42);
        }
    });
}

#[test]
fn data_is_dropped_once_with_its_closure() {
    fn once<V: Send + Sync + Copy + 'static>(builder: &Builder, value: V) {
        let dropped = count();
        let f: Closure<Plain> =
            builder.closure(|a: usize, _: &Counted<V>| a, Counted(value, dropped.clone())).unwrap();
        // SAFETY: the closure lives.
        assert_eq!(unsafe { f.as_ptr()(7) }, 7);
        assert_eq!(dropped.load(Ordering::SeqCst), 0, "called");
        drop(f);
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "dropped");

        let dropped = count();
        let held = Counted(value, dropped.clone());
        let f: Closure<Plain> = builder
            .closure_from_fn(move |a: usize| {
                let _ = &held;
                a
            })
            .unwrap();
        std::thread::spawn(move || drop(f)).join().unwrap();
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "dropped by another thread");
    }
    each(|builder| {
        once(builder, ()); // in the slot
        once(builder, 7u64); // in the slot, full
        once(builder, [7u64; 9]); // in a box
    });
}

#[test]
fn data_is_dropped_when_no_closure_could_be_made() {
    // A target that is no text.
    static DATA: [usize; 4] = [0; 4];
    each(|builder| {
        let dropped = count();
        // SAFETY: never called.
        let bad: extern "C" fn(usize, &Counted<[u64; 4]>) -> usize =
            unsafe { std::mem::transmute(DATA.as_ptr()) };
        let made: Result<Closure<Plain>, _> =
            builder.closure(bad, Counted([1u64; 4], dropped.clone()));
        assert!(made.is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_leaked_closure_lives_for_ever() {
    each(|builder| {
        let dropped = count();
        let f: Closure<Plain> = builder
            .closure(|a: usize, d: &Counted<usize>| a + d.0, Counted(2usize, dropped.clone()))
            .unwrap();
        let f = f.leak();
        for _ in 0..1000 {
            let other: Closure<Plain> = builder.closure(|a: usize, d: &usize| a + d, 9).unwrap();
            assert_ne!(other.as_ptr() as usize, f as usize);
        }
        // SAFETY: for ever.
        assert_eq!(unsafe { f(40) }, 42);
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn what_a_closure_holds_is_dropped_in_the_order_of_its_making() {
    struct Named(&'static str, Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Named {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    each(|builder| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let captured = Named("function", log.clone());
        let f: Closure<Plain> = builder
            .closure(
                move |a: usize, _: &Named| {
                    let _ = &captured;
                    a
                },
                Named("data", log.clone()),
            )
            .unwrap();
        drop(f);
        assert_eq!(*log.lock().unwrap(), ["function", "data"]);
    });
}

#[test]
fn a_drop_may_make_and_drop_closures() {
    struct Nest(Builder, usize, Arc<AtomicUsize>);
    impl Drop for Nest {
        fn drop(&mut self) {
            self.2.fetch_add(1, Ordering::SeqCst);
            if self.1 > 0 {
                let inner = Nest(self.0, self.1 - 1, self.2.clone());
                let f: Closure<Plain> =
                    self.0.closure(|a: usize, n: &Nest| a + n.1, inner).unwrap();
                // SAFETY: the closure lives.
                assert_eq!(unsafe { f.as_ptr()(0) }, self.1 - 1);
            }
        }
    }
    each(|builder| {
        let dropped = count();
        let f: Closure<Plain> = builder
            .closure(|a: usize, n: &Nest| a + n.1, Nest(*builder, 50, dropped.clone()))
            .unwrap();
        drop(f);
        assert_eq!(dropped.load(Ordering::SeqCst), 51);
    });
}

#[test]
fn a_local_closure_borrows_and_belongs_to_its_thread() {
    each(|builder| {
        let sum = Cell::new(0);
        let seen = RefCell::new(Vec::new());
        let f: Local<'_, unsafe extern "C" fn(i32)> = builder
            .local(|a: i32| {
                sum.set(sum.get() + a);
                seen.borrow_mut().push(a);
            })
            .unwrap();
        // SAFETY: the closure lives, in this thread.
        (1..=10).for_each(|a| unsafe { f.as_ptr()(a) });
        assert_eq!(sum.get(), 55);
        drop(f);
        assert_eq!(seen.into_inner(), (1..=10).collect::<Vec<_>>());
    });
}

#[test]
fn a_mutable_closure_changes_what_it_holds() {
    each(|builder| {
        let mut text = String::new();
        let mut large = [0u64; 20];
        let mut f: LocalMut<'_, unsafe extern "C" fn(u8) -> usize> = builder
            .local_mut(|a: u8| {
                text.push(a.into());
                large[usize::from(a) % 20] += 1;
                text.len()
            })
            .unwrap();
        // SAFETY: the closure lives, in this thread, one call at a time.
        let lengths: Vec<usize> = b"closure".iter().map(|&a| unsafe { f.as_ptr()(a) }).collect();
        assert_eq!(lengths, [1, 2, 3, 4, 5, 6, 7]);
        drop(f);
        assert_eq!((text.as_str(), large.iter().sum::<u64>()), ("closure", 7));
    });
}

#[test]
fn a_closure_may_call_and_make_closures() {
    type Depth = unsafe extern "C" fn(u32, *const Builder) -> u32;
    fn dive(depth: u32, builder: *const Builder) -> u32 {
        if depth == 0 {
            return 0;
        }
        // SAFETY: the test passes a builder that lives.
        let again: Closure<Depth> = unsafe { &*builder }.closure_from_fn(dive).unwrap();
        // SAFETY: the closure lives.
        1 + unsafe { again.as_ptr()(depth - 1, builder) }
    }
    each(|builder| assert_eq!(dive(200, builder), 200));
}

#[test]
fn one_closure_serves_many_threads_at_once() {
    each(|builder| {
        let calls = count();
        let f: Closure<Plain> = builder
            .closure(
                |a: usize, calls: &Arc<AtomicUsize>| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    a
                },
                calls.clone(),
            )
            .unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let f = &f;
                scope.spawn(move || {
                    for n in 0..5000 {
                        // SAFETY: the closure lives.
                        assert_eq!(unsafe { f.as_ptr()(thread * 10_000 + n) }, thread * 10_000 + n);
                    }
                });
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 20_000);
    });
}

/// `Closure` goes between threads, whatever its signature; the others stay.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Closure<unsafe extern "C" fn(*mut u8, *const i32) -> *mut u8>>();
    shared::<Closure<unsafe extern "C-unwind" fn(Option<extern "C" fn()>)>>();
    shared::<Builder>();
    shared::<trampfd::Error>();

    // A type that is Send has two impls here, and `what` cannot be inferred.
    trait Unless<What> {
        const HOLDS: () = ();
    }
    struct Sends;
    struct Shares;
    impl<T: ?Sized> Unless<()> for T {}
    impl<T: ?Sized + Send> Unless<Sends> for T {}
    impl<T: ?Sized + Sync> Unless<Shares> for T {}
    let () = <Local<'static, Plain> as Unless<_>>::HOLDS;
    let () = <LocalMut<'static, Plain> as Unless<_>>::HOLDS;
};
