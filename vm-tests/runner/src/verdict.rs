//! What the machine said about itself, on a channel of its own.
//!
//! PID 1 writes lines to its second serial port, which QEMU puts into a file
//! that was deleted before. Each is `@vm`, a kind and the kind's fields, with a
//! tab between them:
//!
//! ```text
//! @vm  begin    program                           the program starts
//! @vm  row      outcome  program  test  reason    outcome: ok, failed, skipped
//! @vm  out      line                              what an `--exec` program said
//! @vm  verdict  word  passed  failed  skipped     word: success or failure
//! ```
//!
//! No verdict, two of them, an unknown line, or counts that are not those of
//! the rows make the run fail, whatever the rows say. The console, which is for
//! people, can only add to the failures: [`splats`] finds the kernel's
//! complaints in it.

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed,
    /// It could not be asked; the row's reason says why.
    Skipped,
}

impl Outcome {
    /// The word in the protocol and in the reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Passed, Self::Failed, Self::Skipped].into_iter().find(|o| o.word() == word)
    }
}

/// One test's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How it ended.
    pub outcome: Outcome,
    /// The program it is part of; `machine` for the run itself.
    pub program: String,
    /// Its name.
    pub test: String,
    /// Why it did not pass, if it did not.
    pub reason: String,
}

impl Row {
    /// A failure of the run itself.
    pub fn machine(test: &str, reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            program: "machine".to_owned(),
            test: test.to_owned(),
            reason: reason.into(),
        }
    }
}

/// What came out of one machine.
#[derive(Debug, Default)]
pub struct Report {
    /// Every test, in the order they ran.
    pub rows: Vec<Row>,
    /// What an `--exec` program said.
    pub lines: Vec<String>,
}

impl Report {
    /// How many rows ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }
}

/// Reads the verdict channel. Whatever is wrong with it becomes a failed row.
pub fn parse(channel: &str) -> Report {
    let mut report = Report::default();
    let mut wrong = Vec::new();
    let mut verdicts = Vec::new();
    let mut running = None;
    for line in channel.lines() {
        let fields: Vec<&str> = line.trim_end_matches('\r').split('\t').collect();
        match fields[..] {
            ["@vm", "begin", program] => running = Some(program),
            ["@vm", "out", ref line @ ..] => report.lines.push(line.join("\t")),
            ["@vm", "row", outcome, program, test, reason] => match Outcome::of_word(outcome) {
                Some(outcome) => report.rows.push(Row {
                    outcome,
                    program: program.to_owned(),
                    test: test.to_owned(),
                    reason: reason.to_owned(),
                }),
                None => wrong.push(Row::machine("protocol", format!("unknown outcome {outcome}"))),
            },
            ["@vm", "verdict", word, passed, failed, skipped] => {
                verdicts.push((word, [passed, failed, skipped]));
            }
            _ => wrong.push(Row::machine("protocol", format!("unknown line: {line}"))),
        }
    }
    let counts = [Outcome::Passed, Outcome::Failed, Outcome::Skipped]
        .map(|outcome| report.count(outcome).to_string());
    match verdicts[..] {
        [] => wrong.push(Row::machine(
            "verdict",
            format!("no verdict; last running: {}", running.unwrap_or("nothing")),
        )),
        [(word, said)] => {
            if said[..] != counts[..] {
                let reason =
                    format!("says {said:?} passed, failed, skipped, but the rows are {counts:?}");
                wrong.push(Row::machine("verdict", reason));
            }
            match (word, report.count(Outcome::Failed)) {
                ("success", 0) | ("failure", 1..) => {}
                ("success" | "failure", n) => {
                    wrong.push(Row::machine("verdict", format!("says {word} with {n} failures")));
                }
                _ => wrong.push(Row::machine("verdict", format!("unknown verdict {word}"))),
            }
        }
        _ => wrong.push(Row::machine("verdict", format!("{} verdicts", verdicts.len()))),
    }
    if report.count(Outcome::Passed) == 0 {
        wrong.push(Row::machine("verdict", "no test passed"));
    }
    report.rows.extend(wrong);
    report
}

