//! Relocations that C has no words for, each against what the psABI says it is.

use trampfd_code::got::{Error, Symbol};

use crate::build::{build, function, load, loader, twice};
use crate::count::bytes;

#[test]
fn every_relocation_has_the_value_that_the_abi_gives() {
    let loader = loader();
    let mut set = loader.set(1);
    for name in ["words.c", "numbers.c", "jumps.c"] {
        set.add(name, &build(name, &[]).bytes).unwrap();
    }
    set.resolve(|name| (name == "outside").then_some(Symbol::Address(twice as *const () as usize)));
    // SAFETY: an object of gcc.
    let set = unsafe { set.load() }.unwrap();
    let table = set.symbol("table").unwrap();
    let thing = set.symbol("thing").unwrap();
    let section = |name: &str| set.sections().iter().find(|s| &*s.name == name).unwrap();
    let got = section(".got").address;
    let entry = set.table().iter().find(|entry| entry.symbol == "thing").unwrap().address;
    let long = |at: usize| u64::from_le_bytes(bytes(table + at, 8).try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(bytes(table + at, 4).try_into().unwrap());
    let apart = |to: usize, from: usize| to.wrapping_sub(from) as u64;

    assert_eq!(long(0), 0x5a + 1, "64");
    assert_eq!(long(8), apart(thing, table + 8), "PC64");
    assert_eq!(long(16), apart(thing, got), "GOTOFF64");
    assert_eq!(long(24), apart(entry, got), "GOT64");
    assert_eq!(long(32), 12, "SIZE64");
    assert_eq!(long(40), apart(got, table + 40), "GOTPC64");
    assert_eq!(long(48), apart(entry, table + 48), "GOTPCREL64");
    assert_eq!(long(56), apart(section(".stubs").address, got), "PLTOFF64");
    assert_eq!(word(64), 13, "SIZE32");
    assert_eq!(word(68), apart(thing, table + 68) as u32, "PC32");
    assert_eq!(word(72), 0x1235, "32");
    assert_eq!(bytes(table + 76, 3), [0x34, 0x12, 0x5a], "16, 8");
    assert_eq!(word(80), apart(entry, got) as u32, "GOT32");
    assert_eq!(word(84), apart(got, table + 84) as u32, "GOTPC32");
    assert_eq!(long(88), apart(entry, got), "GOTPLT64");
    let jumps = set.symbol("jumps").unwrap();
    let after = set.symbol("after").unwrap();
    let [low, high] = (apart(after, jumps) as u16).to_le_bytes();
    assert_eq!(bytes(jumps, 3), [low, high, apart(after, jumps + 2) as u8], "PC16, PC8");
    // The entry leads to the thing, the stub to the function.
    let target = usize::from_le_bytes(bytes(entry, 8).try_into().unwrap());
    assert_eq!((target, bytes(target, 4)), (thing, &[1, 0, 0, 0][..]));
    // SAFETY: a stub to this function.
    let stub: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(section(".stubs").address) };
    assert_eq!(stub(8), 16);
}

#[test]
fn bytes_before_a_distance_make_it_a_call_in_code_only() {
    let loader = loader();
    let near = load(&loader, 1, &[("outer", &build("outer.c", &["-O2"]))]);
    let elsewhere = near.symbol("outer").unwrap();
    let mut set = loader.set(2);
    set.add("pointers", &build("pointers.c", &[]).bytes).unwrap();
    // The variable is in reach, the functions are not.
    set.resolve(|name| match name {
        "elsewhere" => Some(Symbol::Address(elsewhere)),
        _ => Some(Symbol::Address(twice as *const () as usize)),
    });
    // SAFETY: an object of gcc.
    let set = unsafe { set.load() }.unwrap();
    let distances = set.symbol("distances").unwrap();
    for at in [distances + 4, distances + 12] {
        let distance = i32::from_le_bytes(bytes(at, 4).try_into().unwrap());
        assert_eq!(at.wrapping_add_signed(distance as isize), elsewhere);
    }
    assert_eq!(set.counts().stubs, 2);
    assert_eq!(function(&set, "four_times")(5), 20);
}

#[test]
fn instructions_that_need_the_table_keep_it() {
    let flags = ["-O2", "-fPIC"];
    let set = load(
        &loader(),
        1,
        &[("relaxed", &build("relaxed.c", &flags)), ("numbers", &build("numbers.c", &[]))],
    );
    // One in the set could be had by its distance, but not by every instruction, nor a number.
    let names: Vec<_> = set.table().iter().map(|entry| entry.symbol.as_str()).collect();
    assert_eq!((names.len(), names.contains(&"here"), names.contains(&"small")), (2, true, true));
    // SAFETY: that is its type in the source.
    let is_here: extern "C" fn(usize) -> i32 =
        unsafe { std::mem::transmute(set.symbol("is_here").unwrap()) };
    let here = set.symbol("here").unwrap();
    assert_eq!((is_here(here), is_here(here + 4)), (1, 0));
    // SAFETY: as above.
    let number: extern "C" fn() -> usize =
        unsafe { std::mem::transmute(set.symbol("number").unwrap()) };
    assert_eq!(number(), 0x5a);
}

