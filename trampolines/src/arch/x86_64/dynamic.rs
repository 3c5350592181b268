//! Entries for signatures known only at run time. Entered by a stub with the address of a
//! [`Cell`](crate::plan::Cell) in r10.
//!
//! The general one, in four forms: saving no argument registers, the integer ones, the xmm ones,
//! or both.
//!
//! ```text
//!            │ stack arguments           │ rbp + 16   where the caller put them
//!    CFA ──► ├───────────────────────────┤
//!            │ return address            │ rbp + 8
//!            │ rbp of the caller         │ rbp        the frame
//!            │ the plan                  │ rbp - 8
//!            │ (not used)                │ rbp - 16
//!            │ r9 r8 rcx rdx rsi rdi     │ rbp - 64   rdi lowest: pairs lie in one piece
//!            │ xmm7 .. xmm0, 8 bytes each│ rbp - 128  xmm0 lowest: pairs lie in one piece
//!            │ room for the result       │ rbp - 160  32 bytes, for complex long double
//!            │ values put together       │            16 bytes each
//!    rsp ──► │ pointers to the arguments │            16-byte aligned
//!            └───────────────────────────┘
//! ```
//!
//! The pointers are stored from the last to the first, so that a long list touches the stack page
//! after page and cannot jump over a guard page.
//!
//! The short ones, for up to two and up to four integer arguments and a result in rax or none; they
//! look at no plan:
//!
//! ```text
//!                                                     of two      of four
//!    CFA ──► ├───────────────────────────┤
//!            │ return address            │ rsp + 40    rsp + 72
//!            │ room for the result       │ rsp + 32    rsp + 64
//!            │ (rcx rdx) rsi rdi         │ rsp + 16    rsp + 32
//!    rsp ──► │ pointers to them          │ rsp         rsp         16-byte aligned
//!            └───────────────────────────┘
//! ```

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::arch::x86_64::classify::{Class, Placer, Returned};
use crate::plan::{CALLEE_AT, Callee, Cell, Foreign, Plan, Scalar};

/// Arguments that the short entries take.
const TWO: usize = 2;
const FOUR: usize = 4;

/// Where stubs jump and where the entry ends, for these arguments, which `placer` has placed.
pub fn entries(placer: &Placer, returned: Returned, args: &[Class]) -> (usize, usize) {
    let finish: extern "C" fn() = match returned {
        Returned::Void => finish_void,
        Returned::I8 => finish_i8,
        Returned::U8 => finish_u8,
        Returned::I16 => finish_i16,
        Returned::U16 => finish_u16,
        Returned::I32 => finish_i32,
        Returned::U32 => finish_u32,
        Returned::Int => finish_int,
        Returned::Float => finish_float,
        Returned::IntInt => finish_int_int,
        Returned::FloatFloat => finish_float_float,
        Returned::IntFloat => finish_int_float,
        Returned::FloatInt => finish_float_int,
        Returned::X87 => finish_x87,
        Returned::X87X87 => finish_x87_x87,
        Returned::Memory => finish_memory,
    };
    let int = Class::scalar(Scalar::Int(8, false));
    let few = |count| args.len() <= count && args.iter().all(|&class| class == int);
    let enter: extern "C" fn() = match returned {
        Returned::Void | Returned::Int if few(TWO) => two_int,
        Returned::I32 if few(TWO) => two_i32,
        Returned::U32 if few(TWO) => two_u32,
        Returned::Void | Returned::Int if few(FOUR) => four_int,
        Returned::I32 if few(FOUR) => four_i32,
        Returned::U32 if few(FOUR) => four_u32,
        _ => match (placer.ints() > 0, placer.floats() > 0) {
            (false, false) => enter_none,
            (true, false) => enter_ints,
            (false, true) => enter_floats,
            (true, true) => enter_both,
        },
    };
    (enter as usize, finish as usize)
}

