//! The stubs are what they are drawn as: the encoders against one disassembler each, against an
//! assembler (`trampolines/vectors.txt`), and against their own decoder.

use proptest::prelude::*;
use trampfd_text::encode::{
    Arch, Decoded, NotAStub, Refused, Trap, check, decode, encode, encode_page,
};

/// D of the kernel service.
const D: i64 = trampfd_sys::TRAMPFD_TABLE_SIZE as i64;

/// Where the stubs are said to lie.
const PC: u64 = 0x7f00_1234_5000;

fn stub(arch: Arch, reg: u16, distance: i64) -> Result<Vec<u8>, Refused> {
    let mut bytes = vec![0x5a; arch.stride()];
    encode(arch, reg, distance, &mut bytes).map(|()| bytes)
}

fn legal(arch: Arch) -> Vec<u16> {
    (0..64).filter(|&reg| arch.regs() >> reg & 1 == 1).collect()
}

#[test]
fn legal_registers_are_those_of_the_header() {
    let header = include_str!("../../../kernel-module/include/uapi/linux/trampfd.h");
    for (arch, name) in
        [(Arch::X86_64, "x86-64 "), (Arch::Aarch64, "arm64 "), (Arch::Riscv64, "riscv64 ")]
    {
        let list = header
            .lines()
            .find_map(|line| line.strip_prefix(" *  ")?.strip_prefix(name))
            .unwrap_or_else(|| panic!("the header lists no registers of {name}"));
        // "1 rdx, 8-9 r8-r9 (remark, remark), ..": the first word of each entry is a number.
        let list = list.split('(').next().unwrap();
        let mut want = 0u64;
        for entry in list.split(',') {
            let numbers = entry.split_whitespace().next().unwrap();
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            for reg in first.parse::<u32>().unwrap()..=last.parse().unwrap() {
                want |= 1 << reg;
            }
        }
        assert_eq!(arch.regs(), want, "{arch:?}: {list}");
    }
}

#[test]
fn illegal_registers_are_refused_with_their_reason() {
    use Refused::*;
    let reasons: [(Arch, &[(u16, Refused)]); 3] = [
        (
            Arch::X86_64,
            &[
                (3, CallPreserved),
                (6, CallPreserved),
                (7, StackPointer),
                (12, CallPreserved),
                (13, CallPreserved),
                (14, CallPreserved),
                (15, CallPreserved),
                (16, NoSuchRegister),
            ],
        ),
        (
            Arch::Aarch64,
            &[
                (16, CarriesJump),
                (18, Platform),
                (19, CallPreserved),
                (29, CallPreserved),
                (30, ReturnAddress),
                (31, StackPointer),
                (32, NoSuchRegister),
            ],
        ),
        (
            Arch::Riscv64,
            &[
                (0, Zero),
                (1, ReturnAddress),
                (2, StackPointer),
                (3, Platform),
                (4, Platform),
                (8, CallPreserved),
                (9, CallPreserved),
                (18, CallPreserved),
                (27, CallPreserved),
                (28, CarriesJump),
                (32, NoSuchRegister),
            ],
        ),
    ];
    for (arch, reasons) in reasons {
        for &(reg, why) in reasons {
            assert_eq!(check(arch, reg), Err(why), "{arch:?} {reg}");
        }
        for reg in (0..=u16::MAX).filter(|&reg| reg >= 64 || arch.regs() >> reg & 1 == 0) {
            assert_eq!(stub(arch, reg, D), Err(check(arch, reg).unwrap_err()), "{arch:?} {reg}");
        }
    }
}

