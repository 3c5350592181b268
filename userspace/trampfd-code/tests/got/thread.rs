//! Thread-local variables, by every model that compilers have.

use std::cell::Cell;
use std::sync::mpsc;

use trampfd_code::got::{Error, Set, Symbol};

use crate::build::{Built, build, function, load, loader};
use crate::count::bytes;

thread_local! {
    static PROGRAM: Cell<i32> = const { Cell::new(0) };
}

fn resolve(name: &str) -> Option<Symbol> {
    match name {
        "program_variable" => Some(Symbol::thread(PROGRAM.with(Cell::as_ptr).cast())),
        _ => None,
    }
}

fn loaded(id: u64, object: &Built) -> Set {
    let loader = loader();
    let mut set = loader.set(id);
    set.add("thread", &object.bytes).unwrap().resolve(resolve);
    // SAFETY: an object of gcc.
    unsafe { set.load() }.unwrap()
}

fn pointer(set: &Set, name: &str) -> usize {
    let address = set.symbol(name).unwrap();
    // SAFETY: the source has such a function of this name.
    let function: extern "C" fn() -> usize = unsafe { std::mem::transmute(address) };
    function()
}

const MODELS: &[&[&str]] = &[
    &["-O2", "-fPIC", "-ftls-model=global-dynamic"],
    &["-O0", "-fPIC", "-ftls-model=global-dynamic"],
    &["-O2", "-fPIC", "-ftls-model=global-dynamic", "-fno-plt"],
    &["-O2", "-fPIC", "-ftls-model=local-dynamic"],
    &["-O0", "-fPIC", "-ftls-model=local-dynamic"],
    &["-O2", "-fPIC", "-ftls-model=global-dynamic", "-mcmodel=large"],
    &["-O2", "-fPIC", "-mtls-dialect=gnu2"],
    &["-O2", "-fPIC", "-ftls-model=initial-exec"],
    &["-O0", "-fPIE", "-ftls-model=initial-exec"],
    &["-O2", "-fPIE", "-ftls-model=local-exec"],
    &["-O0", "-fPIE", "-ftls-model=local-exec"],
];

#[test]
fn every_model_gives_each_thread_its_own() {
    for flags in MODELS {
        // By the local dynamic model nothing of the program can be had.
        let local = flags.contains(&"-ftls-model=local-dynamic");
        let source = if local { "local.c" } else { "thread.c" };
        let set = loaded(1, &build(source, flags));
        let (bump, program) = (function(&set, "bump"), function(&set, "read_program"));
        PROGRAM.set(55);
        if !local {
            assert_eq!(program(0), 55, "{flags:?}");
        }
        assert_eq!(bump(2), 201, "{flags:?}");
        let mine = pointer(&set, "address_of_mine");
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (sender, set) = (sender.clone(), &set);
                scope.spawn(move || {
                    PROGRAM.set(66);
                    let seen = (bump(3), bump(3), local || program(0) == 66);
                    sender.send((seen, pointer(set, "address_of_mine"))).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                });
            }
        });
        for _ in 0..2 {
            let (seen, theirs) = receiver.recv().unwrap();
            assert_eq!(seen, (301, 602, true), "{flags:?}: begins as zero");
            assert_ne!(theirs, mine, "{flags:?}");
        }
        assert_eq!(bump(2), 402, "{flags:?}: as this thread left it");
        assert_eq!(pointer(&set, "address_of_mine"), mine);
        assert_ne!(pointer(&set, "address_of_also"), mine);
    }
}

#[test]
fn variables_begin_as_the_object_says_in_each_thread() {
    for model in ["global-dynamic", "local-dynamic"] {
        for level in ["-O0", "-O2"] {
            let object = build("begun.c", &[level, "-fPIC", &format!("-ftls-model={model}")]);
            let set = load(&loader(), 1, &[("begun", &object)]);
            let sum = function(&set, "sum");
            let both = || (sum(0), sum(0));
            let expect = (42 + 7 + 3, 43 + 8 + 3 + 1);
            assert_eq!(both(), expect, "{model} {level}");
            assert_eq!(std::thread::scope(|s| s.spawn(both).join().unwrap()), expect);
        }
    }
}

