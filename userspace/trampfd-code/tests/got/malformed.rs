//! Whatever is called an object: an error or none, never a panic.

use trampfd_code::got::{Error, Object, link_dry, parse};

use crate::build::build;

fn samples() -> Vec<Vec<u8>> {
    let pic = ["-O2", "-fPIC", "-fno-asynchronous-unwind-tables"];
    let objects = [
        build("first.c", &pic),
        build("thread.c", &["-O2", "-fPIC"]),
        build("thread.c", &["-O2", "-fPIC", "-mtls-dialect=gnu2"]),
        build("thrower.cpp", &["-O2", "-fPIC"]),
        build("begun.c", &["-O0", "-fno-PIC"]),
    ];
    objects.iter().map(|object| object.bytes.clone()).collect()
}

/// All that is done without executing anything.
fn try_it(bytes: &[u8]) {
    match parse(bytes) {
        Ok(object) => match link_dry(&[object], 0x40_0000) {
            Ok(dry) => {
                let len: usize = dry.parts.iter().map(|(_, _, bytes)| bytes.len()).sum();
                assert!(len <= 64 << 20, "{len} bytes");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        Err(error) => assert!(matches!(error, Error::Malformed { .. }), "{error}"),
    }
}

#[test]
fn objects_cut_short_are_errors() {
    for sample in samples() {
        for len in 0..sample.len() {
            let object = parse(&sample[..len]);
            // The section headers are the last thing in what gcc writes.
            assert!(object.is_err(), "{len} of {} bytes", sample.len());
        }
    }
}

#[test]
fn no_byte_of_an_object_makes_it_panic() {
    for sample in samples() {
        let mut bytes = sample.clone();
        for at in 0..bytes.len() {
            for value in [0, 0xff, sample[at] ^ 0x10, sample[at].wrapping_add(1)] {
                bytes[at] = value;
                try_it(&bytes);
            }
            bytes[at] = sample[at];
        }
    }
}

#[test]
fn no_word_of_an_object_makes_it_panic() {
    for sample in samples() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..5_000 {
            let mut bytes = sample.clone();
            for _ in 0..2 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize % (bytes.len() - 8);
                let at = if state & 1 == 0 { at & !7 } else { at };
                let values = [0, 1, u64::MAX, 1 << 63, u64::from(u32::MAX), state, 1 << 31];
                let value = values[(state >> 4) as usize % values.len()];
                let len = if state & 2 == 0 { 8 } else { 4 };
                bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            try_it(&bytes);
        }
    }
}

#[test]
fn an_object_that_is_none_is_an_error_that_says_so() {
    let executable = std::fs::read("/proc/self/exe").unwrap();
    let error = Object::new("self", &executable).unwrap_err().to_string();
    assert_eq!(error, "self: it is no relocatable object (ET_REL)");
    let mut other = build("outer.c", &["-O2"]).bytes.clone();
    other[18] = 183;
    assert_eq!(parse(&other).unwrap_err().to_string(), "object: it is for another machine");
    assert!(parse(b"").is_err());
}

#[test]
fn an_object_that_has_no_code_yet_says_so() {
    let object = build("outer.c", &["-O2", "-flto", "-fno-fat-lto-objects"]);
    let error = parse(&object.bytes).unwrap_err().to_string();
    assert!(error.contains("-fno-lto"), "{error}");
    parse(&build("outer.c", &["-O2", "-flto", "-ffat-lto-objects"]).bytes).unwrap();
}

/// Where the headers of sections of a type are in the file, and where their sections are.
fn headers(object: &[u8], kind: u32) -> Vec<(usize, usize)> {
    let long = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap()) as usize;
    let headers = (long(0x28)..object.len()).step_by(64);
    let its = headers.filter(|header| object[header + 4..header + 8] == kind.to_le_bytes());
    its.map(|header| (header, long(header + 24))).collect()
}

#[test]
fn relocations_outside_of_their_section_are_errors() {
    let object = build("outer.c", &["-O2", "-g0"]);
    let place = headers(&object.bytes, 4)[0].1;
    for offset in [0x1000, 1 << 40, u64::MAX, u64::MAX - 3] {
        let mut bytes = object.bytes.clone();
        bytes[place..place + 8].copy_from_slice(&offset.to_le_bytes());
        let error = link_dry(&[parse(&bytes).unwrap()], 0x10_0000).unwrap_err().to_string();
        assert!(error.contains("a relocation outside of it"), "{error}");
    }
}

