//! The command line.

use std::path::PathBuf;

use crate::error::{Context, Error, Result};

/// What the runner can do.
pub const USAGE: &str = "\
vm-runner prepare [NAME..] [--refresh]
    fetch the kernels of kernels.toml (all, or those named here or in VM_KERNELS)
vm-runner module [NAME..] [--source DIR] [--out FILE]
    build the kernel module for each, into target/vm/NAME/trampfd.ko
vm-runner run [NAME..] [options]
    boot each and run the programs of target/vm/guest/tests in it
        --filter TEXT    only programs whose name contains TEXT
        --exec 'CMD ARG..'  run this instead of the tests and show what it says
        --init-only      only what PID 1 itself checks
        --no-module      without the module (policy tests of the text backend)
        --module FILE    this module instead of target/vm/NAME/trampfd.ko
        --tree DIR       this instead of target/vm/guest
        --append TEXT    add to the kernel's command line
        --icount         one instruction is one nanosecond
        --limit SECONDS  for one program (300)
        --timeout SECONDS  for one machine (1800)
        --results FILE   this instead of target/vm/results.tsv
        --console        show the console as it comes
";

/// The words behind the verb; [`USAGE`] explains them.
#[derive(Debug, Default)]
pub struct Options {
    pub names: Vec<String>,
    pub refresh: bool,
    pub source: Option<PathBuf>,
    pub out: Option<PathBuf>,
    pub filter: Option<String>,
    pub exec: Option<String>,
    pub init_only: bool,
    pub no_module: bool,
    pub module: Option<PathBuf>,
    pub tree: Option<PathBuf>,
    pub append: String,
    pub icount: bool,
    pub limit: Option<u64>,
    pub timeout: Option<u64>,
    pub console: bool,
    pub results: Option<PathBuf>,
}

impl Options {
    /// Reads the words behind the verb.
    pub fn of(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or_else(|| Error::new(format!("{word} wants a value\n\n{USAGE}")))
            };
            let seconds = |text: String| text.parse().context(|| format!("{word} {text}"));
            match word.as_str() {
                "--refresh" => options.refresh = true,
                "--source" => options.source = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                "--filter" => options.filter = Some(value()?),
                "--exec" => options.exec = Some(value()?),
                "--init-only" => options.init_only = true,
                "--no-module" => options.no_module = true,
                "--module" => options.module = Some(value()?.into()),
                "--tree" => options.tree = Some(value()?.into()),
                "--append" => options.append = value()?,
                "--icount" => options.icount = true,
                "--limit" => options.limit = Some(seconds(value()?)?),
                "--timeout" => options.timeout = Some(seconds(value()?)?),
                "--results" => options.results = Some(value()?.into()),
                "--console" => options.console = true,
                name if name.starts_with('-') => {
                    return Err(Error::new(format!("unknown option {name}\n\n{USAGE}")));
                }
                name => options.names.push(name.to_owned()),
            }
        }
        if options.names.is_empty() {
            let named = std::env::var("VM_KERNELS").unwrap_or_default();
            options
                .names
                .extend(named.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()));
        }
        Ok(options)
    }
}
