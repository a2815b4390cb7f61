//! Served Helios for tests: the processes of one shape, each on a free port, ended when the value is dropped.

use crate::failure::{Context, Failure, Result};
use crate::process::{run, say};
use crate::workshop::Workshop;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The name that the built-in catalogue gives the default model.
pub(crate) const MODEL_NAME: &str = "smollm2:135m-instruct";
/// How long a process may take to print its address and the proxy to become ready.
const START_SECONDS_MAX: u64 = 120;
/// What every listener prints before its address.
const ANNOUNCEMENT: &str = "listening on http://";

/// The two ways to run the same parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `helios serve`.
    OneProcess,
    /// `helios registry`, `helios worker` and `helios proxy`.
    ThreeProcesses,
}

impl Shape {
    /// Every shape; the same tests pass in each.
    pub(crate) const ALL: [Self; 2] = [Self::OneProcess, Self::ThreeProcesses];

    /// The word for file names and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneProcess => "one-process",
            Self::ThreeProcesses => "three-processes",
        }
    }
}

/// The keys of a server that wants some: its own, and those of a user who may write models and of one who may not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) own: &'static str,
    pub(crate) writer: &'static str,
    pub(crate) reader: &'static str,
}

/// The keys of every server that wants some.
pub(crate) const KEYS: Keys = Keys { own: "a-key-for-tests", writer: "may-write", reader: "may-read" };

/// What is served, and how: the default model out of a store that all deployments share.
#[derive(Clone, Copy)]
pub(crate) struct Serving<'a> {
    /// The checkout whose workshop holds the store and the logs.
    pub(crate) workshop: &'a Workshop,
    /// The `helios` program.
    pub(crate) binary: &'a Path,
    /// The keys that clients must carry, if any.
    pub(crate) keys: Option<Keys>,
    /// More settings, as environment variables.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

impl<'a> Serving<'a> {
    /// As it comes: open to everybody on this machine.
    pub(crate) fn plain(workshop: &'a Workshop, binary: &'a Path) -> Self {
        Self { workshop, binary, keys: None, settings: &[] }
    }

    /// Starts the shape and waits until it produced a token.
    pub(crate) fn start(&self, shape: Shape) -> Result<Deployment> {
        let store = self.workshop.place("store");
        run(self.helios("pull").arg(MODEL_NAME).arg("--store").arg(&store))?;
        let mut deployment = Deployment { parts: Vec::new(), keys: self.keys };
        match shape {
            Shape::OneProcess => self.start_one(&mut deployment, &store)?,
            Shape::ThreeProcesses => self.start_three(&mut deployment, &store)?,
        }
        deployment.wait_until_ready()?;
        say(format_args!("{} serves at {}", shape.name(), deployment.address()));
        Ok(deployment)
    }

    fn start_one(&self, deployment: &mut Deployment, store: &Path) -> Result<()> {
        let mut serve = self.helios("serve");
        serve.args(["--port", "0", "--model", MODEL_NAME, "--store"]).arg(store);
        deployment.add(serve, self.log("one-process", "serve")?)
    }

    fn start_three(&self, deployment: &mut Deployment, store: &Path) -> Result<()> {
        let log = |part| self.log("three-processes", part);
        let mut registry = self.helios("registry");
        registry.args(["--listen", "127.0.0.1:0", "--store"]).arg(store);
        deployment.add(registry, log("registry")?)?;
        let joined = ["--listen", "127.0.0.1:0", "--registry", deployment.address()].map(str::to_owned);
        let mut worker = self.helios("worker");
        worker.args(&joined).args(["--model", MODEL_NAME]);
        deployment.add(worker, log("worker")?)?;
        let mut proxy = self.helios("proxy");
        proxy.args(&joined);
        deployment.add(proxy, log("proxy")?)
    }

    /// The program with one verb, deaf to this machine's configuration and to a server that runs on it.
    fn helios(&self, verb: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.arg(verb).env("XDG_CONFIG_HOME", self.workshop.place("no-configuration"));
        command.env("HELIOS_HOST", "127.0.0.1:9");
        if let Some(Keys { own, writer, reader }) = self.keys {
            let named = format!(
                r#"[{{name="writer",key="{writer}",write_models=true}},{{name="reader",key="{reader}"}}]"#
            );
            command.env("HELIOS_PROXY__API_KEY", own).env("HELIOS_PROXY__KEYS", named);
        }
        command.envs(self.settings.iter().copied());
        command
    }

