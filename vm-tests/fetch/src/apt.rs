//! Packages of suites that the machine itself does not use, through a private
//! apt folder: own sources, lists, cache and state, the machine's own mirror
//! and the distribution's keyring. The system's lists are never touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::files::remake;
use crate::process::{output, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package that apt would choose.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name in the archive.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// The first alternative of each dependence.
    pub depends: Vec<String>,
}

/// The suites that this machine itself uses: its release, and where there is
/// one, that release's security suite.
pub fn own_suites() -> Result<Vec<String>> {
    let mirrors = Mirrors::of_this_machine()?;
    let security = format!("{}-security", mirrors.codename);
    let has_security = mirrors.uri_of(&security).is_ok();
    Ok([mirrors.codename.clone()].into_iter().chain(has_security.then_some(security)).collect())
}

/// A private apt folder whose lists have been fetched.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets up `dir` for `suites` and fetches their lists; `prefer` wins for
    /// linux-* packages.
    pub fn open(dir: &Path, suites: &[String], prefer: Option<&str>) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial", "state"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).context(|| sub.display().to_string())?;
        }
        let mirrors = Mirrors::of_this_machine()?;
        let mut sources = String::new();
        for suite in suites {
            let uri = mirrors.uri_of(suite)?;
            sources += &format!("deb [signed-by={KEYRING} arch=amd64] {uri} {suite} main\n");
        }
        let preferences = prefer.map_or(String::new(), |suite| {
            format!("Package: linux-*\nPin: release n={suite}\nPin-Priority: 990\n")
        });
        for (name, text) in [
            ("sources.list", &sources),
            ("preferences", &preferences),
            // Nothing is installed here: every dependence is to be fetched.
            ("state/status", &String::new()),
        ] {
            let path = dir.join(name);
            fs::write(&path, text).context(|| path.display().to_string())?;
        }
        let apt = Self { dir: dir.to_owned() };
        run(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        for (key, place) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::Preferences", "preferences"),
            ("Dir::State", "state"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
        ] {
            let place = self.dir.join(place);
            command.arg("-o").arg(format!("{key}={}", place.display()));
        }
        for fixed in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            "APT::Update::Post-Invoke-Success=/bin/true",
            // Without it an update that reached nothing counts as done.
            "APT::Update::Error-Mode=any",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            // The folder may be where the _apt user cannot go.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", fixed]);
        }
        command
    }

    /// The version of `name` that apt would choose.
    pub fn candidate(&self, name: &str) -> Result<Package> {
        let text = output(self.command("apt-cache").args(["show", "--no-all-versions", name]))?;
        let field = |key: &str| {
            text.lines()
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        let version = field("Version")
            .ok_or_else(|| Error::new(format!("no package {name} in these suites")))?;
        Ok(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            depends: first_alternatives(field("Depends").unwrap_or("")),
        })
    }

    /// `metas` and what they pull in of the kernel itself: image, modules,
    /// headers and the kernel's build tools, not what an installed system would
    /// want around them.
    pub fn kernel_packages(&self, metas: &[&str]) -> Result<Vec<Package>> {
        let mut found: BTreeMap<String, Package> = BTreeMap::new();
        let mut open: Vec<String> = metas.iter().map(|&m| m.to_owned()).collect();
        while let Some(name) = open.pop() {
            if found.contains_key(&name) {
                continue;
            }
            let package = self.candidate(&name)?;
            open.extend(package.depends.iter().filter(|d| is_of_the_kernel(d)).cloned());
            found.insert(name, package);
        }
        Ok(found.into_values().collect())
    }

    /// Downloads `packages` and unpacks them below `tree`.
    pub fn unpack(&self, packages: &[Package], tree: &Path) -> Result<()> {
        let debs = self.dir.join("debs");
        remake(&debs)?;
        let names = packages.iter().map(|p| format!("{}={}", p.name, p.version));
        run(self.command("apt-get").args(["-q", "download"]).args(names).current_dir(&debs))?;
        unpack_all(&debs, tree)
    }

    /// Downloads `names` with everything they depend on and unpacks it below
    /// `tree`, from [`new_root`]: a root to chroot into, without having run any
    /// package's scripts.
    pub fn unpack_root(&self, names: &[String], tree: &Path) -> Result<()> {
        run(self
            .command("apt-get")
            .args(["-q", "-y", "--no-install-recommends", "--download-only", "install"])
            .args(names))?;
        unpack_all(&self.dir.join("cache/archives"), tree)
    }

    /// Deletes the folder, once nothing more is to be fetched.
    pub fn forget(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).context(|| self.dir.display().to_string())
    }
}

/// An empty root with the folders that packages expect.
pub fn new_root(tree: &Path) -> Result<()> {
    remake(tree)?;
    // Where the links of a merged /usr are there first, packages that still
    // carry /lib unpack through them.
    for name in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(tree.join("usr").join(name)).context(|| tree.display().to_string())?;
        symlink(format!("usr/{name}"), tree.join(name)).context(|| tree.display().to_string())?;
    }
    for name in ["dev", "proc", "tmp"] {
        fs::create_dir_all(tree.join(name)).context(|| tree.display().to_string())?;
    }
    Ok(())
}