#[test]
fn the_size_of_what_is_elsewhere_is_an_error() {
    let loader = loader();
    let mut set = loader.set(1);
    set.add("size.o", &build("size.c", &["-fcommon", "-DELSEWHERE"]).bytes).unwrap();
    set.resolve(|_| Some(Symbol::Address(twice as *const () as usize)));
    // SAFETY: an object of gcc.
    let error = unsafe { set.load() }.unwrap_err();
    let Error::Unsupported { site, relocation, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (site.to_string(), relocation.as_str()),
        ("size.o(.rodata+0x8)".into(), "R_X86_64_SIZE64")
    );

    // Of common ones the largest size counts, and the largest alignment.
    let small = build("size.c", &["-fPIC", "-fcommon"]);
    let large = build("common.c", &["-fPIC", "-fcommon"]);
    let before = ["-fPIC", "-fcommon", "-D__thread=", "-Dmine=before", "-Dset_mine=set_before"];
    let before = build("mine.c", &before);
    for order in [[&small, &large], [&large, &small]] {
        let set = load(&loader, 1, &[("before", &before), ("a", order[0]), ("b", order[1])]);
        let size = u64::from_le_bytes(bytes(set.symbol("sizes").unwrap(), 8).try_into().unwrap());
        assert_eq!((size, set.symbol("table").unwrap() % 64), (400, 0));
    }
}

/// Loads words.c with other numbers: the error.
fn refused(small: usize, wide: usize) -> String {
    let words = build("words.c", &[]);
    let loader = loader();
    let mut set = loader.set(1);
    set.add("words.o", &words.bytes).unwrap();
    set.resolve(|name| match name {
        "small" => Some(Symbol::Address(small)),
        "wide" => Some(Symbol::Address(wide)),
        _ => Some(Symbol::Address(twice as *const () as usize)),
    });
    // SAFETY: an object of gcc.
    match unsafe { set.load() } {
        Ok(_) => "loaded".into(),
        Err(error @ Error::OutOfRange { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_last_number_that_fits_is_taken_and_the_next_refused() {
    let refused_at = |at: &str, what: &str| format!("words.o(.rodata+{at}): {what}");
    assert_eq!(refused(0xff, 0xffff), "loaded");
    assert_eq!(refused(0x80_usize.wrapping_neg(), 0), "loaded");
    let said = refused(0x81_usize.wrapping_neg(), 0);
    assert_eq!(said, refused_at("0x4e", "small is out of range: 0xffffffffffffff7f in 8 bits"));
    let said = refused(0x100, 0);
    assert_eq!(said, refused_at("0x4e", "small is out of range: 0x100 in 8 bits"));
    let said = refused(0, 0x1_0000);
    assert_eq!(said, refused_at("0x4c", "wide is out of range: 0x10000 in 16 bits"));
}

#[test]
fn of_32_bits_the_last_number_that_fits_is_taken_and_the_next_refused() {
    let edges = build("edges.c", &[]);
    let loader = loader();
    let load = |whole: usize, half: usize| {
        let mut set = loader.set(1);
        set.add("edges.o", &edges.bytes).unwrap();
        set.resolve(|name| Some(Symbol::Address(if name == "whole" { whole } else { half })));
        // SAFETY: an object of gcc, which is not run.
        unsafe { set.load() }.map(drop).map_err(|error| error.to_string())
    };
    let refused = |name: &str, at: &str, value: &str| {
        Err(format!("edges.o({at}): {name} is out of range: {value} in 32 bits"))
    };
    let negative = |value: usize| value.wrapping_neg();
    assert_eq!(load(0xffff_ffff, 0x7fff_ffff), Ok(()));
    assert_eq!(load(0, negative(0x8000_0000)), Ok(()));
    let (whole, half) = (".rodata+0x0", ".text+0x3");
    assert_eq!(load(0x1_0000_0000, 0), refused("whole", whole, "0x100000000"));
    assert_eq!(load(negative(1), 0), refused("whole", whole, "0xffffffffffffffff"));
    assert_eq!(load(0, 0x8000_0000), refused("half", half, "0x80000000"));
    let said = refused("half", half, "0xffffffff7fffffff");
    assert_eq!(load(0, negative(0x8000_0001)), said);
}

/// An object whose first relocation of `.rodata` is of the kind.
fn of_kind(kind: u32) -> Vec<u8> {
    let words = build("words.c", &[]);
    let mut bytes = words.bytes.clone();
    // offset 8, then type and symbol: GOT of readelf -r, the second of .rodata.
    let at = bytes.windows(12).position(|w| w[..8] == 8u64.to_le_bytes() && w[8] == 24);
    let at = at.expect("R_X86_64_PC64 at 8");
    bytes[at + 8..at + 12].copy_from_slice(&kind.to_le_bytes());
    bytes
}

#[test]
fn relocations_that_are_not_done_are_errors_by_name() {
    for (kind, name) in [
        (5, "R_X86_64_COPY"),
        (6, "R_X86_64_GLOB_DAT"),
        (7, "R_X86_64_JUMP_SLOT"),
        (8, "R_X86_64_RELATIVE"),
        (16, "R_X86_64_DTPMOD64"),
        (36, "R_X86_64_TLSDESC"),
        (37, "R_X86_64_IRELATIVE"),
        (38, "R_X86_64_RELATIVE64"),
        (43, "R_X86_64_CODE_4_GOTPCRELX"),
        (51, "R_X86_64_CODE_6_GOTPC32_TLSDESC"),
        (99, "relocation 99"),
    ] {
        let object = of_kind(kind);
        let loader = loader();
        let mut set = loader.set(1);
        set.add("words.o", &object).unwrap();
        set.resolve(|_| Some(Symbol::Address(0)));
        // SAFETY: nothing of it is run.
        let error = unsafe { set.load() }.unwrap_err();
        let Error::Unsupported { site, relocation, reason } = &error else { panic!("{error}") };
        let why = match kind {
            ..43 => "it is the dynamic linker's, and in no object",
            43..52 => "instructions of this form (APX) are not known here",
            _ => "the number is not known",
        };
        assert_eq!((relocation.as_str(), *reason), (name, why));
        assert_eq!(site.to_string(), "words.o(.rodata+0x8)");
    }
}
