//! x86-64, System V psABI.
//!
//! A stub and its slot, 32 bytes each, D bytes apart:
//!
//! ```text
//!  stub + 0   f3 0f 1e fa            endbr64              landing pad for indirect calls
//!  stub + 4   48 8b mm dd dd dd dd   mov  D(slot), %R     R <- slot.data
//!  stub + 11  ff 25 dd dd dd dd      jmp *D+8(slot)       to slot.code
//!  stub + 17  0f 0b                  ud2                  nothing falls through
//!  stub + 19  nn                    the number of its table
//!  stub + 20  12 bytes of padding
//!
//!  slot + 0   data    slot + 8   code    slot + 16   16 bytes for the captured value
//! ```
//!
//! The stub touches neither the stack nor a register other than R, so that the frame at each of
//! its instructions is the frame at entry: CFA = rsp + 8, return address at CFA - 8.
//!
//! What the entry makes of the stack. It is entered by a stub with the data pointer in r10, the
//! integer arguments in rdi, rsi, rdx, rcx, r8, r9, the floating-point ones in xmm0 to xmm7:
//!
//! ```text
//!            │ stack argument 1          │ rbp + 24
//!            │ stack argument 0          │ rbp + 16   Frame::stack_word(0)
//!    CFA ──► ├───────────────────────────┤
//!            │ return address            │ rbp + 8
//!            │ rbp of the caller         │ rbp        DW_CFA_offset(rbp, -16)
//!            │ r9: the last int register │ rbp - 8    Frame::last_int
//!    rsp ──► │ r10: the data pointer     │ rbp - 16   Frame::data      16-byte aligned
//!            └───────────────────────────┘
//! ```
//!
//! The callee gets rsp in r9 and everything else untouched.

mod classify;
mod dynamic;
mod thread;

use core::arch::naked_asm;
use core::cell::UnsafeCell;

use crate::arch::Place;
use crate::entry::{Callee, Freed};
use crate::table::{Slot, StaticTable};

pub use classify::{
    Class, Found, LONG_DOUBLE, MAX_IN_REGISTERS, Placer, Returned, frame, together,
};
pub use dynamic::{any, entries, foreign, unbound};
pub use thread::{set_thread_word, thread_word};

/// Integer argument registers in order: rdi, rsi, rdx, rcx, r8, r9, as DWARF numbers.
pub const INT_REGS: [u16; 6] = [5, 4, 1, 2, 8, 9];
/// Number of floating-point argument registers (xmm0 to xmm7).
pub const FLOAT_REGS: usize = 8;
/// The static chain register, r10, as DWARF number.
pub const CHAIN_REG: u16 = 10;

/// Bytes from one stub to the next, and from one slot to the next.
pub const SLOT_STRIDE: usize = 32;
/// Stubs of the static table of a register: 64 KiB of text for each register in use.
pub const TABLE_SLOTS: usize = 2048;
/// Stubs of the static table of dynamic closures: programs make more of them than of any one
/// register's, and twice the stubs are half the mappings.
const DYNAMIC_SLOTS: usize = 4096;
/// Alignment of a table's text and of its slots: the page.
pub const TABLE_ALIGN: usize = 4096;
/// Number of the table of dynamic closures, whose stubs load the static chain register too.
pub const DYNAMIC: usize = INT_REGS.len() + 1;
/// Number of static tables: one for each integer argument register, the static chain's, and the
/// one of dynamic closures.
pub const TABLES: usize = DYNAMIC + 1;
/// Number of the table of nested functions, which is not among the [`TABLES`]: its stubs load the
/// static chain register, and another crate gives them out.
pub const NESTED: usize = TABLES;

/// Where the psABI (section 3.2.3) puts argument `n`, `float[i]` saying whether argument `i` is
/// a float or double; all others are INTEGER of at most 8 bytes.
pub const fn place(float: &[bool], n: usize) -> Place {
    let (mut ints, mut floats, mut stack) = (0, 0, 0);
    let mut i = 0;
    loop {
        let place = if float[i] && floats < FLOAT_REGS {
            floats += 1;
            Place::Float(floats - 1)
        } else if !float[i] && ints < INT_REGS.len() {
            ints += 1;
            Place::Int(ints - 1)
        } else {
            stack += 1;
            Place::Stack(stack - 1)
        };
        if i == n {
            return place;
        }
        i += 1;
    }
}

