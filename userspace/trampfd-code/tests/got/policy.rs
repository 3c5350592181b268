//! Where memory that was writable may not be executable, and what the kernel says is mapped.

use std::sync::atomic::{AtomicBool, Ordering};

use trampfd_code::got::{Error, Loader, Options, low};
use trampfd_code::pool::Pools;
use trampfd_code::vm;

use crate::build::{build, function, load, loader};
use crate::run::check;
use crate::support::alone::{alone, child};
use crate::support::maps::{row_of, rows};
use crate::support::policy::refuse_exec_gain;

fn permissions(address: usize) -> String {
    let row = row_of(address as *const u8);
    row.unwrap_or_else(|| panic!("{address:#x} is mapped")).rights
}

#[test]
fn the_table_can_only_be_read_and_code_only_be_run() {
    let flags = ["-O2", "-fPIC"];
    let (first, second) = (build("first.c", &flags), build("second.c", &flags));
    let loader = loader();
    let set = load(&loader, 1, &[("first", &first), ("second", &second)]);
    for section in set.sections() {
        let expected = match section.kind {
            trampfd_code::pool::Kind::Code => "r-x",
            trampfd_code::pool::Kind::ReadOnly => "r--",
            trampfd_code::pool::Kind::ReadWrite => "rw-",
        };
        let seen = permissions(section.address);
        assert_eq!(&seen[..3], expected, "{}", section.name);
        if expected != "rw-" {
            let page = section.address & !(vm::page_size() - 1);
            // SAFETY: asks for what is refused.
            let answer =
                unsafe { libc::mprotect(page as *mut _, 1, libc::PROT_READ | libc::PROT_WRITE) };
            let error = std::io::Error::last_os_error();
            assert_eq!((answer, error.raw_os_error()), (-1, Some(libc::EACCES)), "{error}");
        }
    }
    assert_eq!(&permissions(set.table()[0].address)[..3], "r--");
}

#[test]
fn nothing_is_writable_and_executable_at_any_time() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let watcher = std::thread::spawn(|| {
        let mut looks = 0;
        while !DONE.load(Ordering::Relaxed) {
            // None is both.
            rows();
            looks += 1;
        }
        looks
    });
    let flags = ["-O2", "-fPIC"];
    let (first, second) = (build("first.c", &flags), build("second.c", &flags));
    for round in 0..200 {
        // Pools of their own now and then, so that mappings are made and go.
        let loader = loader();
        for id in 0..4 {
            let set = load(&loader, id, &[("first", &first), ("second", &second)]);
            if round % 20 == 0 {
                check(&set, &flags);
            }
        }
    }
    DONE.store(true, Ordering::Relaxed);
    assert!(watcher.join().unwrap() > 0);
}

#[test]
fn it_all_runs_where_written_memory_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        for flags in [&["-O0", "-fPIC"][..], &["-O2", "-fPIC"], &["-O2", "-fPIC", "-mcmodel=large"]]
        {
            let (first, second) = (build("first.c", flags), build("second.c", flags));
            let set = load(&loader(), 1, &[("first", &first), ("second", &second)]);
            check(&set, flags);
        }
        let low = Loader::new(Pools::with(low()).unwrap(), Options::default()).unwrap();
        let object = build("outer.c", &["-O2", "-fno-PIC"]);
        assert_eq!(function(&load(&low, 1, &[("outer", &object)]), "twice")(21), 42);
        let object = build("begun.c", &["-O2", "-fPIC"]);
        assert_eq!(function(&load(&loader(), 1, &[("begun", &object)]), "sum")(0), 52);
        crate::cxx::throw_and_catch(&["-O2", "-fPIC"]);
    });
}

#[test]
fn a_child_of_fork_runs_what_its_parent_loaded_and_loads_its_own() {
    alone(|| {
        let object = build("begun.c", &["-O2", "-fPIC"]);
        let parents = loader();
        let set = load(&parents, 1, &[("begun", &object)]);
        let sum = function(&set, "sum");
        assert_eq!(sum(0), 42 + 7 + 3);
        let mut kept = Some(set);
        assert!(child(|| {
            assert_eq!(sum(0), 43 + 8 + 3 + 1);
            let thread = std::thread::spawn(move || sum(0));
            assert_eq!(thread.join().unwrap(), 42 + 7 + 3);
            let mut more = parents.set(2);
            more.add("begun", &object.bytes).unwrap();
            // SAFETY: an object of gcc.
            let error = unsafe { more.load() }.unwrap_err();
            assert!(matches!(error, Error::Memory(vm::Error::OtherProcess)), "{error}");
            let own = load(&loader(), 1, &[("begun", &object)]);
            assert_eq!(function(&own, "sum")(0), 42 + 7 + 3);
            own.remove().unwrap();
            kept.take().unwrap().remove().unwrap();
        }));
        assert_eq!(sum(0), 43 + 8 + 3 + 1, "the child's variables are its own");
        kept.unwrap().remove().unwrap();
    });
}
