//! Two relocatable objects, whatever is in them: read, linked with each other, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trampfd_code::got::{link_dry, parse};

/// Refers to others, and is found by others.
const PARTNER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/partner.o"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = parse(bytes) else { return };
    let partner = parse(PARTNER).expect("a compiler made it");
    // In reach of small addresses, and not.
    for base in [0x10_0000, 0x7f00_0000_0000] {
        if let Ok(set) = link_dry(std::slice::from_ref(&object), base) {
            let bytes: usize = set.parts.iter().map(|(_, _, bytes)| bytes.len()).sum();
            assert!(bytes <= 64 << 20, "{bytes} bytes");
        }
    }
    let _ = link_dry(&[object, partner], 0x7f00_0000_0000);
});
