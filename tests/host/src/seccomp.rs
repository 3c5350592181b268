//! Seccomp filters, as a few rules: a system call, and what its arguments must look like to be
//! refused.

use std::io;

use crate::arch;

/// A look at one argument: `(argument & mask == value) == equal`.
#[derive(Clone, Copy, Debug)]
struct Look {
    argument: u32,
    mask: i32,
    value: i32,
    equal: bool,
}

/// This system call is refused where all looks hold.
#[derive(Clone, Copy, Debug)]
struct Rule {
    call: libc::c_long,
    looks: &'static [Look],
}

const fn has(argument: u32, bits: i32) -> Look {
    Look { argument, mask: bits, value: bits, equal: true }
}

const W_X: i32 = libc::PROT_WRITE | libc::PROT_EXEC;
const X: Look = has(2, libc::PROT_EXEC);

/// What systemd's MemoryDenyWriteExecute= installs.
const DENY_WRITE_EXECUTE: [Rule; 4] = [
    Rule { call: libc::SYS_mmap, looks: &[has(2, W_X)] },
    Rule { call: libc::SYS_mprotect, looks: &[X] },
    Rule { call: libc::SYS_pkey_mprotect, looks: &[X] },
    Rule { call: libc::SYS_shmat, looks: &[has(2, libc::SHM_EXEC)] },
];

const MAP_TYPE: i32 = 0xf;
const NOT_PRIVATE: Look =
    Look { argument: 3, mask: MAP_TYPE, value: libc::MAP_PRIVATE, equal: false };

/// Beyond that: no memfd, and only private mappings of files are executable.
const ONLY_FILES: [Rule; 3] = [
    Rule { call: libc::SYS_memfd_create, looks: &[] },
    Rule { call: libc::SYS_mmap, looks: &[X, has(3, libc::MAP_ANONYMOUS)] },
    Rule { call: libc::SYS_mmap, looks: &[X, NOT_PRIVATE] },
];

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const fn refuse(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn filter<'a>(rules: impl Iterator<Item = &'a Rule>, errno: i32) -> Vec<libc::sock_filter> {
    let mut code = vec![
        // Calls of another architecture or table would walk past the rules.
        op(LOAD, 0, 0, ARCHITECTURE),
        op(IF_EQUAL, 1, 0, arch::AUDIT_ARCH),
        op(RETURN, 0, 0, refuse(libc::EPERM)),
        op(LOAD, 0, 0, NUMBER),
        op(IF_AT_LEAST, 0, 1, arch::OTHER_CALLS),
        op(RETURN, 0, 0, refuse(libc::EPERM)),
    ];
    for rule in rules {
        // Instructions of the looks that follow, and the return.
        let mut left = 3 * rule.looks.len() as u8 + 1;
        code.push(op(LOAD, 0, 0, NUMBER));
        code.push(op(IF_EQUAL, 0, left, rule.call as u32));
        for look in rule.looks {
            left -= 3;
            // The flags are in the low half of the argument, which comes first.
            code.push(op(LOAD, 0, 0, ARGUMENTS + 8 * look.argument));
            code.push(op(AND, 0, 0, look.mask as u32));
            let (jt, jf) = if look.equal { (0, left) } else { (left, 0) };
            code.push(op(IF_EQUAL, jt, jf, look.value as u32));
        }
        code.push(op(RETURN, 0, 0, refuse(errno)));
    }
    code.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    code
}

/// Refuses from now on what systemd's filter refuses; with `strict` all executable memory that
/// is no private mapping of a file, too.
///
/// # Errors
///
/// What prctl(2) says.
pub fn install(strict: bool) -> io::Result<()> {
    let more: &[Rule] = if strict { &ONLY_FILES } else { &[] };
    start(filter(DENY_WRITE_EXECUTE.iter().chain(more), libc::EPERM))
}

/// Refuses memfd_create(2) from now on, with an error of one's choice.
///
/// # Errors
///
/// What prctl(2) says.
pub fn refuse_memfds(errno: i32) -> io::Result<()> {
    let all = Rule { call: libc::SYS_memfd_create, looks: &[] };
    start(filter([all].iter(), errno))
}

fn start(mut code: Vec<libc::sock_filter>) -> io::Result<()> {
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: reads the program.
    let ret = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
