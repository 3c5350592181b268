//! The tree keeps its own rules. Each rule is a function from files to complaints; each is shown
//! a file that breaks it before it is shown the tree, so that none can pass by not looking.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crate of this workspace may depend on which crates, of this workspace or not. A new
/// arrow is a decision: it is made here. Crates that are only tests or tools may use any crate
/// that is not ours.
const ARROWS: &[Crate] = &[
    Crate { name: "trampfd-sys", may_use: &[], others: false },
    Crate { name: "trampfd-text", may_use: &[], others: false },
    Crate { name: "trampfd", may_use: &["trampfd-text", "trampfd-sys", "libc"], others: false },
    Crate { name: "trampfd-ffi", may_use: &["trampfd", "libc", "libffi-sys"], others: false },
    Crate {
        name: "trampfd-code",
        may_use: &["blake3", "libc", "object", "rustc-hash", "rustix"],
        others: false,
    },
    Crate {
        name: "trampfd-code-closure-ffi",
        may_use: &["trampfd-code", "closure-ffi"],
        others: false,
    },
    Crate {
        name: "trampfd-code-cranelift",
        may_use: &["trampfd-code", "cranelift-jit", "cranelift-module"],
        others: false,
    },
    Crate { name: "trampfd-code-dynasm", may_use: &["trampfd-code", "dynasmrt"], others: false },
    Crate { name: "trampfd-code-llvm", may_use: &["trampfd-code", "llvm-sys"], others: false },
    Crate { name: "trampfd-code-wasmtime", may_use: &["trampfd-code", "wasmtime"], others: false },
    Crate { name: "trampfd-nested", may_use: &["trampfd-text", "libc"], others: false },
    Crate { name: "trampfd-capi", may_use: &["trampfd", "trampfd-nested"], others: false },
    Crate {
        name: "trampfd-tests",
        may_use: &["trampfd", "trampfd-text", "trampfd-sys"],
        others: true,
    },
    Crate {
        name: "trampfd-bench",
        may_use: &["trampfd", "trampfd-code", "trampfd-text", "trampfd-sys", "vm-fetch"],
        others: true,
    },
    Crate { name: "trampfd-code-rows", may_use: &["trampfd-code"], others: true },
    Crate { name: "trampfd-host", may_use: &["vm-fetch"], others: true },
    Crate {
        name: "trampfd-subject",
        may_use: &["trampfd", "trampfd-text", "trampfd-sys"],
        others: true,
    },
    Crate { name: "trampfd-suites", may_use: &["vm-fetch"], others: true },
    Crate { name: "vm-fetch", may_use: &[], others: true },
    Crate { name: "vm-runner", may_use: &["vm-fetch"], others: true },
    Crate { name: "vm-init", may_use: &[], others: true },
];