/// What [`entry`] leaves on the stack for its callee; drawn at the head of this file.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// The data pointer that the stub loaded.
    pub data: usize,
    /// What the caller passed in the last integer argument register.
    pub last_int: u64,
    frame_pointer: usize,
    return_address: usize,
}

impl Frame {
    /// Stack argument `n`, counted in words of 8 bytes.
    ///
    /// # Safety
    ///
    /// `frame` comes from [`entry`], which is still running, and the C signature has more than
    /// `n` words of stack arguments.
    #[inline(always)]
    pub unsafe fn stack_word(frame: *const Frame, n: usize) -> u64 {
        // SAFETY: the caller's stack arguments follow the return address.
        unsafe { frame.add(1).cast::<u64>().add(n).read() }
    }
}

/// Floating-point arguments that can be on the stack while an integer argument register is free:
/// of 12 arguments, those beyond the floating-point registers.
const STACK_WORDS: usize = 4;

/// What the caller of a stub left.
///
/// # Invariants
///
/// `ints` and `floats` hold the argument registers. `stack`, or where it is not null `frame`,
/// holds the stack words that the signature has.
#[derive(Debug)]
pub struct Regs {
    ints: [u64; INT_REGS.len()],
    floats: [u64; FLOAT_REGS],
    stack: [u64; STACK_WORDS],
    frame: *const Frame,
}

impl Regs {
    /// The word of the argument at `place`.
    ///
    /// # Safety
    ///
    /// The signature has an argument at `place`.
    #[inline(always)]
    pub unsafe fn word(&self, place: Place) -> u64 {
        match place {
            Place::Int(n) => self.ints[n],
            Place::Float(n) => self.floats[n],
            Place::Stack(n) if self.frame.is_null() => self.stack[n],
            // SAFETY: by the invariant, the frame is there, and has this word.
            Place::Stack(n) => unsafe { Frame::stack_word(self.frame, n) },
        }
    }
}

/// Entered by a stub that loads an integer argument register, for a signature without stack
/// arguments. Every argument register is a parameter, whether the signature uses it or not: the
/// ones that it does not use are never looked at.
///
/// # Safety
///
/// It is entered from such a stub only.
#[allow(clippy::too_many_arguments, reason = "one for each argument register")]
pub unsafe extern "C-unwind" fn in_registers<T: Callee>(
    i0: u64,
    i1: u64,
    i2: u64,
    i3: u64,
    i4: u64,
    i5: u64,
    f0: f64,
    f1: f64,
    f2: f64,
    f3: f64,
    f4: f64,
    f5: f64,
    f6: f64,
    f7: f64,
) -> T::Ret {
    let ints = [i0, i1, i2, i3, i4, i5];
    let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
    let regs = Regs { ints, floats, stack: [0; STACK_WORDS], frame: core::ptr::null() };
    // SAFETY: by the contract.
    unsafe { T::call(ints[T::TABLE] as usize, &regs) }
}

/// The same for a signature with stack arguments: words that follow the return address.
///
/// # Safety
///
/// It is entered from such a stub only.
#[allow(clippy::too_many_arguments, reason = "one for each argument register and stack word")]
pub unsafe extern "C-unwind" fn on_stack<T: Callee>(
    i0: u64,
    i1: u64,
    i2: u64,
    i3: u64,
    i4: u64,
    i5: u64,
    f0: f64,
    f1: f64,
    f2: f64,
    f3: f64,
    f4: f64,
    f5: f64,
    f6: f64,
    f7: f64,
    s0: u64,
    s1: u64,
    s2: u64,
    s3: u64,
) -> T::Ret {
    let ints = [i0, i1, i2, i3, i4, i5];
    let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
    let regs = Regs { ints, floats, stack: [s0, s1, s2, s3], frame: core::ptr::null() };
    // SAFETY: by the contract.
    unsafe { T::call(ints[T::TABLE] as usize, &regs) }
}

/// Called by [`entry`]: `frame` stands in for the last integer argument register.
#[allow(clippy::too_many_arguments, reason = "one for each argument register")]
unsafe extern "C-unwind" fn framed<T: Callee>(
    i0: u64,
    i1: u64,
    i2: u64,
    i3: u64,
    i4: u64,
    frame: *const Frame,
    f0: f64,
    f1: f64,
    f2: f64,
    f3: f64,
    f4: f64,
    f5: f64,
    f6: f64,
    f7: f64,
) -> T::Ret {
    // SAFETY: `entry` passes its frame.
    let (data, i5) = unsafe { ((*frame).data, (*frame).last_int) };
    let ints = [i0, i1, i2, i3, i4, i5];
    let floats = [f0, f1, f2, f3, f4, f5, f6, f7].map(f64::to_bits);
    // SAFETY: by the contract of `entry`.
    unsafe { T::call(data, &Regs { ints, floats, stack: [0; STACK_WORDS], frame }) }
}

