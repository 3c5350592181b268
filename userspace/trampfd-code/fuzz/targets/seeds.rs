//! Writes batches that a cache has made into a folder, for `batch`: whole, and without their code.

use std::path::Path;

use trampfd_code::cache::{Cache, Code, Compiler, Error, Failure, Key, Options};

/// Each method calls those of twice its number, and one more, and a helper.
struct Tree;

impl Compiler for Tree {
    type Method = u32;

    fn key(&self, method: u32) -> Key {
        Key::of(&[&method.to_le_bytes()])
    }

    fn find(&self, key: &Key) -> Option<u32> {
        (1..64).find(|&method| self.key(method) == *key)
    }

    fn helper(&self, _: &str) -> Option<*const u8> {
        Some(abort as *const u8)
    }

    fn compile(&mut self, method: u32, code: &mut Code<'_, u32>) -> Result<(), Failure> {
        for callee in [2 * method, 2 * method + 1].into_iter().filter(|&callee| callee < 64) {
            let slot = code.call(callee);
            code.emit_distance(slot);
        }
        let slot = code.helper("abort");
        code.emit_distance(slot);
        let constant = code.constant(&method.to_le_bytes());
        code.emit_distance(constant);
        Ok(())
    }

    fn failed(_: Error) -> *const u8 {
        abort as *const u8
    }
}

extern "C" fn abort() {
    std::process::abort()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("no folder")?;
    let folder = Path::new(&folder);
    let cached = folder.with_extension("cache");
    let cache = Cache::open(&cached, Tree, Options::default())?;
    for root in [63, 20, 1] {
        cache.get(root)?;
    }
    for entry in std::fs::read_dir(&cached)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let Ok(bytes) = std::fs::read(entry.path()) else { continue };
        let front = bytes.len().min(4096);
        let used = bytes[..front].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        std::fs::write(folder.join(format!("{name}-whole")), &bytes)?;
        std::fs::write(folder.join(format!("{name}-front")), &bytes[..used])?;
    }
    drop(cache);
    std::fs::remove_dir_all(cached)?;
    Ok(())
}
