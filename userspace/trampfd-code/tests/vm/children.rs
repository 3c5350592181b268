//! A child of fork changes nothing of its parent's.

use std::os::fd::AsRawFd;

use trampfd_code::vm::{
    Access, Error, Mapping, Meter, Options, Place, Region, Source, Write, page_size,
};

use crate::pages::take;
use crate::support::alone::{alone, child, raw_child};
use crate::support::policy::{refuse, refuse_exec_gain};
use crate::{call, folder_source, from, options, region, returns, row_of};

fn is_other(answer: Result<(), Error>) -> bool {
    matches!(answer, Err(Error::OtherProcess))
}

/// In a child everything that would write the pages is refused, and they can be run.
fn is_foreign(region: &Region) {
    assert!(!region.is_ours());
    assert_eq!(region.rw(), None);
    let file = region.file();
    // SAFETY: nobody runs it; and it is refused.
    unsafe {
        assert!(is_other(region.write(0, &returns(43))), "write");
        assert!(is_other(file.discard(0..page_size())), "discard");
        assert!(is_other(file.withdraw()), "withdraw");
    }
    assert!(is_other(file.allocate(0..page_size())), "allocate");
    assert!(is_other(file.writable(0..page_size()).map(drop)), "writable");
    assert_eq!(call(region.rx()), 42);
}

#[test]
fn a_child_is_refused_what_would_change_its_parents_code() {
    alone(|| {
        for write in [Write::Pwrite, Write::Alias] {
            let first = region(&options(write));
            assert!(child(|| {
                is_foreign(&first);
                assert!(is_other(first.file().seal_but_alias()), "seal");
                assert!(is_other(first.file().seal_writes()), "seal");
            }));
            assert!(first.is_ours());
            // SAFETY: nobody runs it.
            unsafe { first.write(0, &returns(44)) }.unwrap();
            assert_eq!(call(first.rx()), 44);
        }
    });
}

/// In a process, its child and that one's children.
fn code_in_three_generations(write: Write) {
    let first = region(&options(write));
    assert!(child(|| {
        let second = region(&options(write));
        assert!(second.is_ours());
        assert!(child(|| {
            is_foreign(&first);
            is_foreign(&second);
            assert!(region(&options(write)).is_ours());
        }));
        assert!(second.is_ours());
        // A second child, which gets the token that the first would have.
        assert!(child(|| is_foreign(&second)));
        is_foreign(&first);
        // SAFETY: nobody runs it.
        unsafe { second.write(0, &returns(45)) }.unwrap();
        assert_eq!(call(second.rx()), 45);
    }));
    assert!(first.is_ours());
    assert_eq!(call(first.rx()), 42);
}

#[test]
fn a_child_has_code_of_its_own_and_so_has_its_child() {
    alone(|| [Write::Pwrite, Write::Alias].into_iter().for_each(code_in_three_generations));
}

#[test]
fn children_have_code_of_their_own_where_what_was_writable_may_not_be_executed() {
    alone(|| {
        refuse_exec_gain();
        [Write::Pwrite, Write::Alias].into_iter().for_each(code_in_three_generations);
    });
}

/// Before Linux 4.14 no page is emptied by fork; the number of the process stands in for it.
#[test]
fn a_child_is_known_where_no_page_is_emptied_for_it() {
    alone(|| {
        refuse(&[(libc::SYS_madvise, 2, libc::MADV_WIPEONFORK)], libc::EINVAL);
        [Write::Pwrite, Write::Alias].into_iter().for_each(code_in_three_generations);
        let first = region(&Options::default());
        assert!(raw_child(|| is_foreign(&first)));
    });
}

#[test]
fn a_fork_that_the_c_library_does_not_see_is_seen() {
    alone(|| {
        for write in [Write::Pwrite, Write::Alias] {
            let first = region(&options(write));
            let alias = first.rw();
            assert!(raw_child(|| {
                is_foreign(&first);
                assert!(alias.is_none_or(|alias| row_of(alias).is_none()));
                assert!(region(&options(write)).is_ours());
            }));
            assert!(first.is_ours());
        }
    });
}

#[test]
fn a_child_has_no_alias_of_its_parents_code() {
    alone(|| {
        let first = region(&options(Write::Alias));
        let more = first.file().writable(page_size()..2 * page_size()).unwrap();
        let aliases = [first.rw().unwrap(), more.ptr()];
        assert!(aliases.iter().all(|alias| row_of(*alias).unwrap().rights == "rw-s"));
        assert!(child(|| {
            for alias in aliases {
                let row = row_of(alias);
                assert!(row.is_none(), "{row:?}");
            }
        }));
    });
}