/// Where `unsafe` may stand: files, and folders that end in a slash.
const UNSAFE: &[&str] = &[
    "tests/",
    "trampolines/src/arch/",
    "trampolines/src/entry.rs",
    "trampolines/src/plan.rs",
    "trampolines/src/table.rs",
    "userspace/trampfd-capi/src/",
    "userspace/trampfd-code/adapters/closure-ffi/",
    "userspace/trampfd-code/adapters/cranelift/",
    "userspace/trampfd-code/adapters/dynasm/examples/",
    "userspace/trampfd-code/adapters/dynasm/tests/",
    "userspace/trampfd-code/adapters/llvm/",
    "userspace/trampfd-code/adapters/wasmtime/",
    "userspace/trampfd-code/examples/",
    "userspace/trampfd-code/src/alloc/heap.rs",
    "userspace/trampfd-code/src/alloc/mod.rs",
    "userspace/trampfd-code/src/alloc/segment.rs",
    "userspace/trampfd-code/src/alloc/span.rs",
    "userspace/trampfd-code/src/alloc/state.rs",
    "userspace/trampfd-code/src/alloc/thread.rs",
    "userspace/trampfd-code/src/arch/",
    "userspace/trampfd-code/src/cache/arch/",
    "userspace/trampfd-code/src/cache/batch.rs",
    "userspace/trampfd-code/src/cache/lazy.rs",
    "userspace/trampfd-code/src/cache/mod.rs",
    "userspace/trampfd-code/src/cache/room.rs",
    "userspace/trampfd-code/src/got/gdb.rs",
    "userspace/trampfd-code/src/got/loader.rs",
    "userspace/trampfd-code/src/got/perf.rs",
    "userspace/trampfd-code/src/got/set.rs",
    "userspace/trampfd-code/src/got/tls.rs",
    "userspace/trampfd-code/src/got/unwind.rs",
    "userspace/trampfd-code/src/pool/arena.rs",
    "userspace/trampfd-code/src/stage/in_place.rs",
    "userspace/trampfd-code/src/stage/span.rs",
    "userspace/trampfd-code/src/sys.rs",
    "userspace/trampfd-code/src/sys/folder.rs",
    "userspace/trampfd-code/src/vm/file.rs",
    "userspace/trampfd-code/src/vm/hardened.rs",
    "userspace/trampfd-code/src/vm/mapping.rs",
    "userspace/trampfd-code/src/vm/process.rs",
    "userspace/trampfd-code/src/vm/region.rs",
    "userspace/trampfd-code/tests/",
    "userspace/trampfd-ffi/src/call_plan.rs",
    "userspace/trampfd-ffi/src/closure.rs",
    "userspace/trampfd-ffi/src/ffi.rs",
    "userspace/trampfd-ffi/src/raw_api.rs",
    "userspace/trampfd-ffi/src/real.rs",
    "userspace/trampfd-ffi/src/signature.rs",
    "userspace/trampfd-nested/src/arch/",
    "userspace/trampfd-nested/src/copies.rs",
    "userspace/trampfd-nested/src/flang.rs",
    "userspace/trampfd-nested/src/frames.rs",
    "userspace/trampfd-nested/src/lib.rs",
    "userspace/trampfd-nested/src/pool.rs",
    "userspace/trampfd/examples/",
    "userspace/trampfd/src/backend/ioctl.rs",
    "userspace/trampfd/src/backend/kernel.rs",
    "userspace/trampfd/src/backend/text.rs",
    "userspace/trampfd/src/block.rs",
    "userspace/trampfd/src/call.rs",
    "userspace/trampfd/src/closure.rs",
    "userspace/trampfd/src/dynamic.rs",
    "userspace/trampfd/src/fork.rs",
    "userspace/trampfd/src/objects.rs",
    "userspace/trampfd/src/plans.rs",
    "userspace/trampfd/src/pointer.rs",
    "userspace/trampfd/src/raw.rs",
    "userspace/trampfd/src/slots.rs",
    "userspace/trampfd/src/sys.rs",
    "userspace/trampfd/src/unwind.rs",
    "vm-tests/fetch/src/process.rs",
    "vm-tests/init/src/sys.rs",
];

/// Row of [`ARROWS`].
struct Crate {
    name: &'static str,
    may_use: &'static [&'static str],
    /// May it use crates that are not named here?
    others: bool,
}

/// One dependency of a package, of whatever kind.
struct Arrow {
    from: String,
    to: String,
    /// A dev-dependency: part of the package's own tests only.
    dev: bool,
}

struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: impl Into<String>) -> File {
        File { path: path.into(), text: text.into() }
    }

    /// The last part of the path.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    fn has_ending(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.path.ends_with(ending))
    }

    /// Lines with their number, Rust's and C's `//` comments cut off.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap()))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files that git tracks, as they are now, those left out that are no text.
fn tree() -> Vec<File> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let files: Vec<File> = names
        .split_terminator('\0')
        .filter_map(|path| {
            let text = String::from_utf8(std::fs::read(root().join(path)).ok()?).ok()?;
            Some(File::new(path, text))
        })
        .collect();
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "not the whole tree");
    files
}