#[test]
fn common_symbols_of_any_size_are_errors() {
    let object = build("common.c", &["-fPIC", "-fcommon"]);
    let symbols = headers(&object.bytes, 2)[0].1;
    for size in [1 << 40, 1 << 63, u64::MAX - 8, u64::MAX] {
        let mut bytes = object.bytes.clone();
        let mut commons = 0;
        for symbol in (symbols..symbols + 24 * 9).step_by(24) {
            // SHN_COMMON
            if bytes[symbol + 6..symbol + 8] == [0xf2, 0xff] {
                bytes[symbol + 16..symbol + 24].copy_from_slice(&size.to_le_bytes());
                commons += 1;
            }
        }
        assert_eq!(commons, 2);
        let error = link_dry(&[parse(&bytes).unwrap()], 0x10_0000).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}

#[test]
fn names_that_share_their_bytes_take_no_more_memory_than_is_right() {
    let object = build("names.c", &[]);
    parse(&object.bytes).unwrap();
    let (header, symbols) = headers(&object.bytes, 2)[0];
    let len = u64::from_le_bytes(object.bytes[header + 32..header + 40].try_into().unwrap());
    let mut bytes = object.bytes.clone();
    // All of them have the name of the last, which is the global one.
    let last = symbols + len as usize - 24;
    for symbol in (symbols..last).step_by(24) {
        bytes.copy_within(last..last + 4, symbol);
    }
    let error = parse(&bytes).unwrap_err().to_string();
    assert!(error.ends_with("names are too long for the file"), "{error}");
}

#[test]
fn code_without_bytes_and_alignment_of_more_than_a_page_are_errors() {
    let object = build("outer.c", &["-O2"]);
    let error = parse(&of_type(&object.bytes, 1, 8)).unwrap_err().to_string();
    assert!(error.ends_with("code without bytes"), "{error}");
    let aligned = |bytes: u32| {
        build("mine.c", &["-O2", &format!("-D__thread=__attribute__((aligned({bytes})))")])
    };
    parse(&aligned(4096).bytes).unwrap();
    let error = parse(&aligned(8192).bytes).unwrap_err().to_string();
    assert!(error.contains("alignment 0x2000"), "{error}");
}

#[test]
fn what_would_be_writable_code_is_refused() {
    let object = build("outer.c", &["-O2", "-ffunction-sections"]);
    let mut bytes = object.bytes.clone();
    let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    for header in (headers..bytes.len()).step_by(64) {
        if bytes[header + 8] & 4 != 0 {
            bytes[header + 8] |= 1;
        }
    }
    let error = parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("writable and executable"), "{error}");
}

/// The object with another type in the headers of sections of type `from`.
fn of_type(object: &[u8], from: u32, to: u32) -> Vec<u8> {
    let mut bytes = object.to_vec();
    let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    for header in (headers..bytes.len()).step_by(64) {
        let kind = header + 4..header + 8;
        if bytes[kind.clone()] == from.to_le_bytes() {
            bytes[kind].copy_from_slice(&to.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn relocations_in_other_forms_are_not_passed_over() {
    let object = build("first.c", &["-O2", "-fPIC"]);
    for (kind, name) in [(9, "SHT_REL"), (0x4000_0014, "SHT_CREL")] {
        let error = parse(&of_type(&object.bytes, 4, kind)).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn start_functions_of_other_kinds_are_not_passed_over() {
    for name in [".ctors", ".dtors.00100", ".preinit_array", ".init"] {
        let object = build("outer.c", &["-O2", &format!("-DSECTION=\"{name}\"")]);
        let error = parse(&object.bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: ")), "{error}");
    }
}

#[test]
fn a_file_whose_parts_overlap_takes_no_more_memory_than_it_is_long() {
    let object = build("first.c", &["-O2", "-fPIC"]);
    let mut bytes = object.bytes.clone();
    let len = bytes.len() as u64;
    let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    for header in (headers..bytes.len()).step_by(64) {
        // Contents in the file, and memory of its own (SHT_PROGBITS, SHF_ALLOC).
        if bytes[header + 4] == 1 && bytes[header + 8] & 2 != 0 {
            bytes[header + 24..header + 32].copy_from_slice(&0u64.to_le_bytes());
            bytes[header + 32..header + 40].copy_from_slice(&len.to_le_bytes());
        }
    }
    let error = parse(&bytes).unwrap_err().to_string();
    assert_eq!(error, "object: parts of the file overlap");
}

#[test]
fn zeros_beyond_the_limit_are_an_error() {
    use trampfd_code::got::{Loader, Options};
    let object = build("large.c", &["-O2", "-fPIC", "-D__thread="]);
    let mut options = Options::default();
    options.limit = 1 << 18;
    let loader = Loader::new(trampfd_code::pool::Pools::new().unwrap(), options).unwrap();
    let mut set = loader.set(1);
    set.add("large", &object.bytes).unwrap();
    let error = set.count().unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 0x4_0000, .. }), "{error}");
}

#[test]
fn no_limit_is_not_one_of_nothing() {
    use trampfd_code::got::{Loader, Options};
    // Zeros, each half of all addresses.
    let object = build("large.c", &["-O2", "-fPIC"]);
    let mut bytes = object.bytes.clone();
    let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    for header in (headers..bytes.len()).step_by(64) {
        if bytes[header + 4] == 8 && bytes[header + 8] & 2 != 0 {
            bytes[header + 32..header + 40].copy_from_slice(&(1u64 << 63).to_le_bytes());
        }
    }
    let mut options = Options::default();
    options.limit = u64::MAX;
    let loader = Loader::new(trampfd_code::pool::Pools::new().unwrap(), options).unwrap();
    let mut set = loader.set(1);
    set.add("one", &bytes).unwrap().add("two", &bytes).unwrap();
    let error = set.count().unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn common_symbols_and_sections_count_together() {
    // 40 MiB that are common, and as many zeros of a section.
    let [one, two] = ["-fcommon", "-fno-common"].map(|how| {
        let object = build("half.c", &["-O2", how, &format!("-Dname=half{}", how.len())]);
        Object::new(how, &object.bytes).unwrap()
    });
    link_dry(std::slice::from_ref(&one), 0x10_0000).unwrap();
    let error = link_dry(&[one, two], 0x10_0000).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn a_symbol_outside_of_its_section_is_an_error() {
    let object = build("outer.c", &["-O2"]);
    let mut bytes = object.bytes.clone();
    // The value of a global variable at the start of its 4 bytes: its size is beside it.
    let symbol = bytes.windows(24).position(|s| s[4] == 0x11 && s[16..24] == 4u64.to_le_bytes());
    let value = symbol.expect("outer") + 8;
    bytes[value] = 4;
    parse(&bytes).unwrap();
    bytes[value] = 5;
    let error = parse(&bytes).unwrap_err().to_string();
    assert!(error.ends_with("lies outside of its section"), "{error}");
}
