//! A file of a cache, whatever is in it: accepted, and then it holds what it says, or refused with
//! a reason. Its hash is not looked at: who can write files of a cache can make that right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trampfd_code::cache::{Contents, Reason, parse};

fuzz_target!(|bytes: &[u8]| {
    let _ = look(bytes);
    // Most of a file is code, of which nothing is read: the fuzzer need not find so many zeros.
    if let Some(len) = said(bytes).filter(|&len| len <= 1 << 20) {
        let mut whole = bytes.to_vec();
        whole.resize(len, 0);
        let _ = look(&whole);
    }
});

/// The length that a file says it has.
fn said(bytes: &[u8]) -> Option<usize> {
    let number = |at| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*bytes)).ok()
    };
    let pages = |len: usize| trampfd_code::vm::round_to_pages(len).ok();
    number(32)?.checked_add(pages(number(40)?)?)?.checked_add(pages(number(48)?)?)
}

fn look(bytes: &[u8]) -> Result<Contents, Reason> {
    let contents = parse(bytes)?;
    for method in contents.methods() {
        let code = contents.code(&method).expect("a method of it has code");
        assert!(!code.is_empty(), "a method without code");
        assert!(bytes.get(code).is_some(), "code outside of the file");
    }
    assert!(contents.methods().any(|method| method == contents.root()));
    contents.calls().for_each(drop);
    Ok(contents)
}