/// `rule` complains about each of `broken` and not about the tree.
fn holds(rule: fn(&[File]) -> Vec<String>, broken: &[File]) {
    for file in broken {
        let seen = rule(std::slice::from_ref(file));
        assert!(!seen.is_empty(), "the rule does not see: {}: {}", file.path, file.text);
    }
    let complaints = rule(&tree());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    })
}

/// Complaints about lines of `files` that `bad` picks out.
fn lines<'a>(
    files: impl Iterator<Item = &'a File>,
    what: &str,
    bad: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.code_lines().filter(|(_, line)| bad(line)) {
            complaints.push(format!("{}:{number}: {what}: {}", file.path, line.trim()));
        }
    }
    complaints
}

// ---- arrows between crates -------------------------------------------------------------------

/// Asks `cargo metadata` and not `cargo tree`, which leaves out what it has printed before.
fn arrows() -> (Vec<String>, Vec<Arrow>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut names = Vec::new();
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let from = package["name"].as_str().unwrap();
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{from}");
        names.push(from.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            arrows.push(Arrow {
                from: from.into(),
                to: dependency["name"].as_str().unwrap().into(),
                dev: dependency["kind"] == "dev",
            });
        }
    }
    (names, arrows)
}

fn wrong_arrows(arrows: &[Arrow]) -> Vec<String> {
    arrows
        .iter()
        .filter(|arrow| {
            let Some(from) = ARROWS.iter().find(|row| row.name == arrow.from) else {
                return true;
            };
            let ours = ARROWS.iter().any(|row| row.name == arrow.to);
            let free = !ours && (from.others || arrow.dev);
            !free && !from.may_use.contains(&&*arrow.to)
        })
        .map(|arrow| format!("{} -> {}", arrow.from, arrow.to))
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    for (from, to, dev) in [
        ("trampfd-sys", "libc", false),
        ("trampfd-sys", "trampfd-text", true),
        ("trampfd-text", "trampfd-sys", false),
        ("trampfd", "rustix", false),
        ("trampfd", "vm-init", true),
        ("vm-runner", "trampfd-sys", false),
        ("vm-init", "trampfd", true),
        ("newcomer", "libc", false),
    ] {
        let wrong = [Arrow { from: from.into(), to: to.into(), dev }];
        assert_eq!(wrong_arrows(&wrong), [format!("{from} -> {to}")]);
    }
    let (names, arrows) = arrows();
    assert_eq!(wrong_arrows(&arrows), [""; 0], "see ARROWS in this file");
    for name in names {
        assert!(ARROWS.iter().any(|row| row.name == name), "{name} has no row in ARROWS");
    }
    assert!(arrows.iter().any(|arrow| arrow.from == "trampfd-tests"), "no arrow was read");
}

fn lowest_crates_are_no_std(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| {
            ["trampolines/src/lib.rs", "userspace/trampfd-sys/src/lib.rs"].contains(&&*file.path)
        })
        .filter(|file| !file.text.lines().any(|line| line == "#![no_std]"))
        .map(|file| format!("{} is not no_std", file.path))
        .collect()
}

#[test]
fn the_lowest_crates_need_no_std() {
    holds(
        lowest_crates_are_no_std,
        &[File::new("trampolines/src/lib.rs", "//! #![no_std]\npub mod arch;")],
    );
}

// ---- what differs has its place --------------------------------------------------------------

/// A part of the path is named `arch`, with or without an ending.
fn is_arch(file: &File) -> bool {
    file.path.split('/').any(|part| part.split('.').next() == Some("arch"))
}