#[test]
fn distances_and_strides_have_their_limits() {
    for (arch, nearest, farthest) in [
        (Arch::X86_64, -(1i64 << 31) + 16, (1i64 << 31) + 8),
        (Arch::Aarch64, -(1 << 20) + 8, (1 << 20) - 8),
        (Arch::Riscv64, -(1 << 31) - 2040, (1 << 31) - 2048),
    ] {
        let reg = legal(arch)[0];
        for distance in [nearest, farthest] {
            let bytes = stub(arch, reg, distance).unwrap();
            let slot = PC.wrapping_add_signed(distance);
            assert_eq!(decode(arch, &bytes, PC), Ok(Decoded { reg, slot }), "{arch:?}");
        }
        for distance in [nearest - 8, farthest + 8, i64::MIN, i64::MAX - 7, D + 4, D - 1] {
            assert_eq!(stub(arch, reg, distance), Err(Refused::Distance), "{arch:?} {distance}");
        }
        for stride in [0, 1, arch.stride() - 1, arch.stride() + 1, arch.stride() * 3 / 2] {
            let mut bytes = vec![0x5a; stride];
            assert_eq!(encode(arch, reg, D, &mut bytes), Err(Refused::Stride), "{arch:?} {stride}");
            assert!(bytes.iter().all(|&byte| byte == 0x5a), "{arch:?}: written and refused");
        }
    }
}

#[test]
fn x86_64_is_what_it_is_drawn_as() {
    use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

    // By DWARF number (System V psABI, figure 3.36).
    let names = [
        Register::RAX,
        Register::RDX,
        Register::RCX,
        Register::RBX,
        Register::RSI,
        Register::RDI,
        Register::RBP,
        Register::RSP,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];
    let mut seen = 0;
    for (reg, name) in (0..).zip(names) {
        let Ok(bytes) = stub(Arch::X86_64, reg, D) else {
            continue;
        };
        let slot = PC + D as u64;
        let mut decoder = Decoder::with_ip(64, &bytes, PC, DecoderOptions::NONE);
        let code: Vec<Instruction> = decoder.iter().collect();

        assert_eq!(code[0].code(), Code::Endbr64);

        assert_eq!(code[1].code(), Code::Mov_r64_rm64, "{name:?}");
        assert_eq!(code[1].op0_register(), name);
        assert_eq!(code[1].op1_kind(), OpKind::Memory);
        assert_eq!(
            (code[1].memory_base(), code[1].memory_index()),
            (Register::RIP, Register::None)
        );
        assert_eq!(code[1].memory_displacement64(), slot, "{name:?} is loaded from slot.data");

        assert_eq!(code[2].code(), Code::Jmp_rm64, "{name:?}");
        assert_eq!(
            (code[2].memory_base(), code[2].memory_index()),
            (Register::RIP, Register::None)
        );
        assert_eq!(code[2].memory_displacement64(), slot + 8, "{name:?} jumps to slot.code");
        assert_eq!(code[2].next_ip() - PC, Arch::X86_64.code_len() as u64);

        let Trap::InStub(trap) = Arch::X86_64.trap() else { unreachable!() };
        for instruction in &code[3..] {
            let want = if instruction.ip() == PC + trap as u64 { Code::Ud2 } else { Code::Int3 };
            assert_eq!(instruction.code(), want, "{name:?} at {:#x}", instruction.ip());
        }
        assert!(code.iter().any(|instruction| instruction.code() == Code::Ud2));
        seen |= 1 << reg;
    }
    assert_eq!(seen, Arch::X86_64.regs());
}

