//! Building the kernel module against a kernel's stock headers, in a copy of
//! its source, by the compiler that built the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::files::remake;
use crate::kernel::Kernel;
use crate::process::run;

/// Builds the module of `source` for `kernel`, with all warnings, of which
/// there may be none, and returns where it is.
pub fn build(kernel: &Kernel, source: &Path) -> Result<PathBuf> {
    let name = &kernel.recipe.name;
    let build = kernel.dir.join("build");
    remake(&build)?;
    copy_tree(source, &build)?;
    let log = make(kernel, &build).context(|| format!("module for {name}"))?;
    let log_file = kernel.dir.join("build.log");
    fs::write(&log_file, &log).context(|| log_file.display().to_string())?;
    let warnings: Vec<&str> = log.lines().filter(|line| is_warning(line)).collect();
    if !warnings.is_empty() {
        return Err(Error::new(format!("module for {name}:\n{}", warnings.join("\n"))));
    }
    Ok(build.join("trampfd.ko"))
}

fn make(kernel: &Kernel, build: &Path) -> Result<String> {
    let headers = kernel.headers();
    let mut command = match &kernel.root {
        None => Command::new("make"),
        Some(root) => {
            // The mounts live in a namespace of their own and end with it. The
            // kernel's folder appears in the root under its own name.
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
            command.arg(
                r#"mkdir -p "$1$2"
                mount --bind "$2" "$1$2"
                mount --rbind /dev "$1/dev"
                mount -t proc proc "$1/proc"
                root=$1; shift 2
                exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin "$@""#,
            );
            command.arg("sh").arg(root).arg(&kernel.dir).arg("make");
            command
        }
    };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    command.arg("-C").arg(&headers).arg(format!("M={}", build.display()));
    // Said here because the root has no dpkg to ask.
    command.args(["DEB_BUILD_ARCH=amd64", "DEB_HOST_ARCH=amd64", "W=1", "modules"]);
    command.arg(format!("-j{jobs}"));
    // What the caller's own make exports is not for this one.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KDIR", "ARCH"] {
        command.env_remove(name);
    }
    run(&mut command)
}

fn is_warning(line: &str) -> bool {
    line.to_ascii_lowercase().contains("warning:")
}

/// Copies the files of `from`; what a build left there stays behind.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).context(|| from.display().to_string())? {
        let entry = entry.context(|| from.display().to_string())?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir_all(&target).context(|| target.display().to_string())?;
            copy_tree(&source, &target)?;
        } else if !is_built(&source) {
            fs::copy(&source, &target).context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

/// A file that the module is made of and that changed after it was built.
pub fn newer_source(source: &Path, module: &Path) -> Option<PathBuf> {
    let built = module.metadata().ok()?.modified().ok()?;
    fs::read_dir(source).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return newer_source(&path, module);
        }
        let changed = path.metadata().ok()?.modified().ok()?;
        (changed > built && is_compiled(&path)).then_some(path)
    })
}

fn is_compiled(path: &Path) -> bool {
    let source = path.extension().is_some_and(|e| e == "c" || e == "h");
    (source && !is_built(path)) || path.ends_with("Kbuild")
}

fn is_built(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let built = ["o", "ko", "cmd", "mod", "order", "symvers"];
    name.ends_with(".mod.c") || path.extension().is_some_and(|e| built.iter().any(|b| e == *b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_warnings_of_compiler_make_and_modpost() {
        assert!(is_warning("table.c:3:5: warning: unused variable 'x' [-Wunused-variable]"));
        assert!(is_warning("WARNING: modpost: missing MODULE_DESCRIPTION() in trampfd.o"));
        assert!(is_warning("make[1]: warning:  Clock skew detected."));
        assert!(!is_warning("  CC [M]  warning.o"));
    }
}
