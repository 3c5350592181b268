//! The verdict channel: the second serial port, which nobody else writes to.
//! The protocol is described where it is read, in the runner's `verdict.rs`.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write};

use crate::results::{Outcome, Row};
use crate::sys;

/// The open channel and what went through it so far.
#[derive(Debug)]
pub struct Report {
    port: File,
    counts: [usize; 3],
}

impl Report {
    /// Opens the channel.
    pub fn open() -> Result<Self> {
        let port = OpenOptions::new().write(true).read(true).open("/dev/ttyS1")?;
        sys::make_raw(&port)?;
        Ok(Self { port, counts: [0; 3] })
    }

    /// Says that `program` starts: what is named last is what hung.
    pub fn begin(&mut self, program: &str) -> Result<()> {
        println!("# begin {program}");
        self.line(&["begin", program])
    }

    /// Reports one test.
    pub fn row(&mut self, program: &str, row: &Row) -> Result<()> {
        let word = row.outcome.word();
        println!("# {word} {program}: {} {}", row.test, row.reason);
        self.counts[match row.outcome {
            Outcome::Passed => 0,
            Outcome::Failed => 1,
            Outcome::Skipped => 2,
        }] += 1;
        self.line(&["row", word, program, &row.test, &row.reason])
    }

    /// Passes on a line for people.
    pub fn out(&mut self, line: &str) -> Result<()> {
        self.line(&["out", line])
    }

    /// Ends the report.
    pub fn verdict(mut self) -> Result<()> {
        let [passed, failed, skipped] = self.counts.map(|n| n.to_string());
        let word = if self.counts[1] == 0 { "success" } else { "failure" };
        self.line(&["verdict", word, &passed, &failed, &skipped])?;
        sys::drain(&self.port)
    }

    fn line(&mut self, fields: &[&str]) -> Result<()> {
        let mut line = String::from("@vm");
        for field in fields {
            line.push('\t');
            line.extend(field.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        line.push('\n');
        self.port.write_all(line.as_bytes())
    }
}
