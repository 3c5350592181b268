//! What a file says, and where things lie in it and in memory.
//!
//! ```text
//!  0    magic          8     32  offset of the code    8    88   key of the root    32
//!  8    format         4     40  bytes of code         8    120  hash of all but    32
//!  12   machine        4     48  bytes of constants    8         these 32 bytes
//!  16   bytes of page  4     56  hash of the version  32    152  table of methods
//!  20   methods        4
//!  24   slots          4     method: key 32, offset 4, length 4
//!  28   bytes of names 4     slot: kind 4, a 4, b 4, 0 4, key 32, home 32
//!
//!  kind 0: method number a of this batch
//!       1: another method; its stub is at offset a; home: whose batch had it
//!       2: helper; its name is bytes a to a + b of the names, which follow the slots
//! ```
//!
//! All numbers are little-endian. Code and constants begin at whole pages.

use std::ops::Range;

use super::{Key, Reason, arch};
use crate::vm;

pub(super) const MAGIC: [u8; 8] = *b"trampfdB";
pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER: usize = 152;
pub(super) const METHOD: usize = 40;
pub(super) const SLOT: usize = 80;
const HASH: Range<usize> = 120..152;

/// The largest file that is read, in bytes: distances are signed 32-bit numbers.
pub(super) const MAX: u64 = i32::MAX as u64;

/// A GOT is made of groups, each of which begins with the resolver and the cache: bytes of one.
pub(super) const GROUP: usize = 4096;
const WORD: usize = 8;
const SLOTS_OF_GROUP: usize = GROUP / WORD - 2;

/// Offset of a slot in its GOT.
pub(super) fn slot_at(slot: usize) -> usize {
    slot / SLOTS_OF_GROUP * GROUP + (2 + slot % SLOTS_OF_GROUP) * WORD
}

/// Groups of a GOT.
pub(super) fn groups(slots: usize) -> usize {
    slots.div_ceil(SLOTS_OF_GROUP)
}

/// Where the parts of a mapped batch begin: whole pages, code first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) constants: usize,
    pub(super) got: usize,
    pub(super) len: usize,
}

impl Layout {
    /// `None`: not in reach of each other.
    pub(super) fn new(code: usize, constants: usize, slots: usize) -> Option<Layout> {
        let pages = |len: usize| vm::round_to_pages(len).ok();
        let constants_at = pages(code)?;
        let got = constants_at.checked_add(pages(constants)?)?;
        let len = got.checked_add(pages(groups(slots).checked_mul(GROUP)?)?)?;
        (len as u64 <= MAX).then_some(Layout { constants: constants_at, got, len })
    }
}

/// A method of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) key: Key,
    pub(super) at: u32,
    pub(super) len: u32,
}

/// Whose address a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    /// A method of the batch, by its number.
    Inside(u32),
    /// Another, whose code may be in the batch of `home`.
    Outside {
        key: Key,
        home: Option<Key>,
        stub: u32,
    },
    Helper(String),
}

/// What a file of the cache says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub(super) version: [u8; 32],
    pub(super) methods: Vec<Method>,
    pub(super) slots: Vec<Callee>,
    pub(super) code_at: usize,
    pub(super) code: usize,
    pub(super) constants: usize,
    pub(super) layout: Layout,
}

impl Contents {
    /// The method whose batch it is.
    pub fn root(&self) -> Key {
        self.methods[0].key
    }

    /// Keys of the methods whose code is in it, the root first.
    pub fn methods(&self) -> impl Iterator<Item = Key> {
        self.methods.iter().map(|method| method.key)
    }

    /// Where a method's code is in the file, in bytes.
    pub fn code(&self, method: &Key) -> Option<Range<usize>> {
        let method = self.methods.iter().find(|row| row.key == *method)?;
        let start = self.code_at + method.at as usize;
        Some(start..start + method.len as usize)
    }

    /// Keys of the methods that are called and not in it.
    pub fn calls(&self) -> impl Iterator<Item = Key> {
        self.slots.iter().filter_map(|slot| match slot {
            Callee::Outside { key, .. } => Some(*key),
            _ => None,
        })
    }
}

/// Reads numbers; what is out of bounds is the file's fault.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Reason> {
        let short = Reason::Size(self.bytes.len() as u64);
        let rest = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += N;
        rest.ok_or(short)
    }

    fn number(&mut self) -> Result<u32, Reason> {
        Ok(u32::from_le_bytes(*self.take()?))
    }

    fn long(&mut self) -> Result<usize, Reason> {
        let long = u64::from_le_bytes(*self.take()?);
        if long <= MAX { Ok(long as usize) } else { Err(Reason::Size(self.bytes.len() as u64)) }
    }

    fn key(&mut self) -> Result<Key, Reason> {
        Ok(Key(*self.take()?))
    }
}

