//! Loaded code computes what its source says, however it was compiled.

use trampfd_code::got::{Error, Loader, Options, Set, low};
use trampfd_code::pool::{Kind, Pools};

use crate::build::{Built, build, function, load, loader, program};
use crate::support::alone::alone;

/// Runs what first.c and second.c define.
pub fn check(set: &Set, flags: &[&str]) {
    let pick = function(set, "pick");
    let expect = |i: i32, value: i32| assert_eq!(pick(i), value, "pick({i}), {flags:?}");
    // counter 6, calls 1, nothing at zeros[2].
    expect(0, 2 + 1000 + 6 + 1);
    expect(1, 6);
    expect(2, 12);
    expect(3, 7);
    expect(4, 18);
    expect(5, 5);
    expect(6, 77);
    expect(7, -1);
    let again = function(set, "again");
    // run(4): counter 10, calls 2, nothing at zeros[5].
    let run = 8 + 1000 + 10 + 2;
    assert_eq!(again(4), run + 20 + 1000, "{flags:?}");
    let name_of = set.symbol("name_of").unwrap();
    // SAFETY: that is its type in the source.
    let name_of: extern "C" fn(i32) -> *const i8 = unsafe { std::mem::transmute(name_of) };
    // SAFETY: a string of the object.
    let name = unsafe { std::ffi::CStr::from_ptr(name_of(2)) };
    assert_eq!(name, c"two", "{flags:?}");
}

#[test]
fn code_for_any_address_runs_where_it_is_put() {
    let variants: &[&[&str]] = &[
        &["-O0", "-fPIC"],
        &["-O2", "-fPIC"],
        &["-O3", "-fPIC", "-fno-plt"],
        &["-O2", "-fPIC", "-fcf-protection=full"],
        &["-O2", "-fPIC", "-Wa,-mrelax-relocations=no"],
        &["-Os", "-fPIC", "-ffunction-sections", "-fdata-sections", "-g"],
        &["-O2", "-fPIC", "-mcmodel=medium"],
        &["-O2", "-fPIC", "-mcmodel=large"],
        &["-O0", "-fPIC", "-mcmodel=large"],
        &["-O2", "-fno-PIC", "-mcmodel=large"],
        &["-O2", "-fPIC", "-fcommon", "-fno-asynchronous-unwind-tables"],
        &["-O2", "-fPIC", "-fvisibility=protected"],
    ];
    let loader = loader();
    for (id, flags) in variants.iter().enumerate() {
        let (first, second) = (build("first.c", flags), build("second.c", flags));
        let set = load(&loader, id as u64, &[("first", &first), ("second", &second)]);
        check(&set, flags);
        let theirs = set.symbol("address_of_twice").unwrap();
        // SAFETY: that is its type in the source.
        let theirs: extern "C" fn() -> usize = unsafe { std::mem::transmute(theirs) };
        assert_eq!(theirs(), crate::build::twice as *const () as usize, "{flags:?}: one address");
        set.remove().unwrap();
    }
}

fn all(loader: &Loader, flags: &[&str]) -> Set {
    let names = ["first.c", "second.c", "outer.c"];
    let objects: Vec<Built> = names.iter().map(|name| build(name, flags)).collect();
    let mut set = loader.set(7);
    for (name, object) in names.iter().zip(&objects) {
        set.add(name, &object.bytes).unwrap();
    }
    // SAFETY: objects of gcc.
    unsafe { set.load() }.unwrap()
}

#[test]
fn code_for_low_addresses_runs_there() {
    let loader = Loader::new(Pools::with(low()).unwrap(), Options::default()).unwrap();
    for flags in [&["-O0", "-fno-PIC"][..], &["-O2", "-fno-PIC"], &["-O2", "-fPIE"]] {
        let set = all(&loader, flags);
        check(&set, flags);
        let most = set.sections().iter().map(|s| s.address + s.len).max().unwrap();
        assert!(most < 1 << 31, "{most:#x}");
        set.remove().unwrap();
    }
}

