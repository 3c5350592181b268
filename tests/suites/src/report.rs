//! What came out, as `scripts/test` reads it.

use std::process::ExitCode;

/// Results, printed as they come.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    /// A result: `Err` says why it failed.
    pub fn result(&mut self, name: &str, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => self.ok(name),
            Err(why) => self.failed(name, why),
        }
    }

    pub fn ok(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {name}");
    }

    pub fn failed(&mut self, name: &str, why: &str) {
        self.failed += 1;
        println!("failed {name}: {}", flat(why));
    }

    /// A line for people, which counts nothing.
    pub fn note(&self, text: &str) {
        println!("# {}", flat(text));
    }

    /// The results of a row and their numbers. At least `floor` must have passed: a row in which
    /// nothing was found to run has failed.
    pub fn row(&mut self, name: &str, results: &[(String, Result<(), String>)], floor: usize) {
        for (program, outcome) in results {
            self.result(&format!("{name} {program}"), outcome);
        }
        let passed = results.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        self.note(&format!("{name}: {passed} of {}", results.len()));
        if results.len() < floor {
            let why = format!("{} programs, where there are at least {floor}", results.len());
            self.failed(&format!("{name}, its number"), &why);
        }
    }

    /// The last line, and the status to exit with.
    pub fn end(&self) -> ExitCode {
        println!("{} passed, {} failed, 0 skipped", self.passed, self.failed);
        ExitCode::from(u8::from(self.failed > 0 || self.passed == 0))
    }
}

/// One line, and not a long one.
fn flat(text: &str) -> String {
    const LONGEST: usize = 600;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} ..", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_nothing_has_failed() {
        let mut report = Report::default();
        report.row("empty", &[], 1);
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn a_row_counts_each_program() {
        let mut report = Report::default();
        let results = [("a".into(), Ok(())), ("b".into(), Err("broken".into()))];
        report.row("two", &results, 2);
        assert_eq!((report.passed, report.failed), (1, 1));
        report.row("too few", &results, 3);
        assert_eq!((report.passed, report.failed), (2, 3));
    }

    #[test]
    fn reasons_are_one_line() {
        assert_eq!(flat("a\n b"), "a b");
        assert!(flat(&"x ".repeat(9999)).ends_with(" .."));
    }
}
