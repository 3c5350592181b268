//! Where pages come from.

use std::path::PathBuf;

use trampfd_code::vm::{
    Error, Meter, Options, Region, Source, State, Subject, Write, page_size, report,
};

use crate::pages::attempts;
use crate::support::alone::alone;
use crate::support::policy::{check, cover, memfd_with, mount, own_mounts, refuse, strict};
use crate::{call, folder_source, from, memfds, options, region, returns, row_of, usable_sources};

const MFD_NOEXEC_SEAL: i32 = 8;
const MFD_EXEC: i32 = 0x10;

/// A folder of the test's own.
fn own_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("trampfd-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn code_is_written_without_and_with_an_alias() {
    for (write, alias) in [(Write::Any, false), (Write::Pwrite, false), (Write::Alias, true)] {
        let region = Region::new(5000, &options(write), &Meter::new()).unwrap();
        assert_eq!(region.len(), 8192);
        assert_eq!(region.rw().is_some(), alias);
        for n in [42, 43] {
            // SAFETY: nobody runs it.
            unsafe { region.write(4096, &returns(n)) }.unwrap();
            assert_eq!(call(region.rx().wrapping_add(4096)), n.into());
        }
    }
}

#[test]
fn each_source_gives_the_pages_that_it_is_named_for() {
    let own = own_folder("each-source");
    let mut sources = usable_sources();
    sources.push(Source::Folder(own.clone()));
    for source in sources {
        let path = match &source {
            Source::Folder(folder) => format!("{}/.trampfd-", folder.display()),
            _ => "/memfd:trampfd-code".into(),
        };
        for write in [Write::Pwrite, Write::Alias] {
            let region = region(&from(&source, write));
            assert_eq!(*region.source(), source);
            let row = row_of(region.rx()).unwrap();
            assert_eq!(row.rights, "r-xs", "{source}");
            assert!(row.path.starts_with(&path) && row.path.ends_with("(deleted)"), "{row:?}");
            let alias = region.rw().map(|alias| row_of(alias).unwrap().rights);
            assert_eq!(alias, (write == Write::Alias).then(|| "rw-s".to_owned()));
        }
    }
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0, "a name was left");
    std::fs::remove_dir(own).unwrap();
}

#[test]
fn a_memfd_is_made_as_this_system_likes_it() {
    let known = memfds();
    let first = |known: &[Source]| assert_eq!(*region(&Options::default()).source(), known[0]);
    first(&known);
    alone(|| {
        // As with vm.memfd_noexec=2.
        refuse(&[memfd_with(MFD_EXEC)], libc::EACCES);
        first(&memfds());
        // As before Linux 6.3.
        refuse(&[memfd_with(MFD_NOEXEC_SEAL)], libc::EINVAL);
        first(&[Source::Memfd]);
        assert_eq!(memfds(), [Source::Memfd]);
    });
}

/// Whatever a filter answers.
fn without_memfds(errno: i32) {
    refuse(&[memfd_with(0)], errno);
    for write in [Write::Any, Write::Pwrite, Write::Alias] {
        let region = region(&options(write));
        assert!(matches!(region.source(), Source::Folder(_)), "{}", region.source());
        assert_eq!(region.rw().is_some(), write == Write::Alias);
    }
    // What was asked for alone is not replaced by something else.
    let error = Region::new(1, &from(&Source::Memfd, Write::Any), &Meter::new()).unwrap_err();
    let Error::NoExecutableMemory(attempts) = error else { panic!("{error:?}") };
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!((attempt.step, attempt.error.raw_os_error()), ("create", Some(errno)));
}

#[test]
fn without_memfd_create_code_is_in_an_unlinked_file() {
    alone(|| without_memfds(libc::ENOSYS));
}

#[test]
fn memfd_create_that_is_denied_is_as_one_that_is_not_there() {
    alone(|| without_memfds(libc::EPERM));
}

#[test]
fn memfd_create_that_a_security_module_denies_is_as_one_that_is_not_there() {
    alone(|| without_memfds(libc::EACCES));
}

#[test]
fn a_folder_whose_files_may_not_be_executed_is_passed_over() {
    alone(|| {
        own_mounts(0);
        cover(c"/tmp", libc::MS_NOEXEC);
        let (bad, good) = (Source::Folder("/tmp".into()), Source::Folder("/".into()));
        let mut options = from(&bad, Write::Any);
        let error = Region::new(1, &options, &Meter::new()).unwrap_err();
        let Error::NoExecutableMemory(attempts) = &error else { panic!("{error:?}") };
        assert_eq!(attempts[0].source, bad);
        assert_eq!(attempts[0].step, "map R-X");
        assert_eq!(attempts[0].error.raw_os_error(), Some(libc::EPERM));
        options.sources.push(good.clone());
        assert_eq!(*region(&options).source(), good);
        assert_eq!(std::fs::read_dir("/tmp").unwrap().count(), 0, "a name was left");
    });
}

#[test]
fn without_proc_a_memfd_is_written_through_an_alias_and_a_file_without() {
    alone(|| {
        own_mounts(0);
        cover(c"/proc", libc::MS_RDONLY);
        let memfd = from(&Source::Memfd, Write::Any);
        let aliased = region(&memfd);
        assert!(aliased.rw().is_some());
        // There is no descriptor that only reads: a seal stands in for it.
        assert_eq!(attempts(aliased.rx().cast_mut())[..2], [libc::EACCES; 2]);
        assert!(aliased.file().writable(0..page_size()).is_err(), "another alias");

        let aliased = region(&memfd);
        // SAFETY: nobody uses the alias.
        unsafe { aliased.file().withdraw() }.unwrap();
        // SAFETY: nobody runs it.
        let error = unsafe { aliased.write(0, &returns(1)) }.unwrap_err();
        assert!(matches!(error, Error::Withdrawn), "{error:?}");
        assert_eq!(call(aliased.rx()), 42);

        let memfd = from(&Source::Memfd, Write::Pwrite);
        let error = Region::new(1, &memfd, &Meter::new()).unwrap_err();
        assert!(matches!(error, Error::NoReadOnlyDescriptor), "{error:?}");

        for write in [Write::Any, Write::Pwrite] {
            let region = region(&options(write));
            assert!(matches!(region.source(), Source::Folder(_)), "{}", region.source());
            assert_eq!(region.rw(), None);
        }
    });
}