#[test]
fn sections_are_what_they_are_for() {
    let flags = ["-O2", "-fPIC"];
    let (first, start) = (build("first.c", &flags), build("begun.c", &flags));
    let set = load(&loader(), 1, &[("first", &first), ("begun", &start)]);
    let kind = |name| set.sections().iter().find(|s| &*s.name == name).map(|s| s.kind);
    assert_eq!(kind("first:.text"), Some(Kind::Code));
    assert_eq!(kind("first:.data"), Some(Kind::ReadWrite));
    assert_eq!(kind("first:.bss"), Some(Kind::ReadWrite));
    for name in [".got", ".eh_frame", ".tdata", "first:.rodata.str1.1"] {
        assert_eq!(kind(name), Some(Kind::ReadOnly), "{name}");
    }
    // Written by relocation, and by nobody after it.
    assert_eq!(kind("first:.data.rel.ro.local"), Some(Kind::ReadOnly));
    assert_eq!(kind(".stubs"), Some(Kind::Code));
}

#[test]
fn what_cannot_be_meant_is_an_error_with_its_names() {
    let loader = loader();
    let flags = ["-O2", "-fPIC"];
    let (first, outer) = (build("first.c", &flags), build("outer.c", &flags));

    let mut set = loader.set(1);
    set.add("a", &first.bytes).unwrap();
    // SAFETY: objects of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(&error, Error::Unresolved { object, .. } if object == "a"), "{error}");

    let mut set = loader.set(1);
    set.add("a", &outer.bytes).unwrap().add("b", &outer.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err().to_string();
    assert!(error.starts_with("a and b both define "), "{error}");

    let ifunc = build("ifunc.c", &flags);
    let mut set = loader.set(1);
    set.add("c", &ifunc.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(&error, Error::Ifunc { symbol, .. } if symbol == "chosen"), "{error}");

    let noted = build("noted.c", &flags);
    let mut set = loader.set(1);
    set.add("d", &noted.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::NotLoaded { site, symbol } = &error else { panic!("{error}") };
    assert_eq!((site.to_string(), symbol.as_str()), ("d(.text+0x3)".into(), ".note.here"));

    let frames = build("frames.c", &flags);
    let mut set = loader.set(1);
    set.add("e", &frames.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(&error, Error::Unwind { object, .. } if object == "e"), "{error}");

    let one = load(&loader, 1, &[("outer", &outer)]);
    let mut set = loader.set(1);
    set.add("outer", &outer.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(error, Error::Pool(_)), "the id is in use: {error}");
    drop(one);
    // A set that failed, or is gone, leaves its id.
    load(&loader, 1, &[("outer", &outer)]);
}

#[test]
fn a_set_of_nothing_is_a_set() {
    let loader = loader();
    // SAFETY: there is nothing to believe.
    let set = unsafe { loader.set(1).load() }.unwrap();
    // SAFETY: nothing is run.
    unsafe { set.init() };
    assert_eq!((set.counts().entries, set.table().len(), set.symbol("")), (0, 0, None));
    // SAFETY: as above.
    unsafe { set.fini() };
    let nothing = build("nothing.c", &[]);
    load(&loader, 2, &[("nothing", &nothing), ("nothing", &nothing)]);
    set.remove().unwrap();
}

/// How many files this process may have open, and how long they may get.
fn limit(files: u64, bytes: u64) {
    for (which, limit) in [(libc::RLIMIT_NOFILE, files), (libc::RLIMIT_FSIZE, bytes)] {
        let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: takes and gives numbers.
        unsafe {
            assert_eq!(libc::getrlimit(which, &mut limits), 0);
            limits.rlim_cur = limit.min(limits.rlim_max);
            assert_eq!(libc::setrlimit(which, &limits), 0);
        }
    }
}

#[test]
fn a_set_for_which_there_is_no_memory_leaves_nothing() {
    alone(|| {
        // SAFETY: an error, not the end of the process.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let flags = ["-O2", "-fPIC", "-fno-semantic-interposition"];
        let (first, begun) = (build("first.c", &flags), build("begun.c", &flags));
        let mut small = trampfd_code::pool::Options::default();
        small.arena = 1;
        let pools = Pools::with(small).unwrap();
        let mut options = Options::default();
        options.perf_map = true;
        let loader = Loader::new(pools.clone(), options).unwrap();
        let one = load(&loader, 2, &[("first", &first)]);
        let payload = pools.stats().payload;
        let attempt = |payload, expected: fn(&Error) -> bool| {
            let mut set = loader.set(1);
            set.add("first", &first.bytes).unwrap().add("begun", &begun.bytes).unwrap();
            set.resolve(program);
            // SAFETY: objects of gcc.
            let error = unsafe { set.load() }.unwrap_err();
            assert!(expected(&error), "{error:?}");
            assert_eq!(pools.stats().payload, payload);
        };
        // No file for one more arena, none that is long enough, and a full one for the profiler.
        limit(3, u64::MAX);
        attempt(payload, |error| matches!(error, Error::Memory(_)));
        limit(1024, 4096);
        attempt(payload, |error| matches!(error, Error::Memory(_)));
        limit(1024, 0);
        one.remove().unwrap();
        attempt(0, |error| matches!(error, Error::Profile { .. }));
        limit(1024, u64::MAX);
        let set = load(&loader, 1, &[("first", &first), ("begun", &begun)]);
        assert_eq!(function(&set, "sum")(0), 52);
        std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id())).unwrap();
    });
}

