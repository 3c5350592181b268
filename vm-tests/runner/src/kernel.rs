//! `kernels.toml`, and what it takes to have each of its kernels here: the
//! image, the headers and, for the newer ones, a root with their compiler.
//! Everything fetched stays in the cache; a stamp says what it is.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::apt::{Apt, new_root};
use crate::error::{Context, Error, Result};
use crate::files::{remake, remove_if_any};
use crate::process::Lock;

/// `kernels.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    kernel: Vec<Recipe>,
    #[serde(default)]
    root: Vec<RootRecipe>,
}

/// Where one kernel comes from; the fields are explained in `kernels.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What `VM_KERNELS` and the reports call it.
    pub name: String,
    suites: Vec<String>,
    prefer: Option<String>,
    image: String,
    headers: String,
    root: Option<String>,
    /// Modules loaded before the tests.
    #[serde(default)]
    pub modules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootRecipe {
    name: String,
    suites: Vec<String>,
    packages: Vec<String>,
}

/// A kernel whose files are here.
#[derive(Debug)]
pub struct Kernel {
    /// What was asked for.
    pub recipe: Recipe,
    /// `uname -r`.
    pub release: String,
    /// Version of the image's package.
    pub version: String,
    /// The folder of this kernel in the cache.
    pub dir: PathBuf,
    /// What to chroot into for building; `None` is this machine itself.
    pub root: Option<PathBuf>,
}

/// Written when everything is in place, so that an interrupted run starts over.
#[derive(Debug, Serialize, Deserialize)]
struct KernelStamp {
    release: String,
    version: String,
    /// The folder all this is in: the headers hold its name.
    place: PathBuf,
    recipe: Recipe,
}

#[derive(Debug, Serialize, Deserialize)]
struct RootStamp {
    recipe: RootRecipe,
}

impl Kernels {
    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).context(|| path.display().to_string())?;
        toml::from_str(&text).context(|| path.display().to_string())
    }

    /// The kernels called `names`, all of them for none.
    pub fn named(&self, names: &[String]) -> Result<Vec<&Recipe>> {
        if names.is_empty() {
            return Ok(self.kernel.iter().collect());
        }
        let find = |name: &String| {
            self.kernel
                .iter()
                .find(|kernel| kernel.name == *name)
                .ok_or_else(|| Error::new(format!("kernels.toml has no kernel {name}")))
        };
        names.iter().map(find).collect()
    }

    /// Makes the files of `recipe` be in `cache`, from there where they are.
    pub fn prepare(&self, recipe: &Recipe, cache: &Path, refresh: bool) -> Result<Kernel> {
        let root = match &recipe.root {
            Some(name) => Some(self.prepare_root(name, cache, refresh)?),
            None => None,
        };
        let dir = cache.join(&recipe.name);
        let stamp_file = dir.join("stamp.toml");
        let stamp = match read_stamp::<KernelStamp>(&stamp_file) {
            Some(stamp) if stamp.recipe == *recipe && stamp.place == dir && !refresh => stamp,
            _ => fetch(recipe, &dir)
                .and_then(|stamp| write_stamp(&stamp_file, &stamp).map(|()| stamp))
                .context(|| format!("kernel {}", recipe.name))?,
        };
        Ok(Kernel {
            recipe: stamp.recipe,
            release: stamp.release,
            version: stamp.version,
            dir,
            root,
        })
    }

    fn prepare_root(&self, name: &str, cache: &Path, refresh: bool) -> Result<PathBuf> {
        let recipe = self
            .root
            .iter()
            .find(|root| root.name == name)
            .ok_or_else(|| Error::new(format!("kernels.toml has no root {name}")))?;
        let dir = cache.join("roots").join(name);
        let tree = dir.join("tree");
        let stamp_file = dir.join("stamp.toml");
        let _lock = Lock::of(&dir)?;
        if read_stamp::<RootStamp>(&stamp_file).is_some_and(|s| s.recipe == *recipe) && !refresh {
            return Ok(tree);
        }
        eprintln!("fetching the compiler root {name}");
        remove_if_any(&stamp_file)?;
        fetch_root(recipe, &dir, &tree).context(|| format!("compiler root {name}"))?;
        write_stamp(&stamp_file, &RootStamp { recipe: recipe.clone() })?;
        Ok(tree)
    }
}

