//! The file system the machine starts with: one newc archive (the format of
//! `Documentation/driver-api/early-userspace/buffer-format.rst`), written here.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::process::run;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// A newc archive being written. Everything in it belongs to root.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An archive with the root folder, which anyone may pass: the kernel makes
    /// the file system's root from this entry.
    pub fn new() -> Self {
        let mut archive = Self::default();
        archive.entry(".", S_IFDIR | 0o755, b"");
        archive
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str, mode: u32) {
        self.entry(name, S_IFDIR | (mode & 0o7777), b"");
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry(name, S_IFREG | (mode & 0o7777), data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, S_IFLNK | 0o777, target.as_bytes());
    }

    /// Adds what lies in `from` on this machine, below `name`.
    pub fn tree(&mut self, from: &Path, name: &str) -> Result<()> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(from).context(|| from.display().to_string())? {
            paths.push(entry.context(|| from.display().to_string())?.path());
        }
        paths.sort();
        for path in paths {
            let own = path.file_name().and_then(|n| n.to_str());
            let own = own.ok_or_else(|| Error::new(format!("{}: not UTF-8", path.display())))?;
            let inner = if name.is_empty() { own.to_owned() } else { format!("{name}/{own}") };
            let meta = path.symlink_metadata().context(|| path.display().to_string())?;
            if meta.is_dir() {
                self.folder(&inner, meta.mode());
                self.tree(&path, &inner)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).context(|| path.display().to_string())?;
                self.link(&inner, &target.to_string_lossy());
            } else if meta.is_file() {
                let data = fs::read(&path).context(|| path.display().to_string())?;
                self.file(&inner, meta.permissions().mode(), &data);
            } else {
                return Err(Error::new(format!(
                    "{}: neither file, folder nor link",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        let header = [
            self.entries, // inode
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            u32::try_from(data.len()).expect("a file of the archive is below 4 GiB"),
            0, // device
            0,
            0, // device of a node
            0,
            u32::try_from(name.len() + 1).expect("a name is short"),
            0, // checksum, not in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Builds PID 1 as a static program and returns where it is.
pub fn build_init(repository: &Path, cache: &Path) -> Result<PathBuf> {
    let target = "x86_64-unknown-linux-gnu";
    let folder = cache.join("cargo");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    command.args(["build", "--quiet", "--release", "--package", "vm-init", "--target", target]);
    command.arg("--target-dir").arg(&folder);
    run(&mut command)?;
    Ok(folder.join(target).join("release/vm-init"))
}

/// The files of `modules` and of what they need, in the order to load them:
/// (name, uncompressed file).
pub fn modules(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>> {
    let mut order = Vec::new();
    if kernel.recipe.modules.is_empty() {
        return Ok(order);
    }
    let folder = kernel.module_folder()?;
    for name in &kernel.recipe.modules {
        add_module(&folder, name, &mut order)?;
    }
    Ok(order)
}

fn add_module(folder: &Path, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if order.iter().any(|(done, _)| done == name) {
        return Ok(());
    }
    let path = find_module(folder, name)?
        .ok_or_else(|| Error::new(format!("no module {name} below {}", folder.display())))?;
    let data = decompressed(&path)?;
    for needed in depends_of(&data) {
        add_module(folder, &needed, order)?;
    }
    order.push((name.to_owned(), data));
    Ok(())
}

fn find_module(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).context(|| folder.display().to_string())? {
        let path = entry.context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
            continue;
        }
        let file = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        // Files may have a dash where the module's name has an underscore.
        if file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).context(|| path.display().to_string()),
    };
    let done = Command::new(tool).arg("-dc").arg(path).output().context(|| tool)?;
    if !done.status.success() {
        return Err(Error::new(format!("{tool} -dc {}: {}", path.display(), done.status)));
    }
    Ok(done.stdout)
}

/// The `depends=` entry of a module's .modinfo section.
fn depends_of(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = module[at + key.len()..].split(|&b| b == 0).next().unwrap_or(b"");
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_an_entry_as_the_format_says() {
        let mut archive = Archive::default();
        archive.file("ab", 0o640, b"12345");
        let expected = [
            "070701",   // magic
            "00000001", // inode
            "000081A0", // a file, 0640
            "00000000", // uid
            "00000000", // gid
            "00000001", // links
            "00000000", // mtime
            "00000005", // size
            "00000000", // device
            "00000000", "00000000", // device of a node
            "00000000", "00000003", // length of the name
            "00000000", // checksum
            "ab\0",
        ]
        .concat();
        // 110 bytes of header, name with its zero: 113, padded to 116.
        assert_eq!(&archive.bytes[..113], &expected.as_bytes()[..113]);
        assert_eq!(&archive.bytes[113..116], b"\0\0\0");
        assert_eq!(&archive.bytes[116..121], b"12345");
        assert_eq!(archive.bytes.len(), 124);
    }

    #[test]
    fn starts_with_a_root_anyone_may_pass_and_ends_with_the_trailer() {
        let bytes = Archive::new().finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(&text[14..22], "000041ED");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn finds_what_a_module_needs() {
        assert_eq!(
            depends_of(b"x\0license=GPL\0depends=fscache,net-fs\0name=y\0"),
            ["fscache", "net_fs"]
        );
        assert!(depends_of(b"x\0depends=\0").is_empty());
        assert!(depends_of(b"x\0license=GPL\0").is_empty());
    }
}