/// The kernel's complaints in a console log, whole lines. Each must follow the
/// kernel's time stamp, so that a program that prints such words is not one.
pub fn splats(console: &str) -> Vec<&str> {
    const COMPLAINTS: [&str; 8] = [
        "Kernel panic",
        "Oops",
        "BUG",
        "WARNING: ",
        "kernel BUG",
        "general protection fault",
        "watchdog: BUG",
        "INFO: task ",
    ];
    console
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| {
            // "[    1.234567] text", or with a caller: "[    1.234567][    T1] text"
            line.match_indices("] ").any(|(at, _)| {
                COMPLAINTS.iter().any(|complaint| line[at + 2..].starts_with(complaint))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "@vm\tbegin\ta\r\n@vm\trow\tok\ta\tone\t\r\n@vm\trow\tskipped\ta\ttwo\tno disk\r\n\
                        @vm\tverdict\tsuccess\t1\t0\t1\r\n";

    fn failures(channel: &str) -> Vec<String> {
        let report = parse(channel);
        report
            .rows
            .iter()
            .filter(|r| r.outcome == Outcome::Failed)
            .map(|r| r.reason.clone())
            .collect()
    }

    #[test]
    fn a_good_run_has_no_failure() {
        assert_eq!(failures(GOOD), [""; 0]);
        assert_eq!(parse(GOOD).rows[1].reason, "no disk");
    }

    #[test]
    fn a_failed_test_is_one_failure() {
        let channel = "@vm\trow\tok\ta\tone\t\n@vm\trow\tfailed\ta\ttwo\twhy\n@vm\tverdict\tfailure\t1\t1\t0\n";
        assert_eq!(failures(channel), ["why"]);
    }

    #[test]
    fn nothing_at_all_is_a_failure() {
        assert!(failures("")[0].contains("no verdict"));
    }

    #[test]
    fn no_verdict_is_a_failure_and_says_what_ran() {
        let channel = &GOOD[..GOOD.find("@vm\tverdict").unwrap()];
        assert_eq!(failures(channel), ["no verdict; last running: a"]);
    }

    #[test]
    fn two_verdicts_are_a_failure() {
        assert_eq!(failures(&format!("{GOOD}@vm\tverdict\tsuccess\t1\t0\t1\n")), ["2 verdicts"]);
    }

    #[test]
    fn an_unknown_verdict_is_a_failure() {
        assert_eq!(failures(&GOOD.replace("success", "fine")), ["unknown verdict fine"]);
    }

    #[test]
    fn an_unknown_line_or_outcome_is_a_failure() {
        assert_eq!(failures(&format!("{GOOD}@vm\tnews\n")).len(), 1);
        assert_eq!(failures(&format!("hello\n{GOOD}")).len(), 1);
        assert!(!failures(&GOOD.replace("row\tok", "row\tgreat")).is_empty());
    }

    #[test]
    fn a_lost_row_is_a_failure() {
        let channel = GOOD.replace("@vm\trow\tskipped\ta\ttwo\tno disk\r\n", "");
        assert_eq!(failures(&channel).len(), 1);
    }

    #[test]
    fn success_beside_a_failure_is_a_failure_twice() {
        let channel =
            "@vm\trow\tok\ta\tx\t\n@vm\trow\tfailed\ta\tone\twhy\n@vm\tverdict\tsuccess\t1\t1\t0\n";
        assert_eq!(failures(channel).len(), 2);
    }

    #[test]
    fn a_run_without_tests_is_a_failure() {
        assert_eq!(failures("@vm\tverdict\tsuccess\t0\t0\t0\n"), ["no test passed"]);
    }

    #[test]
    fn sees_what_the_kernel_complains_about() {
        for line in [
            "[    3.1] Kernel panic - not syncing: sysrq triggered crash",
            "ok 1 - half a line[    3.1] Oops: 0000 [#1] PREEMPT SMP",
            "[    3.1][   T12] BUG: kernel NULL pointer dereference",
            "[    3.1] WARNING: CPU: 0 PID: 1 at mm/memory.c:1 f+0x1/0x2",
            "[    3.1] WARNING: possible circular locking dependency detected",
            "[    3.1] kernel BUG at mm/memory.c:1!",
            "[    3.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
        ] {
            assert_eq!(splats(&format!("boot\r\n{line}\r\nmore")), [line]);
        }
    }

    #[test]
    fn does_not_see_what_only_looks_like_a_complaint() {
        for line in [
            "# BUG: this is a program talking",
            "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
            "[    0.1] tsc: [Firmware Bug]: something",
            "[    0.1] Kernel command line: panic_on_warn=1 oops=panic",
        ] {
            assert_eq!(splats(line), [""; 0]);
        }
    }
}
