//! Files and folders that need not be there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Context, Result};

/// Empties `dir`, or makes it.
pub fn remake(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).context(|| dir.display().to_string()),
        _ => fs::create_dir_all(dir).context(|| dir.display().to_string()),
    }
}

/// Deletes `file`.
pub fn remove_if_any(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).context(|| file.display().to_string()),
        _ => Ok(()),
    }
}
