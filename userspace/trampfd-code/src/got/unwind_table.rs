//! The form of .eh_frame: records, each with its length, of two kinds; the end is a length of 0.

/// Bytes of zeros that end a table.
pub(super) const END: usize = 4;

/// Whether the unwinder can walk the table: lengths that add up, no end inside, and each function
/// with a record of what its kind has in common (CIE).
pub(super) fn check(table: &[u8]) -> Result<(), &'static str> {
    let word = |at: usize| {
        let bytes = table.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let mut common = Vec::new();
    let mut at = 0;
    while at < table.len() {
        let len = word(at).ok_or("it ends inside a record")? as usize;
        if len == 0 {
            return Err("its end is marked by the loader, not inside");
        }
        if len == 0xffff_ffff {
            return Err("64-bit records");
        }
        let end = at + 4 + len;
        if len < 4 || !len.is_multiple_of(4) || end > table.len() {
            return Err("a record that does not fit");
        }
        let id = word(at + 4).ok_or("it ends inside a record")? as usize;
        if id == 0 {
            common.push(at);
        } else {
            let of = (at + 4).checked_sub(id);
            if of.is_none_or(|of| common.binary_search(&of).is_err()) {
                return Err("a function's record without the common one");
            }
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    const COMMON: [u8; 8] = [4, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn tables_that_an_unwinder_would_leave_are_refused() {
        let good = [COMMON, [4, 0, 0, 0, 12, 0, 0, 0]].concat();
        assert_eq!(check(&good), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        for (at, value) in [(0, 0), (0, 5), (8, 200), (8, 0), (12, 8), (12, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(check(&bad).is_err(), "byte {at}: {value}");
        }
        assert!(check(&good[..15]).is_err());
        assert!(check(&[0xff; 16]).is_err());
    }
}
