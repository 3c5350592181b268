//! Words to a tree.
//!
//! ```text
//! program    = function*
//! function   = "fn" name "(" [name ("," name)*] ")" block
//! block      = "{" statement* "}"
//! statement  = "let" name "=" expression ";" | name "=" expression ";"
//!            | "if" expression block ["else" (block | if)] | "while" expression block
//!            | "return" expression ";" | expression ";"
//! expression = operand (operator operand)*       || < && < == != < <= > >= < + - < * / %
//! operand    = ("-" | "!") operand | number | name | name "(" [expression, ..] ")"
//!            | "(" expression ")"
//! ```

use crate::lexer::{Error, Token, Word, tokens};
use crate::tree::{
    Call, Callee, Expression, Function, Line, Operator, Program, Statement, Variable,
};

/// Blocks and expressions may be nested this deep, and a statement may have so many operators, of
/// which each can take the tree a step deeper: so much stack there is in any case.
const MAX_DEPTH: usize = 100;
const MAX_OPERATORS: usize = 1000;

pub fn parse(text: &str) -> Result<Program, Error> {
    let mut parser =
        Parser { text, tokens: tokens(text)?, next: 0, first_line: 1, depth: 0, operators: 0 };
    let mut program = Program::default();
    while parser.peek() != &Word::End {
        program.functions.push(parser.function()?);
    }
    Ok(program)
}

struct Parser<'a> {
    text: &'a str,
    /// The last is the end.
    tokens: Vec<Token>,
    next: usize,
    /// Of the function.
    first_line: usize,
    depth: usize,
    /// Of the statement, until now.
    operators: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Word {
        &self.tokens[self.next].word
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Word::Sign(there) if *there == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Word::Name(there) if there == name)
    }

    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn take(&mut self, sign: &str) -> bool {
        let there = self.is(sign);
        if there {
            self.advance();
        }
        there
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T, Error> {
        Err(Error { line: self.tokens[self.next].line, what: what.into() })
    }

    fn expect(&mut self, sign: &str) -> Result<(), Error> {
        if self.take(sign) { Ok(()) } else { self.error(format!("{sign} is missing")) }
    }

    fn line(&self) -> Line {
        (self.tokens[self.next].line - self.first_line) as Line
    }

    fn deeper<T>(&mut self, f: fn(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return self.error("nested too deep");
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn name(&mut self) -> Result<String, Error> {
        const KEYWORDS: [&str; 6] = ["fn", "let", "if", "else", "while", "return"];
        match self.peek().clone() {
            Word::Name(name) if !KEYWORDS.contains(&&*name) => {
                self.advance();
                Ok(name)
            }
            _ => self.error("a name is missing"),
        }
    }

    fn variable(&mut self) -> Result<Variable, Error> {
        let line = self.line();
        Ok(Variable { name: self.name()?, line, slot: 0 })
    }

    fn function(&mut self) -> Result<Function, Error> {
        let Token { line, at: (start, _), .. } = self.tokens[self.next];
        self.first_line = line;
        if !self.is_name("fn") {
            return self.error("fn is missing");
        }
        self.advance();
        let name = self.name()?;
        self.expect("(")?;
        let mut parameters = Vec::new();
        while !self.take(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            parameters.push(self.name()?);
        }
        let body = self.block()?;
        let (_, end) = self.tokens[self.next - 1].at;
        let source = self.text[start..end].into();
        Ok(Function { name, parameters, body, line, source, slots: 0 })
    }

    fn block(&mut self) -> Result<Vec<Statement>, Error> {
        self.expect("{")?;
        let mut statements = Vec::new();
        while !self.take("}") {
            statements.push(self.deeper(Parser::statement)?);
        }
        Ok(statements)
    }

    fn statement(&mut self) -> Result<Statement, Error> {
        self.operators = 0;
        if self.is_name("if") {
            return self.condition();
        }
        if self.is_name("while") {
            self.advance();
            return Ok(Statement::While(self.expression()?, self.block()?));
        }
        let statement = if self.is_name("let") {
            self.advance();
            let variable = self.variable()?;
            self.expect("=")?;
            Statement::Let(variable, self.expression()?)
        } else if self.is_name("return") {
            self.advance();
            Statement::Return(self.expression()?)
        } else if matches!(self.peek(), Word::Name(_))
            && self.tokens[self.next + 1].word == Word::Sign("=")
        {
            let variable = self.variable()?;
            self.advance();
            Statement::Assign(variable, self.expression()?)
        } else {
            Statement::Expression(self.expression()?)
        };
        self.expect(";")?;
        Ok(statement)
    }

    fn condition(&mut self) -> Result<Statement, Error> {
        self.advance();
        let condition = self.expression()?;
        let then = self.block()?;
        let mut otherwise = Vec::new();
        if self.is_name("else") {
            self.advance();
            otherwise = if self.is_name("if") {
                vec![self.deeper(Parser::condition)?]
            } else {
                self.block()?
            };
        }
        Ok(Statement::If(condition, then, otherwise))
    }

    fn expression(&mut self) -> Result<Expression, Error> {
        self.deeper(|parser| parser.operators(0))
    }

    /// What operators that bind as `least` or stronger hold together.
    fn operators(&mut self, least: usize) -> Result<Expression, Error> {
        let mut left = self.operand()?;
        while let Some((operator, strength)) = self.operator().filter(|&(_, s)| s >= least) {
            if self.operators == MAX_OPERATORS {
                return self.error(format!("more than {MAX_OPERATORS} operators in a statement"));
            }
            self.operators += 1;
            let line = self.line();
            self.advance();
            let right = self.operators(strength + 1)?;
            left = Expression::Binary(operator, left.into(), right.into(), line);
        }
        Ok(left)
    }

    /// The operator that is next, and how strong it binds.
    fn operator(&self) -> Option<(Operator, usize)> {
        let Word::Sign(sign) = self.peek() else { return None };
        Some(match *sign {
            "||" => (Operator::Or, 0),
            "&&" => (Operator::And, 1),
            "==" => (Operator::Equal, 2),
            "!=" => (Operator::NotEqual, 2),
            "<" => (Operator::Less, 3),
            "<=" => (Operator::LessOrEqual, 3),
            ">" => (Operator::Greater, 3),
            ">=" => (Operator::GreaterOrEqual, 3),
            "+" => (Operator::Add, 4),
            "-" => (Operator::Subtract, 4),
            "*" => (Operator::Multiply, 5),
            "/" => (Operator::Divide, 5),
            "%" => (Operator::Remainder, 5),
            _ => return None,
        })
    }

    fn operand(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        if self.take("-") {
            return Ok(Expression::Negate(self.deeper(Parser::operand)?.into(), line));
        }
        if self.take("!") {
            return Ok(Expression::Not(self.deeper(Parser::operand)?.into()));
        }
        if self.take("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if let Word::Number(number) = *self.peek() {
            self.advance();
            return Ok(Expression::Number(number));
        }
        let variable = self.variable()?;
        if !self.take("(") {
            return Ok(Expression::Variable(variable));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression()?);
        }
        let name = variable.name;
        Ok(Expression::Call(Call { name, arguments, line, callee: Callee::Print }))
    }
}
