//! x86-64.
//!
//! ```text
//!  stub, 16 bytes, in an executable page         table (GOT), in a page that is only read
//!   f3 0f 1e fa           endbr64
//!   ff 25 dd dd dd dd     jmp  *entry(%rip) ───► 8 bytes: address
//!   cc cc cc cc cc cc     int3
//! ```
//!
//! S symbol, A addend, P place, L stub of S or S itself, G entry of S, T start of the table,
//! Z size of what the set defines, B offset in the thread's block, F offset from the thread
//! pointer.
//!
//! ```text
//!  done   64 32 32S 16 8       S + A         PC64 PC32 PC16 PC8      S + A - P
//!         PLT32                L + A - P     PLTOFF64                L + A - T
//!         GOTPCREL GOTPCREL64  G + A - P     GOT32 GOT64 GOTPLT64    G + A - T
//!         GOTPC32 GOTPC64      T + A - P     GOTOFF64                S + A - T
//!         SIZE32 SIZE64        Z + A
//!         TLSGD TLSLD          G + A - P, two words each
//!         GOTTPOFF             G + A - P     DTPOFF32 DTPOFF64       B + A
//!         TPOFF32 TPOFF64      F + A
//!  done, with another instruction where the symbol is part of the set
//!         GOTPCRELX REX_GOTPCRELX            mov -> lea, call *, jmp * -> call, jmp
//!  done, with another instruction always
//!         GOTPC32_TLSDESC TLSDESC_CALL       as GOTTPOFF
//!  refused, of the dynamic linker
//!         COPY GLOB_DAT JUMP_SLOT RELATIVE RELATIVE64 IRELATIVE DTPMOD64 TLSDESC
//!  refused, of instructions with REX2 and EVEX prefixes (APX)
//!         CODE_{4,5,6}_{GOTPCRELX,GOTTPOFF,GOTPC32_TLSDESC}
//! ```

use object::elf;

use super::{Entry, Form, Origin, Target};

pub(in super::super) const MACHINE: u16 = elf::EM_X86_64;

/// Common symbols that are not in reach of small code (SHN_X86_64_LCOMMON).
pub(in super::super) const LARGE_COMMON: u16 = 0xff02;

/// Bytes of a stub.
pub(in super::super) const STUB_LEN: usize = 16;
pub(in super::super) const STUB_ALIGN: usize = 16;

/// Bytes between any two places of which code of one has the distance to the other in it.
pub(in super::super) const REACH: usize = i32::MAX as usize;

/// The function that compilers call for a thread's variable.
pub(in super::super) const GET_ADDR: &str = "__tls_get_addr";

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Field {
    Nothing,
    /// Bytes, two's complement.
    Signed(u8),
    /// Bytes, from zero on.
    Unsigned(u8),
    /// Bytes; either reading may be meant.
    Either(u8),
    /// 8 bytes; what does not fit is cut off, as addresses wrap.
    Word,
}

impl Field {
    /// Bytes.
    pub(in super::super) fn len(self) -> usize {
        match self {
            Field::Nothing => 0,
            Field::Signed(len) | Field::Unsigned(len) | Field::Either(len) => len.into(),
            Field::Word => 8,
        }
    }

    /// Whether the value, an address or a distance of 64 bits that may have wrapped, can be
    /// written.
    pub(in super::super) fn fits(self, value: i128) -> bool {
        let bits = 8 * self.len() as u32;
        let signed = || (-(1 << (bits - 1))..1 << (bits - 1)).contains(&(value as i64));
        let unsigned = || (0..1 << bits).contains(&(value as u64));
        match self {
            Field::Nothing | Field::Word => true,
            Field::Signed(_) => signed(),
            Field::Unsigned(_) => unsigned(),
            Field::Either(_) => signed() || unsigned(),
        }
    }
}

/// Writes a value that fits; `bytes` are as many as the field has.
pub(in super::super) fn write(field: Field, bytes: &mut [u8], value: i128) {
    bytes.copy_from_slice(&value.to_le_bytes()[..field.len()]);
}

/// The code of a stub, if the entry is in reach.
pub(in super::super) fn stub(at: usize, entry: usize) -> Option<[u8; STUB_LEN]> {
    let mut code = [0xcc; STUB_LEN];
    code[..6].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25]);
    let distance = entry as i128 - (at as i128 + 10);
    if !Field::Signed(4).fits(distance) {
        return None;
    }
    write(Field::Signed(4), &mut code[6..10], distance);
    Some(code)
}

