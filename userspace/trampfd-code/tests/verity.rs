//! Batches on a file system that has fs-verity. In the test machines only: they have an ext4
//! image, and a kernel that knows it; the test fails where they are not.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use trampfd_code::cache::{
    Cache, Code, Compiler, Error, Failure, Happened, Key, Options, Reason, Verity,
};

/// Methods are numbers, and their code returns them.
struct Numbers {
    compiled: usize,
}

impl Compiler for Numbers {
    type Method = u32;

    fn key(&self, method: u32) -> Key {
        Key::of(&[&method.to_le_bytes()])
    }

    fn find(&self, key: &Key) -> Option<u32> {
        (0..100).find(|&method| self.key(method) == *key)
    }

    fn helper(&self, _: &str) -> Option<*const u8> {
        None
    }

    fn compile(&mut self, method: u32, code: &mut Code<'_, u32>) -> Result<(), Failure> {
        self.compiled += 1;
        code.emit(&[0xb8]); // mov $method, %eax
        code.emit(&method.to_le_bytes());
        code.emit(&[0xc3]); // ret
        Ok(())
    }

    fn failed(error: Error) -> *const u8 {
        panic!("{error}")
    }
}

fn open(folder: &Path, verity: Verity) -> Cache<Numbers> {
    let mut options = Options::default();
    options.verity = verity;
    Cache::open(folder, Numbers { compiled: 0 }, options).unwrap()
}

fn call(cache: &Cache<Numbers>, method: u32) -> Result<u32, Error> {
    let code = cache.get(method)?;
    // SAFETY: `Numbers` made it, and the cache lives.
    Ok(unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> u32>(code)() })
}

/// The files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Whether the kernel refuses to open a file for writing, whatever its mode says: root may open
/// what others may not, but not what has verity.
fn is_unchangeable(file: &Path) -> bool {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = fs::OpenOptions::new().append(true).open(file);
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
    refused.is_err()
}

/// An ext4 file system with the feature `verity`, empty: `mkfs.ext4 -O verity`.
const IMAGE: &str = "/verity.ext4";

/// The image, mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new() -> Mounted {
        const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
        const LOOP_SET_FD: libc::Ioctl = 0x4c00;
        let open = |path: &str| fs::OpenOptions::new().read(true).write(true).open(path);
        let control = open("/dev/loop-control").expect("the module loop");
        // SAFETY: answers a number.
        let n = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        assert!(n >= 0, "{}", std::io::Error::last_os_error());
        let device = format!("/dev/loop{n}");
        let (disk, image) = (open(&device).unwrap(), open(IMAGE).expect(IMAGE));
        // SAFETY: two descriptors.
        let set = unsafe { libc::ioctl(disk.as_raw_fd(), LOOP_SET_FD, image.as_raw_fd()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        let place = PathBuf::from("/tmp/verity");
        fs::create_dir_all(&place).unwrap();
        let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let (from, to) = (text(Path::new(&device)), text(&place));
        // SAFETY: C strings.
        let done = unsafe {
            libc::mount(from.as_ptr(), to.as_ptr(), c"ext4".as_ptr(), 0, std::ptr::null())
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        Mounted(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let place = CString::new(self.0.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a C string.
        unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_batch_with_verity_is_loaded_again_and_cannot_be_changed() {
    let place = Mounted::new();
    let folder = place.0.join("cache");
    let first = open(&folder, Verity::Require);
    assert_eq!(call(&first, 42).unwrap(), 42);
    let made = files(&folder);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(is_unchangeable(&made[0]));
    drop(first);

    let second = open(&folder, Verity::Require);
    assert_eq!(call(&second, 42).unwrap(), 42);
    assert_eq!(second.with_compiler(|numbers| numbers.compiled).unwrap(), 0);
    drop(second);

    // What has no verity is not good enough where it is required, and good where it is not.
    fs::remove_file(&made[0]).unwrap();
    let without = open(&folder, Verity::No);
    assert_eq!(call(&without, 42).unwrap(), 42);
    assert!(!is_unchangeable(&files(&folder)[0]));
    drop(without);
    let third = open(&folder, Verity::Require);
    assert_eq!(call(&third, 42).unwrap(), 42);
    assert_eq!(third.with_compiler(|numbers| numbers.compiled).unwrap(), 1);
    let events = third.take_events();
    let ignored = events.iter().find_map(|event| match &event.what {
        Happened::Ignored(reason) => Some(reason),
        _ => None,
    });
    assert!(matches!(ignored, Some(Reason::NoVerity(_))), "{events:?}");
    assert!(is_unchangeable(&files(&folder)[0]));
}

#[test]
fn where_the_file_system_has_no_verity_it_is_said_or_done_without() {
    let folder = PathBuf::from(format!("/tmp/no-verity-{}", std::process::id()));
    let required = open(&folder, Verity::Require);
    assert!(matches!(call(&required, 7), Err(Error::NoVerity(_))));
    drop(required);
    let asked = open(&folder, Verity::IfThere);
    assert_eq!(call(&asked, 7).unwrap(), 7);
    fs::remove_dir_all(&folder).unwrap();
}
