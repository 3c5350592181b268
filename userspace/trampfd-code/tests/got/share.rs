//! Sets that use what earlier ones have.

use trampfd_code::got::{Error, Loader, Options, Removal, Set};
use trampfd_code::pool::Pools;

use crate::build::{Built, build, function, load, loader, program};

fn sharing(loader: &Loader, id: u64, object: &Built, with: &[&Set]) -> Set {
    let mut set = loader.set(id);
    set.add("second", &object.bytes).unwrap().resolve(program);
    for earlier in with {
        set.share(earlier);
    }
    let counted = set.count().unwrap();
    // SAFETY: objects of gcc.
    let set = unsafe { set.load() }.unwrap();
    assert_eq!(*set.counts(), counted, "in reach, as it was counted");
    set
}

const PIC: [&str; 2] = ["-O2", "-fPIC"];

#[test]
fn entries_and_stubs_of_an_earlier_set_are_used_in_reach() {
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let loader = loader();
    let early = load(&loader, 1, &[("first", &first)]);
    let late = sharing(&loader, 2, &second, &[&early]);
    // Of twice, outer, run and counter: all are had from the earlier set.
    assert_eq!((late.counts().entries, late.counts().stubs), (0, 0));
    assert_eq!((late.counts().shared_entries, late.counts().shared_stubs), (2, 1));
    assert_eq!(late.uses(), [1]);
    assert_eq!(early.used_by(), [2]);
    assert_eq!(function(&late, "again")(1), (2 + 1000 + 6 + 1) + 12 + 1000);
    // Alone it has them all.
    let mut alone = loader.set(3);
    alone.add("second", &second.bytes).unwrap();
    let alone = alone.count().unwrap();
    assert_eq!((alone.entries, alone.stubs, alone.shared_entries), (4, 2, 0));
}

#[test]
fn a_set_in_use_is_not_removed() {
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let loader = loader();
    let early = load(&loader, 1, &[("first", &first)]);
    let late = sharing(&loader, 2, &second, &[&early]);
    let refused = early.remove().unwrap_err();
    assert_eq!(refused.by, [2]);
    assert_eq!(refused.to_string(), "set 1 is used by sets [2]");
    let early = refused.set;
    assert_eq!(function(&late, "again")(1), (2 + 1000 + 6 + 1) + 12 + 1000);
    late.remove().unwrap();
    assert!(early.used_by().is_empty());
    early.remove().unwrap();
    load(&loader, 1, &[("first", &first)]).remove().unwrap();
}

#[test]
fn a_deferred_removal_waits_for_the_last_user() {
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let pools = Pools::new().unwrap();
    let loader = Loader::new(pools.clone(), Options::default()).unwrap();
    let early = load(&loader, 1, &[("first", &first)]);
    let late = [2, 3].map(|id| sharing(&loader, id, &second, &[&early]));
    assert_eq!(early.remove_when_unused(), Removal::Deferred(vec![2, 3]));
    let [two, three] = late;
    assert_eq!(two.remove_when_unused(), Removal::Done);
    assert_eq!(function(&three, "again")(1), (2 + 1000 + 6 + 1) + 12 + 1000);
    assert!(pools.create(1).is_err(), "it is still there");
    assert!(pools.stats().payload > 0);
    assert_eq!(three.remove_when_unused(), Removal::Done);
    assert_eq!(pools.stats().payload, 0);
    pools.create(1).unwrap();
}

#[test]
fn who_uses_nothing_of_a_set_does_not_keep_it() {
    let (first, outer) = (build("first.c", &PIC), build("outer.c", &PIC));
    let loader = loader();
    let early = load(&loader, 1, &[("first", &first)]);
    let late = sharing(&loader, 2, &outer, &[&early]);
    assert!(late.uses().is_empty());
    early.remove().unwrap();
    assert_eq!(function(&late, "twice")(4), 8);
}

#[test]
fn a_set_that_is_put_together_keeps_what_it_may_use() {
    let outer = build("outer.c", &PIC);
    let loader = loader();
    let early = load(&loader, 1, &[("outer", &outer)]);
    let mut late = loader.set(2);
    late.share(&early);
    let early = early.remove().unwrap_err().set;
    drop(late);
    early.remove().unwrap();
}