impl Kernel {
    /// The kernel to boot.
    pub fn image(&self) -> Result<PathBuf> {
        image_in(&self.dir.join("tree")).map(|(path, _)| path)
    }

    /// The headers to build against.
    pub fn headers(&self) -> PathBuf {
        self.dir.join("tree/usr/src").join(format!("linux-headers-{}", self.release))
    }

    /// Where the kernel's own modules are.
    pub fn module_folder(&self) -> Result<PathBuf> {
        ["usr/lib/modules", "lib/modules"]
            .iter()
            .map(|place| self.dir.join("tree").join(place).join(&self.release).join("kernel"))
            .find(|path| path.is_dir())
            .ok_or_else(|| Error::new(format!("no modules of {}", self.release)))
    }
}

fn fetch(recipe: &Recipe, dir: &Path) -> Result<KernelStamp> {
    eprintln!("fetching kernel {}", recipe.name);
    remove_if_any(&dir.join("stamp.toml"))?;
    let tree = dir.join("tree");
    remake(&tree)?;
    let apt = Apt::open(&dir.join("apt"), &recipe.suites, recipe.prefer.as_deref())?;
    let packages = apt.kernel_packages(&[&recipe.image, &recipe.headers])?;
    apt.unpack(&packages, &tree)?;
    let (_, release) = image_in(&tree)?;
    let image = packages.iter().find(|package| {
        let kind = package.name.strip_suffix(&release);
        kind.is_some_and(|kind| kind.starts_with("linux-image") || kind.starts_with("linux-binary"))
    });
    let version = image.map(|package| package.version.clone()).ok_or_else(|| {
        Error::new(format!("the image is {release}, but no package is called so"))
    })?;
    relocate_headers(&tree, &release)?;
    Ok(KernelStamp { release, version, place: dir.to_owned(), recipe: recipe.clone() })
}

/// The one kernel image below `tree`, and its release. Until 6.12 it lies in
/// /boot, later with the modules; an unsigned one boots as well.
fn image_in(tree: &Path) -> Result<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in list(&tree.join("boot")) {
        let release = file_name(&path).strip_prefix("vmlinuz-").map(str::to_owned);
        found.extend(release.map(|release| (path, release)));
    }
    for folder in list(&tree.join("usr/lib/modules")) {
        let release = file_name(&folder).to_owned();
        let image = ["vmlinuz", "vmlinuz.unsigned"].map(|name| folder.join(name));
        found.extend(image.into_iter().find(|path| path.is_file()).map(|path| (path, release)));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(Error::new(format!("{n} kernel images below {}", tree.display()))),
    }
}

/// The headers' Makefile holds the absolute path it would be installed to.
/// `tree` is absolute, as all paths in the cache are.
fn relocate_headers(tree: &Path, release: &str) -> Result<()> {
    let path = tree.join(format!("usr/src/linux-headers-{release}/Makefile"));
    let text = fs::read_to_string(&path).context(|| path.display().to_string())?;
    let moved = text.replace("/usr/src/", &format!("{}/usr/src/", tree.display()));
    fs::write(&path, moved).context(|| path.display().to_string())
}

fn fetch_root(recipe: &RootRecipe, dir: &Path, tree: &Path) -> Result<()> {
    new_root(tree)?;
    let apt = Apt::open(&dir.join("apt"), &recipe.suites, None)?;
    apt.unpack_root(&recipe.packages, tree)?;
    // A package script would have made this one.
    let awk = tree.join("usr/bin/awk");
    if !awk.exists() {
        std::os::unix::fs::symlink("mawk", &awk).context(|| awk.display().to_string())?;
    }
    Ok(())
}

fn list(folder: &Path) -> Vec<PathBuf> {
    // A folder that is not there holds nothing.
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("")
}

/// A stamp that is missing or of another form says that nothing is here.
fn read_stamp<T: DeserializeOwned>(path: &Path) -> Option<T> {
    toml::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn write_stamp<T: Serialize>(path: &Path, stamp: &T) -> Result<()> {
    let text = toml::to_string(stamp).context(|| path.display().to_string())?;
    fs::write(path, text).context(|| path.display().to_string())
}
