//! Which registers a C type is passed in: section 3.2.3 of the psABI.
//!
//! A value of up to 16 bytes is looked at in halves of 8, its eightbytes. Each goes, by what lies
//! in it, into the next register of its kind; if one of them finds none left, all of the value
//! goes onto the stack:
//!
//! ```text
//!   struct { int a; float b; double c; }       arguments      result
//!   byte 0    a  b │ integer (a decides)  ───► rdi .. r9      rax, rdx
//!   byte 8    c    │ xmm                  ───► xmm0 .. xmm7   xmm0, xmm1
//! ```
//!
//! A `long double` is passed on the stack and returned in st(0).

use crate::arch::x86_64::{FLOAT_REGS, INT_REGS};
use crate::plan::{Leaf, Move, Scalar};

/// Bytes of a `long double`, 6 of them padding; its alignment too.
pub const LONG_DOUBLE: usize = 16;
/// Values of more bytes are passed in memory, whatever they are made of.
pub const MAX_IN_REGISTERS: usize = 16;

/// How a value is passed as argument: a number of the table below in the low four bits, and for
/// code 15 its size on the stack in words of 8 bytes and its alignment above.
///
/// | code | registers | on the stack if there are not enough |
/// |---|---|---|
/// | 1 | integer | 8 bytes |
/// | 2 | xmm | 8 bytes |
/// | 3 to 6 | two: integer, integer; xmm, xmm; integer, xmm; xmm, integer | 16 bytes |
/// | 7 | two integer registers | 16 bytes, aligned to 16 |
/// | 8, 9 | none: long double, complex long double | 16, 32 bytes, aligned to 16 |
/// | 15 | none | as said above |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u32);

impl Class {
    const INT: u32 = 1;
    const FLOAT: u32 = 2;
    const INT_INT: u32 = 3;
    const FLOAT_FLOAT: u32 = 4;
    const INT_FLOAT: u32 = 5;
    const FLOAT_INT: u32 = 6;
    const WIDE: u32 = 7;
    const LONG_DOUBLE: u32 = 8;
    const LONG_DOUBLES: u32 = 9;
    const MEMORY: u32 = 15;

    /// Bits of a class whose code says all.
    pub const BITS: u32 = 4;
    /// A code of so many bits that is no class's.
    pub const NO_CODE: u8 = Class::MEMORY as u8;

    /// The class of a value that is one scalar.
    pub const fn scalar(scalar: Scalar) -> Class {
        Class(match scalar {
            Scalar::Int(..) => Class::INT,
            Scalar::F32 | Scalar::F64 => Class::FLOAT,
            Scalar::Wide => Class::WIDE,
            Scalar::LongDouble => Class::LONG_DOUBLE,
        })
    }

    /// The class of a complex number with such parts.
    pub const fn complex(part: Scalar) -> Class {
        Class(match part {
            Scalar::F32 => Class::FLOAT,
            Scalar::LongDouble => Class::LONG_DOUBLES,
            _ => Class::FLOAT_FLOAT,
        })
    }

    /// The class of a structure or union of `size` bytes made of `leaves`, which are not looked
    /// at if it has more than [`MAX_IN_REGISTERS`] bytes. `None` if it is too large for any call.
    pub fn compound(size: usize, align: usize, leaves: &[Leaf]) -> Option<Class> {
        // What is returned in st(0) is no argument in registers.
        let halves = halves(size, leaves).filter(|halves| halves[0] != Half::X87);
        if let Some(halves) = halves {
            let wide = align > 8;
            return Some(Class(match halves {
                [Half::Float, Half::None] => Class::FLOAT,
                [Half::Int, Half::None] => Class::INT,
                [Half::Float, Half::Float] => Class::FLOAT_FLOAT,
                [Half::Int, Half::Float] => Class::INT_FLOAT,
                [Half::Float, _] => Class::FLOAT_INT,
                _ if wide => Class::WIDE,
                _ => Class::INT_INT,
            }));
        }
        let words = u32::try_from(size.div_ceil(8)).ok().filter(|&words| words < 1 << 26)?;
        Some(Class(words << 5 | u32::from(align > 8) << 4 | Class::MEMORY))
    }

