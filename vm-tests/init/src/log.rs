//! The kernel's own log, read record by record. The console may hide what is
//! below its level, and some complaints neither panic nor taint.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;

/// What no run may leave in the log. Records start with these words.
const COMPLAINTS: [&str; 8] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "kernel BUG",
    "general protection fault",
    "watchdog: BUG",
    "INFO: task ",
    "list_add corruption",
];

/// The log from its start, or from where it was last read to.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Opens the log at its first record.
    pub fn open() -> Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").map(Self)
    }

    /// The complaints since the last call.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return Ok(found),
                Ok(n) => {
                    let text = String::from_utf8_lossy(&record[..n]);
                    if let Some(message) = complaint(&text) {
                        found.push(message.to_owned());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(found),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Records were overwritten before they were read.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {
                    found.push("records of the log were lost".to_owned());
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// The message of a record (`level,number,time,flags;message`) that complains.
fn complaint(record: &str) -> Option<&str> {
    let (_, message) = record.split_once(';')?;
    let message = message.lines().next()?;
    COMPLAINTS.iter().any(|c| message.starts_with(c)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_complaints_only() {
        let warn = "4,812,100,-;WARNING: CPU: 1 PID: 7 at mm/x.c:1\n SUBSYSTEM=x\n";
        assert_eq!(complaint(warn), Some("WARNING: CPU: 1 PID: 7 at mm/x.c:1"));
        assert_eq!(complaint("4,1,1,-;Spectre V2 : WARNING: eBPF"), None);
        assert_eq!(complaint("6,1,1,-;trampfd: loaded"), None);
    }
}
