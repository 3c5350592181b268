//! What test programs say: TAP (C programs) and libtest's text (Rust programs),
//! turned into rows. A program that ends early, counts wrong or whose exit
//! status disagrees with what it said has failed, whatever it said.

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed,
    /// It could not be asked.
    Skipped,
}

impl Outcome {
    /// The word in the protocol.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One test's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How it ended.
    pub outcome: Outcome,
    /// Its name.
    pub test: String,
    /// Why it did not pass, if it did not.
    pub reason: String,
}

impl Row {
    /// A row that says so.
    pub fn new(outcome: Outcome, test: &str, reason: &str) -> Self {
        Self { outcome, test: test.trim().to_owned(), reason: reason.trim().to_owned() }
    }

    /// A failed row.
    pub fn failed(test: &str, reason: impl AsRef<str>) -> Self {
        Self::new(Outcome::Failed, test, reason.as_ref())
    }

    /// Passed, or failed with the error.
    pub fn of<E: std::fmt::Display>(test: &str, result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::new(Outcome::Passed, test, ""),
            Err(e) => Self::failed(test, e.to_string()),
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The exit status; `None` where a signal ended it.
    pub code: Option<i32>,
    /// The status in words.
    pub text: String,
}

/// Longest reason kept, from its end: what was said last says most.
const REASON: usize = 600;

/// Between the lines of a reason.
const SEPARATOR: &str = "; ";

#[derive(Debug, Default)]
struct Notes(String);

impl Notes {
    fn add(&mut self, line: &str) {
        if !self.0.is_empty() {
            self.0.push_str(SEPARATOR);
        }
        self.0.push_str(line.trim());
    }

    fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.0);
        let mut from = text.len().saturating_sub(REASON);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text[from..].to_owned()
    }
}

/// Reads TAP. Comments before a `not ok` are its reason; where there are none,
/// those after it.
pub fn tap(text: &str, end: &End) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut wrong = Vec::new();
    let mut plan: Option<(usize, String)> = None;
    let mut notes = Notes::default();
    for line in text.lines().map(str::trim_end) {
        if let Some((outcome, rest)) = tap_result(line) {
            let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if number.parse() != Ok(rows.len() + 1) {
                wrong.push(Row::failed(
                    "numbering",
                    format!("{line}: not number {}", rows.len() + 1),
                ));
            }
            let rest = rest.trim_start().trim_start_matches("- ");
            let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
            let skip = word_first(directive, "SKIP");
            let mut reason = notes.take();
            let outcome = match (outcome, skip) {
                (Outcome::Passed, Some(why)) => {
                    reason = why.to_owned();
                    Outcome::Skipped
                }
                (outcome, _) => outcome,
            };
            if outcome == Outcome::Passed {
                reason.clear();
            }
            rows.push(Row::new(outcome, name, &reason));
        } else if let Some(count) = line.strip_prefix("1..") {
            let (count, why) = count.split_once('#').unwrap_or((count, ""));
            match (count.trim().parse(), &plan) {
                (Ok(count), None) => plan = Some((count, why.trim().to_owned())),
                _ => wrong.push(Row::failed("plan", format!("{line}: not a plan, or the second"))),
            }
        } else if let Some(why) = line.strip_prefix("Bail out!") {
            wrong.push(Row::failed("bail out", why));
        } else if let Some(note) = line.strip_prefix('#') {
            match rows.last_mut() {
                Some(row) if row.outcome == Outcome::Failed && row.reason.is_empty() => {
                    row.reason = note.trim().to_owned();
                }
                _ => notes.add(note),
            }
        }
    }
    match &plan {
        Some((0, why)) if rows.is_empty() && word_first(why, "SKIP").is_some() => {
            let why = word_first(why, "SKIP").unwrap_or("");
            rows.push(Row::new(Outcome::Skipped, "all", why));
        }
        Some((0, _)) => wrong.push(Row::failed("plan", "no tests")),
        Some((n, _)) if *n == rows.len() => {}
        Some((n, _)) => {
            let reason = format!("{} of {n} results; {}; {}", rows.len(), end.text, notes.take());
            wrong.push(Row::failed("plan", reason));
        }
        None => wrong.push(Row::failed("plan", format!("no plan; {}; {}", end.text, notes.take()))),
    }
    rows.extend(wrong);
    agree(rows, end)
}

fn tap_result(line: &str) -> Option<(Outcome, &str)> {
    if let Some(rest) = line.strip_prefix("ok ") {
        return Some((Outcome::Passed, rest));
    }
    line.strip_prefix("not ok ").map(|rest| (Outcome::Failed, rest))
}

/// What follows `word` where `text` starts with it, in either case.
fn word_first<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| text[word.len()..].trim())
}