#[test]
fn aarch64_is_what_it_is_drawn_as() {
    use yaxpeax_arch::{Decoder, U8Reader};
    use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction, Opcode, Operand, SizeCode};

    for reg in legal(Arch::Aarch64) {
        for distance in [D, -D, 4096, (1 << 20) - 8] {
            let bytes = stub(Arch::Aarch64, reg, distance).unwrap();
            let code: Vec<Instruction> = bytes
                .chunks(4)
                .map(|word| InstDecoder::default().decode(&mut U8Reader::new(word)).unwrap())
                .collect();

            // bti is hint 32, with c bit 1 and j bit 2 of its operand.
            assert_eq!(code[0].opcode, Opcode::HINT);
            assert_eq!(hint(&code[0].operands), 34, "bti c");

            let x = |reg| Operand::Register(SizeCode::X, reg);
            assert_eq!(code[1].opcode, Opcode::LDR);
            assert_eq!(code[1].operands[..2], [x(reg), Operand::PCOffset(distance - 4)]);
            assert_eq!(code[2].opcode, Opcode::LDR);
            assert_eq!(code[2].operands[..2], [x(16), Operand::PCOffset(distance + 8 - 8)]);

            assert_eq!(code[3].opcode, Opcode::BR);
            assert_eq!(code[3].operands[0], x(16));
            assert_eq!(code.len(), 4);
        }
    }

    /// The number of a hint, whose operands are what the instruction's CRm and op2 hold.
    fn hint(operands: &[Operand; 4]) -> u32 {
        match operands {
            [Operand::ControlReg(crm), Operand::Immediate(op2), ..] => u32::from(*crm) << 3 | op2,
            other => panic!("operands of a hint: {other:?}"),
        }
    }
}

#[test]
fn riscv64_is_what_it_is_drawn_as() {
    use riscv_isa::{Decoder, Instruction, Target};
    use std::str::FromStr;

    let target = Target::from_str("RV64I").unwrap();
    let t3 = 28;
    for reg in legal(Arch::Riscv64) {
        for distance in [D, -D, 4096, 2048, 2056, 6144] {
            let bytes = stub(Arch::Riscv64, reg, distance).unwrap();
            let code: Vec<Instruction> = Decoder::from_le_bytes(target, &bytes[..]).collect();
            let rd = u32::from(reg);

            // The same encoding as lpad with label 0 (Zicfilp).
            assert_eq!(code[0], Instruction::AUIPC { rd: 0, imm: 0 });

            // Where a pair of auipc and ld reads, the auipc being `at` bytes into the stub. `imm`
            // holds the 20 bits as a number.
            let reads = |at: i64, pair: &[Instruction], want: u32| match *pair {
                [Instruction::AUIPC { rd: hi, imm }, Instruction::LD { rd: to, rs1, offset }] => {
                    assert_eq!((hi, to, rs1), (want, want, want));
                    at + i64::from((imm << 12) as i32) + i64::from(offset)
                }
                ref other => panic!("not auipc and ld: {other:?}"),
            };
            assert_eq!(reads(4, &code[1..3], rd), distance, "slot.data");
            assert_eq!(reads(12, &code[3..5], t3), distance + 8, "slot.code");
            assert_eq!(code[5], Instruction::JALR { rd: 0, rs1: t3, offset: 0 });
            assert_eq!(bytes[24..], [0; 8], "the trap");
        }
    }
}

#[test]
fn vectors_of_an_assembler() {
    let vectors = include_str!("../../../trampolines/vectors.txt");
    let mut seen = [0u64; Arch::ALL.len()];
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let [name, reg, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a vector: {line}");
        };
        let which = ["x86_64", "aarch64", "riscv64"].iter().position(|&arch| arch == name).unwrap();
        let (arch, reg) = (Arch::ALL[which], reg.parse().unwrap());
        let bytes = stub(arch, reg, D).unwrap();
        let ours: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ours, hex, "{name} {reg}");
        seen[which] |= 1 << reg;
    }
    assert_eq!(seen, Arch::ALL.map(Arch::regs), "a vector for each legal register");
}