macro_rules! save_ints {
    () => {
        "mov %rdi, -64(%rbp)
        mov %rsi, -56(%rbp)
        mov %rdx, -48(%rbp)
        mov %rcx, -40(%rbp)
        mov %r8, -32(%rbp)
        mov %r9, -24(%rbp)"
    };
}
macro_rules! save_floats {
    () => {
        "movsd %xmm0, -128(%rbp)
        movsd %xmm1, -120(%rbp)
        movsd %xmm2, -112(%rbp)
        movsd %xmm3, -104(%rbp)
        movsd %xmm4, -96(%rbp)
        movsd %xmm5, -88(%rbp)
        movsd %xmm6, -80(%rbp)
        movsd %xmm7, -72(%rbp)"
    };
}

/// The general entry; `$save` are the registers that it saves.
macro_rules! enter {
    ($name:ident $(, $save:ident)*) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "push %rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset %rbp, -16",
                "mov %rsp, %rbp",
                ".cfi_def_cfa_register %rbp",
                "mov (%r10), %r11",
                "mov {frame}(%r11), %eax",
                "sub %rax, %rsp",
                $($save!(),)*
                "mov %r11, -8(%rbp)",
                // Puts together what lies apart.
                "mov {moved}(%r11), %ecx",
                "test %ecx, %ecx",
                "jz 3f",
                "mov {moves}(%r11), %rdx",
                "2:",
                "movslq -8(%rdx,%rcx,8), %rsi",
                "movslq -4(%rdx,%rcx,8), %rdi",
                "mov (%rbp,%rsi), %rsi",
                "mov %rsi, (%rbp,%rdi)",
                "dec %ecx",
                "jnz 2b",
                "3:",
                // Pointers to the arguments.
                "mov {listed}(%r11), %ecx",
                "test %ecx, %ecx",
                "jz 5f",
                "mov {offsets}(%r11), %rdx",
                "movq %rbp, %xmm0",
                "punpcklqdq %xmm0, %xmm0",
                "4:",
                "movdqu -16(%rdx,%rcx), %xmm1",
                "paddq %xmm0, %xmm1",
                "movdqa %xmm1, -16(%rsp,%rcx)",
                "sub $16, %ecx",
                "jnz 4b",
                "5:",
                "mov {callee}(%r10), %rax",
                "lea -160(%rbp), %rsi",
                "cmpl $0, {hidden}(%r11)",
                "je 6f",
                "mov -64(%rbp), %rsi",
                "6:",
                "mov {signature}(%rax), %rdi",
                "mov %rsp, %rdx",
                "mov {data}(%rax), %rcx",
                "call *{handler}(%rax)",
                "mov -8(%rbp), %r11",
                "jmp *{finish}(%r11)",
                ".cfi_endproc",
                frame = const offset_of!(Plan, frame),
                moved = const offset_of!(Plan, moved),
                moves = const offset_of!(Plan, moves),
                listed = const offset_of!(Plan, listed),
                offsets = const offset_of!(Plan, offsets),
                hidden = const offset_of!(Plan, hidden),
                finish = const offset_of!(Plan, finish),
                callee = const offset_of!(Cell, callee),
                signature = const offset_of!(Callee, signature),
                data = const offset_of!(Callee, data),
                handler = const offset_of!(Callee, handler),
                options(att_syntax)
            )
        }
    };
}
enter!(enter_none);
enter!(enter_ints, save_ints);
enter!(enter_floats, save_floats);
enter!(enter_both, save_ints, save_floats);

/// An end of the general entry: `$load` are the result registers.
macro_rules! finish {
    ($name:ident $(, $load:literal)*) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                ".cfi_def_cfa %rbp, 16",
                ".cfi_offset %rbp, -16",
                "endbr64",
                $($load,)*
                "leave",
                ".cfi_def_cfa %rsp, 8",
                "ret",
                ".cfi_endproc",
                options(att_syntax)
            )
        }
    };
}
finish!(finish_void);
finish!(finish_i8, "movsbq -160(%rbp), %rax");
finish!(finish_u8, "movzbl -160(%rbp), %eax");
finish!(finish_i16, "movswq -160(%rbp), %rax");
finish!(finish_u16, "movzwl -160(%rbp), %eax");
finish!(finish_i32, "movslq -160(%rbp), %rax");
finish!(finish_u32, "movl -160(%rbp), %eax");
finish!(finish_int, "mov -160(%rbp), %rax");
finish!(finish_float, "movsd -160(%rbp), %xmm0");
finish!(finish_int_int, "mov -160(%rbp), %rax", "mov -152(%rbp), %rdx");
finish!(finish_float_float, "movsd -160(%rbp), %xmm0", "movsd -152(%rbp), %xmm1");
finish!(finish_int_float, "mov -160(%rbp), %rax", "movsd -152(%rbp), %xmm0");
finish!(finish_float_int, "movsd -160(%rbp), %xmm0", "mov -152(%rbp), %rax");
finish!(finish_x87, "fldt -160(%rbp)");
finish!(finish_x87_x87, "fldt -144(%rbp)", "fldt -160(%rbp)");
finish!(finish_memory, "mov -64(%rbp), %rax");

