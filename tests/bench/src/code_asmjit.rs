//! AsmJit's allocator, in a process of its own: tests/bench/peers/asmjit.cpp, which scripts/bench
//! compiles.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PROGRAM: &str = "target/bench/asmjit";

/// The process, which ends when this is dropped.
pub struct Asmjit(RefCell<Result<Running, String>>);

struct Running {
    child: Child,
    tasks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Asmjit {
    /// Starts it, on the processors that this thread may use.
    pub fn start() -> Asmjit {
        let running = Running::start();
        if let Err(error) = &running {
            eprintln!("{PROGRAM}: {error}");
        }
        Asmjit(RefCell::new(running.map_err(|error| error.to_string())))
    }

    /// Does a task; its numbers, or `count` times none.
    pub fn ask(&self, task: &str, count: usize) -> Vec<f64> {
        let mut running = self.0.borrow_mut();
        let Ok(asmjit) = &mut *running else { return vec![f64::NAN; count] };
        match asmjit.ask(task) {
            Ok(numbers) if numbers.len() == count => numbers,
            other => {
                eprintln!("{PROGRAM}: {task}: {other:?}");
                *running = Err(format!("{other:?}"));
                vec![f64::NAN; count]
            }
        }
    }
}

impl Running {
    fn start() -> io::Result<Running> {
        let mut command = Command::new(PROGRAM);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let tasks = child.stdin.take();
        let answers = child.stdout.take().map(BufReader::new);
        let answers = answers.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Running { child, tasks, answers })
    }

    fn ask(&mut self, task: &str) -> io::Result<Vec<f64>> {
        let tasks = self.tasks.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(tasks, "{task}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // At the end of its tasks it ends.
        self.tasks = None;
        let _ = self.child.wait();
    }
}