    /// The code alone, if it says all.
    #[inline(always)]
    pub const fn code(self) -> Option<u32> {
        if self.0 < 1 << Class::BITS { Some(self.0) } else { None }
    }

    /// The class with this code, which [`code`](Class::code) gave.
    pub const fn of_code(code: u32) -> Class {
        Class(code)
    }

    /// All of it.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// The class of one eightbyte of a value.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    None,
    Int,
    Float,
    X87,
    X87Up,
}

impl Half {
    /// Both in one eightbyte, as in a union; `None` if that is passed in memory.
    fn merge(self, other: Half) -> Option<Half> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Half::None, a) | (a, Half::None) => Some(a),
            (Half::Int, _) | (_, Half::Int) => Some(Half::Int),
            _ => None,
        }
    }
}

/// The eightbytes of a value; `None` if it is passed in memory, as argument and as result.
fn halves(size: usize, leaves: &[Leaf]) -> Option<[Half; 2]> {
    if size > MAX_IN_REGISTERS {
        return None;
    }
    let mut halves = [Half::None; 2];
    for leaf in leaves {
        let both = match leaf.scalar {
            Scalar::LongDouble => [Half::X87, Half::X87Up],
            Scalar::Wide => [Half::Int; 2],
            scalar => {
                let float = matches!(scalar, Scalar::F32 | Scalar::F64);
                let mut both = [Half::None; 2];
                both[leaf.offset / 8] = if float { Half::Float } else { Half::Int };
                both
            }
        };
        halves = [halves[0].merge(both[0])?, halves[1].merge(both[1])?];
    }
    let alone = halves[1] == Half::X87Up && halves[0] != Half::X87;
    (!alone).then_some(halves)
}

/// How a result is returned; the number is a part of what tells plans apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Returned {
    /// Nothing.
    Void,
    /// In rax, extended from 8 bits with the sign.
    I8,
    /// In rax, extended from 8 bits with zeroes.
    U8,
    /// In rax, extended from 16 bits with the sign.
    I16,
    /// In rax, extended from 16 bits with zeroes.
    U16,
    /// In rax, extended from 32 bits with the sign.
    I32,
    /// In rax, extended from 32 bits with zeroes.
    U32,
    /// In rax.
    Int,
    /// In xmm0.
    Float,
    /// In rax and rdx.
    IntInt,
    /// In xmm0 and xmm1.
    FloatFloat,
    /// In rax and xmm0.
    IntFloat,
    /// In xmm0 and rax.
    FloatInt,
    /// In st(0).
    X87,
    /// In st(0) and st(1).
    X87X87,
    /// In memory of the caller, whose address is a hidden first argument and is returned in rax.
    Memory,
}

impl Returned {
    /// Bits of its number.
    pub const BITS: u32 = 4;

    /// How one scalar is returned.
    pub const fn scalar(scalar: Scalar) -> Returned {
        match scalar {
            Scalar::Int(1, true) => Returned::I8,
            Scalar::Int(1, false) => Returned::U8,
            Scalar::Int(2, true) => Returned::I16,
            Scalar::Int(2, false) => Returned::U16,
            Scalar::Int(4, true) => Returned::I32,
            Scalar::Int(4, false) => Returned::U32,
            Scalar::Int(..) => Returned::Int,
            Scalar::F32 | Scalar::F64 => Returned::Float,
            Scalar::Wide => Returned::IntInt,
            Scalar::LongDouble => Returned::X87,
        }
    }

    /// How a complex number with such parts is returned.
    pub const fn complex(part: Scalar) -> Returned {
        match part {
            Scalar::F32 => Returned::Float,
            Scalar::LongDouble => Returned::X87X87,
            _ => Returned::FloatFloat,
        }
    }

    /// How a structure or union is returned.
    pub fn compound(size: usize, leaves: &[Leaf]) -> Returned {
        match halves(size, leaves) {
            Some([Half::Float, Half::None]) => Returned::Float,
            Some([Half::Int, Half::None]) => Returned::Int,
            Some([Half::Float, Half::Float]) => Returned::FloatFloat,
            Some([Half::Int, Half::Float]) => Returned::IntFloat,
            Some([Half::Float, _]) => Returned::FloatInt,
            Some([Half::X87, _]) => Returned::X87,
            Some(_) => Returned::IntInt,
            None => Returned::Memory,
        }
    }
}

