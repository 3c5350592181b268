//! A test in a process of its own, and the policy that it puts itself under there. For the tests
//! of this crate and of its adapters.

use std::process::{Command, Output};

/// Names the test that a process is for.
const CHILD: &str = "TRAMPFD_CODE_TEST";

/// Whether this process is for the test `name`.
pub fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|test| test == name)
}

/// Runs the test `name` in a process of its own, which [`is_child`] then. What it prints is
/// in the output.
pub fn run_alone(name: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", name]).env(CHILD, name).output().unwrap()
}

/// Runs `body` in a process of its own, which runs nothing but the test `name`.
pub fn alone(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        return body();
    }
    let output = run_alone(name);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

/// From now on what was writable cannot be made executable in this process.
pub fn refuse_exec_gain() {
    const PR_SET_MDWE: i32 = 65;
    // SAFETY: takes rights away, nothing else.
    assert_eq!(unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) }, 0, "PR_SET_MDWE (Linux 6.3)");
}
