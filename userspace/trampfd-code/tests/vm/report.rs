//! The report says what is so.

use trampfd_code::vm::{Error, Report, Source, State, Subject, report};

use crate::alone::{self, alone, child, cover, memfds, mount, own_mounts, refuse};
use crate::rows;

fn value(report: &Report, subject: Subject) -> &str {
    match report.state(&subject) {
        Some(State::Value(value)) => value,
        other => panic!("{subject}: {other:?}"),
    }
}

/// The step and the errno of a refusal; errno 0 where it is allowed.
fn refusal(report: &Report, subject: Subject) -> (&str, i32) {
    match report.state(&subject) {
        Some(State::Refused { step, error }) => (step, error.raw_os_error().unwrap()),
        Some(State::Allowed) => ("", 0),
        other => panic!("{subject}: {other:?}"),
    }
}

const ALLOWED: (&str, i32) = ("", 0);

fn shm() -> Source {
    Source::Folder("/dev/shm".into())
}

#[test]
fn where_nothing_is_forbidden_it_finds_nothing_forbidden() {
    if !alone("report::where_nothing_is_forbidden_it_finds_nothing_forbidden") {
        return;
    }
    let report = report();
    assert_eq!(value(&report, Subject::Mdwe), "0");
    assert_eq!(value(&report, Subject::Seccomp), "0");
    assert_eq!(value(&report, Subject::MemfdNoexec), "0");
    let mut asked = vec![Subject::WritableExecutable, Subject::BecomesExecutable, Subject::Proc];
    asked.extend([Subject::Mseal, Subject::DontFork, Subject::WipeOnFork]);
    asked.extend([Source::MemfdExec, Source::MemfdNoexecSeal, Source::Memfd].map(Subject::Code));
    asked.extend([Subject::Code(shm()), Subject::FileCode("/dev/shm".into())]);
    for subject in asked {
        assert_eq!(refusal(&report, subject.clone()), ALLOWED, "{subject}");
    }
    assert_eq!(*report.anonymous_code().unwrap(), Source::MemfdExec);
    assert_eq!(*report.code_without_alias().unwrap(), Source::MemfdExec);
    assert_eq!(report.file_code(), Some("/dev/shm".as_ref()));
    // A row for each fact, with what it is about and where the answer comes from, and the ends.
    let text = report.to_string();
    assert_eq!(text.lines().count(), report.facts().len() + 3, "{text}");
    for (line, fact) in text.lines().zip(report.facts()) {
        assert!(line.starts_with(&fact.subject.to_string()), "{line}");
        assert!(line.ends_with(&format!("[{}]", fact.source)), "{line}");
    }
}

#[test]
fn it_leaves_nothing() {
    if !alone("report::it_leaves_nothing") {
        return;
    }
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let left = || {
        let prefix = format!(".trampfd-{}-", std::process::id());
        let folders = ["/dev/shm", "/tmp", "/var/tmp", "."];
        let entries = folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>()
    };
    // What is made once for the whole process, and by the C library for the first names.
    drop(report());
    let (before, open) = (rows().len(), fds());
    drop(report());
    assert_eq!(fds(), open);
    assert_eq!(left(), [""; 0]);
    assert_eq!(rows().len(), before);
}

#[test]
fn it_names_the_refusals_of_mdwe() {
    if !alone("report::it_names_the_refusals_of_mdwe") {
        return;
    }
    alone::mdwe();
    let report = report();
    assert_eq!(value(&report, Subject::Mdwe), "1");
    assert_eq!(refusal(&report, Subject::WritableExecutable), ("map RWX", libc::EACCES));
    assert_eq!(refusal(&report, Subject::BecomesExecutable), ("RW to R-X", libc::EACCES));
    assert_eq!(*report.anonymous_code().unwrap(), Source::MemfdExec);
}

#[test]
fn it_names_the_refusals_of_a_filter() {
    if !alone("report::it_names_the_refusals_of_a_filter") {
        return;
    }
    const WX: i32 = libc::PROT_WRITE | libc::PROT_EXEC;
    refuse(
        &[
            memfds(0),
            (libc::SYS_mmap, 2, WX),
            (libc::SYS_mprotect, 2, libc::PROT_EXEC),
            (462, 2, 0), // mseal
            (libc::SYS_madvise, 2, libc::MADV_DONTFORK),
        ],
        libc::EPERM,
    );
    let report = report();
    assert_eq!(value(&report, Subject::Seccomp), "2");
    assert_eq!(value(&report, Subject::Mdwe), "0");
    assert_eq!(refusal(&report, Subject::WritableExecutable), ("map RWX", libc::EPERM));
    assert_eq!(refusal(&report, Subject::BecomesExecutable), ("RW to R-X", libc::EPERM));
    assert_eq!(refusal(&report, Subject::Mseal), ("mseal", libc::EPERM));
    assert_eq!(refusal(&report, Subject::DontFork), ("madvise", libc::EPERM));
    assert_eq!(refusal(&report, Subject::Code(Source::Memfd)), ("create", libc::EPERM));
    assert_eq!(refusal(&report, Subject::Code(shm())), ALLOWED);
    assert_eq!(*report.anonymous_code().unwrap(), shm());
}

#[test]
fn where_only_private_files_may_be_executed_it_says_so() {
    if !alone("report::where_only_private_files_may_be_executed_it_says_so") {
        return;
    }
    alone::strict();
    let report = report();
    for source in Source::usual() {
        assert_eq!(refusal(&report, Subject::Code(source)).1, libc::EPERM);
    }
    assert!(matches!(report.anonymous_code(), Err(Error::NoExecutableMemory(_))));
    assert!(matches!(report.code_without_alias(), Err(Error::NoExecutableMemory(_))));
    assert_eq!(report.file_code(), Some("/dev/shm".as_ref()));
}

#[test]
fn without_proc_it_says_that_memfds_need_an_alias() {
    if !alone("report::without_proc_it_says_that_memfds_need_an_alias") || !own_mounts(0) {
        return;
    }
    cover(c"/proc", libc::MS_RDONLY);
    cover(c"/dev/shm", libc::MS_NOEXEC);
    let report = report();
    assert_eq!(refusal(&report, Subject::Proc), ("read", libc::ENOENT));
    assert!(matches!(report.state(&Subject::Seccomp), Some(State::Unknown(_))));
    let memfd = report.state(&Subject::Code(Source::MemfdExec));
    assert!(matches!(memfd, Some(State::AliasOnly)), "{memfd:?}");
    assert_eq!(refusal(&report, Subject::Code(shm())), ("map R-X", libc::EPERM));
    assert_eq!(refusal(&report, Subject::FileCode("/dev/shm".into())), ("map R-X", libc::EPERM));
    assert!(matches!(report.code_without_alias(), Ok(Source::Folder(_))));
}

#[test]
fn it_names_what_vm_memfd_noexec_refuses() {
    if !alone("report::it_names_what_vm_memfd_noexec_refuses") || !own_mounts(libc::CLONE_NEWPID) {
        return;
    }
    // The first in a pid namespace of its own.
    assert!(child(|| {
        mount(c"proc", c"/proc", c"proc", 0);
        for (value_set, exec) in [("1", ALLOWED), ("2", ("create", libc::EACCES))] {
            std::fs::write("/proc/sys/vm/memfd_noexec", value_set).unwrap();
            let report = report();
            assert_eq!(value(&report, Subject::MemfdNoexec), value_set);
            assert_eq!(refusal(&report, Subject::Code(Source::MemfdExec)), exec);
            assert_eq!(refusal(&report, Subject::Code(Source::MemfdNoexecSeal)), ALLOWED);
        }
    }));
}