fn architecture_has_its_folder(files: &[File]) -> Vec<String> {
    let outside = || files.iter().filter(|file| !is_arch(file));
    let rust = outside().filter(|file| file.has_ending(&[".rs", "Cargo.toml"]));
    let mut all =
        lines(rust, "names an architecture", |line| has_word(line, concat!("target", "_arch")));
    let text = outside().filter(|file| {
        file.has_ending(&[".rs"])
            && (file.path.starts_with("userspace/") || file.path.starts_with("trampolines/"))
    });
    all.extend(lines(text, "machine instructions", |line| {
        line.contains(concat!("asm", "!")) || line.contains(concat!("core::", "arch"))
    }));
    let kernel = outside()
        .filter(|file| file.path.starts_with("kernel-module/") && file.has_ending(&[".c", ".h"]));
    all.extend(lines(kernel, "names an architecture", |line| {
        ["__x86_64__", "__aarch64__", "__riscv", "CONFIG_X86", "CONFIG_X86_64", "CONFIG_ARM64"]
            .iter()
            .chain(&["CONFIG_RISCV"])
            .any(|word| has_word(line, word))
    }));
    all
}

#[test]
fn what_differs_by_architecture_is_in_files_named_for_it() {
    let cfg = concat!("#[cfg(target", "_arch = \"x86_64\")]");
    holds(
        architecture_has_its_folder,
        &[
            File::new("userspace/trampfd/src/closure.rs", cfg),
            File::new("trampolines/src/encode/x86_64.rs", cfg),
            File::new("vm-tests/init/src/search.rs", cfg),
            File::new("userspace/trampfd/Cargo.toml", format!("[target.'{cfg}'.dependencies]")),
            File::new("userspace/trampfd/src/call.rs", concat!("naked_asm", "!(\"ret\")")),
            File::new("kernel-module/vma.c", "#ifdef CONFIG_X86"),
        ],
    );
}

fn version_checks_have_their_file(files: &[File]) -> Vec<String> {
    let code = files.iter().filter(|file| {
        file.has_ending(&[".c", ".h", ".rs", "Kbuild", "Makefile"]) && file.name() != "compat.h"
    });
    lines(code, "a kernel version outside compat.h", |line| {
        // checkpatch is told to let compat.h be.
        let words = if line.contains("--ignore ") { "" } else { line };
        [
            concat!("LINUX_VERSION", "_CODE"),
            concat!("KERNEL", "_VERSION"),
            concat!("linux/", "version.h"),
        ]
        .iter()
        .any(|word| has_word(words, word))
    })
}

#[test]
fn kernel_versions_are_named_in_compat_h_only() {
    let check = concat!("#if LINUX_VERSION", "_CODE < KERNEL", "_VERSION(6, 3, 0)");
    holds(
        version_checks_have_their_file,
        &[
            File::new("kernel-module/vma.c", check),
            File::new("kernel-module/table.h", check),
            File::new("kernel-module/ioctl.c", concat!("#include <linux/", "version.h>")),
        ],
    );
}

fn unsafe_has_its_files(files: &[File]) -> Vec<String> {
    let allowed = |path: &str| {
        UNSAFE.iter().any(|&place| path == place || place.ends_with('/') && path.starts_with(place))
    };
    files
        .iter()
        .filter(|file| file.has_ending(&[".rs"]) && !allowed(&file.path))
        .filter_map(|file| {
            let mut lines = file.code_lines();
            let (number, _) = lines.find(|(_, line)| has_word(line, "unsafe"))?;
            let path = &file.path;
            Some(format!("{path}:{number}: unsafe in a file that UNSAFE does not list"))
        })
        .collect()
}

#[test]
fn unsafe_is_in_listed_files_only() {
    holds(
        unsafe_has_its_files,
        &[
            File::new("trampolines/src/encode/mod.rs", "unsafe { run(bytes) }"),
            File::new("userspace/trampfd-sys/src/uapi.rs", "unsafe impl Send for trampfd_set {}"),
            File::new("userspace/trampfd/src/callx.rs", "pub unsafe fn f() {}"),
        ],
    );
    for place in UNSAFE.iter().filter(|place| !place.ends_with('/')) {
        let text = std::fs::read_to_string(root().join(place)).unwrap_or_default();
        let file = File::new(place, text);
        let used = file.code_lines().any(|(_, line)| has_word(line, "unsafe"));
        assert!(used, "UNSAFE lists {place}, which has none: take it off the list");
    }
}

