//! What files are used, and which are not.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use trampfd_code::cache::{
    Cache, Code, Compiler, Error, Failure, Happened, Key, Options, Reason, Verity, parse,
};

use crate::program::{Body, Folder, Program, call, events, run};
use crate::support::alone::alone;

fn program() -> Program {
    Program::of(&[(0, &[1, 2]), (1, &[2]), (2, &[]), (3, &[])])
        .with(2, Body::Helper("twelve"))
        .with(4, Body::Long(20_000))
}

/// A folder with the batch of 0, and its file's path and bytes.
fn prepared(name: &str) -> (Folder, std::path::PathBuf, Vec<u8>) {
    let folder = Folder::new(name);
    folder.open(&program()).get(0).unwrap();
    let path = folder.file(&program(), 0);
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Opens the folder anew, with `change` of the options.
fn open_with(folder: &Folder, change: impl FnOnce(&mut Options)) -> Cache<Program> {
    let mut options = Options::default();
    change(&mut options);
    Cache::open(&folder.0, program(), options).unwrap()
}

/// The file is not used but made anew, after which the next start uses it; says why.
fn refused(folder: &Folder) -> Reason {
    let cache = folder.open(&program());
    assert_eq!(run(&cache, 0), program().value(0));
    let mut all = cache.take_events();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(matches!(all[1].what, Happened::Compiled { .. }), "{all:?}");
    let again = folder.open(&program());
    assert_eq!(run(&again, 0), program().value(0));
    assert_eq!(events(&again), ["loaded"]);
    match all.swap_remove(0).what {
        Happened::Ignored(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_have_no_writer_and_folders_nobody_else() {
    let (folder, path, _) = prepared("modes");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&folder.0), mode(&path)), (0o700, 0o400));
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn a_file_that_was_cut_off_is_made_anew() {
    let (folder, path, bytes) = prepared("cut");
    for len in (0..bytes.len()).step_by(97) {
        replace(&path, &bytes[..len]);
        let reason = refused(&folder);
        assert!(matches!(reason, Reason::Size(n) if n == len as u64), "{len}: {reason:?}");
    }
    let longer = [&bytes[..], &[0; 4096]].concat();
    replace(&path, &longer);
    assert!(matches!(refused(&folder), Reason::Size(_)));
}

#[test]
fn a_file_of_which_a_bit_was_flipped_is_made_anew() {
    let (folder, path, bytes) = prepared("flipped");
    let front = (0..400).step_by(3).chain((400..bytes.len()).step_by(53));
    for (at, bit) in front.zip((0..8).cycle()) {
        let mut broken = bytes.clone();
        broken[at] ^= 1 << bit;
        replace(&path, &broken);
        let reason = refused(&folder);
        let fits = match at {
            0..8 => matches!(reason, Reason::NoBatch),
            8..12 => matches!(reason, Reason::Format(_)),
            12..20 => matches!(reason, Reason::Machine { .. }),
            20..56 => matches!(reason, Reason::Size(_) | Reason::Hash),
            _ => matches!(reason, Reason::Hash),
        };
        assert!(fits, "{at}: {reason:?}");
    }
}

#[test]
fn what_is_in_a_files_place_is_named_and_made_anew() {
    let (folder, path, bytes) = prepared("place");
    let elsewhere = folder.0.join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();

    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(refused(&folder), Reason::Symlink));

    fs::remove_file(&path).unwrap();
    fs::hard_link(&elsewhere, &path).unwrap();
    assert!(matches!(refused(&folder), Reason::Links(2)));
    assert_eq!(fs::read(&elsewhere).unwrap(), bytes);

    fs::remove_file(&path).unwrap();
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(matches!(refused(&folder), Reason::NotAFile));

    fs::remove_file(&path).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(&path);
    // A socket's path may be too long.
    if socket.is_ok() {
        assert!(matches!(refused(&folder), Reason::NotAFile));
        fs::remove_file(&path).unwrap();
    } else {
        fs::remove_file(&path).unwrap();
    }

    fs::create_dir(&path).unwrap();
    assert!(matches!(refused(&folder), Reason::NotAFile));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("of somebody"), "kept").unwrap();
    assert!(matches!(refused(&folder), Reason::NotAFile));
    let aside = folder.names().into_iter().find(|name| name.ends_with(".old")).unwrap();
    assert_eq!(fs::read(folder.0.join(aside).join("of somebody")).unwrap(), b"kept");
}

