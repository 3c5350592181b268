//! Stubs of every architecture as bytes, written and read on any host.
//!
//! A stub loads one register from its slot, which lies at a fixed distance D behind it, and jumps
//! to the address that stands beside it:
//!
//! ```text
//!   code, R-X                                   slots
//!   stub + 0   landing pad                      stub + D      data
//!              R    <- [stub + D]       ──────► stub + D + 8  code
//!              jump    [stub + D + 8]
//!   stub + stride: the next stub                stub + D + stride: the next slot
//! ```
//!
//! Nothing in those bytes depends on where they lie or on what the slot holds: all stubs of one
//! register and one D are the same bytes. What fills the stub up to its stride traps.
//!
//! What differs by architecture stands in one file each, under these names:
//!
//! | name | what |
//! |---|---|
//! | `STRIDE` | smallest stride, in bytes; each other is a multiple of it |
//! | `REGS` | bit n set: the register with DWARF number n is legal |
//! | `FILL` | what fills a stub behind its code; it traps when it is run |
//! | `TRAP` | where in a stub the instruction lies that an empty slot's `code` names |
//! | `CODE` | bytes of the code alone |
//! | `refused` | why a register outside `REGS` is not legal |
//! | `write` | register and D to code |
//! | `read` | code to register and D, taking on trust what `write` is asked to confirm |

mod aarch64;
mod riscv64;
mod x86_64;

use core::fmt;

/// Whose stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64, System V psABI.
    X86_64,
    /// arm64, AAPCS64, little-endian.
    Aarch64,
    /// riscv64, LP64 and LP64D.
    Riscv64,
}

/// Why there is no such stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The psABI gives this DWARF number to no general register.
    NoSuchRegister,
    /// Writing it is lost: it reads as zero.
    Zero,
    /// The stack pointer: the callee finds its arguments and its return address by it.
    StackPointer,
    /// The callee returns by it.
    ReturnAddress,
    /// The caller expects to find its own value there after the call.
    CallPreserved,
    /// The stub needs it to carry the jump.
    CarriesJump,
    /// It belongs to the platform: global or thread pointer, shadow call stack.
    Platform,
    /// D is out of reach of the instructions, or not a multiple of 8.
    Distance,
    /// The stride is not a multiple of the architecture's smallest.
    Stride,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NoSuchRegister => "no general register has this DWARF number",
            Refused::Zero => "the register always reads as zero",
            Refused::StackPointer => "the register is the stack pointer",
            Refused::ReturnAddress => "the register holds the return address",
            Refused::CallPreserved => "the register must survive the call",
            Refused::CarriesJump => "the stub needs the register for its jump",
            Refused::Platform => "the register belongs to the platform",
            Refused::Distance => "the slot is out of reach or not a multiple of 8 bytes away",
            Refused::Stride => "the stride is not a multiple of the architecture's",
        })
    }
}

impl core::error::Error for Refused {}

/// The bytes are not those of a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAStub;

impl fmt::Display for NotAStub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a stub")
    }
}

impl core::error::Error for NotAStub {}

/// What a stub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// DWARF number of the register that it loads.
    pub reg: u16,
    /// Address of its slot.
    pub slot: u64,
}

/// What the file of an architecture provides; the table at the head of this file says what each is.
struct Encoder {
    stride: usize,
    regs: u64,
    fill: &'static [u8],
    trap: Trap,
    code: usize,
    refused: fn(u16) -> Refused,
    write: fn(u16, i64, &mut [u8]) -> Option<()>,
    read: fn(&[u8]) -> Option<(u16, i64)>,
}

/// Where the trap of an empty slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// In the padding of the same stub, at this offset.
    InStub(usize),
    /// At the start of the last slot of the same page, which holds no stub.
    LastOfPage,
}

/// The encoder that a file of this folder makes of its names.
macro_rules! encoder {
    ($arch:ident) => {
        Encoder {
            stride: $arch::STRIDE,
            regs: $arch::REGS,
            fill: &$arch::FILL,
            trap: $arch::TRAP,
            code: $arch::CODE,
            refused: $arch::refused,
            write: $arch::write,
            read: $arch::read,
        }
    };
}

