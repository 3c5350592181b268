//! What is counted is what readelf says is needed, and what the code uses.

use std::collections::HashSet;
use std::process::Command;

use trampfd_code::got::{Object, Set, link_dry};

use crate::build::{Built, build, load, loader};

fn text(program: &str, arguments: &[&str], object: &Built) -> String {
    let output = Command::new(program).args(arguments).arg(&object.path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn defined(objects: &[&Built]) -> HashSet<String> {
    let list = |object| text("nm", &["--defined-only", "-g"], object);
    let lines = objects.iter().flat_map(|object| {
        let names = list(object);
        names
            .lines()
            .filter_map(|l| l.split_whitespace().last())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    lines.collect()
}

/// Entries and stubs that the objects need together, by what readelf lists.
fn needed(objects: &[&Built]) -> (usize, usize) {
    let defined = defined(objects);
    let (mut entries, mut stubs) = (HashSet::new(), HashSet::new());
    for object in objects {
        for line in text("readelf", &["-rW"], object).lines() {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, _, kind, _, name, ..] = columns[..] else { continue };
            let (kind, outside) = (kind.trim_start_matches("R_X86_64_"), !defined.contains(name));
            match kind {
                "PLT32" if outside && !name.starts_with('.') => {
                    stubs.insert(name.to_owned());
                    entries.insert(name.to_owned());
                }
                // A move, a call or a jump through the table does without it inside the set.
                "GOTPCRELX" | "REX_GOTPCRELX" if outside => {
                    entries.insert(name.to_owned());
                }
                "GOTPCREL" => {
                    entries.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    (entries.len(), stubs.len())
}

const PIC: &[&[&str]] = &[
    &["-O0", "-fPIC"],
    &["-O2", "-fPIC"],
    &["-O2", "-fPIC", "-fno-plt"],
    &["-O2", "-fPIC", "-fcf-protection=full"],
    &["-O2", "-fPIC", "-fcommon"],
    &["-O2", "-fPIC", "-Wa,-mrelax-relocations=no"],
    &["-Os", "-fPIC", "-ffunction-sections", "-fdata-sections"],
];

#[test]
fn counts_are_those_of_the_relocations() {
    for flags in PIC {
        let (first, second) = (build("first.c", flags), build("second.c", flags));
        for objects in [&[&first][..], &[&second], &[&first, &second]] {
            let read: Vec<Object> =
                objects.iter().map(|o| Object::new("object", &o.bytes).unwrap()).collect();
            let counts = link_dry(&read, 0x10_0000_0000).unwrap().counts;
            let (entries, stubs) = needed(objects);
            assert_eq!((counts.entries, counts.stubs), (entries, stubs), "{flags:?}");
            assert_eq!(counts.table, 8 * entries, "{flags:?}");
        }
    }
}

#[test]
fn one_entry_serves_all_objects_of_a_set() {
    let names = ["first.c", "second.c", "calls.c"];
    let read = names.map(|name| Object::new(name, &build(name, PIC[1]).bytes).unwrap());
    let counts = link_dry(&read, 0x10_0000_0000).unwrap().counts;
    let [a, b, c] = &counts.objects[..] else { panic!("{counts:?}") };
    assert_eq!(counts.objects.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), names);
    // Both call twice and read outer; first alone asks for the weak function.
    assert_eq!((a.stubs, b.stubs, counts.stubs), (2, 1, 2));
    assert_eq!((a.entries, b.entries, counts.entries), (3, 2, 3));
    // The last calls twice, and no more: by the stub that is there, and its entry.
    assert_eq!((c.entries, c.stubs), (1, 1));
}

/// Bytes of a section that is loaded.
pub fn bytes(address: usize, len: usize) -> &'static [u8] {
    // SAFETY: the tests read sections of sets that are there.
    unsafe { std::slice::from_raw_parts(address as *const u8, len) }
}

/// Addresses that code of the set refers to by a distance of 32 bits.
fn referred(set: &Set) -> HashSet<usize> {
    let mut found = HashSet::new();
    for section in set.sections() {
        if section.kind != trampfd_code::pool::Kind::Code {
            continue;
        }
        for (at, word) in bytes(section.address, section.len).windows(4).enumerate() {
            let distance = i32::from_le_bytes(word.try_into().unwrap());
            let end = section.address + at + 4;
            found.insert(end.wrapping_add_signed(distance as isize));
        }
    }
    found
}

#[test]
fn every_entry_is_used_and_no_other() {
    for flags in PIC {
        let (first, second) = (build("first.c", flags), build("second.c", flags));
        let set = load(&loader(), 1, &[("first", &first), ("second", &second)]);
        let counts = set.counts();
        assert_eq!(set.table().len(), counts.entries, "{flags:?}");
        let table = set.sections().iter().find(|s| &*s.name == ".got").unwrap();
        assert_eq!(table.len, counts.table);
        let mut next = table.address;
        let referred = referred(&set);
        for entry in set.table() {
            assert_eq!(entry.address, next, "{flags:?}: no gap in the table");
            next += 8 * entry.words;
            assert!(referred.contains(&entry.address), "{flags:?}: {} is used", entry.symbol);
        }
        assert_eq!(next, table.address + table.len);
        if counts.stubs > 0 {
            let stubs = set.sections().iter().find(|s| &*s.name == ".stubs").unwrap();
            assert_eq!(stubs.len, 16 * counts.stubs);
            for stub in (stubs.address..stubs.address + stubs.len).step_by(16) {
                assert!(referred.contains(&stub), "{flags:?}: a stub that nobody calls");
                assert_eq!(bytes(stub, 6), [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25]);
            }
        }
    }
}
