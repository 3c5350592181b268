//! PID 1 of the test machines: mounts, loads the module, runs every program of
//! `/tests` by itself, looks at what each leaves behind, reports, powers off.
//!
//! The runner's `vm.conf` says what this run is about. Programs of `/tests`
//! print TAP, those whose name ends in `.libtest` are Rust's; beside `NAME` may
//! lie `NAME.params` (parameters of the module, put back afterwards) and
//! `NAME.env` (environment), a `name=value` on each line.

mod log;
mod program;
mod report;
mod results;
mod service;
mod sys;

use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::Log;
use report::Report;
use results::Row;

/// (type, place, options), in this order.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

/// `vm.conf`.
#[derive(Debug, Default)]
struct Conf {
    limit: Duration,
    filter: Option<String>,
    exec: Option<String>,
    init_only: bool,
    module: Option<PathBuf>,
    stock_modules: Vec<PathBuf>,
}

impl Conf {
    fn read() -> Result<Self> {
        let mut conf = Self::default();
        for (key, value) in settings(Path::new("/vm.conf"))? {
            match key.as_str() {
                "limit" => {
                    let seconds = value.parse().map_err(|_| unknown(&key, &value))?;
                    conf.limit = Duration::from_secs(seconds);
                }
                "filter" => conf.filter = Some(value),
                "exec" => conf.exec = Some(value),
                "init-only" => conf.init_only = true,
                "module" => conf.module = Some(value.into()),
                "stock-module" => conf.stock_modules.push(value.into()),
                _ => return Err(unknown(&key, &value)),
            }
        }
        Ok(conf)
    }
}

fn unknown(key: &str, value: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{key}={value}"))
}

/// The `name=value` lines of a file.
fn settings(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once('=').ok_or_else(|| unknown(line, ""))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The same where the file need not be there.
fn settings_if_any(path: &Path) -> Result<Vec<(String, String)>> {
    match settings(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

fn main() {
    if std::process::id() != 1 {
        eprintln!("vm-init: I am not PID 1");
        std::process::exit(2);
    }
    // Without a report there is no verdict, which the runner takes for failure.
    if let Err(e) = run() {
        println!("# vm-init: {e}");
    }
    let e = sys::power_off();
    println!("# vm-init: power off: {e}");
}

fn run() -> Result<()> {
    let mounted = mount_all();
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    sys::become_stdio(&console)?;
    let mut machine = Machine { report: Report::open()?, log: Log::open()?, conf: Conf::read()? };
    machine.report.begin("init")?;
    machine.check("file systems", mounted)?;
    machine.run()?;
    machine.report.verdict()
}

fn mount_all() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place)?;
        sys::mount(kind, place, options)
            .map_err(|e| Error::new(e.kind(), format!("{kind} on {place}: {e}")))?;
    }
    Ok(())
}

struct Machine {
    report: Report,
    log: Log,
    conf: Conf,
}

impl Machine {
    fn run(&mut self) -> Result<()> {
        self.check("loopback", sys::loopback_up())?;
        let controllers = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
        self.check("memory and pids controllers", controllers)?;
        for module in self.conf.stock_modules.clone() {
            let loaded = sys::load_module(&module);
            self.check(&format!("load {}", module.display()), loaded)?;
        }
        let module = self.conf.module.clone();
        if let Some(module) = &module {
            self.steps(&service::LOAD, module)?;
        }
        let log = self.log_is_clean();
        self.check("the log is clean", log)?;

        if let Some(exec) = self.conf.exec.clone() {
            self.exec(&exec)?;
        } else if !self.conf.init_only {
            self.tests()?;
        }

        self.report.begin("init")?;
        if let Some(module) = &module {
            self.steps(&service::UNLOAD, module)?;
        }
        self.check("only a module from outside taints the kernel", service::taint())?;
        let log = self.log_is_clean();
        self.check("the log is clean to the end", log)
    }

    /// Reports each step at once: one may take the machine down.
    fn steps(&mut self, steps: &[service::Step], module: &Path) -> Result<()> {
        steps.iter().try_for_each(|(name, step)| self.check(name, step(module)))
    }

