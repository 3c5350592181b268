//! Making and dropping closures rarely calls the kernel. A parent counts what its child calls.

use std::ptr::null_mut;

use trampfd::{Builder, Closure};
use trampfd_tests::{each, some};

type One = unsafe extern "C" fn(usize) -> usize;

fn adder(builder: &Builder, n: usize) -> Closure<One> {
    builder.closure(|a: usize, n: &usize| a + n, n).unwrap()
}

/// A call that the child makes before and after what is counted.
fn mark() {
    // SAFETY: asks a number.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Number of system calls between the two calls of [`mark`] in `body`, run in a child.
fn count(body: impl FnOnce()) -> usize {
    // SAFETY: the child runs `body` and ends, under the eyes of this thread; plain ptrace calls.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(end.is_err().into());
        }
        assert!(pid > 0);
        let (mut status, mut marks, mut calls) = (0, 0, 0);
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACESYSGOOD);
        loop {
            assert_eq!(libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0), 0);
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                assert_eq!(status, 0, "the child");
                assert_eq!(marks, 2);
                return calls;
            }
            if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
                continue;
            }
            let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
            let size = size_of_val(&info);
            let got = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info);
            assert!(got > 0, "PTRACE_GET_SYSCALL_INFO");
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                if info.u.entry.nr == libc::SYS_getppid as u64 {
                    marks += 1;
                } else if marks == 1 {
                    calls += 1;
                }
            }
        }
    }
}

#[test]
fn a_hundred_thousand_creations_make_at_most_a_thousand_calls() {
    each(|builder| {
        let calls = count(|| {
            let mut all = Vec::with_capacity(100_000);
            mark();
            all.extend((0..100_000).map(|n| adder(builder, n)));
            mark();
            for (n, f) in some(&all) {
                // SAFETY: the closures live.
                assert_eq!(unsafe { f.as_ptr()(0) }, n);
            }
            std::mem::forget(all);
        });
        assert!((1..=1000).contains(&calls), "{calls} calls");
    });
}

#[test]
fn a_hundred_thousand_pairs_make_at_most_two_thousand_calls() {
    each(|builder| {
        let calls = count(|| {
            let mut live: Vec<_> = (0..1000).map(|n| adder(builder, n)).collect();
            mark();
            for n in 0..100_000 {
                // The oldest goes, a new one comes.
                live[n % 1000] = adder(builder, n);
            }
            mark();
            // SAFETY: the closures live.
            assert_eq!(unsafe { live[999].as_ptr()(0) }, 99_999);
        });
        assert!(calls <= 2000, "{calls} calls");
    });
}

#[test]
fn the_count_sees_a_call() {
    let calls = count(|| {
        mark();
        // SAFETY: maps nothing.
        unsafe { libc::mmap(null_mut(), 0, 0, 0, -1, 0) };
        mark();
    });
    assert_eq!(calls, 1);
}
