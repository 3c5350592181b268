//! Finds what each name means.

use std::collections::HashMap;

use crate::lexer::Error;
use crate::tree::{Call, Callee, Expression, Program, Statement, Variable};

/// As many as there are registers for them.
pub const MAX_PARAMETERS: usize = 5;

/// Variables of a function, so that its frame is small beside the stack.
const MAX_SLOTS: usize = 1000;

/// Gives variables their slots and calls their callees.
pub fn check(program: &mut Program) -> Result<(), Error> {
    let mut callees = HashMap::from([("print".to_owned(), (Callee::Print, 1))]);
    for (index, function) in program.functions.iter().enumerate() {
        let (line, name) = (function.line, &function.name);
        let arity = function.parameters.len();
        if callees.insert(name.clone(), (Callee::Function(index), arity)).is_some() {
            return Err(Error { line, what: format!("{name} is there already") });
        }
        if arity > MAX_PARAMETERS {
            let what = format!("{name} has more than {MAX_PARAMETERS} parameters");
            return Err(Error { line, what });
        }
    }
    if !callees.contains_key("main") {
        return Err(Error { line: 1, what: "there is no function main".into() });
    }
    for function in &mut program.functions {
        let mut checker =
            Checker { callees: &callees, line: function.line, scope: Vec::new(), slots: 0 };
        for name in &function.parameters {
            checker.declare(name, 0)?;
        }
        checker.block(&mut function.body)?;
        function.slots = checker.slots;
    }
    Ok(())
}

struct Checker<'a> {
    /// With the number of their parameters.
    callees: &'a HashMap<String, (Callee, usize)>,
    /// First of the function.
    line: usize,
    /// What can be seen, the last first, with its slot.
    scope: Vec<(String, usize)>,
    slots: usize,
}

impl Checker<'_> {
    fn error<T>(&self, line: u32, what: String) -> Result<T, Error> {
        Err(Error { line: self.line + line as usize, what })
    }

    fn declare(&mut self, name: &str, line: u32) -> Result<usize, Error> {
        if self.slots == MAX_SLOTS {
            return self.error(line, format!("more than {MAX_SLOTS} variables"));
        }
        self.scope.push((name.into(), self.slots));
        self.slots += 1;
        Ok(self.slots - 1)
    }

    fn find(&self, variable: &mut Variable) -> Result<(), Error> {
        let there = self.scope.iter().rev().find(|(name, _)| *name == variable.name);
        match there {
            Some(&(_, slot)) => variable.slot = slot,
            None => {
                return self.error(variable.line, format!("there is no {}", variable.name));
            }
        }
        Ok(())
    }

    fn block(&mut self, statements: &mut [Statement]) -> Result<(), Error> {
        let seen = self.scope.len();
        for statement in statements {
            self.statement(statement)?;
        }
        self.scope.truncate(seen);
        Ok(())
    }

    fn statement(&mut self, statement: &mut Statement) -> Result<(), Error> {
        match statement {
            Statement::Let(variable, value) => {
                self.expression(value)?;
                variable.slot = self.declare(&variable.name, variable.line)?;
                Ok(())
            }
            Statement::Assign(variable, value) => {
                self.expression(value)?;
                self.find(variable)
            }
            Statement::If(condition, then, otherwise) => {
                self.expression(condition)?;
                self.block(then)?;
                self.block(otherwise)
            }
            Statement::While(condition, body) => {
                self.expression(condition)?;
                self.block(body)
            }
            Statement::Return(value) | Statement::Expression(value) => self.expression(value),
        }
    }

    fn expression(&mut self, expression: &mut Expression) -> Result<(), Error> {
        match expression {
            Expression::Number(_) => Ok(()),
            Expression::Variable(variable) => self.find(variable),
            Expression::Negate(value, _) | Expression::Not(value) => self.expression(value),
            Expression::Binary(_, left, right, _) => {
                self.expression(left)?;
                self.expression(right)
            }
            Expression::Call(call) => self.call(call),
        }
    }

    fn call(&mut self, call: &mut Call) -> Result<(), Error> {
        let Some(&(callee, arity)) = self.callees.get(&call.name) else {
            return self.error(call.line, format!("there is no function {}", call.name));
        };
        if arity != call.arguments.len() {
            let what = format!(
                "{} has {arity} parameters and is given {} arguments",
                call.name,
                call.arguments.len()
            );
            return self.error(call.line, what);
        }
        call.callee = callee;
        call.arguments.iter_mut().try_for_each(|argument| self.expression(argument))
    }
}
