//! What names a method in files.

use std::fmt;

/// Names a method across processes, and changes when its source does: a hash of its name and of
/// all that its code is made from. All zeros names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The hash (BLAKE3) of `parts`, each with its length: `["ab", "c"]` is not `["a", "bc"]`.
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(*hasher.finalize().as_bytes())
    }

    pub(super) const NONE: Key = Key([0; 32]);

    pub(super) fn some(self) -> Option<Key> {
        (self != Key::NONE).then_some(self)
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}