#[test]
fn a_set_takes_as_many_system_calls_whatever_its_objects() {
    let pools = Pools::new().unwrap();
    let loader = Loader::new(pools.clone(), Options::default()).unwrap();
    let calls = |id: u64, count: usize| {
        let objects: Vec<Built> = (0..count)
            .map(|i| {
                build(
                    "second.c",
                    &[
                        "-O2",
                        "-fPIC",
                        &format!("-Dagain=again{i}"),
                        &format!("-Dboth=both{i}"),
                        &format!("-Daddress_of_twice=address{i}"),
                    ],
                )
            })
            .collect();
        let first = build("first.c", &PIC);
        let mut all = vec![("first", &first)];
        all.extend(objects.iter().map(|object| ("second", object)));
        let before = pools.stats();
        let set = load(&loader, id, &all);
        let after = pools.stats();
        set.remove_when_unused();
        (after.system_calls - before.system_calls, after.mappings - before.mappings)
    };
    // The first set of all makes the arena.
    calls(1, 1);
    let (few, many) = (calls(2, 1), calls(3, 40));
    assert_eq!(few, many);
    assert!(few.0 <= 5 && few.1 == 0, "{few:?}: calls, mappings");
}

#[test]
fn entries_have_the_names_of_their_symbols_and_are_shared_by_them() {
    let flags = ["-O0", "-fPIC", "-fcommon", "-Wa,-mrelax-relocations=no"];
    let of_table =
        [&flags[..], &["-D__thread=", "-Dmine=table", "-Dread_mine=read_table"]].concat();
    let (common, user) = (build("common.c", &flags), build("user.c", &of_table));
    let loader = loader();
    let early = load(&loader, 1, &[("common", &common)]);
    let mut names: Vec<_> = early.table().iter().map(|entry| entry.symbol.as_str()).collect();
    names.sort();
    assert_eq!(names, ["outer", "table"]);
    let late = sharing(&loader, 2, &user, &[&early]);
    assert_eq!((late.counts().entries, late.counts().shared_entries), (0, 1));
    function(&early, "fill")(8);
    assert_eq!(function(&late, "read_table")(0), 8);
}

#[test]
fn who_finds_no_user_of_a_set_any_more_removes_it() {
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let pools = Pools::new().unwrap();
    let loader = Loader::new(pools.clone(), Options::default()).unwrap();
    for round in 0..800 {
        let mut early = load(&loader, 1, &[("first", &first)]);
        let late = sharing(&loader, 2, &second, &[&early]);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(late));
            while let Err(refused) = early.remove() {
                early = refused.set;
            }
            assert!(pools.create(1).is_ok(), "round {round}");
        });
    }
}

#[test]
fn sets_can_be_used_by_any_thread() {
    fn any<T: Send + Sync>() {}
    any::<Loader>();
    any::<Set>();
}

#[test]
fn an_entry_with_another_value_is_not_used() {
    static OTHER: i32 = 5;
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let loader = loader();
    let early = load(&loader, 1, &[("first", &first)]);
    let mut late = loader.set(2);
    late.add("second", &second.bytes).unwrap().share(&early);
    late.resolve(|name| match name {
        "outer" => Some(trampfd_code::got::Symbol::Address(&raw const OTHER as usize)),
        name => program(name),
    });
    // SAFETY: objects of gcc.
    let late = unsafe { late.load() }.unwrap();
    assert_eq!((late.counts().entries, late.counts().shared_entries), (1, 1));
    assert_eq!(function(&late, "again")(1), (2 + 1000 + 6 + 1) + 12 + 5);
}

#[test]
fn what_a_set_hides_is_not_seen_from_outside() {
    let (outer, calls) = (build("outer.c", &["-fvisibility=hidden"]), build("calls.c", &PIC));
    let loader = loader();
    // In the set it is seen.
    let early = load(&loader, 1, &[("outer", &outer), ("calls", &calls)]);
    assert_eq!(function(&early, "call_it")(4), 9);
    assert_eq!((early.symbol("twice"), early.symbol("outer")), (None, None));
    let mut late = loader.set(2);
    late.add("calls", &calls.bytes).unwrap().share(&early);
    // SAFETY: objects of gcc.
    let error = unsafe { late.load() }.unwrap_err();
    let Error::Unresolved { symbol, .. } = &error else { panic!("{error}") };
    assert_eq!(symbol, "twice");
}

#[test]
fn a_stub_to_another_function_is_not_used() {
    extern "C" fn thrice(x: i32) -> i32 {
        3 * x
    }
    let (first, second) = (build("first.c", &PIC), build("second.c", &PIC));
    let loader = loader();
    let early = load(&loader, 1, &[("first", &first)]);
    let mut late = loader.set(2);
    late.add("second", &second.bytes).unwrap().share(&early);
    late.resolve(|name| match name {
        "twice" => Some(trampfd_code::got::Symbol::Address(thrice as *const () as usize)),
        name => program(name),
    });
    // SAFETY: objects of gcc.
    let late = unsafe { late.load() }.unwrap();
    assert_eq!((late.counts().stubs, late.counts().shared_stubs), (1, 0));
    assert_eq!(function(&late, "again")(1), (2 + 1000 + 6 + 1) + 18 + 1000);
}