/// What the relocation `kind` at `offset` of `bytes` asks for, given whether these are `code`, and
/// whether its symbol is part of the set. The same answer for the same question: what is counted
/// is what is filled.
pub(in super::super) fn decode(
    kind: u32,
    (bytes, code): (&[u8], bool),
    offset: usize,
    addend: i64,
    inside: bool,
) -> Result<Form, &'static str> {
    use Field::{Either, Nothing, Signed, Unsigned, Word};
    use Origin::{Place, Table, Zero};
    let form = |target, origin, field| Ok(Form { target, origin, field, shift: 0, edits: &[] });
    let entry = |entry, origin, field| form(Target::Entry(entry), origin, field);
    let before = |back: usize| offset.checked_sub(back).and_then(|at| bytes.get(at)).copied();
    match kind {
        elf::R_X86_64_NONE => form(Target::Nothing, Zero, Nothing),
        elf::R_X86_64_64 => form(Target::Symbol, Zero, Word),
        elf::R_X86_64_32 => form(Target::Symbol, Zero, Unsigned(4)),
        elf::R_X86_64_32S => form(Target::Symbol, Zero, Signed(4)),
        elf::R_X86_64_16 => form(Target::Symbol, Zero, Either(2)),
        elf::R_X86_64_8 => form(Target::Symbol, Zero, Either(1)),
        elf::R_X86_64_PC64 => form(Target::Symbol, Place, Word),
        elf::R_X86_64_PC32 => {
            // Compilers also call by PC32: no other instruction has these bytes here, but data may.
            let branch = match before(1) {
                _ if !code => false,
                Some(0xe8 | 0xe9) => true,
                Some(0x80..=0x8f) => before(2) == Some(0x0f),
                _ => false,
            };
            form(if branch { Target::Callee } else { Target::Symbol }, Place, Signed(4))
        }
        elf::R_X86_64_PC16 => form(Target::Symbol, Place, Signed(2)),
        elf::R_X86_64_PC8 => form(Target::Symbol, Place, Signed(1)),
        elf::R_X86_64_PLT32 => form(Target::Callee, Place, Signed(4)),
        elf::R_X86_64_PLTOFF64 => form(Target::Callee, Table, Word),
        elf::R_X86_64_GOTPCREL => entry(Entry::Address, Place, Signed(4)),
        elf::R_X86_64_GOTPCREL64 => entry(Entry::Address, Place, Word),
        elf::R_X86_64_GOT32 => entry(Entry::Address, Table, Signed(4)),
        elf::R_X86_64_GOT64 | elf::R_X86_64_GOTPLT64 => entry(Entry::Address, Table, Word),
        elf::R_X86_64_GOTPC32 => form(Target::Table, Place, Signed(4)),
        elf::R_X86_64_GOTPC64 => form(Target::Table, Place, Word),
        elf::R_X86_64_GOTOFF64 => form(Target::Symbol, Table, Word),
        elf::R_X86_64_SIZE32 => form(Target::Size, Zero, Unsigned(4)),
        elf::R_X86_64_SIZE64 => form(Target::Size, Zero, Word),
        elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
            let rewritten = |edits, shift| {
                let (target, origin, field) = (Target::Symbol, Place, Signed(4));
                Ok(Form { target, origin, field, shift, edits })
            };
            match (before(2), before(1)) {
                _ if !inside || addend != -4 => entry(Entry::Address, Place, Signed(4)),
                (Some(0x8b), Some(_)) => rewritten(&[(-2, 0x8d)], 0),
                (Some(0xff), Some(0x15)) => rewritten(&[(-2, 0x67), (-1, 0xe8)], 0),
                (Some(0xff), Some(0x25)) => rewritten(&[(-2, 0xe9), (3, 0x90)], -1),
                _ => entry(Entry::Address, Place, Signed(4)),
            }
        }
        elf::R_X86_64_TLSGD => entry(Entry::Variable, Place, Signed(4)),
        elf::R_X86_64_TLSLD => entry(Entry::Block, Place, Signed(4)),
        elf::R_X86_64_DTPOFF32 => form(Target::InBlock, Zero, Signed(4)),
        elf::R_X86_64_DTPOFF64 => form(Target::InBlock, Zero, Word),
        elf::R_X86_64_GOTTPOFF => entry(Entry::FromThread, Place, Signed(4)),
        elf::R_X86_64_TPOFF32 => form(Target::FromThread, Zero, Signed(4)),
        elf::R_X86_64_TPOFF64 => form(Target::FromThread, Zero, Word),
        elf::R_X86_64_GOTPC32_TLSDESC => match (before(2), before(1)) {
            (Some(0x8d), Some(modrm)) if modrm & 0xc7 == 0x05 => Ok(Form {
                target: Target::Entry(Entry::FromThread),
                origin: Place,
                field: Signed(4),
                shift: 0,
                edits: &[(-2, 0x8b)],
            }),
            _ => Err("not at a lea of a descriptor"),
        },
        elf::R_X86_64_TLSDESC_CALL => match bytes.get(offset..) {
            Some([0xff, 0x10, ..]) => Ok(Form {
                target: Target::Nothing,
                origin: Zero,
                field: Nothing,
                shift: 0,
                edits: &[(0, 0x66), (1, 0x90)],
            }),
            _ => Err("not at a call through %rax"),
        },
        elf::R_X86_64_COPY
        | elf::R_X86_64_GLOB_DAT
        | elf::R_X86_64_JUMP_SLOT
        | elf::R_X86_64_RELATIVE
        | elf::R_X86_64_RELATIVE64
        | elf::R_X86_64_IRELATIVE
        | elf::R_X86_64_DTPMOD64
        | elf::R_X86_64_TLSDESC => Err("it is the dynamic linker's, and in no object"),
        elf::R_X86_64_CODE_4_GOTPCRELX..=elf::R_X86_64_CODE_6_GOTPC32_TLSDESC => {
            Err("instructions of this form (APX) are not known here")
        }
        _ => Err("the number is not known"),
    }
}

