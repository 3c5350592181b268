//! What is too far away is an error, or not needed; nothing is cut off.

use trampfd_code::got::{Error, Loader, Options, Symbol};
use trampfd_code::pool::{self, Pools};
use trampfd_code::vm::Place;

use crate::build::{build, function, load, program};

/// Pools near an address.
fn pools(address: usize) -> Loader {
    let mut options = pool::Options::default();
    options.memory.place = Place::Near { address, within: 1 << 32 };
    Loader::new(Pools::with(options).unwrap(), Options::default()).unwrap()
}

#[test]
fn a_reference_that_does_not_fit_is_an_error_with_the_distance() {
    static FAR: i32 = 1;
    let object = build("first.c", &["-O2", "-fno-PIC", "-fno-pie"]);
    let loader = pools(1 << 40);
    let mut set = loader.set(1);
    set.add("first.o", &object.bytes).unwrap().resolve(program);
    // SAFETY: objects of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::OutOfRange { site, distance, bits, .. } = &error else { panic!("{error}") };
    assert_eq!((site.object.as_str(), *bits), ("first.o", 32));
    assert!(distance.unsigned_abs() > 1 << 31, "{error}");

    let object = build("pcrel.c", &["-O2"]);
    let mut set = loader.set(1);
    set.add("pcrel.o", &object.bytes).unwrap();
    let far = &raw const FAR as usize;
    set.resolve(|_| Some(Symbol::Address(far)));
    // SAFETY: as above.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::OutOfRange { symbol, distance, .. } = &error else { panic!("{error}") };
    assert_eq!(symbol, "far_away");
    // The set lies within 4 GiB of 1 TiB.
    let about = far as i128 - (1 << 40);
    assert!((distance - about).abs() <= 1 << 33, "{distance:#x} is about {about:#x}");
    assert!(error.to_string().starts_with("pcrel.o(.text+0x3): far_away is out of range: 0x"));
}

#[test]
fn a_set_out_of_reach_of_an_earlier_one_has_its_own_entries() {
    let flags = ["-O2", "-fPIC"];
    let (first, second) = (build("first.c", &flags), build("second.c", &flags));
    let (here, there) = (pools(1 << 40), pools(1 << 41));
    let early = load(&here, 1, &[("first", &first)]);
    let mut late = there.set(2);
    late.add("second", &second.bytes).unwrap().share(&early).resolve(program);
    // SAFETY: objects of gcc.
    let late = unsafe { late.load() }.unwrap();
    assert_eq!((late.counts().entries, late.counts().stubs), (4, 2));
    assert_eq!((late.counts().shared_entries, late.counts().shared_stubs), (0, 0));
    assert_eq!(late.uses(), [1], "of which it uses the functions");
    assert_eq!(function(&late, "again")(1), (2 + 1000 + 6 + 1) + 12 + 1000);
    assert!(early.remove().is_err());
}

#[test]
fn of_earlier_sets_those_in_reach_are_shared_with() {
    let flags = ["-O2", "-fPIC"];
    let [calls, first, second] =
        ["calls.c", "first.c", "second.c"].map(|source| build(source, &flags));
    let (here, there) = (pools(1 << 40), pools(1 << 41));
    let near = load(&here, 1, &[("calls", &calls)]);
    let far = load(&there, 2, &[("first", &first)]);
    // The far one counts its calls.
    let expect = [2 + 1000 + 6 + 1 + 12 + 1000, 2 + 1000 + 7 + 2 + 14 + 1000];
    for (order, expect) in [[&near, &far], [&far, &near]].into_iter().zip(expect) {
        let mut late = here.set(3);
        late.add("second", &second.bytes).unwrap().resolve(program);
        late.share(order[0]).share(order[1]);
        // SAFETY: objects of gcc.
        let late = unsafe { late.load() }.unwrap();
        // Those for twice are near, those for outer, run and counter are not.
        assert_eq!((late.counts().entries, late.counts().shared_entries), (3, 1));
        assert_eq!((late.counts().stubs, late.counts().shared_stubs), (1, 1));
        assert_eq!(late.uses().len(), 2);
        assert_eq!(function(&late, "again")(1), expect);
    }
}