#[test]
fn a_file_that_others_may_write_or_own_is_made_anew() {
    let (folder, path, _) = prepared("others");
    for mode in [0o420, 0o402, 0o666, 0o722] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let reason = refused(&folder);
        assert!(matches!(reason, Reason::Writable(m) if m == mode), "{reason:?}");
    }
    // SAFETY: returns a number.
    if unsafe { libc::geteuid() } == 0 {
        chown(&path, Some(12345), None).unwrap();
        assert!(matches!(refused(&folder), Reason::Owner(12345)));
    }
}

#[test]
fn a_file_of_another_version_root_or_source_is_made_anew() {
    let (folder, path, _) = prepared("version");
    let cache = open_with(&folder, |options| options.version = b"2".to_vec());
    cache.get(0).unwrap();
    let reasons = cache.take_events();
    assert!(matches!(reasons[0].what, Happened::Ignored(Reason::Version)));
    assert!(matches!(refused(&folder), Reason::Version));

    // The batch of 1, under the name of that of 0.
    folder.open(&program()).get(1).unwrap();
    fs::rename(folder.file(&program(), 1), &path).unwrap();
    assert!(matches!(refused(&folder), Reason::OtherBatch));

    // What 0 calls is not what it was.
    let changed = program().with(1, Body::Sum(5, vec![]));
    let cache = folder.open(&changed);
    assert_eq!(run(&cache, 0), changed.value(0));
    let reasons = cache.take_events();
    let stale = program().key_of(1);
    assert!(matches!(reasons[0].what, Happened::Ignored(Reason::Stale(key)) if key == stale));
    assert!(matches!(refused(&folder), Reason::Stale(_)));

    let mut program = program();
    program.no_helpers = true;
    let cache = folder.open(&program);
    assert!(matches!(cache.get(0), Err(Error::Helper(_))));
    let reasons = cache.take_events();
    assert!(
        matches!(&reasons[0].what, Happened::Ignored(Reason::Helper(name)) if name == "twelve")
    );
}

#[test]
fn a_folder_that_is_not_private_is_refused() {
    let folder = Folder::new("private");
    let open = || Cache::open(&folder.0, program(), Options::default());
    drop(open().unwrap());
    for mode in [0o755, 0o701, 0o770, 0o500] {
        fs::set_permissions(&folder.0, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(open(), Err(Error::OpenFolder { mode: m, .. }) if m == mode));
    }
    fs::set_permissions(&folder.0, Permissions::from_mode(0o700)).unwrap();
    drop(open().unwrap());
    // SAFETY: returns a number.
    if unsafe { libc::geteuid() } == 0 {
        chown(&folder.0, Some(12345), None).unwrap();
        assert!(matches!(open(), Err(Error::ForeignFolder { owner: 12345, .. })));
    }
    let link = Folder::new("private-link");
    symlink(&folder.0, &link.0).unwrap();
    assert!(matches!(
        Cache::open(&link.0, program(), Options::default()),
        Err(Error::Folder { .. })
    ));
    fs::remove_file(&link.0).unwrap();
    fs::write(&link.0, "").unwrap();
    assert!(matches!(
        Cache::open(&link.0, program(), Options::default()),
        Err(Error::Folder { .. })
    ));
    fs::remove_file(&link.0).unwrap();
}

