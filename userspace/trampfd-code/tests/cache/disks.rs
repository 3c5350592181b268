//! File systems of all kinds.

use std::ffi::CStr;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use trampfd_code::cache::{Cache, Error, Options};

use crate::program::{Body, Program, events, open, run};
use crate::support::alone::alone;
use crate::support::policy::{cover, mount, own_mounts};

const PLACE: &CStr = c"/mnt";
const DIR: &str = "/mnt/cache";

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[]), (5, &[])]).with(9, Body::Long(50_000))
}

/// An empty file system of this thread's own, with options of its kind.
fn file_system(flags: libc::c_ulong, options: &CStr) {
    own_mounts(0);
    cover(PLACE, flags);
    mount(c"", PLACE, c"", libc::MS_REMOUNT | flags, options);
}

fn limited(limit: u64) -> Cache<Program> {
    let mut options = Options::default();
    options.limit = Some(limit);
    Cache::open(Path::new(DIR), program(), options).unwrap()
}

#[test]
fn where_nothing_can_be_written_what_is_there_is_used() {
    alone(|| {
        file_system(0, c"");
        open(Path::new(DIR), &program()).get(0).unwrap();
        mount(c"", PLACE, c"", libc::MS_REMOUNT | libc::MS_RDONLY, c"");
        for cache in [open(Path::new(DIR), &program()), limited(1 << 20)] {
            assert_eq!(run(&cache, 0), program().value(0));
            assert_eq!(events(&cache), ["loaded"]);
            let Err(Error::Publish { what, error }) = cache.get(9) else { panic!("written") };
            assert_eq!(what, "making a file");
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
    });
}

#[test]
fn where_nothing_may_be_executed_the_error_says_so() {
    alone(|| {
        file_system(libc::MS_NOEXEC, c"");
        for start in ["compiles", "loads"] {
            let cache = open(Path::new(DIR), &program());
            assert!(matches!(cache.get(0), Err(Error::NotExecutable(_))), "{start}");
            assert_eq!(fs::read_dir(DIR).unwrap().count(), 1, "{start}");
        }
        mount(c"", PLACE, c"", libc::MS_REMOUNT, c"");
        let cache = open(Path::new(DIR), &program());
        assert_eq!(run(&cache, 0), program().value(0));
        assert_eq!(events(&cache), ["loaded"]);
    });
}

#[test]
fn what_finds_no_room_is_an_error_and_leaves_nothing() {
    alone(|| {
        // Of blocks, and of files.
        for options in [c"size=24k", c"nr_inodes=3"] {
            file_system(0, options);
            let cache = open(Path::new(DIR), &program());
            let small = cache.get(5).unwrap();
            for _ in 0..3 {
                let result = [9, 0].map(|m| cache.get(m)).into_iter().find_map(Result::err);
                let Some(Error::Publish { error, .. }) = result else { panic!("{result:?}") };
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            }
            let names = fs::read_dir(DIR).unwrap().map(|entry| entry.unwrap().file_name());
            let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            assert!(names.iter().all(|name| name.ends_with(".code")), "{names:?}");
            assert_eq!(crate::program::call(small), program().value(5));
            cache.clear().unwrap();
            mount(c"", PLACE, c"", libc::MS_REMOUNT, c"size=1m,nr_inodes=9");
            assert_eq!(run(&cache, 0), program().value(0));
        }
    });
}

/// Elsewhere reading a file may note that it was used.
#[test]
fn a_file_that_is_used_is_young_where_no_file_system_says_so() {
    alone(|| {
        file_system(libc::MS_NOATIME, c"");
        let file = |m| Path::new(DIR).join(format!("{}.code", program().key_of(m)));
        let all = open(Path::new(DIR), &program());
        for m in [5, 0] {
            all.get(m).unwrap();
        }
        for (hours, m) in [(2, 5), (1, 0)] {
            let time = SystemTime::now() - Duration::from_secs(3600 * hours);
            File::open(file(m)).unwrap().set_times(FileTimes::new().set_accessed(time)).unwrap();
        }
        let len = fs::metadata(file(5)).unwrap().len();
        let cache = limited(len + 60_000);
        cache.get(5).unwrap();
        cache.get(9).unwrap();
        assert_eq!(events(&cache), ["loaded", "compiled", "evicted"]);
        assert!(file(5).exists() && !file(0).exists());
    });
}
