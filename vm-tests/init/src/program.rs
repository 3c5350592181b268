//! Running one program with a time limit, and sweeping up behind it.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::results::End;
use crate::sys;

/// What a program wrote to stdout, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its stdout, also written to the console.
    pub text: String,
    /// Its end.
    pub end: End,
}

/// Runs `program`, at most for `limit`. Whatever process is left afterwards is
/// killed, so that each program starts alone. With `both`, stderr is taken too.
pub fn run(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    limit: Duration,
    both: bool,
) -> std::io::Result<Ran> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .envs(environment.iter().map(|(k, v)| (k, v)))
        .current_dir("/");
    command.stdin(Stdio::null()).process_group(0);
    if both {
        command.stderr(writer.try_clone()?);
    }
    let mut child = command.stdout(writer).spawn()?;
    // Our own copies of the pipe's writing end would keep the reader waiting.
    drop(command);
    let text = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut part) {
            // The console is for people; losing it loses no result.
            let _ = std::io::stdout().write_all(&part[..n]);
            bytes.extend_from_slice(&part[..n]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let start = Instant::now();
    let (status, late) = loop {
        if let Some(status) = child.try_wait()? {
            break (status, false);
        }
        if start.elapsed() > limit {
            sys::kill_group(child.id());
            break (child.wait()?, true);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    sys::kill_all();
    let text = text.join().unwrap_or_default();
    let end = if late {
        End { code: None, text: format!("stopped after {} seconds", limit.as_secs()) }
    } else {
        End { code: status.code(), text: words(status) }
    };
    Ok(Ran { text, end })
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