    fn check<E: std::fmt::Display>(
        &mut self,
        name: &str,
        result: std::result::Result<(), E>,
    ) -> Result<()> {
        self.report.row("init", &Row::of(name, result))
    }

    fn tests(&mut self) -> Result<()> {
        let filter = self.conf.filter.clone().unwrap_or_default();
        let programs: Vec<PathBuf> = programs(Path::new("/tests"))
            .into_iter()
            .filter(|p| name_of(p).contains(&filter))
            .collect();
        if programs.is_empty() {
            let reason = format!("/tests has no program with {filter:?} in its name");
            self.report.row("init", &Row::failed("test programs", reason))?;
        }
        for program in programs {
            let name = name_of(&program);
            self.report.begin(name)?;
            let rows = self.test(&program);
            self.rows(name, rows)?;
        }
        Ok(())
    }

    /// Runs one program of `/tests` and looks at what it left.
    fn test(&mut self, program: &Path) -> Vec<Row> {
        let beside = |ending: &str| {
            let mut path = program.as_os_str().to_owned();
            path.push(ending);
            settings_if_any(Path::new(&path))
        };
        let (wanted, mut environment) = match (beside(".params"), beside(".env")) {
            (Ok(wanted), Ok(environment)) => (wanted, environment),
            (Err(e), _) | (_, Err(e)) => return vec![Row::failed("settings", e.to_string())],
        };
        let parameters = match service::Parameters::set(&wanted) {
            Ok(parameters) => parameters,
            Err(row) => return vec![row],
        };
        let rust = program.extension().is_some_and(|e| e == "libtest");
        let arguments: &[&str] = if rust { &["--test-threads=1"] } else { &[] };
        if !environment.iter().any(|(key, _)| key == "TRAMPFD_TEST_BACKENDS") {
            environment.push(("TRAMPFD_TEST_BACKENDS".into(), "kernel".into()));
        }
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        let mut rows = match program::run(program, &arguments, &environment, self.conf.limit, false)
        {
            Ok(ran) if rust => results::libtest(&ran.text, &ran.end),
            Ok(ran) => results::tap(&ran.text, &ran.end),
            Err(e) => vec![Row::failed("start", e.to_string())],
        };
        rows.extend(parameters.restore());
        rows.push(Row::of("leaves nothing behind", self.nothing_behind()));
        rows
    }

    /// Runs one command that is no test; its end is the result.
    fn exec(&mut self, line: &str) -> Result<()> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().unwrap_or_default();
        let arguments: Vec<String> = words.collect();
        self.report.begin(&program)?;
        let ran = program::run(Path::new(&program), &arguments, &[], self.conf.limit, true);
        let row = match ran {
            Ok(ran) => {
                for line in ran.text.lines() {
                    self.report.out(line)?;
                }
                let good = ran.end.code == Some(0);
                Row::of("ends well", if good { Ok(()) } else { Err(ran.end.text) })
            }
            Err(e) => Row::failed("start", e.to_string()),
        };
        let left = Row::of("leaves nothing behind", self.nothing_behind());
        self.rows(&program, vec![row, left])
    }

    fn nothing_behind(&mut self) -> std::result::Result<(), String> {
        let log = self.log_is_clean();
        if self.conf.module.is_some() {
            service::nothing_left()?;
        }
        log
    }

    fn log_is_clean(&mut self) -> std::result::Result<(), String> {
        match self.log.complaints() {
            Ok(complaints) if complaints.is_empty() => Ok(()),
            Ok(complaints) => Err(complaints.join("; ")),
            Err(e) => Err(format!("/dev/kmsg: {e}")),
        }
    }

    fn rows(&mut self, program: &str, rows: Vec<Row>) -> Result<()> {
        rows.iter().try_for_each(|row| self.report.row(program, row))
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("")
}

/// The executable files of `folder`, sorted by name.
fn programs(folder: &Path) -> Vec<PathBuf> {
    // No folder holds no program; that none was found is said by the caller.
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    });
    found.sort();
    found
}