fn arch_files_begin_with_a_drawing(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.has_ending(&[".rs"]) && file.name() != "mod.rs")
        .filter(|file| is_arch(file) || file.path.starts_with("trampolines/src/encode/"))
        .filter(|file| {
            let head = file.text.lines().take_while(|line| line.starts_with("//!"));
            !head.into_iter().any(|line| line == "//! ```text")
        })
        .map(|file| format!("{} does not begin with a drawing of its stub", file.path))
        .collect()
}

#[test]
fn files_of_an_architecture_begin_with_a_drawing() {
    holds(
        arch_files_begin_with_a_drawing,
        &[
            File::new("trampolines/src/encode/s390x.rs", "//! s390x.\n\nuse super::*;\n"),
            File::new("trampolines/src/arch/aarch64.rs", "use x;\n//! ```text\n"),
        ],
    );
}

// ---- licences --------------------------------------------------------------------------------

fn licences_are_stated(files: &[File]) -> Vec<String> {
    const DUAL: &str = "/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */";
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("kernel-module/")) {
        let first = file.text.lines().next().unwrap_or("");
        let want = if file.path.starts_with("kernel-module/include/uapi/") {
            DUAL
        } else if file.has_ending(&[".h", ".S"]) {
            "/* SPDX-License-Identifier: GPL-2.0 */"
        } else if file.has_ending(&[".c", ".rs"]) {
            "// SPDX-License-Identifier: GPL-2.0"
        } else if ["Kbuild", "Makefile", "Kconfig"].contains(&file.name()) {
            "# SPDX-License-Identifier: GPL-2.0"
        } else {
            continue;
        };
        if first != want {
            complaints.push(format!("{}:1: {first}: must be {want}", file.path));
        }
    }
    let module = files.iter().filter(|file| file.path.starts_with("kernel-module/"));
    complaints.extend(lines(module, "the module's licence is GPL", |line| {
        line.contains("MODULE_LICENSE(") && line.trim() != "MODULE_LICENSE(\"GPL\");"
    }));
    complaints
}

#[test]
fn licences_stand_where_tools_look() {
    holds(
        licences_are_stated,
        &[
            File::new("kernel-module/main.c", "#include <linux/module.h>"),
            File::new("kernel-module/stub.h", "// SPDX-License-Identifier: GPL-2.0"),
            File::new("kernel-module/Kbuild", "obj-m += trampfd.o"),
            File::new(
                "kernel-module/include/uapi/linux/trampfd.h",
                "/* SPDX-License-Identifier: GPL-2.0 */",
            ),
            File::new(
                "kernel-module/main.c",
                "// SPDX-License-Identifier: GPL-2.0\nMODULE_LICENSE(\"Dual MIT/GPL\");",
            ),
        ],
    );
    let main = std::fs::read_to_string(root().join("kernel-module/main.c")).unwrap();
    assert!(main.contains("\nMODULE_LICENSE("), "main.c states no licence");
}

// ---- nothing of one machine ------------------------------------------------------------------

/// Hosts of package archives, and folders that only one machine has. (Spelled in two halves, so
/// that this file does not break its own rule.)
const OF_ONE_MACHINE: &[&str] = &[
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("debian.org/", "debian"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("artif", "actory"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
];

fn nothing_of_one_machine(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            // Cargo writes its default registry's name into each row of the lock file.
            let line = if file.name() == "Cargo.lock" {
                line.replace(
                    concat!("\"registry+https://github.com/rust-lang/crates", ".io-index\""),
                    "",
                )
            } else {
                line.to_owned()
            };
            if file.name() == "Cargo.lock" && line.contains("registry+")
                || OF_ONE_MACHINE.iter().any(|text| is_of_one_machine(&line, text))
            {
                complaints.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    complaints
}

/// A folder counts at the root only, not as a part of a longer path.
fn is_of_one_machine(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let inner = |c: char| c.is_alphanumeric() || "._-}$)*".contains(c);
        !(text.starts_with('/') && line[..at].ends_with(inner))
    })
}

#[test]
fn no_file_names_a_package_archive_or_a_place_on_one_machine() {
    holds(
        nothing_of_one_machine,
        &[
            File::new("Makefile", concat!("curl https://static.crates", ".io/x")),
            File::new("vm-tests/kernels.toml", concat!("mirror = \"deb.debian", ".org\"")),
            File::new("README.md", concat!("cd /wo", "rk/x")),
            File::new("Cargo.lock", "source = \"registry+https://elsewhere/index\""),
        ],
    );
}

// ---- documents -------------------------------------------------------------------------------

/// Targets of `[text](target)` and `[name]: target` outside code fences, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let named = line.starts_with('[').then(|| line.split_once("]: ")).flatten();
        links.extend(inline.chain(named.map(|(_, target)| target)).map(|link| (number + 1, link)));
    }
    links
}

