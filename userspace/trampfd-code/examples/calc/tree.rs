//! A program, as the parser makes it and the checker completes it.

/// All of a source file.
#[derive(Debug, Default)]
pub struct Program {
    pub functions: Vec<Function>,
}

impl Program {
    pub fn find(&self, name: &str) -> Option<usize> {
        self.functions.iter().position(|function| function.name == name)
    }
}

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub parameters: Vec<String>,
    pub body: Vec<Statement>,
    /// Line of the file on which it begins; those inside of it count from there, so that code of
    /// a function does not change when the file changes above it.
    pub line: usize,
    /// From `fn` to the last brace: what its code is made from.
    pub source: String,
    /// Parameters and variables, each with a slot of its own. Set by the checker.
    pub slots: usize,
}

#[derive(Debug)]
pub enum Statement {
    Let(Variable, Expression),
    Assign(Variable, Expression),
    If(Expression, Vec<Statement>, Vec<Statement>),
    While(Expression, Vec<Statement>),
    Return(Expression),
    Expression(Expression),
}

#[derive(Debug)]
pub enum Expression {
    Number(i64),
    Variable(Variable),
    Negate(Box<Expression>, Line),
    Not(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>, Line),
    Call(Call),
}

#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub line: Line,
    /// Set by the checker.
    pub slot: usize,
}

#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<Expression>,
    pub line: Line,
    /// Set by the checker.
    pub callee: Callee,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// Prints its argument on a line, and returns it.
    Print,
    Function(usize),
}

/// Lines after the first of the function.
pub type Line = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