/// What a file of the cache says, its hash not checked: `bytes` are all of it.
///
/// # Errors
///
/// Why they are not a batch for this machine.
pub fn parse(bytes: &[u8]) -> Result<Contents, Reason> {
    let size = || Reason::Size(bytes.len() as u64);
    let bad = |what| Err(Reason::Malformed(what));
    let mut reader = Reader { bytes, at: 0 };
    if reader.take::<8>()? != &MAGIC {
        return Err(Reason::NoBatch);
    }
    let format = reader.number()?;
    if format != FORMAT {
        return Err(Reason::Format(format));
    }
    let (machine, page) = (reader.number()?, reader.number()?);
    if machine != arch::MACHINE || page as usize != vm::page_size() {
        return Err(Reason::Machine { machine, page });
    }
    let [methods, slots, names] = [reader.number()?, reader.number()?, reader.number()?];
    let [methods, slots, names] = [methods as usize, slots as usize, names as usize];
    let [code_at, code, constants] = [reader.long()?, reader.long()?, reader.long()?];
    let version = *reader.take()?;
    let root = reader.key()?;
    reader.take::<32>()?;

    let tables = (methods as u64 * METHOD as u64) + (slots as u64 * SLOT as u64);
    let front = HEADER as u64 + tables + names as u64;
    if front > bytes.len() as u64 || vm::round_to_pages(front as usize).ok() != Some(code_at) {
        return Err(size());
    }
    let names_at = front as usize - names;
    let layout = Layout::new(code, constants, slots).ok_or_else(size)?;
    if bytes.len() != code_at + layout.got {
        return Err(size());
    }
    let names = &bytes[names_at..front as usize];

    let mut rows = Vec::with_capacity(methods);
    for _ in 0..methods {
        let row = Method { key: reader.key()?, at: reader.number()?, len: reader.number()? };
        if u64::from(row.at) + u64::from(row.len) > code as u64 {
            return bad("a method ends outside of the code");
        }
        if row.len == 0 {
            return bad("a method has no code");
        }
        rows.push(row);
    }
    let mut keys: Vec<_> = rows.iter().map(|row| row.key).collect();
    keys.sort_unstable();
    if keys.first() == Some(&Key::NONE) || keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return bad("two methods have one key");
    }
    if rows.first().map(|row| row.key) != Some(root) {
        return bad("the root is not the first method");
    }
    let mut callees = Vec::with_capacity(slots);
    for _ in 0..slots {
        let [kind, a, b, _] =
            [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
        let (key, home) = (reader.key()?, reader.key()?);
        callees.push(match kind {
            0 if (a as usize) < methods => Callee::Inside(a),
            1 if key != Key::NONE && u64::from(a) + arch::STUB as u64 <= code as u64 => {
                Callee::Outside { key, home: home.some(), stub: a }
            }
            2 => {
                let name = (a as usize).checked_add(b as usize).and_then(|end| {
                    names.get(a as usize..end).and_then(|name| str::from_utf8(name).ok())
                });
                match name {
                    Some(name) => Callee::Helper(name.into()),
                    None => return bad("a helper has no name"),
                }
            }
            _ => return bad("a slot is for nothing"),
        });
    }
    Ok(Contents { version, methods: rows, slots: callees, code_at, code, constants, layout })
}

/// As [`parse`], for a file that has to hold the batch of `root`, made for `version`. The hash in
/// `bytes` is gone after this.
pub(super) fn verify(bytes: &mut [u8], version: &[u8; 32], root: &Key) -> Result<Contents, Reason> {
    let contents = parse(bytes);
    // What is no batch of this format at all has a better reason than its hash.
    match contents {
        Err(reason @ (Reason::NoBatch | Reason::Format(_) | Reason::Machine { .. })) => {
            return Err(reason);
        }
        Err(Reason::Size(len)) => return Err(Reason::Size(len)),
        _ => {}
    }
    let mut said = [0; HASH.end - HASH.start];
    said.copy_from_slice(&bytes[HASH]);
    seal(bytes);
    if bytes[HASH] != said {
        return Err(Reason::Hash);
    }
    let contents = contents?;
    if contents.version != *version {
        return Err(Reason::Version);
    }
    if contents.root() != *root {
        return Err(Reason::OtherBatch);
    }
    Ok(contents)
}

/// Puts the hash in its place: that of all bytes, zeros in this place.
pub(super) fn seal(bytes: &mut [u8]) {
    bytes[HASH].fill(0);
    // In one piece: that is what the hash is fast for.
    let hash = blake3::hash(bytes);
    bytes[HASH].copy_from_slice(hash.as_bytes());
}
