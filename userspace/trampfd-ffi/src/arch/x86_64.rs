//! x86-64.
//!
//! What libffi writes into a closure that lies in memory of the caller:
//!
//! ```text
//!   closure + 0    endbr64
//!           + 4    lea -11(%rip), %r10      r10 = closure
//!           + 11   jmp *7(%rip)             to the address at closure + 24
//!           + 17   nop
//!           + 24   address of the entry     for this signature and convention
//!           + 32   cif, fun, user_data
//! ```
//!
//! So the entry wants the closure's address in r10, and takes the rest from there.
//!
//! A structure of up to 16 bytes is two eightbytes to libffi, each in an integer register if it
//! holds an integer, else in xmm; with a `long double` it is in memory, or returned in st(0).

use trampfd::raw::{Leaf, MAX_IN_REGISTERS, Scalar};

use crate::ffi::{self, Status, Type};
use crate::signature::{MAX_DEPTH, MAX_MEMBERS, SCALARS, elements, part};

/// `FFI_UNIX64`.
pub const NATIVE_ABI: u32 = 2;

/// What libffi writes before the entry's address, as 8-byte words.
const TRAMPOLINE: [u64; 3] = [0xf515_8d4c_fa1e_0ff3, 0x0000_0725_ffff_ffff, 0x0000_0000_801f_0f00];

/// The entry that libffi has chosen, of the first words of a closure that it has prepared; `None`
/// if they are not as drawn above.
pub fn entry_of(words: &[usize; 4]) -> Option<usize> {
    let drawn = words.iter().zip(TRAMPOLINE).all(|(&word, drawn)| word as u64 == drawn);
    drawn.then_some(words[3])
}

/// At most one scalar of each kind for each eightbyte.
pub const LEAVES: usize = 5;

/// Fills in scalars that stand for those in a structure of up to [`MAX_IN_REGISTERS`] bytes, and
/// says how many. `None` if not all of them are known.
///
/// # Errors
///
/// [`Status::BadTypedef`].
pub fn leaves(kind: &Type, leaves: &mut [Leaf; LEAVES]) -> Result<Option<usize>, Status> {
    let mut walk = Walk::default();
    walk.members_of(kind, 0, MAX_IN_REGISTERS, 0)?;
    if walk.unknown {
        return Ok(None);
    }
    let mut count = 0;
    let mut push = |offset, scalar| {
        if let Some(place) = leaves.get_mut(count) {
            *place = Leaf { offset, scalar };
            count += 1;
        }
    };
    for (n, half) in walk.halves.iter().enumerate() {
        if half.int {
            push(8 * n, Scalar::Int(8, false));
        }
        if half.float {
            push(8 * n, Scalar::F64);
        }
    }
    if walk.long_double {
        push(0, Scalar::LongDouble);
    }
    Ok(Some(count))
}

/// What each eightbyte of a small value holds.
#[derive(Clone, Copy, Default)]
struct Half {
    int: bool,
    float: bool,
}

/// What the walk through a structure has found.
#[derive(Default)]
struct Walk {
    halves: [Half; MAX_IN_REGISTERS / 8],
    long_double: bool,
    /// A type was met that is not known here.
    unknown: bool,
    members: u32,
}

impl Walk {
    /// Walks a structure that lies at `at` in one that reaches until `end`.
    fn members_of(
        &mut self,
        kind: &Type,
        mut at: usize,
        end: usize,
        depth: u32,
    ) -> Result<(), Status> {
        if depth > MAX_DEPTH {
            return Err(Status::BadTypedef);
        }
        // What is said to lie behind the structure's end counts as far as the last eightbyte.
        let end = end.min((at + kind.size.min(end)).next_multiple_of(8));
        for member in elements(kind)? {
            self.members += 1;
            if self.members > MAX_MEMBERS {
                return Err(Status::BadTypedef);
            }
            // As libffi rounds; alignments are powers of two.
            let mask = usize::from(member.alignment).max(1) - 1;
            at = (at + mask) & !mask;
            if at >= end {
                break;
            }
            match member.code {
                ffi::STRUCT if member.size == 0 => {}
                ffi::STRUCT => self.members_of(member, at, end, depth + 1)?,
                ffi::COMPLEX => match part(member)? {
                    Some(part) => {
                        self.scalar(part, at, end);
                        self.scalar(part, at + part.size(), end);
                    }
                    None => self.unknown = true,
                },
                code => match SCALARS.get(usize::from(code)) {
                    Some(&Some(scalar)) => self.scalar(scalar, at, end),
                    _ => self.unknown = true,
                },
            }
            at = at.saturating_add(member.size).min(end);
        }
        Ok(())
    }

    /// Marks the eightbytes of a scalar.
    fn scalar(&mut self, scalar: Scalar, at: usize, end: usize) {
        match scalar {
            Scalar::LongDouble => self.long_double = true,
            Scalar::F32 | Scalar::F64 => {
                if at < end
                    && let Some(half) = self.halves.get_mut(at / 8)
                {
                    half.float = true;
                }
            }
            Scalar::Int(..) | Scalar::Wide => {
                let until = (at + scalar.size()).min(end).div_ceil(8);
                for half in self.halves.iter_mut().take(until).skip(at / 8) {
                    half.int = true;
                }
            }
        }
    }
}