/// The entry that a stub of the static chain register jumps to.
///
/// # Safety
///
/// It is no C function: only a stub that loads r10 may jump here.
#[unsafe(naked)]
pub unsafe extern "C" fn entry<T: Callee>() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push %rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset %rbp, -16",
        "mov %rsp, %rbp",
        ".cfi_def_cfa_register %rbp",
        "push %r9",
        "push %r10",
        "mov %rsp, %r9",
        "call {framed}",
        "leave",
        ".cfi_def_cfa %rsp, 8",
        "ret",
        ".cfi_endproc",
        framed = sym framed::<T>,
        options(att_syntax)
    )
}

/// Slots of a static table.
#[repr(C, align(4096))]
struct Slots<const COUNT: usize>(UnsafeCell<[[u8; SLOT_STRIDE]; COUNT]>);

// SAFETY: only its address is used; see `StaticTable`.
unsafe impl<const COUNT: usize> Sync for Slots<COUNT> {}

/// One table: its stubs, its slots, and the entry of its freed slots, which gets the stub's
/// address by `$stub`. Numeric labels only, so that two versions of this crate can be linked into
/// one program.
macro_rules! table {
    ($table:ident, $number:expr, $count:expr, $name:literal, $dwarf:literal, $stub:literal,
     $stubs:ident, $slots:ident, $freed:ident) => {
        static $slots: Slots<{ $count }> =
            Slots(UnsafeCell::new([[0; SLOT_STRIDE]; $count]));

        static $table: StaticTable = StaticTable {
            reg: $dwarf,
            len: $count,
            text: $stubs,
            slots: (&raw const $slots).cast::<Slot>(),
        };

        #[unsafe(naked)]
        extern "C" fn $stubs() {
            naked_asm!(
                ".balign {align}",
                ".cfi_startproc",
                "1:",
                ".rept {count}",
                ".balign {stride}, 0xcc",
                "2:",
                "endbr64",
                concat!("mov {slots} + (2b - 1b)(%rip), %", $name),
                "jmp *{slots} + (2b - 1b) + 8(%rip)",
                "ud2",
                ".byte {number}",
                ".endr",
                ".balign {align}, 0xcc",
                ".cfi_endproc",
                align = const TABLE_ALIGN,
                number = const $number,
                count = const $count,
                stride = const SLOT_STRIDE,
                slots = sym $slots,
                options(att_syntax)
            )
        }

        #[unsafe(naked)]
        extern "C" fn $freed<T: Freed>() {
            // What the stub loaded is kept over the call, for whoever handles the SIGILL.
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                concat!("push %", $name),
                ".cfi_def_cfa_offset 16",
                concat!("mov ", $stub, ", %rdi"),
                "call {freed}",
                concat!("pop %", $name),
                ".cfi_def_cfa_offset 8",
                "ud2",
                ".cfi_endproc",
                freed = sym T::freed,
                options(att_syntax)
            )
        }
    };
}

// A freed slot of these holds the address of its stub.
table!(RDI, 0, TABLE_SLOTS, "rdi", 5, "%rdi", stubs_rdi, SLOTS_RDI, freed_rdi);
table!(RSI, 1, TABLE_SLOTS, "rsi", 4, "%rsi", stubs_rsi, SLOTS_RSI, freed_rsi);
table!(RDX, 2, TABLE_SLOTS, "rdx", 1, "%rdx", stubs_rdx, SLOTS_RDX, freed_rdx);
table!(RCX, 3, TABLE_SLOTS, "rcx", 2, "%rcx", stubs_rcx, SLOTS_RCX, freed_rcx);
table!(R8, 4, TABLE_SLOTS, "r8", 8, "%r8", stubs_r8, SLOTS_R8, freed_r8);
table!(R9, 5, TABLE_SLOTS, "r9", 9, "%r9", stubs_r9, SLOTS_R9, freed_r9);
table!(R10, 6, TABLE_SLOTS, "r10", 10, "%r10", stubs_r10, SLOTS_R10, freed_r10);

// Its slots always hold the address of their block, whose third word is the stub's address.
table!(DYN, DYNAMIC, DYNAMIC_SLOTS, "r10", 10, "16(%r10)", stubs_dyn, SLOTS_DYN, freed_dyn);

