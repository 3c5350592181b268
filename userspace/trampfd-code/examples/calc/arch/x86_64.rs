//! Code for x86-64, with dynasm: plain and short; each expression leaves its value in rax.
//!
//! ```text
//!  frame of a function                    registers at a call
//!  ┌──────────────────────────┐           rdi                      context
//!  │ return address           │           rsi, rdx, rcx, r8, r9    arguments
//!  │ caller's rbp             │ ◄─ rbp    rax                      value
//!  │ context                  │           rdx                      not 0: failed
//!  │ slot 0, slot 1, ..       │
//!  │ what is not computed yet │
//!  │ in full: temporaries     │ ◄─ rsp, a multiple of 16
//!  └──────────────────────────┘
//! ```
//!
//! Code holds no address: other functions and helpers are called through slots of the cache's
//! GOT, and the function's name is read from the cache's constants, each by its distance.

use std::collections::BTreeMap;

use dynasmrt::x64::X64Relocation;
use dynasmrt::{AssemblyOffset, DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use trampfd_code::cache::{Code, Failure, Target};

use crate::runtime::What;
use crate::tree::{Call, Callee, Expression, Function, Line, Operator, Statement};

/// Adds the code of `function` to a batch. Functions are named by their index.
pub fn compile(function: &Function, code: &mut Code<'_, usize>) -> Result<(), Failure> {
    // Where the code will lie is not known, and all jumps are relative.
    let mut asm = VecAssembler::<X64Relocation>::new(0);
    let failed = asm.new_dynamic_label();
    let mut generator = Generator {
        asm,
        code,
        fixups: Vec::new(),
        faults: BTreeMap::new(),
        failed,
        slots: function.slots,
        temporaries: 0,
    };
    generator.function(function);
    let Generator { asm, fixups, .. } = generator;
    code.emit(&asm.finalize()?);
    for (at, target) in fixups {
        code.fix(at, target, -4);
    }
    Ok(())
}

struct Generator<'a, 'c> {
    asm: VecAssembler<X64Relocation>,
    code: &'a mut Code<'c, usize>,
    /// Where the four bytes are that will hold a distance, and to what.
    fixups: Vec<(usize, Target)>,
    /// Where to jump to when something is wrong: on which line, and the code of what it is.
    faults: BTreeMap<(Line, i32), DynamicLabel>,
    /// Leaves the function with what is in rdx.
    failed: DynamicLabel,
    slots: usize,
    /// The most that were needed at once.
    temporaries: usize,
}

/// Of the frame, counted from rbp.
const CONTEXT: i32 = -8;

impl Generator<'_, '_> {
    fn slot(&self, slot: usize) -> i32 {
        CONTEXT - 8 * (slot as i32 + 1)
    }

    /// The place of the temporary number `index`.
    fn temporary(&mut self, index: usize) -> i32 {
        self.temporaries = self.temporaries.max(index + 1);
        self.slot(self.slots + index)
    }

    fn fault(&mut self, what: What, line: Line) -> DynamicLabel {
        *self.faults.entry((line, what.code())).or_insert_with(|| self.asm.new_dynamic_label())
    }

    /// The instruction before ends in a distance to `target`.
    fn ends_in_distance(&mut self, target: Target) {
        self.fixups.push((self.asm.offset().0 - 4, target));
    }

    fn function(&mut self, function: &Function) {
        dynasm!(self.asm
            ; .arch x64
            ; push rbp
            ; mov rbp, rsp
            ; sub rsp, DWORD 0
        );
        let frame_size = self.asm.offset().0 - 4;
        let too_many_calls = self.fault(What::TooManyCalls, 0);
        dynasm!(self.asm
            ; .arch x64
            ; mov [rbp + CONTEXT], rdi
            ; cmp rsp, [rdi]
            ; jb =>too_many_calls
        );
        for index in 0..function.parameters.len() {
            let slot = self.slot(index);
            match index {
                0 => dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], rsi),
                1 => dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], rdx),
                2 => dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], rcx),
                3 => dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], r8),
                _ => dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], r9),
            }
        }
        self.block(&function.body);
        dynasm!(self.asm ; .arch x64 ; xor eax, eax);
        self.leave();
        self.faults(&function.name);

        let words = 1 + self.slots + self.temporaries;
        let size = (8 * words).next_multiple_of(16) as i32;
        self.patch(frame_size, size);
    }

    /// Returns what is in rax.
    fn leave(&mut self) {
        dynasm!(self.asm
            ; .arch x64
            ; xor edx, edx
            ; leave
            ; ret
        );
    }

    fn faults(&mut self, name: &str) {
        let report = self.asm.new_dynamic_label();
        for ((line, code), label) in std::mem::take(&mut self.faults) {
            dynasm!(self.asm
                ; .arch x64
                ; =>label
                ; mov ecx, line as i32
                ; mov r8d, code
                ; jmp =>report
            );
        }
        let text = self.code.constant(name.as_bytes());
        dynasm!(self.asm
            ; .arch x64
            ; =>report
            ; mov rdi, [rbp + CONTEXT]
            ; mov edx, name.len() as i32
            ; lea rsi, [rip + 0]
        );
        self.ends_in_distance(text.into());
        dynasm!(self.asm ; .arch x64 ; call QWORD [rip + 0]);
        let helper = self.code.helper("fault");
        self.ends_in_distance(helper.into());
        // What failed returned a value in rdx that is not 0.
        dynasm!(self.asm
            ; .arch x64
            ; =>self.failed
            ; leave
            ; ret
        );
    }

    fn block(&mut self, statements: &[Statement]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Let(variable, value) | Statement::Assign(variable, value) => {
                self.expression(value, 0);
                let slot = self.slot(variable.slot);
                dynasm!(self.asm ; .arch x64 ; mov [rbp + slot], rax);
            }
            Statement::If(condition, then, otherwise) => {
                let (no, end) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
                self.unless(condition, no, 0);
                self.block(then);
                dynasm!(self.asm ; .arch x64 ; jmp =>end ; =>no);
                self.block(otherwise);
                dynasm!(self.asm ; .arch x64 ; =>end);
            }
            Statement::While(condition, body) => {
                let (again, end) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
                dynasm!(self.asm ; .arch x64 ; =>again);
                self.unless(condition, end, 0);
                self.block(body);
                dynasm!(self.asm ; .arch x64 ; jmp =>again ; =>end);
            }
            Statement::Return(value) => {
                self.expression(value, 0);
                self.leave();
            }
            Statement::Expression(value) => self.expression(value, 0),
        }
    }

    /// Jumps to `no` if `condition` is 0.
    fn unless(&mut self, condition: &Expression, no: DynamicLabel, temporaries: usize) {
        self.expression(condition, temporaries);
        dynasm!(self.asm
            ; .arch x64
            ; test rax, rax
            ; jz =>no
        );
    }

    /// The value into rax; the first `temporaries` are in use.
    fn expression(&mut self, expression: &Expression, temporaries: usize) {
        match expression {
            Expression::Number(number) => match i32::try_from(*number) {
                Ok(number) => dynasm!(self.asm ; .arch x64 ; mov rax, DWORD number),
                Err(_) => dynasm!(self.asm ; .arch x64 ; mov rax, QWORD *number),
            },
            Expression::Variable(variable) => {
                let slot = self.slot(variable.slot);
                dynasm!(self.asm ; .arch x64 ; mov rax, [rbp + slot]);
            }
            Expression::Negate(value, line) => {
                self.expression(value, temporaries);
                let overflow = self.fault(What::Overflow, *line);
                dynasm!(self.asm ; .arch x64 ; neg rax ; jo =>overflow);
            }
            Expression::Not(value) => {
                self.expression(value, temporaries);
                dynasm!(self.asm ; .arch x64 ; test rax, rax ; setz al ; movzx eax, al);
            }
            Expression::Binary(operator @ (Operator::And | Operator::Or), left, right, _) => {
                let end = self.asm.new_dynamic_label();
                self.expression(left, temporaries);
                self.truth();
                match operator {
                    Operator::And => dynasm!(self.asm ; .arch x64 ; jz =>end),
                    _ => dynasm!(self.asm ; .arch x64 ; jnz =>end),
                }
                self.expression(right, temporaries);
                self.truth();
                dynasm!(self.asm ; .arch x64 ; =>end);
            }
            Expression::Binary(operator, left, right, line) => {
                let place = self.temporary(temporaries);
                self.expression(left, temporaries);
                dynasm!(self.asm ; .arch x64 ; mov [rbp + place], rax);
                self.expression(right, temporaries + 1);
                dynasm!(self.asm ; .arch x64 ; mov rcx, rax ; mov rax, [rbp + place]);
                self.binary(*operator, *line);
            }
            Expression::Call(call) => self.call(call, temporaries),
        }
    }

    /// 0 stays 0, all else becomes 1; the zero flag says which.
    fn truth(&mut self) {
        dynasm!(self.asm
            ; .arch x64
            ; test rax, rax
            ; setnz al
            ; movzx eax, al
            ; test eax, eax
        );
    }

    /// rax and rcx into rax.
    fn binary(&mut self, operator: Operator, line: Line) {
        match operator {
            Operator::Add => dynasm!(self.asm ; .arch x64 ; add rax, rcx),
            Operator::Subtract => dynasm!(self.asm ; .arch x64 ; sub rax, rcx),
            Operator::Multiply => dynasm!(self.asm ; .arch x64 ; imul rax, rcx),
            Operator::Divide | Operator::Remainder => return self.divide(operator, line),
            _ => return self.compare(operator),
        }
        let overflow = self.fault(What::Overflow, line);
        dynasm!(self.asm ; .arch x64 ; jo =>overflow);
    }

    /// The processor faults when it divides by 0, and the least number by -1.
    fn divide(&mut self, operator: Operator, line: Line) {
        let by_zero = self.fault(What::DivisionByZero, line);
        let (divide, end) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm
            ; .arch x64
            ; test rcx, rcx
            ; jz =>by_zero
            ; cmp rcx, -1
            ; jne =>divide
        );
        if operator == Operator::Divide {
            let overflow = self.fault(What::Overflow, line);
            dynasm!(self.asm ; .arch x64 ; neg rax ; jo =>overflow);
        } else {
            dynasm!(self.asm ; .arch x64 ; xor eax, eax);
        }
        dynasm!(self.asm
            ; .arch x64
            ; jmp =>end
            ; =>divide
            ; cqo
            ; idiv rcx
        );
        if operator == Operator::Remainder {
            dynasm!(self.asm ; .arch x64 ; mov rax, rdx);
        }
        dynasm!(self.asm ; .arch x64 ; =>end);
    }

    fn compare(&mut self, operator: Operator) {
        dynasm!(self.asm ; .arch x64 ; cmp rax, rcx);
        match operator {
            Operator::Equal => dynasm!(self.asm ; .arch x64 ; sete al),
            Operator::NotEqual => dynasm!(self.asm ; .arch x64 ; setne al),
            Operator::Less => dynasm!(self.asm ; .arch x64 ; setl al),
            Operator::LessOrEqual => dynasm!(self.asm ; .arch x64 ; setle al),
            Operator::Greater => dynasm!(self.asm ; .arch x64 ; setg al),
            _ => dynasm!(self.asm ; .arch x64 ; setge al),
        }
        dynasm!(self.asm ; .arch x64 ; movzx eax, al);
    }

    /// All arguments are computed before the first register is filled: they may call, too.
    fn call(&mut self, call: &Call, temporaries: usize) {
        for (index, argument) in call.arguments.iter().enumerate() {
            self.expression(argument, temporaries + index);
            let place = self.temporary(temporaries + index);
            dynasm!(self.asm ; .arch x64 ; mov [rbp + place], rax);
        }
        for index in 0..call.arguments.len() {
            let place = self.temporary(temporaries + index);
            match index {
                0 => dynasm!(self.asm ; .arch x64 ; mov rsi, [rbp + place]),
                1 => dynasm!(self.asm ; .arch x64 ; mov rdx, [rbp + place]),
                2 => dynasm!(self.asm ; .arch x64 ; mov rcx, [rbp + place]),
                3 => dynasm!(self.asm ; .arch x64 ; mov r8, [rbp + place]),
                _ => dynasm!(self.asm ; .arch x64 ; mov r9, [rbp + place]),
            }
        }
        let slot = match call.callee {
            Callee::Print => self.code.helper("print"),
            Callee::Function(index) => self.code.call(index),
        };
        dynasm!(self.asm ; .arch x64 ; mov rdi, [rbp + CONTEXT] ; call QWORD [rip + 0]);
        self.ends_in_distance(slot.into());
        dynasm!(self.asm ; .arch x64 ; test rdx, rdx ; jnz =>self.failed);
    }

    /// Writes four bytes over those that are at `at`.
    fn patch(&mut self, at: usize, value: i32) {
        let mut bytes = self.asm.alter();
        bytes.goto(AssemblyOffset(at));
        bytes.push_i32(value);
    }
}
