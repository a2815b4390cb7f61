//! `helios doctor`: what this machine and the store's disk can do for Helios, and what to do about what they cannot.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use helios_kernels::Isa;
use helios_runtime::Clock;
use helios_storage::io::{IoBackend, IoChoice, IoEngine};
use helios_storage::probe::{FolderProbe, SystemProbe};
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::config::{Config, show_size};

/// Below this a store cannot hold a small model.
const FREE_BYTES_BAD: u64 = 1 << 30;
/// Below this a store cannot hold a model of eight billion parameters.
const FREE_BYTES_WARN: u64 = 20 << 30;
/// File systems that answer over a network or through another process.
const SLOW_FILE_SYSTEMS: [&str; 5] = ["nfs", "cifs", "9p", "fuse", "overlayfs"];

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    what: &'static str,
    level: Level,
    value: String,
    /// What to do, where something is to be done.
    hint: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, value: impl Into<String>) -> Self {
        Self { what, level: Level::Ok, value: value.into(), hint: None }
    }

    /// Lowers the finding, with what to do.
    fn but(mut self, level: Level, hint: impl Into<String>) -> Self {
        (self.level, self.hint) = (level, Some(hint.into()));
        self
    }

    fn warn_if(self, wrong: bool, hint: &str) -> Self {
        if wrong { self.but(Level::Warn, hint) } else { self }
    }
}

/// Looks, prints, and fails if something is bad.
pub(crate) fn doctor(config: &Config, args: &DoctorArgs) -> anyhow::Result<()> {
    let mut findings = machine(&SystemProbe::new());
    findings.extend(backend(config.store.io));
    findings.extend(store(config.store_dir()?, args.measure));
    if args.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "findings": findings }))?);
    } else {
        print(&findings);
    }
    match findings.iter().filter(|finding| finding.level == Level::Bad).count() {
        0 => Ok(()),
        count => bail!("{count} of {} findings are bad", findings.len()),
    }
}

fn print(findings: &[Finding]) {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for Finding { what, level, value, hint } in findings {
        let level = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Bad => "BAD",
        };
        println!("{level:<5} {what:<width$}  {value}");
        if let Some(hint) = hint {
            println!("{:>6}{:<width$}  hint: {hint}", "", "");
        }
    }
}

fn machine(system: &SystemProbe) -> Vec<Finding> {
    let processor = Isa::detect().name();
    let portable = processor == "portable";
    let huge_pages = system.huge_pages.as_deref().unwrap_or("not in this kernel");
    let lock = system.memlock_bytes.map_or_else(|| "no limit".to_owned(), show_size);
    let (uring, forbidden) = match system.io_uring_disabled {
        None => ("no switch in this kernel", false),
        Some(0) => ("allowed", false),
        Some(1) => ("for the privileged alone", true),
        Some(_) => ("forbidden", true),
    };
    vec![
        Finding::ok("kernel", system.kernel.clone()),
        Finding::ok("processor", processor)
            .warn_if(portable, "no vector instructions that Helios knows: answers will be slow"),
        Finding::ok("memory nodes", system.numa_nodes.to_string()),
        Finding::ok("huge pages", huge_pages)
            .warn_if(huge_pages == "never", "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`"),
        Finding::ok("io_uring", uring).warn_if(forbidden, "`sysctl kernel.io_uring_disabled=0` allows it"),
        Finding::ok("locked memory", lock),
    ]
}

/// The engine that this process would read with.
fn backend(choice: crate::config::IoSetting) -> Vec<Finding> {
    let report = match IoEngine::shared() {
        Ok(engine) => engine.report().clone(),
        Err(error) => {
            let text = error.to_string();
            let (problem, hint) = text.split_once("\nhint: ").unwrap_or((&text, "set `store.io` to `auto`"));
            return vec![Finding::ok("I/O backend", problem).but(Level::Bad, hint)];
        }
    };
    let fell_back = report.backend == IoBackend::Threads && IoChoice::from(choice) == IoChoice::Auto;
    let mut findings = vec![
        Finding::ok("I/O backend", format!("{} ({})", report.backend, report.reason))
            .warn_if(fell_back, "loads take more processor time by threads; allow io_uring to this process"),
    ];
    if report.backend == IoBackend::IoUring {
        let registered = if report.registered { "registered" } else { "not registered" };
        let hint = "raise the limit on locked memory (`ulimit -l`) to 64 MiB or more";
        findings.push(Finding::ok("I/O buffers", registered).warn_if(!report.registered, hint));
    }
    findings
}

fn store(dir: &Path, measure: bool) -> Vec<Finding> {
    let probe = match FolderProbe::new(dir) {
        Ok(probe) => probe,
        Err(error) => {
            let hint = "choose another folder with --store or store.dir";
            let problem = error.to_string();
            let problem = problem.lines().next().unwrap_or_default().to_owned();
            return vec![Finding::ok("store", problem).but(Level::Bad, hint)];
        }
    };
    let slow = SLOW_FILE_SYSTEMS.contains(&probe.file_system.as_str());
    let mut findings = vec![
        Finding::ok("store", format!("{} on {}", dir.display(), probe.file_system))
            .warn_if(slow, "models load at the speed of a local disk from ext4, xfs or btrfs"),
        free_space(&probe),
        Finding::ok("shared extents", if probe.reflink { "yes" } else { "no, imports copy" }),
        Finding::ok("direct I/O", if probe.direct { "yes" } else { "no" })
            .warn_if(!probe.direct, "cold files are read through the page cache, slower"),
    ];
    if measure {
        findings.push(bandwidth(&probe));
    }
    findings
}

fn free_space(probe: &FolderProbe) -> Finding {
    let value = format!("{} of {}", show_size(probe.free_bytes), show_size(probe.total_bytes));
    let finding = Finding::ok("free space", value);
    let hint = "`helios gc` frees what no tag refers to";
    match probe.free_bytes {
        ..FREE_BYTES_BAD => finding.but(Level::Bad, hint),
        FREE_BYTES_BAD..FREE_BYTES_WARN => finding.but(Level::Warn, hint),
        _ => finding,
    }
}

fn bandwidth(probe: &FolderProbe) -> Finding {
    let began = Clock.now();
    let now = || -> Duration { Clock.now() - began };
    let rate = IoEngine::shared().map_err(|error| error.to_string());
    match rate.and_then(|engine| probe.read_rate(engine, &now).map_err(|error| error.to_string())) {
        Ok(rate) => Finding::ok("sequential read", format!("{:.2} GB/s", rate / 1e9)),
        Err(problem) => {
            Finding::ok("sequential read", problem).but(Level::Warn, "the store's disk must take 256 MiB")
        }
    }
}
