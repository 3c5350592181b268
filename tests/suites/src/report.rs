//! What came out, as `scripts/test` reads it.

use std::process::ExitCode;

/// `Err` says why it failed.
pub type Outcome = Result<(), String>;
/// Programs, or tests in one, and how each ended.
pub type Results = Vec<(String, Outcome)>;

/// How many passed.
pub fn passed(results: &Results) -> usize {
    results.iter().filter(|(_, outcome)| outcome.is_ok()).count()
}

/// Results, printed as they come.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    pub fn result(&mut self, name: &str, outcome: &Outcome) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {name}");
            }
            Err(why) => self.failed(name, why),
        }
    }

    pub fn failed(&mut self, name: &str, why: &str) {
        self.failed += 1;
        println!("failed {name}: {}", flat(why));
    }

    /// A line for people, which counts nothing.
    pub fn note(&self, text: &str) {
        println!("# {}", flat(text));
    }

    /// The results of a row and their numbers. There must be at least `floor`: a row in which
    /// nothing was found to run has failed.
    pub fn row(&mut self, name: &str, results: &Results, floor: usize) {
        for (program, outcome) in results {
            self.result(&format!("{name} {program}"), outcome);
        }
        self.note(&format!("{name}: {} of {}", passed(results), results.len()));
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
        report.row("empty", &Vec::new(), 1);
        assert_eq!((report.passed, report.failed), (0, 1));
    }

    #[test]
    fn a_row_counts_each_program() {
        let mut report = Report::default();
        let results = vec![("a".into(), Ok(())), ("b".into(), Err("broken".into()))];
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