#[test]
fn offsets_of_64_bits_lead_to_the_variable() {
    for flags in [&["-O2", "-fPIC"][..], &["-O2", "-fPIE", "-DFIXED"]] {
        // Something before it, so that it is not at the start.
        let before = [flags, &["-Dmine=before", "-Dset_mine=set_before"]].concat();
        let before = build("mine.c", &before);
        let (mine, offsets) = (build("mine.c", flags), build("offsets.c", flags));
        let objects = [("before", &before), ("mine", &mine), ("offsets", &offsets)];
        let set = load(&loader(), 1, &objects);
        let offsets = set.symbol("offsets").unwrap();
        let word = |at| usize::from_le_bytes(bytes(offsets + at, 8).try_into().unwrap());
        assert_eq!(word(0), size_of::<i32>());
        if flags.contains(&"-DFIXED") {
            let mine = pointer(&set, "address_of_mine") as *const u8;
            assert_eq!(Symbol::Thread(word(8) as isize), Symbol::thread(mine));
        }
    }
}

#[test]
fn variables_of_one_set_are_seen_by_another() {
    let (owner, user) = (build("thread.c", &["-O2", "-fPIC"]), build("user.c", &["-O2", "-fPIC"]));
    let loader = loader();
    let mut early = loader.set(1);
    early.add("thread", &owner.bytes).unwrap().resolve(resolve);
    // SAFETY: objects of gcc.
    let early = unsafe { early.load() }.unwrap();
    let mut late = loader.set(2);
    late.add("user", &user.bytes).unwrap().share(&early);
    // SAFETY: as above.
    let late = unsafe { late.load() }.unwrap();
    assert_eq!(late.uses(), [1]);
    function(&early, "bump")(9);
    assert_eq!(function(&late, "read_mine")(0), 9);
    let other = std::thread::spawn(move || function(&late, "read_mine")(0));
    assert_eq!(other.join().unwrap(), 0);
}

#[test]
fn begun_variables_at_a_fixed_distance_are_an_error_that_says_why() {
    for flags in [
        ["-O2", "-fPIE", "-ftls-model=local-exec"],
        ["-O2", "-fPIC", "-ftls-model=initial-exec"],
        ["-O2", "-fPIC", "-mtls-dialect=gnu2"],
    ] {
        let object = build("begun.c", &flags);
        let loader = loader();
        let mut set = loader.set(1);
        set.add("begun", &object.bytes).unwrap();
        // SAFETY: an object of gcc.
        let error = unsafe { set.load() }.unwrap_err();
        assert!(matches!(error, Error::StaticTls { .. }), "{error}");
        assert!(error.to_string().contains("begin as zeros"), "{error}");
    }
}

