//! The unwinder walks through loaded code: exceptions and backtraces.

use std::ffi::CString;
use std::sync::Mutex;

use trampfd_code::got::{Loader, Options, Set, Symbol};
use trampfd_code::pool::Pools;

use crate::build::{Built, build, function, loader};

static SEEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

extern "C" fn note(number: i32) {
    SEEN.lock().unwrap().push(number);
}

/// What libstdc++ and the C library have.
fn library(name: &str) -> Option<Symbol> {
    if name == "note" {
        return Some(Symbol::Address(note as *const () as usize));
    }
    let name = CString::new(name).unwrap();
    // SAFETY: loads a library that runs nothing of its own, and looks for a name.
    let address = unsafe {
        let library = libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "libstdc++ is there");
        libc::dlsym(library, name.as_ptr())
    };
    (!address.is_null()).then_some(Symbol::Address(address as usize))
}

fn cxx(loader: &Loader, flags: &[&str]) -> Set {
    let sources = ["thrower.cpp", "catcher.cpp"];
    let objects: Vec<Built> = sources.iter().map(|source| build(source, flags)).collect();
    let mut set = loader.set(1);
    for (name, object) in sources.iter().zip(&objects) {
        set.add(name, &object.bytes).unwrap();
    }
    set.resolve(library);
    // SAFETY: objects of g++.
    unsafe { set.load() }.unwrap()
}

/// Throws in one object and catches in another.
pub fn throw_and_catch(flags: &[&str]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap();
    let loader = loader();
    let set = cxx(&loader, flags);
    // SAFETY: once, of g++.
    unsafe { set.init() };
    let guarded = function(&set, "guarded");
    SEEN.lock().unwrap().clear();
    assert_eq!(guarded(3), 4, "{flags:?}");
    for round in 11..40 {
        assert_eq!(guarded(round), -round, "{flags:?}");
    }
    // The objects on the way were destroyed.
    assert_eq!(*SEEN.lock().unwrap(), [vec![3], (11..40).collect()].concat());
    SEEN.lock().unwrap().clear();
    // SAFETY: once, after `init`.
    unsafe { set.fini() };
    assert_eq!(*SEEN.lock().unwrap(), [500], "what was to run at the end of the set");
    set.remove().unwrap();
}

#[test]
fn exceptions_pass_through_loaded_code() {
    for flags in [&["-O0", "-fPIC"][..], &["-O2", "-fPIC"], &["-O1", "-fPIC", "-fno-plt"]] {
        throw_and_catch(flags);
    }
}

static ENDED: Mutex<Vec<i32>> = Mutex::new(Vec::new());

extern "C" fn ended(number: i32) {
    ENDED.lock().unwrap().push(number);
}

#[test]
fn destructors_of_threads_variables_find_them_as_they_were() {
    for model in ["-ftls-model=global-dynamic", "-ftls-model=local-exec"] {
        let object = build("ended.cpp", &["-O1", "-fPIE", model]);
        let loader = loader();
        let mut set = loader.set(1);
        set.add("ended", &object.bytes).unwrap();
        set.resolve(|name| match name {
            "ended" => Some(Symbol::Address(ended as *const () as usize)),
            name => library(name),
        });
        // SAFETY: an object of g++.
        let set = unsafe { set.load() }.unwrap();
        let touch = function(&set, "touch");
        for number in 0..3 {
            let thread = std::thread::spawn(move || (touch(number), touch(1)));
            assert_eq!(thread.join().unwrap(), (7 + number, 8 + number), "{model}");
            assert_eq!(std::mem::take(&mut *ENDED.lock().unwrap()), [8 + number], "{model}");
        }
        set.remove().unwrap();
    }
}

#[test]
fn sets_come_and_go_in_many_threads_while_exceptions_pass() {
    let sources = ["thrower.cpp", "catcher.cpp"];
    let objects = sources.map(|source| build(source, &["-O1", "-fPIC"]));
    let loader = loader();
    let (loader, objects) = (&loader, &objects);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for round in 0..40 {
                    let mut set = loader.set(thread);
                    for (name, object) in sources.iter().zip(objects) {
                        set.add(name, &object.bytes).unwrap();
                    }
                    set.resolve(|name| match name {
                        "note" => Some(Symbol::Address(pass as *const () as usize)),
                        name => library(name),
                    });
                    // SAFETY: objects of g++.
                    let set = unsafe { set.load() }.unwrap();
                    let expected = if round > 10 { -round } else { round + 1 };
                    assert_eq!(function(&set, "guarded")(round), expected);
                    set.remove().unwrap();
                }
            });
        }
    });
}

extern "C" fn pass(_: i32) {}

#[test]
fn one_copy_of_what_objects_have_in_common_is_loaded() {
    let set = cxx(&loader(), &["-O0", "-fPIC"]);
    let copies = set.sections().iter().filter(|s| s.name.contains(".text._Z5limit"));
    assert_eq!(copies.count(), 1);
}

/// The functions that the unwinder finds above this one.
fn callers() -> Vec<usize> {
    use std::ffi::c_void;
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            f: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            data: *mut c_void,
        ) -> i32;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }
    extern "C" fn add(context: *mut c_void, data: *mut c_void) -> i32 {
        // SAFETY: `data` is the vector below.
        unsafe { (*data.cast::<Vec<usize>>()).push(_Unwind_GetIP(context)) };
        0
    }
    let mut found: Vec<usize> = Vec::new();
    // SAFETY: `add` gets what it wants.
    unsafe { _Unwind_Backtrace(add, (&raw mut found).cast()) };
    found
}

static CALLERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

extern "C" fn visit(x: i32) -> i32 {
    *CALLERS.lock().unwrap() = callers();
    x
}

#[inline(never)]
fn walk(unwind: bool) -> (Vec<usize>, Set) {
    let object = build("walk.c", &["-O2", "-fPIC", "-fno-optimize-sibling-calls"]);
    let mut options = Options::default();
    options.unwind = unwind;
    let loader = Loader::new(Pools::new().unwrap(), options).unwrap();
    let mut set = loader.set(1);
    set.add("walk", &object.bytes).unwrap();
    set.resolve(|_| Some(Symbol::Address(visit as *const () as usize)));
    // SAFETY: an object of gcc.
    let set = unsafe { set.load() }.unwrap();
    assert_eq!(function(&set, "middle")(1), 3);
    (std::mem::take(&mut CALLERS.lock().unwrap()), set)
}

#[test]
fn a_backtrace_goes_through_loaded_code_and_on() {
    let (seen, set) = walk(true);
    let text = set.sections().iter().find(|s| &*s.name == "walk:.text").unwrap();
    let inside = |ip: &usize| (text.address..text.address + text.len).contains(ip);
    assert_eq!(seen.iter().filter(|ip| inside(ip)).count(), 2, "inner and middle");
    let last = seen.iter().rposition(inside).unwrap();
    assert!(seen.len() > last + 3, "and the frames of the test behind them");
    // Without tables it ends there.
    let (seen, _set) = walk(false);
    assert!(seen.len() < last + 3, "{}", seen.len());
    // The table of a set that is gone is not looked at.
    drop(set);
    callers();
}