macro_rules! list_two {
    () => {
        "mov %rdi, {values}(%rsp)
        mov %rsi, {values}+8(%rsp)
        lea {values}(%rsp), %rdi
        mov %rdi, (%rsp)
        lea {values}+8(%rsp), %rsi
        mov %rsi, 8(%rsp)"
    };
}
macro_rules! list_four {
    () => {
        concat!(
            list_two!(),
            "
        mov %rdx, {values}+16(%rsp)
        mov %rcx, {values}+24(%rsp)
        lea {values}+16(%rsp), %rdx
        mov %rdx, 16(%rsp)
        lea {values}+24(%rsp), %rcx
        mov %rcx, 24(%rsp)"
        )
    };
}

/// The short entry for `$count` arguments, which `$list` lists; `$load` is the result.
macro_rules! few {
    ($name:ident, $count:ident, $list:ident, $load:literal) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "sub ${frame}, %rsp",
                ".cfi_def_cfa_offset {frame}+8",
                "mov {callee}(%r10), %rax",
                $list!(),
                "mov {signature}(%rax), %rdi",
                "lea {result}(%rsp), %rsi",
                "mov %rsp, %rdx",
                "mov {data}(%rax), %rcx",
                "call *{handler}(%rax)",
                $load,
                "add ${frame}, %rsp",
                ".cfi_def_cfa_offset 8",
                "ret",
                ".cfi_endproc",
                values = const 8 * $count,
                result = const 16 * $count,
                frame = const 16 * $count + 8,
                callee = const offset_of!(Cell, callee),
                signature = const offset_of!(Callee, signature),
                data = const offset_of!(Callee, data),
                handler = const offset_of!(Callee, handler),
                options(att_syntax)
            )
        }
    };
}
few!(two_int, TWO, list_two, "mov {result}(%rsp), %rax");
few!(two_i32, TWO, list_two, "movslq {result}(%rsp), %rax");
few!(two_u32, TWO, list_two, "movl {result}(%rsp), %eax");
few!(four_int, FOUR, list_four, "mov {result}(%rsp), %rax");
few!(four_i32, FOUR, list_four, "movslq {result}(%rsp), %rax");
few!(four_u32, FOUR, list_four, "movl {result}(%rsp), %eax");

/// Jumps to where the plan says: for stubs whose target is fixed before their signature is known.
///
/// # Safety
///
/// It is no C function: only a stub that loads r10 with the address of a `Cell` may jump here.
#[unsafe(naked)]
pub unsafe extern "C" fn any() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "mov {plan}(%r10), %r11",
        "jmp *{enter}(%r11)",
        ".cfi_endproc",
        plan = const offset_of!(Cell, plan),
        enter = const offset_of!(Plan, enter),
        options(att_syntax)
    )
}

/// Goes to another library's entry; [`any`] comes here for a cell whose plan is a [`Foreign`].
#[unsafe(naked)]
pub extern "C" fn foreign() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "mov {callee}(%r10), %r10",
        "sub ${at}, %r10",
        "jmp *{target}(%r11)",
        ".cfi_endproc",
        callee = const offset_of!(Cell, callee),
        at = const CALLEE_AT,
        target = const offset_of!(Foreign, target),
        options(att_syntax)
    )
}

/// What a stub leads to while nothing is bound to it: SIGILL.
#[unsafe(naked)]
pub extern "C" fn unbound() {
    naked_asm!(".cfi_startproc", "endbr64", "ud2", ".cfi_endproc", options(att_syntax))
}