/// What the psABI calls a relocation.
pub(in super::super) fn name(kind: u32) -> String {
    const NAMES: [&str; 52] = [
        "NONE",
        "64",
        "PC32",
        "GOT32",
        "PLT32",
        "COPY",
        "GLOB_DAT",
        "JUMP_SLOT",
        "RELATIVE",
        "GOTPCREL",
        "32",
        "32S",
        "16",
        "PC16",
        "8",
        "PC8",
        "DTPMOD64",
        "DTPOFF64",
        "TPOFF64",
        "TLSGD",
        "TLSLD",
        "DTPOFF32",
        "GOTTPOFF",
        "TPOFF32",
        "PC64",
        "GOTOFF64",
        "GOTPC32",
        "GOT64",
        "GOTPCREL64",
        "GOTPC64",
        "GOTPLT64",
        "PLTOFF64",
        "SIZE32",
        "SIZE64",
        "GOTPC32_TLSDESC",
        "TLSDESC_CALL",
        "TLSDESC",
        "IRELATIVE",
        "RELATIVE64",
        "39",
        "40",
        "GOTPCRELX",
        "REX_GOTPCRELX",
        "CODE_4_GOTPCRELX",
        "CODE_4_GOTTPOFF",
        "CODE_4_GOTPC32_TLSDESC",
        "CODE_5_GOTPCRELX",
        "CODE_5_GOTTPOFF",
        "CODE_5_GOTPC32_TLSDESC",
        "CODE_6_GOTPCRELX",
        "CODE_6_GOTTPOFF",
        "CODE_6_GOTPC32_TLSDESC",
    ];
    match NAMES.get(kind as usize) {
        Some(name) => format!("R_X86_64_{name}"),
        None => format!("relocation {kind}"),
    }
}

// Where a debugger looks for code made at run time (gdb.rs). Weak, so that a program in which
// another compiler has the same names can be linked, and all use one list.
core::arch::global_asm!(
    ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code,@function",
    "__jit_debug_register_code:",
    "endbr64",
    "ret",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor,\"aw\",@progbits",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor,@object",
    ".balign 8",
    "__jit_debug_descriptor:",
    ".long 1, 0",
    ".quad 0, 0",
    ".size __jit_debug_descriptor, . - __jit_debug_descriptor",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use super::stub;

    #[test]
    fn a_stub_reaches_its_entry_or_is_none() {
        let at = 1 << 40;
        let next = at + 10;
        let distance =
            |entry| stub(at, entry).map(|code| i32::from_le_bytes(code[6..10].try_into().unwrap()));
        assert_eq!(distance(next + 5), Some(5));
        assert_eq!(distance(next + 0x7fff_ffff), Some(i32::MAX));
        assert_eq!(distance(next + 0x8000_0000), None);
        assert_eq!(distance(next - 0x8000_0000), Some(i32::MIN));
        assert_eq!(distance(next - 0x8000_0001), None);
    }
}