    fn log(&self, shape: &str, part: &str) -> Result<PathBuf> {
        let folder = self.workshop.place("logs").join(shape);
        fs::create_dir_all(&folder).context(format!("creating {}", folder.display()))?;
        Ok(folder.join(format!("{part}.log")))
    }
}

/// Running processes, the last one started being the one that clients talk to.
pub(crate) struct Deployment {
    parts: Vec<Part>,
    keys: Option<Keys>,
}

impl Deployment {
    /// The address that clients use, `http://127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.parts.last().map_or("", |part| part.address.as_str())
    }

    /// The address of the part that has the store, which is the first one started.
    pub(crate) fn registry_address(&self) -> &str {
        self.parts.first().map_or("", |part| part.address.as_str())
    }

    /// What the client tests read from their environment.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("HELIOS_URL", self.address().to_owned()),
            ("HELIOS_REGISTRY_URL", self.registry_address().to_owned()),
            ("HELIOS_MODEL", MODEL_NAME.to_owned()),
        ];
        if let Some(Keys { own, writer, reader }) = self.keys {
            let named =
                [("HELIOS_TEST_KEY", own), ("HELIOS_TEST_WRITER", writer), ("HELIOS_TEST_READER", reader)];
            variables.extend(named.map(|(variable, key)| (variable, key.to_owned())));
        }
        variables
    }

    fn add(&mut self, command: Command, log: PathBuf) -> Result<()> {
        self.parts.push(Part::start(command, log)?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let url = format!("{}/ready", self.address());
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--fail",
            "--output",
            "/dev/null",
            "--retry-all-errors",
            "--retry-connrefused",
        ]);
        curl.args(["--retry-delay", "1", "--retry", &START_SECONDS_MAX.to_string(), &url]);
        let status = curl.status().context("starting `curl`")?;
        if status.success() {
            return Ok(());
        }
        let logs: Vec<_> = self.parts.iter().map(|part| part.log.display().to_string()).collect();
        Err(Failure::new(format!("{url} did not become ready in {START_SECONDS_MAX} s"))
            .hint(format!("the logs are {}", logs.join(", "))))
    }
}

/// One process, its address and its log.
struct Part {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Part {
    /// Starts the process and waits for the line that says where it listens.
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let verb = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        let errors = fs::File::create(&log).context(format!("creating {}", log.display()))?;
        let lines = errors.try_clone().context(format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(lines).stderr(errors);
        let child = command.spawn().context(format!("starting `helios {verb}`"))?;
        let mut part = Self { child, address: String::new(), log };
        part.address = part.wait_for_address(&verb)?;
        Ok(part)
    }

    fn wait_for_address(&mut self, verb: &str) -> Result<String> {
        for _ in 0..START_SECONDS_MAX * 10 {
            let text = fs::read_to_string(&self.log).context(format!("reading {}", self.log.display()))?;
            if let Some(address) = announced_address(&text) {
                return Ok(address);
            }
            if let Some(status) = self.child.try_wait().context(format!("waiting for `helios {verb}`"))? {
                return Err(Failure::new(format!("`helios {verb}` ended with {status}\n{}", text.trim())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure::new(format!("`helios {verb}` printed no `{ANNOUNCEMENT}…` in {START_SECONDS_MAX} s"))
            .hint(format!("its log is {}", self.log.display())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the first line that announces one.
fn announced_address(text: &str) -> Option<String> {
    let at = text.find(ANNOUNCEMENT)? + ANNOUNCEMENT.len();
    let rest = &text[at..];
    // The file may end in the middle of the line; a terminated word is whole.
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]-".contains(c)))?;
    Some(format!("http://{}", &rest[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_address_once_its_line_is_whole() {
        assert_eq!(announced_address("starting\nlistening on http://127.0.0.1:80"), None);
        let text = "listening on http://127.0.0.1:8080\nlistening on http://127.0.0.1:9\n";
        assert_eq!(announced_address(text).unwrap(), "http://127.0.0.1:8080");
        let json = "{\"message\":\"listening on http://[::1]:81\"}\n";
        assert_eq!(announced_address(json).unwrap(), "http://[::1]:81");
    }

    #[test]
    fn a_process_that_ends_early_fails_with_what_it_printed() {
        let log = std::env::temp_dir().join(format!("xtask-part-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such model >&2; exit 4"]);
        let failure = Part::start(command, log.clone()).err().map(|failure| failure.to_string());
        fs::remove_file(log).unwrap();
        assert!(failure.is_some_and(|text| text.contains("no such model")));
    }
}