fn is_of_the_kernel(name: &str) -> bool {
    name.starts_with("linux-") && !["linux-base", "linux-initramfs-tool"].contains(&name)
}

fn first_alternatives(depends: &str) -> Vec<String> {
    depends
        .split(',')
        .filter_map(|d| d.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

/// Unpacks every .deb of `debs` and deletes it.
fn unpack_all(debs: &Path, tree: &Path) -> Result<()> {
    for entry in fs::read_dir(debs).context(|| debs.display().to_string())? {
        let deb = entry.context(|| debs.display().to_string())?.path();
        if deb.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(tree))?;
            fs::remove_file(&deb).context(|| deb.display().to_string())?;
        }
    }
    Ok(())
}

/// Which URI serves which suite of this machine.
#[derive(Debug, Default, PartialEq)]
struct Mirrors {
    /// (URI, suites)
    entries: Vec<(String, Vec<String>)>,
    /// The release this machine runs, as `bookworm`.
    codename: String,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context(|| "/etc/os-release")?;
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .ok_or_else(|| Error::new("/etc/os-release names no VERSION_CODENAME"))?;
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(folder.filter_map(|e| Some(e.ok()?.path())));
        }
        files.sort();
        let mut mirrors =
            Self { codename: codename.trim_matches('"').to_owned(), ..Self::default() };
        for file in files {
            // Either form may be missing; no entry at all shows below.
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => mirrors.read_deb822(&text),
                Some("list") => mirrors.read_one_line(&text),
                _ => {}
            }
        }
        Ok(mirrors)
    }

    fn read_one_line(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let Some(mut rest) = line.trim().strip_prefix("deb ") else {
                continue;
            };
            rest = rest.trim_start();
            if let Some(options) = rest.strip_prefix('[') {
                let Some((_, after)) = options.split_once(']') else {
                    continue;
                };
                rest = after;
            }
            let mut words = rest.split_whitespace();
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                self.entries.push((uri.to_owned(), vec![suite.to_owned()]));
            }
        }
    }

    fn read_deb822(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for stanza in lines.split(|line| line.trim().is_empty()) {
            let field = |key: &str| -> Vec<String> {
                let mut words = Vec::new();
                let mut inside = false;
                for line in stanza {
                    let value = if line.starts_with([' ', '\t']) {
                        inside.then_some(*line)
                    } else {
                        let found =
                            line.split_once(':').filter(|(k, _)| k.eq_ignore_ascii_case(key));
                        inside = found.is_some();
                        found.map(|(_, value)| value)
                    };
                    words.extend(
                        value.into_iter().flat_map(str::split_whitespace).map(str::to_owned),
                    );
                }
                words
            };
            if field("Enabled") == ["no"] || !field("Types").iter().any(|t| t == "deb") {
                continue;
            }
            for uri in field("URIs") {
                self.entries.push((uri, field("Suites")));
            }
        }
    }

    /// The URI this machine gets the like of `suite` from: the security suites
    /// live in an archive of their own.
    fn uri_of(&self, suite: &str) -> Result<&str> {
        let own = &self.codename;
        let like =
            if suite.ends_with("-security") { format!("{own}-security") } else { own.clone() };
        self.entries
            .iter()
            .find(|(_, suites)| suites.iter().any(|s| s.trim_end_matches('/') == like))
            .map(|(uri, _)| uri.as_str())
            .ok_or_else(|| Error::new(format!("this machine's apt sources have no suite {like}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(read: impl FnOnce(&mut Mirrors)) -> Mirrors {
        let mut m = Mirrors { codename: "bookworm".into(), ..Mirrors::default() };
        read(&mut m);
        m
    }

    #[test]
    fn reads_both_forms_of_sources() {
        let deb822 = "Types: deb\n# old\nURIs: a:main\nSuites: bookworm\n bookworm-updates\nComponents: main\n\n\
                      Types: deb-src\nURIs: a:src\nSuites: bookworm\n\n\
                      Types: deb\nEnabled: no\nURIs: a:off\nSuites: bookworm\n\n\
                      Types: deb\nURIs: a:sec\nSuites: bookworm-security\n";
        let one_line = "# deb a:no bookworm main\ndeb-src a:src bookworm main\n\
                        deb [signed-by=/k arch=amd64] a:main bookworm main\ndeb a:sec bookworm-security main\n";
        for m in [mirrors(|m| m.read_deb822(deb822)), mirrors(|m| m.read_one_line(one_line))] {
            assert_eq!(m.uri_of("trixie-backports").unwrap(), "a:main");
            assert_eq!(m.uri_of("bookworm").unwrap(), "a:main");
            assert_eq!(m.uri_of("trixie-security").unwrap(), "a:sec");
        }
    }

    #[test]
    fn a_suite_without_a_mirror_is_an_error() {
        let m = mirrors(|m| m.read_one_line("deb a:other sid main\n"));
        assert!(m.uri_of("bookworm").is_err());
    }

    #[test]
    fn takes_the_first_alternative() {
        let depends =
            "kmod, linux-image-a (= 1) | linux-image-a-unsigned (= 1), linux-kbuild:any (>= 2)";
        assert_eq!(first_alternatives(depends), ["kmod", "linux-image-a", "linux-kbuild"]);
        assert!(first_alternatives("").is_empty());
    }
}