impl Arch {
    /// Each architecture that there is an encoder for.
    pub const ALL: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64];

    const fn encoder(self) -> Encoder {
        match self {
            Arch::X86_64 => encoder!(x86_64),
            Arch::Aarch64 => encoder!(aarch64),
            Arch::Riscv64 => encoder!(riscv64),
        }
    }

    /// The smallest stride, in bytes: what the kernel service uses.
    pub const fn stride(self) -> usize {
        self.encoder().stride
    }

    /// Bit n set: the register with DWARF number n may be loaded, as `trampfd_info.regs`.
    pub const fn regs(self) -> u64 {
        self.encoder().regs
    }

    /// Bytes of a stub that are run, from its start; the rest up to the stride is padding.
    pub const fn code_len(self) -> usize {
        self.encoder().code
    }

    /// Where an empty slot's `code` points.
    pub const fn trap(self) -> Trap {
        self.encoder().trap
    }

    /// Stubs in a page of `page` bytes.
    ///
    /// # Panics
    ///
    /// `stride` is 0.
    pub const fn slots_per_page(self, page: usize, stride: usize) -> usize {
        match self.encoder().trap {
            Trap::InStub(_) => page / stride,
            Trap::LastOfPage => (page / stride).saturating_sub(1),
        }
    }
}

/// Whether a stub may load register `reg`, by its DWARF number.
///
/// # Errors
///
/// The reason why not, which is never [`Refused::Distance`] or [`Refused::Stride`].
pub fn check(arch: Arch, reg: u16) -> Result<(), Refused> {
    let encoder = arch.encoder();
    if reg < 64 && encoder.regs >> reg & 1 == 1 { Ok(()) } else { Err((encoder.refused)(reg)) }
}

/// Writes one stub into `stub`, whose length is the stride: it loads register `reg` from its slot
/// `distance` bytes behind (or, negative, before) it.
///
/// # Errors
///
/// The register, the distance or the stride is none; `stub` is then as it was.
pub fn encode(arch: Arch, reg: u16, distance: i64, stub: &mut [u8]) -> Result<(), Refused> {
    let encoder = arch.encoder();
    check(arch, reg)?;
    if stub.is_empty() || !stub.len().is_multiple_of(encoder.stride) {
        return Err(Refused::Stride);
    }
    if distance % 8 != 0 {
        return Err(Refused::Distance);
    }
    let (code, padding) = stub.split_at_mut(encoder.code);
    (encoder.write)(reg, distance, code).ok_or(Refused::Distance)?;
    fill(&encoder, encoder.code, padding);
    Ok(())
}

/// Writes one page of stubs `stride` bytes apart, as a code view or a static table has it.
///
/// # Errors
///
/// As [`encode`]; [`Refused::Stride`] also where `page` is not a multiple of it.
pub fn encode_page(
    arch: Arch,
    reg: u16,
    distance: i64,
    stride: usize,
    page: &mut [u8],
) -> Result<(), Refused> {
    if stride == 0 || page.is_empty() || !page.len().is_multiple_of(stride) {
        return Err(Refused::Stride);
    }
    let stubs = arch.slots_per_page(page.len(), stride) * stride;
    let (stubs, rest) = page.split_at_mut(stubs);
    for stub in stubs.chunks_exact_mut(stride) {
        encode(arch, reg, distance, stub)?;
    }
    fill(&arch.encoder(), 0, rest);
    Ok(())
}

/// What the stub does that begins with `bytes` and lies at address `pc`. Only its code is looked
/// at ([`Arch::code_len`] bytes), not what follows.
///
/// # Errors
///
/// [`NotAStub`] for bytes that [`encode`] never writes, and where there are too few of them.
pub fn decode(arch: Arch, bytes: &[u8], pc: u64) -> Result<Decoded, NotAStub> {
    let encoder = arch.encoder();
    let code = bytes.get(..encoder.code).ok_or(NotAStub)?;
    let (reg, distance) = (encoder.read)(code).ok_or(NotAStub)?;
    // `read` looks at the fields only. It is a stub when the encoder would write the same.
    let mut again = [0; 32];
    encode(arch, reg, distance, &mut again).map_err(|_| NotAStub)?;
    if again[..encoder.code] != *code {
        return Err(NotAStub);
    }
    Ok(Decoded { reg, slot: pc.wrapping_add_signed(distance) })
}

/// Fills `bytes`, which begin `at` bytes into a stub, with traps.
fn fill(encoder: &Encoder, at: usize, bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = encoder.fill[(at + i) % encoder.fill.len()];
    }
}

/// A set of registers as bits, from ranges of DWARF numbers, both ends included.
const fn bits(ranges: &[(u16, u16)]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < ranges.len() {
        let mut reg = ranges[i].0;
        while reg <= ranges[i].1 {
            bits |= 1 << reg;
            reg += 1;
        }
        i += 1;
    }
    bits
}

/// Writes instructions of 4 bytes one after another.
fn put(code: &mut [u8], words: &[u32]) {
    for (bytes, word) in code.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// Instruction `n` of 4 bytes.
fn word(code: &[u8], n: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*code.get(4 * n..)?.first_chunk()?))
}