#[test]
fn definitions_take_the_place_of_common_and_weak_ones() {
    let flags = ["-O2", "-fPIC", "-fcommon"];
    let (tentative, real) = (build("common.c", &flags), build("outer.c", &flags));
    let set = load(&loader(), 1, &[("common", &tentative), ("outer", &real)]);
    assert_eq!(function(&set, "read_outer")(0), 1000);
    assert_eq!(function(&set, "call_twice")(4), 8, "not the weak one");
    let table = set.symbol("table").unwrap();
    assert_eq!(table % 64, 0, "alignment of a common symbol");
    assert_eq!(function(&set, "fill")(3), 3 * 100);
    let set = load(&loader(), 1, &[("outer", &real), ("common", &tentative)]);
    assert_eq!((function(&set, "read_outer")(0), function(&set, "call_twice")(4)), (1000, 8));
    let alone = load(&loader(), 2, &[("common", &tentative)]);
    assert_eq!(function(&alone, "read_outer")(0), 0);
    assert_eq!(function(&alone, "call_twice")(4), -1);
}

#[test]
fn common_symbols_far_from_small_code_are_common_too() {
    let medium = ["-O2", "-fPIC", "-fcommon", "-mcmodel=medium", "-mlarge-data-threshold=8"];
    let (tentative, small) = (build("common.c", &medium), build("size.c", &["-fcommon"]));
    let set = load(&loader(), 1, &[("common", &tentative), ("small", &small)]);
    assert_eq!(function(&set, "fill")(3), 3 * 100);
    assert_eq!(set.symbol("table").unwrap() % 64, 0);
}

#[test]
fn constructors_run_in_their_order_and_destructors_last() {
    use std::sync::Mutex;
    static SEEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    extern "C" fn note(number: i32) {
        SEEN.lock().unwrap().push(number);
    }
    let object = build("start.c", &["-O2", "-fPIC"]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("start", &object.bytes).unwrap();
    set.resolve(|name| match name {
        "note" => Some(trampfd_code::got::Symbol::Address(note as *const () as usize)),
        name => program(name),
    });
    // SAFETY: an object of gcc.
    let set = unsafe { set.load() }.unwrap();
    assert_eq!(*SEEN.lock().unwrap(), []);
    // SAFETY: once, of gcc.
    unsafe { set.init() };
    assert_eq!(*SEEN.lock().unwrap(), [1, 2, 3]);
    // SAFETY: once, after `init`.
    unsafe { set.fini() };
    assert_eq!(*SEEN.lock().unwrap(), [1, 2, 3, 4]);
}