/// Reads what libtest prints with one test at a time. A test that writes past
/// libtest's capture may stand between `test x ... ` and its result. A test
/// that panicked with `not run: WHY`, and with nothing else, was skipped.
pub fn libtest(text: &str, end: &End) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut plan: Option<usize> = None;
    let mut open: Option<&str> = None;
    let mut told: Option<String> = None;
    for line in text.lines().map(str::trim_end) {
        let header = line.strip_prefix("---- ").and_then(|l| l.split_once(" std"));
        if let Some((name, _)) = header {
            told = Some(name.to_owned());
        } else if let Some(name) = &told {
            if line == "failures:" {
                told = None;
            } else if let Some(row) = rows.iter_mut().find(|row| row.test == *name)
                && !line.is_empty()
                && row.reason.len() < REASON
            {
                row.reason += if row.reason.is_empty() { "" } else { SEPARATOR };
                row.reason += line;
            }
        } else if let Some(count) = line.strip_prefix("running ") {
            let count = count.split(' ').next().and_then(|n| n.parse().ok());
            plan = plan.or(count);
        } else {
            let mut said = line;
            if let Some((name, rest)) =
                line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
            {
                if let Some(before) = open.replace(name) {
                    rows.push(Row::failed(before, "no result"));
                }
                said = rest;
            }
            if let Some((outcome, reason)) = libtest_result(said)
                && let Some(name) = open.take()
            {
                let name = name.trim_end_matches(" - should panic");
                rows.push(Row::new(outcome, name, reason));
            }
        }
    }
    if let Some(name) = open {
        rows.push(Row::failed(name, format!("no result; {}", end.text)));
    }
    match plan {
        Some(0) => rows.push(Row::failed("plan", "no tests")),
        Some(n) if n == rows.len() => {}
        Some(n) => {
            let reason = format!("{} of {n} results; {}", rows.len(), end.text);
            rows.push(Row::failed("plan", reason));
        }
        None => rows.push(Row::failed("plan", format!("no plan; {}", end.text))),
    }
    if !text.contains("\ntest result: ") {
        rows.push(Row::failed("plan", format!("no summary; {}", end.text)));
    }
    let mut rows = agree(rows, end);
    rows.iter_mut().for_each(skip_if_not_run);
    rows
}

/// How a panic's message begins in a test that this kernel cannot run. For
/// libtest such a test has failed, as it has on any machine but these.
const NOT_RUN: &str = "not run: ";

fn skip_if_not_run(row: &mut Row) {
    let panics: Vec<_> = row.reason.match_indices(" panicked at ").collect();
    let [(at, _)] = panics[..] else { return };
    // The place of the panic, then its message.
    let mut lines = row.reason[at..].split(SEPARATOR).skip(1);
    let Some(why) = lines.next().and_then(|message| message.strip_prefix(NOT_RUN)) else { return };
    if row.outcome == Outcome::Failed {
        *row = Row::new(Outcome::Skipped, &row.test, why);
    }
}

fn libtest_result(text: &str) -> Option<(Outcome, &str)> {
    // At the end of a line, because a test may have written before it.
    if text == "ok" || text.ends_with(" ok") || text.ends_with("...ok") {
        return Some((Outcome::Passed, ""));
    }
    if text.ends_with("FAILED") {
        return Some((Outcome::Failed, ""));
    }
    let at = text.find("ignored")?;
    (at == 0).then(|| (Outcome::Skipped, text[7..].trim_start_matches([',', ' '])))
}

