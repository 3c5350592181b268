//! The table: a row for each figure, its target, and whether it holds.

use std::fmt::Write as _;

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
    /// Nothing: it stands beside another for comparison.
    None,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure; NaN where it could not be had, which never holds.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it must reach.
    pub target: Target,
}

impl Row {
    /// A row.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, target: Target) -> Row {
        Row { name: name.into(), value, unit, target }
    }

    /// Whether the target holds; `None` where there is none.
    pub fn holds(&self) -> Option<bool> {
        match self.target {
            Target::Most(limit) => Some(self.value <= limit),
            Target::Least(limit) => Some(self.value >= limit),
            Target::None => None,
        }
    }

    fn target(&self) -> String {
        match self.target {
            Target::Most(limit) => format!("<= {limit}"),
            Target::Least(limit) => format!(">= {limit}"),
            Target::None => String::new(),
        }
    }
}

/// For people.
pub fn print(row: &Row) {
    let holds = match row.holds() {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    println!("{:<86} {:>10.3} {:<9} {:>9}  {holds}", row.name, row.value, row.unit, row.target());
}

/// For machines: a list of {name, value, unit, target, holds}; `null` where there is none.
pub fn json(rows: &[Row]) -> String {
    let mut out = String::from("[\n");
    for (n, row) in rows.iter().enumerate() {
        let value = if row.value.is_finite() { row.value.to_string() } else { "null".to_owned() };
        let target = match row.target {
            Target::None => "null".to_owned(),
            _ => format!("\"{}\"", row.target()),
        };
        let holds = row.holds().map_or("null".to_owned(), |holds| holds.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "  {{\"name\": \"{}\", \"value\": {value}, \"unit\": \"{}\", \"target\": {target}, \
             \"holds\": {holds}}}{}",
            row.name.replace('\\', "\\\\").replace('"', "\\\""),
            row.unit,
            if n + 1 < rows.len() { "," } else { "" }
        );
    }
    out.push_str("]\n");
    out
}
