//! Other processes: run to their end and watched, or started as servers and ended.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use helios_runtime::Clock;

use super::scratch::{Bench, Stop};
use super::usage::{Load, cpu_seconds_of, memory_bytes_max_of};

/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longest start of a server.
const START_MAX: Duration = Duration::from_secs(120);

/// What a process that ran to its end left.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) output: String,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    /// Most memory that was resident at a time, pages of files included (`VmHWM`).
    pub(super) memory_bytes_max: u64,
}

impl Finished {
    /// As a load of that many bytes.
    pub(super) fn load(&self, bytes: u64) -> Load {
        Load { bytes, seconds: self.seconds, cpu_seconds: self.cpu_seconds }
    }
}

/// A process that is killed when dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end; an interrupt of the bench kills it.
pub(super) fn run(bench: &Bench, command: &mut Command) -> anyhow::Result<Finished> {
    let (output, errors) = (bench.folder.join("child.out"), bench.folder.join("child.err"));
    let began = Clock.now();
    let mut child = spawn(command, &output, &errors)?;
    let (mut cpu_seconds, mut memory_bytes_max) = (0.0, 0);
    let status = loop {
        // What is seen last before the end counts: at most a look's time before it.
        let id = child.0.id();
        cpu_seconds = cpu_seconds_of(id).unwrap_or(cpu_seconds);
        memory_bytes_max = memory_bytes_max_of(id).unwrap_or(memory_bytes_max);
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        bench.stop.check()?;
        sleep(LOOK_EVERY);
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{}", last_error(&errors));
    }
    Ok(Finished { output: read(&output)?, seconds, cpu_seconds, memory_bytes_max })
}

/// A server on a free port of the loopback, killed when dropped.
pub(super) struct Server {
    _child: Guarded,
    /// `HOST:PORT`.
    pub(super) address: String,
    /// From the start of the process until it listened.
    pub(super) started: Duration,
}

/// Starts a Helios that says where it listens.
pub(super) fn serve(bench: &Bench, command: &mut Command) -> anyhow::Result<Server> {
    let (output, errors) = (bench.folder.join("server.out"), bench.folder.join("server.err"));
    let began = Clock.now();
    let mut child = spawn(command, &output, &errors)?;
    loop {
        let said = read(&errors)?;
        if let Some(line) = said.lines().find_map(|line| line.strip_prefix("listening on http://")) {
            let address = line.trim().to_owned();
            return Ok(Server { _child: child, address, started: began.elapsed() });
        }
        if child.0.try_wait()?.is_some() || began.elapsed() > START_MAX {
            bail!("the server did not start: {}", last_error(&errors));
        }
        bench.stop.check()?;
        sleep(Duration::from_millis(1));
    }
}

/// Starts a server that says nothing and listens at `address`.
pub(super) fn serve_at(
    stop: &Stop,
    command: &mut Command,
    address: &str,
    errors: &Path,
) -> anyhow::Result<Server> {
    let began = Clock.now();
    let mut child = spawn(command, &errors.with_extension("out"), errors)?;
    while std::net::TcpStream::connect(address).is_err() {
        if child.0.try_wait()?.is_some() || began.elapsed() > START_MAX {
            bail!("the server did not start: {}", last_error(errors));
        }
        stop.check()?;
        sleep(LOOK_EVERY);
    }
    Ok(Server { _child: child, address: address.to_owned(), started: began.elapsed() })
}

/// This very program, with nothing of the user's settings: its own store, no server to go to.
pub(super) fn helios(bench: &Bench, store: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command
        .arg("--store")
        .arg(store)
        .env("XDG_CONFIG_HOME", &bench.folder)
        .env("XDG_DATA_HOME", &bench.folder);
    command.env("HELIOS_HOST", "127.0.0.1:1").env_remove("HELIOS_CLUSTER_TOKEN").env_remove("HF_TOKEN");
    // It would read beside what is measured, and miss the blobs that the large registry does not have.
    command.env("HELIOS_STORE__SCRUB__MB_PER_SECOND", "0");
    Ok(command)
}

fn spawn(command: &mut Command, output: &Path, errors: &Path) -> anyhow::Result<Guarded> {
    command.stdin(Stdio::null()).stdout(create(output)?).stderr(create(errors)?);
    let child = command.spawn();
    child.map(Guarded).with_context(|| format!("cannot start {}", command.get_program().display()))
}

fn create(path: &Path) -> anyhow::Result<File> {
    Ok(OpenOptions::new().write(true).create(true).truncate(true).open(path)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    OpenOptions::new().read(true).open(path)?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line that a program wrote about what went wrong.
fn last_error(errors: &Path) -> String {
    let said = read(errors).unwrap_or_default();
    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").to_owned()
}
