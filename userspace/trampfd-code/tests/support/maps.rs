//! What the kernel says is mapped in this process.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A row of /proc/self/maps.
#[derive(Clone, Debug)]
pub struct Row {
    pub range: Range<usize>,
    /// "r-xs", for instance.
    pub rights: String,
    /// Where in the file it begins.
    pub offset: usize,
    pub inode: u64,
    pub path: String,
    /// Bytes in memory, where it was read from /proc/self/smaps; else 0.
    pub rss: usize,
}

static TEXT: Mutex<[u8; 8 << 20]> = Mutex::new([0; 8 << 20]);

/// Those of /proc/self/maps.
pub fn rows() -> Vec<Row> {
    rows_of("/proc/self/maps")
}

/// Those of /proc/self/maps or /proc/self/smaps, wherever that is mounted. None can be written
/// and executed.
pub fn rows_of(file: &str) -> Vec<Row> {
    // Nothing is allocated for it, and not while it is read: a row that grew between two reads
    // would be seen twice.
    let mut buffer = TEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut from, mut len) = (File::open(file).unwrap(), 0);
    loop {
        assert!(len < buffer.len(), "{file} is too long");
        match from.read(&mut buffer[len..]).unwrap() {
            0 => break,
            more => len += more,
        }
    }
    let text = std::str::from_utf8(&buffer[..len]).unwrap();
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        match (row(line), line.split_once(':')) {
            (Some(row), _) => rows.push(row),
            (None, Some(("Rss", size))) => {
                let kib: usize = size.trim().trim_end_matches(" kB").parse().unwrap();
                rows.last_mut().unwrap().rss = kib << 10;
            }
            _ => {}
        }
    }
    assert!(!rows.is_empty(), "{file} has no rows");
    let bad = rows.iter().find(|row| row.rights.contains('w') && row.rights.contains('x'));
    assert!(bad.is_none(), "writable and executable: {bad:?}");
    rows
}

/// The row that an address is in.
pub fn row_of(address: *const u8) -> Option<Row> {
    rows().into_iter().find(|row| row.range.contains(&address.addr()))
}

/// How the page at `address` is mapped: "r-xs", for instance.
pub fn access(address: *const u8) -> String {
    row_of(address).map_or("none".into(), |row| row.rights)
}

/// Mappings of files that can be executed and are shared, as those of this crate are, and open
/// descriptors.
pub fn in_use() -> (usize, usize) {
    let executable = rows().iter().filter(|row| row.rights == "r-xs").count();
    (executable, fs::read_dir("/proc/self/fd").unwrap().count())
}

fn row(line: &str) -> Option<Row> {
    let hex = |text| usize::from_str_radix(text, 16).ok();
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let range = hex(start)?..hex(end)?;
    let rights = words.next()?.into();
    let offset = hex(words.next()?)?;
    let inode = words.nth(1)?.parse().ok()?;
    let path = words.next().unwrap_or("").trim().into();
    Some(Row { range, rights, offset, inode, path, rss: 0 })
}