/// Changes a file while it is looked at: after it was verified.
struct Meddler {
    program: Program,
    path: std::path::PathBuf,
    change: fn(&Path, &[u8]),
    bytes: Vec<u8>,
}

impl Compiler for Meddler {
    type Method = u32;

    fn key(&self, method: u32) -> Key {
        self.program.key(method)
    }

    fn find(&self, key: &Key) -> Option<u32> {
        if *key == self.program.key_of(0) {
            // Longer than a tick of an old kernel's clock.
            std::thread::sleep(Duration::from_millis(20));
            (self.change)(&self.path, &self.bytes);
        }
        self.program.find(key)
    }

    fn helper(&self, name: &str) -> Option<*const u8> {
        self.program.helper(name)
    }

    fn compile(&mut self, method: u32, code: &mut Code<'_, u32>) -> Result<(), Failure> {
        self.program.compile(method, code)
    }

    fn failed(error: Error) -> *const u8 {
        Program::failed(error)
    }
}

#[test]
fn a_file_that_changes_while_it_is_verified_is_not_used() {
    let in_place: fn(&Path, &[u8]) = |path, bytes| fs::write(path, bytes).unwrap();
    let another: fn(&Path, &[u8]) = |path, bytes| replace(path, bytes);
    let changed = format!("ignored: {}", Reason::Changed);
    for (change, expected) in [(in_place, &*changed), (another, "loaded")] {
        let (folder, path, bytes) = prepared("changes");
        let mut mode = fs::metadata(&path).unwrap().permissions();
        mode.set_mode(0o600);
        fs::set_permissions(&path, mode).unwrap();
        let meddler = Meddler { program: program(), path, change, bytes };
        let cache = Cache::open(&folder.0, meddler, Options::default()).unwrap();
        assert_eq!(call(cache.get(0).unwrap()), program().value(0));
        // What was replaced is still what was verified.
        let all: Vec<String> = cache
            .take_events()
            .into_iter()
            .map(|event| match event.what {
                Happened::Ignored(reason) => format!("ignored: {reason}"),
                Happened::Loaded { known: false, .. } => "loaded".into(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(all[0], expected, "{all:?}");
    }
}

#[test]
fn a_known_file_is_not_read_again_until_it_changes() {
    let (folder, path, bytes) = prepared("known");
    std::thread::sleep(Duration::from_millis(50));
    let cache = folder.open(&program());
    let again = || {
        cache.get(0).unwrap();
        // SAFETY: nobody runs it.
        unsafe { cache.unload() };
        events(&cache).join(", ")
    };
    assert_eq!(again(), "loaded");
    let before = cache.stats().memory.system_calls;
    assert_eq!(again(), "known");
    // Open, compare, map code, close; give the memory back.
    assert_eq!(cache.stats().memory.system_calls - before, 5);

    // The same bytes, size and times in another file; and the same file, written to.
    let times = fs::metadata(&path).unwrap();
    let times = FileTimes::new()
        .set_accessed(times.accessed().unwrap())
        .set_modified(times.modified().unwrap());
    replace(&path, &bytes);
    File::open(&path).unwrap().set_times(times).unwrap();
    assert_eq!(again(), "loaded");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(again(), "loaded");
    assert_eq!(again(), "known");
    let mut broken = bytes.clone();
    broken[bytes.len() - 1] ^= 1;
    fs::write(&path, &broken).unwrap();
    File::open(&path).unwrap().set_times(times).unwrap();
    assert_eq!(again(), format!("ignored: {}, compiled", Reason::Hash));
}

#[test]
fn a_known_file_is_stale_when_a_source_changes_under_it() {
    let (folder, ..) = prepared("known-stale");
    std::thread::sleep(Duration::from_millis(50));
    let cache = folder.open(&program());
    for _ in 0..2 {
        assert_eq!(run(&cache, 0), program().value(0));
        // SAFETY: nobody runs it.
        unsafe { cache.unload() };
    }
    assert_eq!(events(&cache).join(", "), "loaded, known");
    let changed = program().with(1, Body::Sum(5, vec![]));
    cache.with_compiler(|program| program.methods = changed.methods.clone()).unwrap();
    assert_eq!(run(&cache, 0), changed.value(0));
    let stale = Reason::Stale(program().key_of(1));
    assert_eq!(events(&cache)[0], format!("ignored: {stale}"));
}

#[test]
fn least_recently_used_files_go_first_and_mapped_ones_stay_usable() {
    let folder = Folder::new("limit");
    let program = program();
    let unlimited = folder.open(&program);
    for m in [1, 3] {
        unlimited.get(m).unwrap();
    }
    let [one, three] = [1, 3].map(|m| folder.file(&program, m));
    let len = fs::metadata(&one).unwrap().len() + fs::metadata(&three).unwrap().len();
    let age = |path: &Path, hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(3600 * hours);
        File::open(path).unwrap().set_times(FileTimes::new().set_accessed(time)).unwrap();
    };
    age(&one, 3);
    age(&three, 2);
    // Used now, 1 is younger than 3.
    let cache = open_with(&folder, |options| options.limit = Some(len + 30_000));
    cache.get(1).unwrap();
    cache.get(4).unwrap();
    assert_eq!(events(&cache), ["loaded", "compiled"]);
    let four = fs::metadata(folder.file(&program, 4)).unwrap().len();
    let cache = open_with(&folder, |options| options.limit = Some(len + four));
    let address = cache.get(3).unwrap();
    age(&three, 1);
    cache.get(0).unwrap();
    assert_eq!(events(&cache), ["loaded", "compiled", "evicted"]);
    assert!(one.exists() && !three.exists());
    assert_eq!(call(address), program.value(3));
    cache.clear().unwrap();
    assert_eq!(folder.names(), [""; 0]);
    assert_eq!(call(address), program.value(3));
    assert_eq!(run(&unlimited, 1), program.value(1));
}

/// Others that verify it would have to begin anew.
#[test]
fn a_file_is_said_to_be_used_once_a_minute_and_no_more_often() {
    let (folder, path, _) = prepared("once");
    let changed = || fs::metadata(&path).map(|file| (file.ctime(), file.ctime_nsec())).unwrap();
    let load = || {
        std::thread::sleep(Duration::from_millis(20));
        let cache = open_with(&folder, |options| options.limit = Some(1 << 20));
        cache.get(0).unwrap();
        assert_eq!(events(&cache), ["loaded"]);
    };
    let at_first = changed();
    load();
    assert_eq!(changed(), at_first);
    let old = SystemTime::now() - Duration::from_secs(70);
    File::open(&path).unwrap().set_times(FileTimes::new().set_accessed(old)).unwrap();
    let aged = changed();
    load();
    let used = changed();
    assert!(used > aged);
    load();
    assert_eq!(changed(), used);
}

#[test]
fn the_newest_file_stays_also_if_it_is_larger_than_the_limit() {
    let folder = Folder::new("newest");
    let program = program();
    for limit in [0, 1, 10_000] {
        let cache = open_with(&folder, |options| options.limit = Some(limit));
        cache.clear().unwrap();
        for m in [1, 4, 3, 4] {
            cache.get(m).unwrap();
        }
        // 4 is larger than the limit, and was added before 3.
        let left = [4, 3].map(|m| folder.file(&program, m).exists());
        assert_eq!(left, [false, true], "{limit}");
    }
}

#[test]
fn a_folder_that_is_removed_is_made_once_more() {
    let folder = Folder::new("removed");
    let cache = folder.open(&program());
    cache.get(1).unwrap();
    fs::remove_dir_all(&folder.0).unwrap();
    assert_eq!(run(&cache, 0), program().value(0));
    assert_eq!(fs::metadata(&folder.0).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(folder.names(), [format!("{}.code", program().key_of(0))]);
    // In its place there may be something else.
    fs::remove_dir_all(&folder.0).unwrap();
    symlink("/tmp", &folder.0).unwrap();
    assert!(matches!(cache.get(4), Err(Error::Folder { .. })));
    fs::remove_file(&folder.0).unwrap();
    fs::create_dir(&folder.0).unwrap();
    fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(cache.get(4), Err(Error::OpenFolder { mode: 0o755, .. })));
    assert_eq!(run(&cache, 0), program().value(0));
}

#[test]
fn a_folder_is_made_once_more_where_it_was_wherever_the_program_works() {
    alone(|| {
        let folder = Folder::new("elsewhere");
        std::env::set_current_dir(folder.0.parent().unwrap()).unwrap();
        let name = Path::new(folder.0.file_name().unwrap());
        let cache = Cache::open(name, program(), Options::default()).unwrap();
        std::env::set_current_dir("/").unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        assert_eq!(run(&cache, 0), program().value(0));
        assert_eq!(folder.names().len(), 1);
        assert!(!Path::new("/").join(name).exists());
    });
}

#[test]
fn what_dead_writers_left_is_removed_when_it_is_old() {
    let folder = Folder::new("left");
    let program = program();
    drop(folder.open(&program));
    let name = |n: u32| format!("{}.77.{n}.new", program.key_of(0));
    let file = |name: &str, minutes: u64| {
        let file = File::create(folder.0.join(name)).unwrap();
        let time = SystemTime::now() - Duration::from_secs(60 * minutes);
        file.set_modified(time).unwrap();
        file
    };
    drop(file(&name(1), 2));
    drop(file(&name(2), 0));
    let alive = file(&name(3), 2);
    // SAFETY: a descriptor.
    assert_eq!(unsafe { libc::flock(alive.as_raw_fd(), libc::LOCK_EX) }, 0);
    drop(file("notes.new", 2));
    drop(file("notes.code", 2));
    folder.open(&program).get(0).unwrap();
    let mut left = vec![name(2), name(3), "notes.code".into(), "notes.new".into()];
    left.push(format!("{}.code", program.key_of(0)));
    left.sort();
    assert_eq!(folder.names(), left);
    let cache = folder.open(&program);
    cache.clear().unwrap();
    assert!(folder.0.join("notes.code").exists());
}

#[test]
fn verity_is_required_or_not_and_never_only_promised() {
    let folder = Folder::new("verity");
    let cache = open_with(&folder, |options| {
        options.verity = Verity::IfThere;
        options.sync = true;
    });
    assert_eq!(run(&cache, 0), program().value(0));
    let cache = open_with(&folder, |options| options.verity = Verity::Require);
    match cache.get(0) {
        // The file system has it.
        Ok(_) => assert_eq!(events(&cache), ["loaded"]),
        Err(Error::NoVerity(_)) => {
            let all = cache.take_events();
            assert!(matches!(all[0].what, Happened::Ignored(Reason::NoVerity(_))), "{all:?}");
            assert_eq!(folder.names().len(), 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_bytes_make_the_parser_fail_otherwise_than_by_a_reason() {
    let (_folder, _, bytes) = prepared("parse");
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut parsed = 0;
    for _ in 0..100_000 {
        let mut broken = bytes.clone();
        if random(4) == 0 {
            broken.truncate(random(bytes.len()));
        }
        for _ in 0..1 + random(4) {
            let room = if random(4) == 0 { bytes.len() } else { 500 };
            let (at, any) = (random(room), random(256) as u8);
            let value = [0, 1, 0x7f, 0x80, 0xff, any][random(6)];
            if let Some(byte) = broken.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(contents) = parse(&broken) {
            parsed += 1;
            let keys: Vec<Key> = contents.methods().collect();
            assert!(keys.iter().all(|key| contents.code(key).unwrap().end <= broken.len()));
        }
    }
    assert!(parsed > 1000, "{parsed}");
}
