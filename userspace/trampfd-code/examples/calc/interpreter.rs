//! The language's meaning, without a compiler: what compiled code is compared with.

use std::io::Write;

use crate::runtime::{Fault, What, stack_pointer, with_stack};
use crate::tree::{Call, Callee, Expression, Function, Line, Operator, Program, Statement};

/// Of the thread that runs the program.
const STACK: usize = 256 << 20;

/// Runs `function`. `None`: it took more than `steps` steps.
pub fn run(
    program: &Program,
    function: usize,
    arguments: &[i64],
    steps: u64,
    output: &mut (dyn Write + Send),
) -> Option<Result<i64, Fault>> {
    let run = |stack_limit| {
        let mut interpreter = Interpreter { program, stack_limit, steps, output };
        interpreter.function(function, arguments.to_vec())
    };
    match with_stack(STACK, run) {
        Ok(value) => Some(Ok(value)),
        Err(Stop::Fault(fault)) => Some(Err(fault)),
        Err(Stop::Steps) => None,
    }
}

struct Interpreter<'a> {
    program: &'a Program,
    /// Below it no function begins.
    stack_limit: usize,
    /// Left.
    steps: u64,
    output: &'a mut (dyn Write + Send),
}

enum Stop {
    Fault(Fault),
    Steps,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// A call of a function.
struct Frame<'a> {
    function: &'a Function,
    slots: Vec<i64>,
}

impl Frame<'_> {
    fn fault(&self, what: What, line: Line) -> Stop {
        Stop::Fault(Fault { what, function: self.function.name.clone(), line })
    }
}

impl<'a> Interpreter<'a> {
    fn function(&mut self, index: usize, mut slots: Vec<i64>) -> Result<i64, Stop> {
        let function = &self.program.functions[index];
        slots.resize(function.slots, 0);
        let mut frame = Frame { function, slots };
        if stack_pointer() < self.stack_limit {
            return Err(frame.fault(What::TooManyCalls, 0));
        }
        let returned = self.block(&mut frame, &function.body)?;
        Ok(returned.unwrap_or(0))
    }

    /// What it returned, if it did.
    fn block(
        &mut self,
        frame: &mut Frame<'a>,
        statements: &'a [Statement],
    ) -> Result<Option<i64>, Stop> {
        for statement in statements {
            if let Some(value) = self.statement(frame, statement)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'a>,
        statement: &'a Statement,
    ) -> Result<Option<i64>, Stop> {
        match statement {
            Statement::Let(variable, value) | Statement::Assign(variable, value) => {
                frame.slots[variable.slot] = self.expression(frame, value)?;
            }
            Statement::If(condition, then, otherwise) => {
                let taken = if self.expression(frame, condition)? != 0 { then } else { otherwise };
                return self.block(frame, taken);
            }
            Statement::While(condition, body) => {
                while self.expression(frame, condition)? != 0 {
                    if let Some(value) = self.block(frame, body)? {
                        return Ok(Some(value));
                    }
                }
            }
            Statement::Return(value) => return self.expression(frame, value).map(Some),
            Statement::Expression(value) => {
                self.expression(frame, value)?;
            }
        }
        Ok(None)
    }

    fn expression(
        &mut self,
        frame: &mut Frame<'a>,
        expression: &'a Expression,
    ) -> Result<i64, Stop> {
        self.steps = self.steps.checked_sub(1).ok_or(Stop::Steps)?;
        Ok(match expression {
            Expression::Number(number) => *number,
            Expression::Variable(variable) => frame.slots[variable.slot],
            Expression::Negate(value, line) => {
                let value = self.expression(frame, value)?;
                value.checked_neg().ok_or_else(|| frame.fault(What::Overflow, *line))?
            }
            Expression::Not(value) => (self.expression(frame, value)? == 0).into(),
            Expression::Binary(Operator::And, left, right, _) => {
                let both =
                    self.expression(frame, left)? != 0 && self.expression(frame, right)? != 0;
                both.into()
            }
            Expression::Binary(Operator::Or, left, right, _) => {
                let one = self.expression(frame, left)? != 0 || self.expression(frame, right)? != 0;
                one.into()
            }
            Expression::Binary(operator, left, right, line) => {
                let left = self.expression(frame, left)?;
                let right = self.expression(frame, right)?;
                binary(*operator, left, right).map_err(|what| frame.fault(what, *line))?
            }
            Expression::Call(call) => self.call(frame, call)?,
        })
    }

    fn call(&mut self, frame: &mut Frame<'a>, call: &'a Call) -> Result<i64, Stop> {
        let arguments = call.arguments.iter();
        let arguments: Result<Vec<i64>, Stop> =
            arguments.map(|argument| self.expression(frame, argument)).collect();
        let arguments = arguments?;
        let Callee::Function(index) = call.callee else {
            return match writeln!(self.output, "{}", arguments[0]) {
                Ok(()) => Ok(arguments[0]),
                Err(error) => Err(Fault::outside(What::Output(error.kind())).into()),
            };
        };
        self.function(index, arguments)
    }
}

fn binary(operator: Operator, left: i64, right: i64) -> Result<i64, What> {
    let whole = |value: Option<i64>| value.ok_or(What::Overflow);
    if right == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
        return Err(What::DivisionByZero);
    }
    match operator {
        Operator::Or => Ok((left != 0 || right != 0).into()),
        Operator::And => Ok((left != 0 && right != 0).into()),
        Operator::Equal => Ok((left == right).into()),
        Operator::NotEqual => Ok((left != right).into()),
        Operator::Less => Ok((left < right).into()),
        Operator::LessOrEqual => Ok((left <= right).into()),
        Operator::Greater => Ok((left > right).into()),
        Operator::GreaterOrEqual => Ok((left >= right).into()),
        Operator::Add => whole(left.checked_add(right)),
        Operator::Subtract => whole(left.checked_sub(right)),
        Operator::Multiply => whole(left.checked_mul(right)),
        Operator::Divide => whole(left.checked_div(right)),
        Operator::Remainder => Ok(left.wrapping_rem(right)),
    }
}