#[test]
fn a_page_is_full_of_stubs_and_holds_a_trap_for_each() {
    for arch in Arch::ALL {
        for (page_len, scale) in [(4096, 1), (4096, 2), (65536, 1)] {
            let stride = arch.stride() * scale;
            let reg = legal(arch)[0];
            let mut page = vec![0x5a; page_len];
            encode_page(arch, reg, D, stride, &mut page).unwrap();

            let slots = arch.slots_per_page(page_len, stride);
            for (i, bytes) in page.chunks(stride).enumerate() {
                let pc = PC + (i * stride) as u64;
                let is_stub = decode(arch, bytes, pc) == Ok(Decoded { reg, slot: pc + D as u64 });
                assert_eq!(is_stub, i < slots, "{arch:?} stub {i} of {slots}");
                let trap = match arch.trap() {
                    Trap::InStub(at) => &bytes[at..],
                    Trap::LastOfPage => &page[page_len - stride..],
                };
                let ud2_or_udf: &[u8] = if arch == Arch::X86_64 { &[0x0f, 0x0b] } else { &[0; 4] };
                assert!(trap.starts_with(ud2_or_udf), "{arch:?}");
            }
        }
        let mut page = [0; 4096];
        for stride in [0, 8192, 48] {
            assert_eq!(encode_page(arch, 5, D, stride, &mut page), Err(Refused::Stride));
        }
    }
}

/// The tables that were assembled into this program hold the encoder's stubs.
#[test]
fn static_tables_hold_the_stubs_of_the_encoder() {
    use trampfd_text::arch::{SLOT_STRIDE, TABLES, static_table};

    for table in (0..TABLES).map(static_table) {
        let text = std::ptr::with_exposed_provenance::<u8>(table.code());
        // SAFETY: by the invariant of `StaticTable` its text is `len` stubs.
        let text = unsafe { std::slice::from_raw_parts(text, table.len * SLOT_STRIDE) };
        let pc = table.code() as u64;
        let host = Arch::ALL.into_iter().find(|&arch| decode(arch, text, pc).is_ok());
        let host = host.expect("the first stub is one of some architecture");
        for (stub, at) in text.chunks(SLOT_STRIDE).zip((0..).step_by(SLOT_STRIDE)) {
            let want = Decoded { reg: table.reg, slot: table.slots() as u64 + at };
            assert_eq!(decode(host, stub, pc + at), Ok(want), "stub at {at:#x}");
        }
    }
}

fn any_arch() -> impl Strategy<Value = Arch> {
    prop::sample::select(&Arch::ALL[..])
}

/// A D that every architecture reaches.
fn any_distance() -> impl Strategy<Value = i64> {
    (-(1i64 << 17) + 1..1 << 17).prop_map(|words| words * 8)
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        arch in any_arch(),
        pick in any::<prop::sample::Index>(),
        distance in any_distance(),
        scale in 1usize..5,
        pc in any::<u64>(),
    ) {
        let legal = legal(arch);
        let reg = legal[pick.index(legal.len())];
        let mut bytes = vec![0x5a; arch.stride() * scale];
        encode(arch, reg, distance, &mut bytes).unwrap();
        let slot = pc.wrapping_add_signed(distance);
        prop_assert_eq!(decode(arch, &bytes, pc), Ok(Decoded { reg, slot }));
        for short in 0..arch.code_len() {
            prop_assert_eq!(decode(arch, &bytes[..short], pc), Err(NotAStub));
        }
    }

    /// A few bits of a stub's code changed: another stub, or none.
    #[test]
    fn what_decodes_encodes_to_itself(
        arch in any_arch(),
        pick in any::<prop::sample::Index>(),
        distance in any_distance(),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let legal = legal(arch);
        let mut bytes = stub(arch, legal[pick.index(legal.len())], distance).unwrap();
        for flip in flips {
            let bit = flip.index(arch.code_len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        reencodes(arch, &bytes)?;
    }

    #[test]
    fn random_bytes_never_panic(arch in any_arch(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        reencodes(arch, &bytes)?;
    }
}

fn reencodes(arch: Arch, bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(Decoded { reg, slot }) = decode(arch, bytes, PC) {
        let again = stub(arch, reg, slot.wrapping_sub(PC) as i64);
        let again = again.map_err(|why| TestCaseError::fail(format!("{reg} {slot:#x}: {why}")))?;
        prop_assert_eq!(&again[..arch.code_len()], &bytes[..arch.code_len()]);
    }
    Ok(())
}