/// A good status with failures, or a bad one without, is a failure. 4 is
/// kselftest's for "all skipped".
fn agree(mut rows: Vec<Row>, end: &End) -> Vec<Row> {
    let failed = rows.iter().any(|row| row.outcome == Outcome::Failed);
    let skipped = rows.iter().all(|row| row.outcome == Outcome::Skipped);
    let good = end.code == Some(0) || (end.code == Some(4) && skipped);
    if good == failed {
        rows.push(Row::failed("exit status", &end.text));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: i32) -> End {
        End { code: Some(code), text: format!("exit status {code}") }
    }

    fn outcomes(rows: &[Row]) -> String {
        let letter = |row: &Row| match row.outcome {
            Outcome::Passed => 'p',
            Outcome::Failed => 'f',
            Outcome::Skipped => 's',
        };
        rows.iter().map(letter).collect()
    }

    const TAP: &str =
        "TAP version 13\n1..3\nok 1 - one\n# why not\nnot ok 2 - two\nok 3 three # SKIP no disk\n";

    #[test]
    fn tap_rows_have_name_outcome_and_reason() {
        let rows = tap(TAP, &end(1));
        assert_eq!(outcomes(&rows), "pfs");
        assert_eq!(rows[1], Row::failed("two", "why not"));
        assert_eq!(rows[2], Row::new(Outcome::Skipped, "three", "no disk"));
    }

    #[test]
    fn tap_comments_after_a_failure_are_its_reason_too() {
        let rows = tap("1..1\nnot ok 1 - a\n# because\n", &end(1));
        assert_eq!(rows[0].reason, "because");
    }

    #[test]
    fn tap_exit_status_must_agree() {
        assert_eq!(outcomes(&tap(TAP, &end(0))), "pfsf");
        assert_eq!(outcomes(&tap("1..1\nok 1 - a\n", &end(1))), "pf");
        assert_eq!(outcomes(&tap("1..1\nok 1 - a\n", &end(0))), "p");
    }

    #[test]
    fn tap_without_or_beside_its_plan_fails() {
        assert_eq!(outcomes(&tap("ok 1 - a\n", &end(0))), "pff");
        assert_eq!(outcomes(&tap("1..2\nok 1 - a\n", &end(0))), "pff");
        assert_eq!(outcomes(&tap("1..1\nok 1 - a\nok 2 - b\n", &end(0))), "ppff");
        assert_eq!(outcomes(&tap("1..1\n1..1\nok 1 - a\n", &end(0))), "pff");
        assert_eq!(outcomes(&tap("1..0\n", &end(0))), "ff");
        assert_eq!(outcomes(&tap("", &end(0))), "ff");
        assert_eq!(outcomes(&tap("", &end(139))), "f");
    }

    #[test]
    fn tap_wrong_numbers_and_bailing_out_fail() {
        assert_eq!(outcomes(&tap("1..2\nok 1 - a\nok 1 - b\n", &end(1))), "ppf");
        assert_eq!(outcomes(&tap("1..1\nok 1 - a\nBail out! no more\n", &end(1))), "pf");
    }

    #[test]
    fn tap_may_skip_all() {
        let rows = tap("1..0 # SKIP not here\n", &end(0));
        assert_eq!(rows, [Row::new(Outcome::Skipped, "all", "not here")]);
        assert_eq!(outcomes(&tap("1..0 # SKIP not here\n", &end(4))), "s");
        assert_eq!(outcomes(&tap("1..1\nok 1 - a\n", &end(4))), "pf");
    }

    const LIBTEST: &str = "\nrunning 4 tests\ntest a::one ... ok\ntest two ... FAILED\n\
        test three ... ignored, no disk\ntest four - should panic ... ok\n\nfailures:\n\n\
        ---- two stdout ----\n\nthread 'two' panicked at x.rs:1:2:\nleft: 1\n\n\n\
        failures:\n    two\n\ntest result: FAILED. 2 passed; 1 failed\n";

    #[test]
    fn libtest_rows_have_name_outcome_and_reason() {
        let rows = libtest(LIBTEST, &end(101));
        assert_eq!(outcomes(&rows), "pfsp");
        assert_eq!(rows[0].test, "a::one");
        assert_eq!(rows[1].reason, "thread 'two' panicked at x.rs:1:2:; left: 1");
        assert_eq!(rows[2].reason, "no disk");
        assert_eq!(rows[3].test, "four");
    }

    fn failed_with(message: &str) -> String {
        format!(
            "\nrunning 2 tests\ntest a ... FAILED\ntest b ... ok\n\nfailures:\n\n\
             ---- a stdout ----\n\nthread 'a' (7) panicked at x.rs:1:2:\n{message}\n\
             note: run with `RUST_BACKTRACE=1`\n\n\nfailures:\n    a\n\n\
             test result: FAILED. 1 passed; 1 failed\n"
        )
    }

    #[test]
    fn libtest_that_says_not_run_is_skipped() {
        let rows = libtest(&failed_with("not run: no mseal"), &end(101));
        assert_eq!(outcomes(&rows), "sp");
        assert_eq!(rows[0], Row::new(Outcome::Skipped, "a", "no mseal"));
        // What libtest says of its end must agree before anything is skipped.
        let rows = libtest(&failed_with("not run: no mseal"), &end(0));
        assert_eq!(outcomes(&rows), "spf");
    }

    #[test]
    fn libtest_that_says_more_than_not_run_has_failed() {
        let other = "not run: no mseal\nthread 'b' panicked at x.rs:3:4:\nleft: 1";
        let first = "left: 1\nthread 'b' panicked at x.rs:3:4:\nnot run: no mseal";
        for message in
            ["not run: ", "not run", "was not run: no", "left\nnot run: no", other, first]
        {
            assert_eq!(outcomes(&libtest(&failed_with(message), &end(101))), "fp", "{message}");
        }
        // Without a panic.
        let text = failed_with("not run: no").replace(" panicked at ", " ");
        assert_eq!(outcomes(&libtest(&text, &end(101))), "fp");
    }

    #[test]
    fn libtest_exit_status_must_agree() {
        assert_eq!(outcomes(&libtest(LIBTEST, &end(0))), "pfspf");
    }

    #[test]
    fn libtest_result_may_come_after_what_the_test_wrote() {
        let text = "\nrunning 2 tests\ntest a ... hello\nworld\nok\ntest b ... x FAILED\n\ntest result: \n";
        assert_eq!(outcomes(&libtest(text, &end(101))), "pf");
    }

    #[test]
    fn libtest_that_ends_early_fails() {
        let rows = libtest("\nrunning 2 tests\ntest a ... ok\ntest b ... ", &end(139));
        assert_eq!(outcomes(&rows), "pff");
        assert!(rows[1].reason.contains("139"));
        assert_eq!(outcomes(&libtest("", &end(0))), "fff");
        assert_eq!(outcomes(&libtest("\nrunning 0 tests\n\ntest result: ok.\n", &end(0))), "ff");
    }
}
