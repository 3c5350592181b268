//! File systems of all kinds.

use std::ffi::{CStr, CString};
use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use trampfd_code::cache::{Cache, Error, Options};

use crate::program::{Body, Folder, Program, events, open, run};
use crate::support::alone::alone;
use crate::support::policy::{cover, mount, own_mounts};

fn program() -> Program {
    Program::of(&[(0, &[1]), (1, &[]), (5, &[])]).with(9, Body::Long(50_000))
}

/// An empty file system of this thread's own, and a folder in it that is not there.
struct Disk {
    place: CString,
    folder: PathBuf,
    _under: Folder,
}

impl Disk {
    fn new(name: &str, flags: libc::c_ulong, options: &CStr) -> Disk {
        let under = Folder::new(name);
        fs::create_dir(&under.0).unwrap();
        let place = CString::new(under.0.to_str().unwrap()).unwrap();
        let disk = Disk { place, folder: under.0.join("cache"), _under: under };
        own_mounts(0);
        cover(&disk.place, flags);
        disk.change(flags, options);
        disk
    }

    /// Mounts it with other options, of its kind or all kinds.
    fn change(&self, flags: libc::c_ulong, options: &CStr) {
        mount(c"", &self.place, c"", libc::MS_REMOUNT | flags, options);
    }

    fn open(&self) -> Cache<Program> {
        open(&self.folder, &program())
    }

    fn limited(&self, limit: u64) -> Cache<Program> {
        let mut options = Options::default();
        options.limit = Some(limit);
        Cache::open(&self.folder, program(), options).unwrap()
    }

    /// Names in the folder.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: a C string. What is mapped of it stays.
        unsafe { libc::umount2(self.place.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn where_nothing_can_be_written_what_is_there_is_used() {
    alone(|| {
        let disk = Disk::new("read-only", 0, c"");
        disk.open().get(0).unwrap();
        disk.change(libc::MS_RDONLY, c"");
        for cache in [disk.open(), disk.limited(1 << 20)] {
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
        let disk = Disk::new("noexec", libc::MS_NOEXEC, c"");
        for start in ["compiles", "loads"] {
            let cache = disk.open();
            assert!(matches!(cache.get(0), Err(Error::NotExecutable(_))), "{start}");
            assert_eq!(disk.names().len(), 1, "{start}");
        }
        disk.change(0, c"");
        let cache = disk.open();
        assert_eq!(run(&cache, 0), program().value(0));
        assert_eq!(events(&cache), ["loaded"]);
    });
}

#[test]
fn what_finds_no_room_is_an_error_and_leaves_nothing() {
    alone(|| {
        // Of blocks, and of files.
        for options in [c"size=24k", c"nr_inodes=3"] {
            let disk = Disk::new("full", 0, options);
            let cache = disk.open();
            let small = cache.get(5).unwrap();
            for _ in 0..3 {
                let result = [9, 0].map(|m| cache.get(m)).into_iter().find_map(Result::err);
                let Some(Error::Publish { error, .. }) = result else { panic!("{result:?}") };
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            }
            let names = disk.names();
            assert!(names.iter().all(|name| name.ends_with(".code")), "{names:?}");
            assert_eq!(crate::program::call(small), program().value(5));
            cache.clear().unwrap();
            disk.change(0, c"size=1m,nr_inodes=9");
            assert_eq!(run(&cache, 0), program().value(0));
        }
    });
}

/// Elsewhere reading a file may note that it was used.
#[test]
fn a_file_that_is_used_is_young_where_no_file_system_says_so() {
    alone(|| {
        let disk = Disk::new("noatime", libc::MS_NOATIME, c"");
        let file = |m| disk.folder.join(format!("{}.code", program().key_of(m)));
        let all = disk.open();
        for m in [5, 0] {
            all.get(m).unwrap();
        }
        for (hours, m) in [(2, 5), (1, 0)] {
            let time = SystemTime::now() - Duration::from_secs(3600 * hours);
            File::open(file(m)).unwrap().set_times(FileTimes::new().set_accessed(time)).unwrap();
        }
        let len = fs::metadata(file(5)).unwrap().len();
        let cache = disk.limited(len + 60_000);
        cache.get(5).unwrap();
        cache.get(9).unwrap();
        assert_eq!(events(&cache), ["loaded", "compiled", "evicted"]);
        assert!(file(5).exists() && !file(0).exists());
    });
}