table!(NEST, NESTED, TABLE_SLOTS, "r10", 10, "%r10", stubs_nest, SLOTS_NEST, freed_nest);

/// The table of integer argument register `n`, with `n` = `INT_REGS.len()` of the static chain
/// register, or the one of dynamic closures or of nested functions. Called in constants only, so
/// that a table that is not used is not linked.
///
/// # Panics
///
/// `n` is at most [`NESTED`].
pub const fn static_table(n: usize) -> &'static StaticTable {
    match n {
        0 => &RDI,
        1 => &RSI,
        2 => &RDX,
        3 => &RCX,
        4 => &R8,
        5 => &R9,
        6 => &R10,
        DYNAMIC => &DYN,
        NESTED => &NEST,
        _ => panic!("no such table"),
    }
}

/// The entry of freed slots in table `n`: calls [`Freed::freed`] of `T` with the stub's address,
/// then raises SIGILL with what the stub loaded still in the register.
///
/// # Panics
///
/// `n` is at most [`NESTED`].
pub const fn freed<T: Freed>(n: usize) -> extern "C" fn() {
    match n {
        0 => freed_rdi::<T>,
        1 => freed_rsi::<T>,
        2 => freed_rdx::<T>,
        3 => freed_rcx::<T>,
        4 => freed_r8::<T>,
        5 => freed_r9::<T>,
        6 => freed_r10::<T>,
        DYNAMIC => freed_dyn::<T>,
        NESTED => freed_nest::<T>,
        _ => panic!("no such table"),
    }
}

/// The register that the stub at `code` loads, as DWARF number, and the address of its slot;
/// `None` if there is no stub. For stubs of this crate and of the kernel service.
///
/// # Safety
///
/// 11 bytes can be read at `code`.
#[inline]
pub unsafe fn read_stub(code: *const u8) -> Option<(u16, usize)> {
    // SAFETY: by the contract.
    let bytes = unsafe { code.cast::<[u8; 11]>().read_unaligned() };
    let [0xf3, 0x0f, 0x1e, 0xfa, rex @ (0x48 | 0x4c), 0x8b, modrm, distance @ ..] = bytes else {
        return None;
    };
    if modrm & 0xc7 != 0x05 {
        return None; // not relative to rip
    }
    let reg = usize::from(modrm >> 3 | (rex & 4) << 1);
    // The encoding's order of rax .. rdi, as DWARF numbers; r8 and on are the same in both.
    let dwarf = [0, 2, 1, 3, 7, 6, 4, 5].get(reg).copied().unwrap_or(reg as u16);
    Some((
        dwarf,
        code.addr().wrapping_add(11).wrapping_add_signed(i32::from_le_bytes(distance) as isize),
    ))
}

/// The number of the table that a stub of this crate is in: several load the same register, and
/// which is not told by the distance of the slot. For other stubs it is no table's number.
///
/// # Safety
///
/// 20 bytes can be read at `code`.
pub unsafe fn table_number(code: *const u8) -> usize {
    // SAFETY: by the contract.
    usize::from(unsafe { code.add(19).read() })
}

/// Bytes of [`eh_frame`].
pub const EH_FRAME_LEN: usize = 60;

/// An `.eh_frame` section for stubs in `[start, start + len)`: one CIE, one FDE, terminator
/// (LSB core specification, section 10.6).
pub fn eh_frame(start: usize, len: usize) -> [u8; EH_FRAME_LEN] {
    let mut out = [0; EH_FRAME_LEN];
    out[..24].copy_from_slice(&[
        20, 0, 0, 0, // length of the CIE
        0, 0, 0, 0,    // this is a CIE
        1,    // version
        0,    // augmentation "": addresses are absolute, 8 bytes
        1,    // code alignment factor
        0x78, // data alignment factor -8
        16,   // return address column: rip
        0x0c, 7, 8, // DW_CFA_def_cfa rsp + 8
        0x90, 1, // DW_CFA_offset rip at CFA - 8
        0, 0, 0, 0, 0, 0, // DW_CFA_nop
    ]);
    out[24..28].copy_from_slice(&28u32.to_le_bytes()); // length of the FDE
    out[28..32].copy_from_slice(&28u32.to_le_bytes()); // from here back to the CIE
    out[32..40].copy_from_slice(&(start as u64).to_le_bytes());
    out[40..48].copy_from_slice(&(len as u64).to_le_bytes());
    // 48..56 DW_CFA_nop; 56..60 a length of 0 ends the section.
    out
}