/// Whether what was asked for is given, as asked, or nothing at all.
#[test]
fn without_descriptors_nothing_weaker_is_given() {
    alone(|| {
        // What is opened once for the whole process.
        region(&Options::default());
        // SAFETY: a new descriptor, the lowest that is free, closed at once.
        let free = unsafe {
            let fd = libc::dup(0);
            libc::close(fd);
            fd as libc::rlim_t
        };
        for sources in [Source::usual(), vec![Source::Memfd], vec![folder_source()]] {
            for write in [Write::Any, Write::Pwrite, Write::Alias] {
                let mut options = options(write);
                options.sources = sources.clone();
                for descriptors in 0..3 {
                    let limit = |n| libc::rlimit { rlim_cur: n, rlim_max: 1024 };
                    // SAFETY: limits this process.
                    check(unsafe {
                        libc::setrlimit(libc::RLIMIT_NOFILE, &limit(free + descriptors))
                    });
                    let answer = Region::new(1, &options, &Meter::new());
                    // SAFETY: as above.
                    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit(1024)) });
                    match (descriptors, answer) {
                        (0 | 1, Err(Error::System { error, .. })) => {
                            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                        }
                        (2, Ok(region)) => assert_eq!(region.rw().is_some(), write == Write::Alias),
                        (_, answer) => panic!("{write:?}, {descriptors}: {answer:?}"),
                    }
                }
            }
        }
    });
}

/// The kernel's answer would be SIGXFSZ.
#[test]
fn a_limit_on_the_size_of_files_is_an_error() {
    alone(|| {
        let usable = usable_sources();
        let limit = libc::rlimit { rlim_cur: 8192, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: limits this process.
        check(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) });
        for sources in [Source::usual(), vec![folder_source()]] {
            for write in [Write::Pwrite, Write::Alias] {
                let mut options = options(write);
                options.sources = sources.clone();
                let error = Region::new(8193, &options, &Meter::new()).unwrap_err();
                let Error::System { error, .. } = error else { panic!("{error:?}") };
                assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
                region(&options);
            }
        }
        let limit = libc::rlimit { rlim_cur: 0, ..limit };
        // SAFETY: as above.
        check(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) });
        let report = report();
        for source in usable {
            let state = report.state(&Subject::Code(source));
            let Some(State::Refused { step, error }) = state else { panic!("{state:?}") };
            assert_eq!((*step, error.raw_os_error()), ("size", Some(libc::EFBIG)));
        }
    });
}

/// With memory for pages, or an error: not with a signal when they are touched.
#[test]
fn a_full_file_system_is_an_error() {
    alone(|| {
        own_mounts(0);
        mount(c"tmpfs", c"/tmp", c"tmpfs", 0, c"size=64k");
        for write in [Write::Pwrite, Write::Alias] {
            let options = from(&Source::Folder("/tmp".into()), write);
            let region = Region::new(128 << 10, &options, &Meter::new()).unwrap();
            region.file().allocate(0..32 << 10).unwrap();
            let error = region.file().allocate(32 << 10..128 << 10).unwrap_err();
            assert!(is_full(&error), "{error:?}");
            // SAFETY: nobody runs it.
            unsafe { region.write(5000, &returns(42)) }.unwrap();
            assert_eq!(call(region.rx().wrapping_add(5000)), 42);
            if write == Write::Pwrite {
                // SAFETY: nobody runs it.
                let error = unsafe { region.write(0, &[0xcc; 128 << 10]) }.unwrap_err();
                assert!(is_full(&error), "{error:?}");
            }
        }
    });
}

fn is_full(error: &Error) -> bool {
    let Error::System { error, .. } = error else { return false };
    error.raw_os_error() == Some(libc::ENOSPC)
}

#[test]
fn where_nothing_may_be_executed_each_source_says_why() {
    alone(|| {
        strict();
        let error = Region::new(1, &Options::default(), &Meter::new()).unwrap_err();
        let Error::NoExecutableMemory(attempts) = &error else { panic!("{error:?}") };
        let said: Vec<_> = attempts.iter().map(|attempt| attempt.source.clone()).collect();
        assert_eq!(said, Source::usual());
        let text = error.to_string();
        for attempt in attempts {
            let memfd = !matches!(attempt.source, Source::Folder(_));
            let missing = attempt.error.raw_os_error() == Some(libc::ENOENT);
            assert_eq!(attempt.step, if memfd || missing { "create" } else { "map R-X" });
            let refused = attempt.error.raw_os_error() == Some(libc::EPERM);
            assert!(refused || missing && !memfd, "{attempt:?}");
            assert!(text.contains(&attempt.source.to_string()), "{text}");
        }
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut options = Options::default();
    for len in [usize::MAX, isize::MAX as usize] {
        let error = Region::new(len, &options, &Meter::new()).unwrap_err();
        assert!(matches!(error, Error::TooLarge(n) if n == len), "{error:?}");
    }
    options.large_pages = true;
    let error = Region::new(1, &options, &Meter::new()).unwrap_err();
    assert!(matches!(error, Error::LargePages), "{error:?}");
}