#[test]
fn room_at_a_fixed_distance_runs_out_with_an_error() {
    // Of the 2 KiB, this takes more than there are.
    let object = build("large.c", &["-O2", "-fPIE", "-ftls-model=local-exec"]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("large", &object.bytes).unwrap();
    // SAFETY: an object of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(error.to_string().contains("used up"), "{error}");
    // A set that fails takes nothing of it.
    let object = build("thread.c", &["-O2", "-fPIE", "-ftls-model=local-exec"]);
    for _ in 0..100 {
        let mut set = loader.set(1);
        set.add("thread", &object.bytes).unwrap();
        // SAFETY: an object of gcc.
        let error = unsafe { set.load() }.unwrap_err();
        assert!(matches!(error, Error::Unresolved { .. }), "{error}");
    }
    // By the general model there is no limit.
    let object = build("large.c", &["-O2", "-fPIC", "-ftls-model=global-dynamic"]);
    let set = load(&loader, 1, &[("large", &object)]);
    assert_eq!(function(&set, "touch")(4), 4);
}

#[test]
fn alignment_that_the_room_at_a_fixed_distance_lacks_is_an_error() {
    let aligned = "-D__thread=__thread __attribute__((aligned(128)))";
    let object = build("mine.c", &["-O2", "-fPIE", "-ftls-model=local-exec", aligned]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("mine", &object.bytes).unwrap();
    // SAFETY: an object of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(error, Error::StaticTls { .. }), "{error}");
    assert!(error.to_string().contains("alignment"), "{error}");
    // The general model has it.
    let (mine, offsets) = (build("mine.c", &["-fPIC", aligned]), build("offsets.c", &["-fPIC"]));
    let set = load(&loader, 1, &[("mine", &mine), ("offsets", &offsets)]);
    assert_eq!(pointer(&set, "address_of_mine") % 128, 0);
}

#[test]
fn blocks_of_threads_that_ended_and_sets_that_are_gone_are_given_back() {
    let object = build("large.c", &["-O2", "-fPIC", "-ftls-model=global-dynamic"]);
    let set = load(&loader(), 1, &[("large", &object)]);
    let touch = function(&set, "touch");
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let many = |count: usize| {
        for i in 0..count {
            std::thread::spawn(move || assert_eq!(touch(i as i32), i as i32)).join().unwrap();
        }
    };
    many(20);
    let before = resident();
    many(400);
    // Each has 256 KiB, all of which it writes.
    let more = resident().saturating_sub(before);
    assert!(more < 400 * (256 << 10) / 4, "{more} bytes more");
    drop(set);
    let before = resident();
    for _ in 0..400 {
        let set = load(&loader(), 1, &[("large", &object)]);
        assert_eq!(function(&set, "touch")(1), 1);
    }
    let more = resident().saturating_sub(before);
    assert!(more < 400 * (256 << 10) / 4, "{more} bytes more, of sets that are gone");
}

#[test]
fn a_variable_is_not_taken_for_another_kind() {
    let object = build("thread.c", &["-O2", "-fPIC"]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("thread", &object.bytes).unwrap();
    set.resolve(|_| Some(Symbol::Address(0x1000)));
    // SAFETY: an object of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::WrongKind { symbol, site, .. } = &error else { panic!("{error}") };
    assert_eq!((symbol.as_str(), site.object.as_str()), ("program_variable", "thread"));

    let (plain, owner) = (build("plain.c", &[]), build("begun.c", &["-O2", "-fPIC"]));
    let mut set = loader.set(1);
    set.add("plain", &plain.bytes).unwrap().add("begun", &owner.bytes).unwrap();
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::WrongKind { symbol, site, .. } = &error else { panic!("{error}") };
    assert_eq!((symbol.as_str(), site.object.as_str()), ("first", "plain"));
}

#[test]
fn a_variable_of_others_is_not_in_the_sets_own_block() {
    let object = build("thread.c", &["-O2", "-fPIC", "-ftls-model=local-dynamic"]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("thread", &object.bytes).unwrap().resolve(resolve);
    // SAFETY: an object of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::WrongKind { symbol, reason, .. } = &error else { panic!("{error}") };
    assert_eq!(symbol, "program_variable");
    assert!(reason.contains("of the set is expected"), "{error}");
}

#[test]
fn a_library_that_was_loaded_later_has_its_own_module() {
    use std::ffi::{CString, c_void};
    /// Of dlinfo(3).
    const RTLD_DI_TLS_MODID: i32 = 9;
    let object = build("mine.c", &["-O2", "-fPIC", "-ftls-model=global-dynamic"]);
    let library = object.path.with_extension("so");
    let linked = std::process::Command::new("gcc")
        .arg("-shared")
        .arg("-o")
        .args([&library, &object.path])
        .status()
        .unwrap();
    assert!(linked.success());
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: a library that runs nothing of its own; it stays loaded.
    let (module, theirs, set_mine) = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        let mut module = 0usize;
        assert_eq!(dlinfo(handle, RTLD_DI_TLS_MODID, (&raw mut module).cast()), 0);
        let set_mine = libc::dlsym(handle, c"set_mine".as_ptr());
        let set_mine: extern "C" fn(i32) = std::mem::transmute(set_mine);
        (module, libc::dlsym(handle, c"mine".as_ptr()) as usize, set_mine)
    };
    std::fs::remove_file(&library).unwrap();
    unsafe extern "C" {
        fn dlinfo(handle: *mut c_void, request: i32, answer: *mut c_void) -> i32;
    }
    assert_ne!(theirs, 0);
    let user = build("user.c", &["-O2", "-fPIC"]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("user", &user.bytes).unwrap();
    // It is the only variable there.
    set.resolve(|_| Some(Symbol::ThreadModule { module, offset: 0 }));
    // SAFETY: an object of gcc.
    let set = unsafe { set.load() }.unwrap();
    let read = function(&set, "read_mine");
    set_mine(12);
    assert_eq!(read(0), 12);
    let other = std::thread::spawn(move || {
        let before = read(0);
        set_mine(13);
        (before, read(0))
    });
    assert_eq!(other.join().unwrap(), (0, 13));
    assert_eq!(read(0), 12);
    // Its distance from the thread pointer is not known.
    let user = build("user.c", &["-O2", "-fPIC", "-ftls-model=initial-exec"]);
    let mut set = loader.set(2);
    set.add("user", &user.bytes).unwrap();
    set.resolve(|_| Some(Symbol::ThreadModule { module, offset: 0 }));
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    assert!(matches!(error, Error::WrongKind { .. }), "{error}");
}