/// Where an argument is when a handler looks at it: bytes from the frame, drawn in `dynamic.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There.
    At(i32),
    /// Its two halves are at `from`, and have to be put together.
    Apart {
        /// The halves.
        from: [i32; 2],
    },
}

/// Gives each argument of a signature its place, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Placer {
    ints: usize,
    floats: usize,
    /// Bytes from the first stack argument.
    stack: u32,
}

/// Bytes from the frame to the first saved integer register, xmm register, and stack argument.
pub(super) const INTS_AT: i32 = -64;
pub(super) const FLOATS_AT: i32 = -128;
const STACK_AT: i32 = 16;
/// Bytes that the entry takes in any case: down to the room for the result.
const FIXED: u32 = 160;
/// Bytes of stack arguments of one call, at most.
const MAX_STACK: u32 = 1 << 30;

impl Placer {
    /// For a signature with this result.
    pub const fn new(returned: Returned) -> Placer {
        Placer { ints: matches!(returned, Returned::Memory) as usize, floats: 0, stack: 0 }
    }

    /// The place of the next argument; `None` if no call can have so many.
    pub fn place(&mut self, class: Class) -> Option<Found> {
        let (ints, floats) = match class.0 & 15 {
            Class::INT => (1, 0),
            Class::FLOAT => (0, 1),
            Class::INT_INT | Class::WIDE => (2, 0),
            Class::FLOAT_FLOAT => (0, 2),
            Class::INT_FLOAT | Class::FLOAT_INT => (1, 1),
            _ => (0, 0),
        };
        let in_registers = ints + floats > 0
            && self.ints + ints <= INT_REGS.len()
            && self.floats + floats <= FLOAT_REGS;
        if !in_registers {
            return self.on_stack(class);
        }
        let int = INTS_AT + 8 * self.ints as i32;
        let float = FLOATS_AT + 8 * self.floats as i32;
        self.ints += ints;
        self.floats += floats;
        Some(match class.0 {
            Class::INT_FLOAT => Found::Apart { from: [int, float] },
            Class::FLOAT_INT => Found::Apart { from: [float, int] },
            _ if ints > 0 => Found::At(int),
            _ => Found::At(float),
        })
    }

    fn on_stack(&mut self, class: Class) -> Option<Found> {
        let (bytes, align) = match class.0 & 15 {
            Class::INT | Class::FLOAT => (8, 8),
            Class::WIDE | Class::LONG_DOUBLE => (16, 16),
            Class::LONG_DOUBLES => (32, 16),
            Class::MEMORY => (8 * (class.0 >> 5), if class.0 & 16 != 0 { 16 } else { 8 }),
            _ => (16, 8),
        };
        let at = self.stack.next_multiple_of(align);
        self.stack = at.checked_add(bytes).filter(|&stack| stack <= MAX_STACK)?;
        Some(Found::At(STACK_AT + at as i32))
    }

    /// Integer argument registers that hold something.
    pub const fn ints(&self) -> usize {
        self.ints
    }

    /// xmm registers that hold something.
    pub const fn floats(&self) -> usize {
        self.floats
    }

    /// Bytes of stack arguments.
    pub const fn stack(&self) -> u32 {
        self.stack
    }
}

/// Where the halves of the `n`th argument that lies apart are put together: bytes from the frame.
pub fn together(n: usize, from: [i32; 2]) -> (i32, [Move; 2]) {
    let to = -(FIXED as i32) - 16 * (n as i32 + 1);
    (to, [Move { from: from[0], to }, Move { from: from[1], to: to + 8 }])
}

/// Bytes of stack that an entry takes for `count` arguments, `apart` of which lie apart.
pub fn frame(count: usize, apart: usize) -> Option<u32> {
    let bytes = 8usize.checked_mul(count)?.checked_add(16 * apart)?;
    let bytes = u32::try_from(bytes).ok().filter(|&bytes| bytes <= MAX_STACK)?;
    Some((FIXED + bytes).next_multiple_of(16))
}