/// Numbers of descriptors that can write a file of code.
fn writing_fds() -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let Ok(path) = std::fs::read_link(entry.path()) else { continue };
        let ours = path.to_str().unwrap().contains("trampfd-");
        // SAFETY: asks for flags.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if ours && flags & libc::O_ACCMODE != libc::O_RDONLY {
            found.push(fd);
        }
    }
    found
}

#[test]
fn a_child_has_no_descriptor_that_writes_its_parents_code() {
    alone(|| {
        assert_eq!(writing_fds(), []);
        let sources = [Source::Memfd, folder_source()];
        let regions = sources.map(|source| region(&from(&source, Write::Pwrite)));
        assert_eq!(writing_fds().len(), 2);
        assert!(child(|| {
            assert_eq!(writing_fds(), []);
            let second = region(&Options::default());
            assert_eq!(writing_fds().len(), 1);
            assert!(child(|| assert_eq!(writing_fds(), [])));
            drop(second);
            assert_eq!(writing_fds(), []);
        }));
        assert_eq!(writing_fds().len(), 2);
        drop(regions);
        assert_eq!(writing_fds(), []);
    });
}

#[test]
fn a_child_that_drops_its_parents_pages_takes_nothing_of_its_own_away() {
    alone(|| {
        let first = region(&options(Write::Alias));
        let (code, alias, fds) = (first.rx(), first.rw().unwrap(), writing_fds());
        let meter = Meter::new();
        assert!(child(move || {
            // The child's own things come to lie where the parent's were.
            assert!(take(alias));
            let files: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
            assert!(fds.iter().all(|fd| files.iter().any(|file| file.as_raw_fd() == *fd)));
            drop(first);
            assert!(row_of(alias).is_some(), "the child's page was unmapped");
            for file in &files {
                file.metadata().unwrap();
            }
            assert!(row_of(code).is_none(), "the executable view is left");
        }));
        // The parent's value went into the closure, which the child alone ran to its end.
        let second = Region::new(1, &Options::default(), &meter).unwrap();
        assert!(second.is_ours());
    });
}

/// A view that a child does not get: what lies there in the child is the child's own.
#[test]
fn a_child_changes_nothing_where_its_parent_had_an_alias() {
    alone(|| {
        let (first, page) = (region(&options(Write::Pwrite)), page_size());
        let view = first.file().writable(0..2 * page).unwrap();
        let mixed = Mapping::reserve(2 * page, Place::Anywhere, &Meter::new()).unwrap();
        mixed.map_file(page, page, first.file(), 0, Access::Write).unwrap();
        let gone = mixed.ptr().wrapping_add(page);
        assert!(child(|| {
            assert!(take(view.ptr()) && take(gone));
            for mapping in [&view, &mixed] {
                assert!(is_other(mapping.release(0, page)), "release");
                assert!(is_other(mapping.map_memory(0, page)), "map_memory");
                assert!(is_other(mapping.protect(0, page, Access::None)), "protect");
                let other = region(&Options::default());
                let shown = mapping.map_file(0, page, other.file(), 0, Access::Execute);
                assert!(is_other(shown), "map_file");
            }
            let pages = [view.ptr(), gone];
            drop((view, mixed));
            for page in pages.map(|page| row_of(page)) {
                assert_eq!(page.unwrap().rights, "r--p", "the child's own page");
            }
        }));
    });
}

/// While one thread makes aliases and takes them away, children are forked: none ever gets one.
#[test]
fn no_child_gets_an_alias_that_is_just_being_made() {
    alone(|| {
        use std::sync::atomic::{AtomicBool, Ordering};
        let file = region(&options(Write::Pwrite));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(file.file().writable(0..page_size()).unwrap());
                }
            });
            let mut got = 0;
            for _ in 0..2000 {
                // SAFETY: the child calls only what a child of many threads may.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    // SAFETY: as above.
                    unsafe { libc::_exit(i32::from(has_shared_writable_row())) };
                }
                let mut status = 0;
                // SAFETY: waits for the child.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                assert!(libc::WIFEXITED(status));
                got += libc::WEXITSTATUS(status);
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(got, 0, "children with an alias");
        });
    });
}

/// Whether " rw-s " stands in /proc/self/maps; nothing but system calls.
fn has_shared_writable_row() -> bool {
    let mut text = [0u8; 1 << 16];
    let mut len = 0;
    // SAFETY: a C string, and room.
    unsafe {
        let fd = libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY);
        loop {
            let n = libc::read(fd, text[len..].as_mut_ptr().cast(), text.len() - len);
            if n <= 0 {
                break;
            }
            len += n as usize;
        }
    }
    text[..len].windows(6).any(|window| window == b" rw-s ")
}
