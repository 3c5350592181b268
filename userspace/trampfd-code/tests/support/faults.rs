//! System calls that fail, one at a time, as they do where descriptors, memory or room run out.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::{io, thread};

use super::policy::check;

/// Runs `act` in a thread of its own. Of the system calls that it makes and that are in `calls`
/// the one with number `n`, counted from 0, is not made, but ends with `errno`. Returns what `act`
/// does and which call that was: `None`, it made no more than `n`.
///
/// What malloc maps is not counted: memory that is not MAP_NORESERVE.
pub fn with_fault<R: Send>(
    calls: &[libc::c_long],
    n: usize,
    errno: i32,
    act: impl FnOnce() -> R + Send,
) -> (R, Option<libc::c_long>) {
    let (listening, counting) = (AtomicI32::new(-1), AtomicBool::new(false));
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            listening.store(watch_me(calls), Ordering::Release);
            // The other thread answers from here on.
            counting.store(true, Ordering::Release);
            let result = act();
            counting.store(false, Ordering::Release);
            result
        });
        let (mut made, mut failed) = (0, None);
        while listening.load(Ordering::Acquire) == -1 && !acting.is_finished() {
            thread::yield_now();
        }
        let listener = listening.load(Ordering::Acquire);
        if listener != -1 {
            // SAFETY: a new descriptor, of which nobody else knows.
            let listener = unsafe { OwnedFd::from_raw_fd(listener) };
            while let Some(asked) = next(&listener) {
                let counts = counting.load(Ordering::Acquire) && !is_malloc(&asked.data);
                let fails = counts && made == n;
                made += usize::from(counts);
                if fails {
                    failed = Some(asked.data.nr.into());
                }
                respond(&listener, asked.id, fails.then_some(errno));
            }
        }
        let result = acting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, failed)
    })
}

fn is_malloc(call: &libc::seccomp_data) -> bool {
    let kind = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    libc::c_long::from(call.nr) == libc::SYS_mmap
        && call.args[3] as i32 & kind == libc::MAP_ANONYMOUS
}

/// From now on these calls of this thread are asked about at the descriptor.
fn watch_me(calls: &[libc::c_long]) -> RawFd {
    let op = |code: u32, jt: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let mut code = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (i, &call) in calls.iter().enumerate() {
        let rest = (calls.len() - i) as u8;
        code.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, rest, call as u32));
    }
    code.push(op(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    code.push(op(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program; takes rights away; the descriptor is new.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        let (set, listen) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        let fd = libc::syscall(libc::SYS_seccomp, set, listen, &raw const program) as RawFd;
        check(fd);
        fd
    }
}

/// The next call that waits for its answer. `None`: the thread has ended.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: writes to structures of ours, for which zeros are good.
    unsafe {
        loop {
            check(libc::poll(&mut ready, 1, -1));
            if ready.revents & libc::POLLIN == 0 {
                return None;
            }
            let mut asked: libc::seccomp_notif = zeroed();
            if libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked)
                == 0
            {
                return Some(asked);
            }
            // A signal came between.
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        }
    }
}

/// The call is made, or ends with `errno`.
fn respond(listener: &OwnedFd, id: u64, errno: Option<i32>) {
    const CONTINUE: u32 = 1;
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: CONTINUE };
    if let Some(errno) = errno {
        (answer.error, answer.flags) = (-errno, 0);
    }
    // SAFETY: reads a structure of ours.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
    });
}
