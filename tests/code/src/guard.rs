//! What a look at /proc/self/maps may come too late for.

use std::io;

/// From now on this process ends at once where it asks for memory that is writable and
/// executable, or for memory that is there to become executable, whatever the answer would be.
pub fn no_writable_code_for_a_moment() -> io::Result<()> {
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    const WX: u32 = (libc::PROT_WRITE | libc::PROT_EXEC) as u32;
    /// Offset of the third argument of these calls in struct seccomp_data.
    const PROT: u32 = 16 + 8 * 2;
    let op = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| op(BPF_LD | libc::BPF_W | BPF_ABS, 0, 0, at);
    let is = |k: libc::c_long, jt, jf| op(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, k as u32);
    let mut code = [
        load(0),
        is(libc::SYS_mmap, 3, 0),
        is(libc::SYS_mprotect, 1, 0),
        is(libc::SYS_pkey_mprotect, 0, 5),
        // Any becoming executable.
        op(BPF_JMP | libc::BPF_JA, 0, 0, 5),
        load(PROT),
        op(BPF_ALU | BPF_AND | BPF_K, 0, 0, WX),
        is(libc::c_long::from(WX), 0, 1),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        load(PROT),
        op(BPF_JMP | BPF_JSET | BPF_K, 0, 1, libc::PROT_EXEC as u32),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program; takes rights away.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