fn relative_links_resolve(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.has_ending(&[".md"])) {
        for (number, link) in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&file.path)
            } else {
                root().join(&file.path).parent().unwrap().join(path)
            };
            let there = if heading.is_empty() {
                target.exists()
            } else {
                let text = std::fs::read_to_string(&target).unwrap_or_default();
                text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            if !there {
                complaints.push(format!("{}:{number}: {link} leads nowhere", file.path));
            }
        }
    }
    complaints
}

/// `program: test` in back-quotes: the tests that a document names, with their line.
fn named_tests(text: &str) -> Vec<(usize, &str, &str)> {
    let name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let program = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let Some((first, test)) = quoted.split_once(": ") else { continue };
            if first.chars().all(program) && test.chars().all(name) {
                found.push((number + 1, first, test));
            }
        }
    }
    found
}

fn named_tests_exist(files: &[File]) -> Vec<String> {
    let tests = |program: &str, test: &str| {
        let tests = root().join("tests");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let in_rust = |folder: PathBuf| {
            let (module, test) = test.rsplit_once("::").unwrap_or(("main", test));
            let of_one_file = folder.with_extension("rs");
            let files = [folder.join(format!("{module}.rs")), of_one_file];
            files.into_iter().any(|file| has_word(&read(file), &format!("fn {test}")))
        };
        if ["it", "kernel"].contains(&program) {
            in_rust(tests.join("tests").join(program))
        } else if let Some(program) = program.strip_prefix("code-") {
            in_rust(root().join("userspace/trampfd-code/tests").join(program))
        } else {
            read(tests.join("c").join(format!("{program}.c"))).contains(&format!("TEST({test})"))
        }
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.has_ending(&[".md"])) {
        for (number, program, test) in named_tests(&file.text) {
            if !tests(program, test) {
                complaints.push(format!("{}:{number}: no test {program}: {test}", file.path));
            }
        }
        if file.path == "SECURITY.md" && named_tests(&file.text).is_empty() {
            complaints.push("SECURITY.md names no test".into());
        }
    }
    complaints
}

#[test]
fn documents_name_tests_that_exist() {
    holds(
        named_tests_exist,
        &[
            File::new("README.md", "as `seal: no_such_test` shows"),
            File::new("README.md", "`it: tidy::documents_name_tests`"),
            File::new("README.md", "`it: nowhere::documents_name_tests_that_exist`"),
            File::new("README.md", "`seal: seal_refuses_set_and_clear`, `no-program: test`"),
            File::new("README.md", "`code-vm: views::no_such_test`"),
            File::new("SECURITY.md", "all is well"),
        ],
    );
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|&c| c.is_alphanumeric() || " -_".contains(c))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

#[test]
fn relative_links_lead_somewhere() {
    assert!(relative_links_resolve(&[File::new("A.md", "[x](Cargo.toml) [y](tests/)")]).is_empty());
    holds(
        relative_links_resolve,
        &[
            File::new("README.md", "see [this](NOWHERE.md)"),
            File::new("README.md", "see [a](Cargo.toml) and [b](tests/nowhere.rs)"),
            File::new("tests/README.md", "[a]: Cargo.lock"),
            File::new("README.md", "[a](Cargo.toml#no-such-heading)"),
        ],
    );
}
