//! Programs at random, which end: functions call those after them, and loops are counted.

use std::fmt::Write;

/// Numbers that look random (xorshift64*), the same for the same seed, which is not 0.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Small ones, and those at which something happens.
    pub fn number(&mut self) -> i64 {
        match self.below(12) {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => i64::from(i32::MAX) + self.below(3) as i64,
            3 => self.next() as i64,
            _ => self.below(9) as i64 - 3,
        }
    }
}

/// A program whose main takes two numbers.
pub fn program(random: &mut Random) -> String {
    let functions = 2 + random.below(8);
    let arities: Vec<usize> =
        (0..functions).map(|i| if i == 0 { 2 } else { random.below(6) }).collect();
    let mut text = String::new();
    for index in 0..functions {
        let parameters: Vec<String> = (0..arities[index]).map(|i| format!("p{i}")).collect();
        let mut body = Body {
            random,
            index,
            arities: &arities,
            readable: parameters.clone(),
            writable: parameters.clone(),
            names: 0,
            loops: 0,
            text: &mut text,
        };
        writeln!(body.text, "fn {}({}) {{", name(index), parameters.join(", ")).unwrap();
        body.statements(1, 2);
        let value = body.expression(3);
        writeln!(text, "    return {value};\n}}\n").unwrap();
    }
    text
}

fn name(index: usize) -> String {
    if index == 0 { "main".into() } else { format!("f{index}") }
}

/// Of one function, while it is written.
struct Body<'a> {
    random: &'a mut Random,
    index: usize,
    arities: &'a [usize],
    readable: Vec<String>,
    /// All but those that count loops.
    writable: Vec<String>,
    names: usize,
    /// Around the place.
    loops: usize,
    text: &'a mut String,
}

impl Body<'_> {
    fn line(&mut self, indent: usize, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", 4 * indent).unwrap();
    }

    fn statements(&mut self, indent: usize, depth: usize) {
        let seen = (self.readable.len(), self.writable.len());
        for _ in 0..1 + self.random.below(4) {
            self.statement(indent, depth);
        }
        self.readable.truncate(seen.0);
        self.writable.truncate(seen.1);
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn statement(&mut self, indent: usize, depth: usize) {
        let kind = self.random.below(if depth > 0 { 9 } else { 6 });
        let value = self.expression(2);
        match kind {
            0 | 1 => {
                let name = self.new_name();
                self.line(indent, &format!("let {name} = {value};"));
                self.readable.push(name.clone());
                self.writable.push(name);
            }
            2 | 3 if !self.writable.is_empty() => {
                let name = &self.writable[self.random.below(self.writable.len())];
                let line = format!("{name} = {value};");
                self.line(indent, &line);
            }
            4 => self.line(indent, &format!("print({value});")),
            6 | 7 => {
                self.line(indent, &format!("if {value} {{"));
                self.statements(indent + 1, depth - 1);
                if kind == 7 {
                    self.line(indent, "} else {");
                    self.statements(indent + 1, depth - 1);
                }
                self.line(indent, "}");
                if self.random.below(6) == 0 {
                    let value = self.expression(1);
                    self.line(indent, &format!("if {value} {{ return {value}; }}"));
                }
            }
            8 => {
                let name = self.new_name();
                let times = self.random.below(5);
                self.line(indent, &format!("let {name} = 0;"));
                self.readable.push(name.clone());
                self.line(indent, &format!("while {name} < {times} && {value} {{"));
                self.line(indent + 1, &format!("{name} = {name} + 1;"));
                self.loops += 1;
                self.statements(indent + 1, depth - 1);
                self.loops -= 1;
                self.line(indent, "}");
            }
            _ => self.line(indent, &format!("{value};")),
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        let kind = self.random.below(if depth > 0 { 12 } else { 4 });
        match kind {
            0 | 1 if !self.readable.is_empty() => {
                self.readable[self.random.below(self.readable.len())].clone()
            }
            0..=3 => match self.random.number() {
                // The language has no such number, but the difference of two.
                i64::MIN => format!("({} - 1)", -i64::MAX),
                number => format!("{number}"),
            },
            4 => format!("-{}", self.operand(depth)),
            5 => format!("!{}", self.operand(depth)),
            // Calls in loops in calls take long.
            6 if self.index + 1 < self.arities.len() && self.loops < 2 => {
                let callee =
                    self.index + 1 + self.random.below(self.arities.len() - self.index - 1);
                let arguments: Vec<String> =
                    (0..self.arities[callee]).map(|_| self.expression(depth - 1)).collect();
                format!("{}({})", name(callee), arguments.join(", "))
            }
            _ => {
                const OPERATORS: [&str; 13] =
                    ["||", "&&", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"];
                let operator = OPERATORS[self.random.below(OPERATORS.len())];
                let (left, right) = (self.expression(depth - 1), self.operand(depth));
                // Without parentheses at the left: what binds how strong is seen, too.
                format!("{left} {operator} {right}")
            }
        }
    }

    fn operand(&mut self, depth: usize) -> String {
        format!("({})", self.expression(depth - 1))
    }
}
