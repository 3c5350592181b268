//! The report says what is so.

use trampfd_code::vm::{Error, Report, Source, State, Subject, report};

use crate::support::alone::{alone, child, lacks, linux};
use crate::support::policy::{
    cover, memfd_with, mount, own_mounts, refuse, refuse_exec_gain, strict,
};
use crate::{folder, folder_source, memfds, rows};

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

#[test]
fn where_nothing_is_forbidden_it_finds_nothing_forbidden() {
    alone(|| {
        let (report, memfds) = (report(), memfds());
        if linux() >= (6, 3) {
            assert_eq!(memfds.len(), 3);
            assert_eq!(value(&report, Subject::Mdwe), "0");
            assert_eq!(value(&report, Subject::MemfdNoexec), "0");
        } else {
            // Before Linux 6.3.
            assert_eq!(
                refusal(&report, Subject::Code(Source::MemfdExec)),
                ("create", libc::EINVAL)
            );
            for subject in [Subject::Mdwe, Subject::MemfdNoexec] {
                assert!(matches!(report.state(&subject), Some(State::Unknown(_))), "{subject}");
            }
        }
        assert_eq!(value(&report, Subject::Seccomp), "0");
        let mut asked =
            vec![Subject::WritableExecutable, Subject::BecomesExecutable, Subject::Proc];
        asked.extend([Subject::DontFork, Subject::WipeOnFork]);
        asked.extend(memfds.iter().cloned().map(Subject::Code));
        asked.extend([Subject::Code(folder_source()), Subject::FileCode(folder().into())]);
        for subject in asked {
            assert_eq!(refusal(&report, subject.clone()), ALLOWED, "{subject}");
        }
        assert_eq!(*report.anonymous_code().unwrap(), memfds[0]);
        assert_eq!(*report.code_without_alias().unwrap(), memfds[0]);
        assert_eq!(report.file_code(), Some(folder().as_ref()));
        // A row for each fact, with what it is about and where the answer comes from, and the ends.
        let text = report.to_string();
        assert_eq!(text.lines().count(), report.facts().len() + 3, "{text}");
        for (line, fact) in text.lines().zip(report.facts()) {
            assert!(line.starts_with(&fact.subject.to_string()), "{line}");
            assert!(line.ends_with(&format!("[{}]", fact.source)), "{line}");
        }
    });
}

#[test]
fn it_leaves_nothing() {
    alone(|| {
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let left = || {
            let prefix = format!(".trampfd-{}-", std::process::id());
            let folders = ["/dev/shm", "/tmp", "/var/tmp", "."];
            let entries = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok());
            let entries = entries.flatten();
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
    });
}

#[test]
fn it_names_the_refusals_of_mdwe() {
    alone(|| {
        refuse_exec_gain();
        let (report, memfds) = (report(), memfds());
        assert_eq!(value(&report, Subject::Mdwe), "1");
        assert_eq!(refusal(&report, Subject::WritableExecutable), ("map RWX", libc::EACCES));
        assert_eq!(refusal(&report, Subject::BecomesExecutable), ("RW to R-X", libc::EACCES));
        assert_eq!(*report.anonymous_code().unwrap(), memfds[0]);
    });
}

#[test]
fn it_names_the_refusals_of_a_filter() {
    alone(|| {
        const WX: i32 = libc::PROT_WRITE | libc::PROT_EXEC;
        refuse(
            &[
                memfd_with(0),
                (libc::SYS_mmap, 2, WX),
                (libc::SYS_mprotect, 2, libc::PROT_EXEC),
                (462, 2, 0), // mseal
                (libc::SYS_madvise, 2, libc::MADV_DONTFORK),
            ],
            libc::EPERM,
        );
        let report = report();
        assert_eq!(value(&report, Subject::Seccomp), "2");
        assert_eq!(refusal(&report, Subject::WritableExecutable), ("map RWX", libc::EPERM));
        assert_eq!(refusal(&report, Subject::BecomesExecutable), ("RW to R-X", libc::EPERM));
        assert_eq!(refusal(&report, Subject::Mseal), ("mseal", libc::EPERM));
        assert_eq!(refusal(&report, Subject::DontFork), ("madvise", libc::EPERM));
        assert_eq!(refusal(&report, Subject::Code(Source::Memfd)), ("create", libc::EPERM));
        assert_eq!(refusal(&report, Subject::Code(folder_source())), ALLOWED);
        assert_eq!(*report.anonymous_code().unwrap(), folder_source());
    });
}

#[test]
fn where_only_private_files_may_be_executed_it_says_so() {
    alone(|| {
        strict();
        let report = report();
        for source in Source::usual() {
            let (step, errno) = refusal(&report, Subject::Code(source.clone()));
            let missing = (step, errno) == ("create", libc::ENOENT);
            assert!(errno == libc::EPERM || missing && matches!(source, Source::Folder(_)));
        }
        assert!(matches!(report.anonymous_code(), Err(Error::NoExecutableMemory(_))));
        assert!(matches!(report.code_without_alias(), Err(Error::NoExecutableMemory(_))));
        assert_eq!(report.file_code(), Some(folder().as_ref()));
    });
}

#[test]
fn without_proc_it_says_that_memfds_need_an_alias() {
    alone(|| {
        own_mounts(0);
        cover(c"/proc", libc::MS_RDONLY);
        cover(c"/tmp", libc::MS_NOEXEC);
        let report = report();
        assert_eq!(refusal(&report, Subject::Proc), ("read", libc::ENOENT));
        assert!(matches!(report.state(&Subject::Seccomp), Some(State::Unknown(_))));
        let memfd = report.state(&Subject::Code(Source::Memfd));
        assert!(matches!(memfd, Some(State::AliasOnly)), "{memfd:?}");
        let noexec = Source::Folder("/tmp".into());
        assert_eq!(refusal(&report, Subject::Code(noexec)), ("map R-X", libc::EPERM));
        assert_eq!(refusal(&report, Subject::FileCode("/tmp".into())), ("map R-X", libc::EPERM));
        assert!(matches!(report.code_without_alias(), Ok(Source::Folder(_))));
    });
}

#[test]
fn it_names_what_vm_memfd_noexec_refuses() {
    if let Err(error) = std::fs::metadata("/proc/sys/vm/memfd_noexec") {
        lacks("vm.memfd_noexec", (6, 3), &error);
    }
    alone(|| {
        own_mounts(libc::CLONE_NEWPID);
        // The first in a pid namespace of its own.
        assert!(child(|| {
            mount(c"proc", c"/proc", c"proc", 0, c"");
            for (value_set, exec) in [("1", ALLOWED), ("2", ("create", libc::EACCES))] {
                std::fs::write("/proc/sys/vm/memfd_noexec", value_set).unwrap();
                let report = report();
                assert_eq!(value(&report, Subject::MemfdNoexec), value_set);
                assert_eq!(refusal(&report, Subject::Code(Source::MemfdExec)), exec);
                assert_eq!(refusal(&report, Subject::Code(Source::MemfdNoexecSeal)), ALLOWED);
            }
        }));
    });
}
