//! Starts the binary, waits for its address, and ends by pid what it started.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The model that tests serve.
pub(crate) const MODEL: &str = "smollm2:135m-instruct";

/// How long anything may take before a test calls it stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The GGUF file of [`MODEL`].
pub(crate) fn model_file() -> PathBuf {
    let path = std::env::var_os("HELIOS_TEST_MODEL");
    PathBuf::from(path.expect("HELIOS_TEST_MODEL is not set: run the tests by `cargo xtask test`"))
}

/// The binary with a store of its own and nothing inherited from the user's configuration.
pub(crate) fn helios(store: &Path) -> Command {
    let mut command = isolated(env!("CARGO_BIN_EXE_helios"), store);
    command.arg("--store").arg(store);
    command
}

/// A program in whose processes the binary finds no configuration and no running server of the user's.
pub(crate) fn isolated(program: &str, store: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELIOS_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("COLUMNS")
        .env("XDG_CONFIG_HOME", store.join("no-config"))
        .env("HELIOS_HOST", "127.0.0.1:1")
        .stdin(Stdio::null());
    command
}

/// Runs a verb to its end.
pub(crate) fn verb(store: &Path, args: &[&str]) -> Output {
    helios(store).args(args).output().expect("the binary starts")
}

/// Runs a verb that has to succeed, and returns its standard output.
pub(crate) fn verb_ok(store: &Path, args: &[&str]) -> String {
    let output = verb(store, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Runs a verb that has to fail, and returns its standard error.
pub(crate) fn refused(store: &Path, args: &[&str]) -> String {
    let output = verb(store, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).expect("messages are UTF-8")
}

/// A store that holds the test model.
pub(crate) fn store_with_model() -> tempfile::TempDir {
    let store = tempfile::tempdir().expect("a temporary folder");
    let source = format!("file:{}", model_file().display());
    verb_ok(store.path(), &["pull", &source, "--as", MODEL]);
    store
}

/// A process that listens; ended when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    log: PathBuf,
}

impl Server {
    /// Starts `command` and waits until it says where it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let log =
            tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path().keep().expect("kept");
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (sender, receiver) = mpsc::channel();
        let path = log.clone();
        std::thread::spawn(move || {
            let mut file = std::fs::File::create(path).expect("a log file");
            for line in stderr.lines().map_while(Result::ok) {
                use std::io::Write;
                let _ = writeln!(file, "{line}");
                if let Some((_, url)) = line.split_once("listening on ") {
                    let _ = sender.send(url.trim().trim_end_matches(['"', '}']).to_owned());
                }
            }
        });
        let url = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("no address: {}", std::fs::read_to_string(&log).unwrap_or_default())
        });
        Self { child, url, log }
    }

    /// Everything the process has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// A whole Helios: where to send requests, and the processes behind it in the order they started.
pub(crate) struct Deployment {
    pub(crate) url: String,
    pub(crate) parts: Vec<Server>,
    pub(crate) store: tempfile::TempDir,
}

impl Deployment {
    /// `helios serve`.
    pub(crate) fn one_process(models: &[&str], store: tempfile::TempDir) -> Self {
        let mut command = helios(store.path());
        command.args(["serve", "--port", "0"]);
        models.iter().for_each(|model| {
            command.args(["--model", model]);
        });
        let server = Server::start(command);
        Self { url: server.url.clone(), parts: vec![server], store }.ready()
    }

    /// `helios registry`, a `helios worker` for each model, `helios proxy`.
    pub(crate) fn three_processes(models: &[&str], store: tempfile::TempDir) -> Self {
        let listen = ["--listen", "127.0.0.1:0"];
        let mut command = helios(store.path());
        command.arg("registry").args(listen);
        let registry = Server::start(command);
        let registry_url = registry.url.clone();
        let mut parts = vec![registry];
        for (index, model) in models.iter().enumerate() {
            let mut command = helios(&store.path().join(format!("worker-{index}")));
            command.args(["worker", "--registry", &registry_url, "--model", model]).args(listen);
            parts.push(Server::start(command));
        }
        let mut command = helios(&store.path().join("proxy"));
        command.args(["proxy", "--registry", &registry_url]).args(listen);
        let proxy = Server::start(command);
        let url = proxy.url.clone();
        parts.push(proxy);
        Self { url, parts, store }.ready()
    }

    /// Both shapes of the same thing.
    pub(crate) fn both(models: &[&str]) -> [Self; 2] {
        [Self::one_process(models, store_with_model()), Self::three_processes(models, store_with_model())]
    }

    fn ready(self) -> Self {
        wait_until("readiness", || get(&format!("{}/ready", self.url)).0 == 200);
        self
    }

    /// POSTs JSON; returns status and body.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        post(&format!("{}{path}", self.url), body)
    }

    /// GETs; returns status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(&format!("{}{path}", self.url))
    }

    /// A greedy chat answer to `question`.
    pub(crate) fn ask(&self, model: &str, question: &str, max_tokens: u32) -> Value {
        let body = chat_body(model, question, max_tokens);
        let (status, answer) = self.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

/// A greedy chat request.
pub(crate) fn chat_body(model: &str, question: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": max_tokens,
        "temperature": 0,
    })
}

/// Waits for a condition that some process has to bring about, and prints how long that took.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{what} came after {:?}", began.elapsed());
}

fn curl(args: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"])
        .args(args)
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("curl prints a status");
    (status.parse().expect("a status"), body.to_owned())
}

/// GETs `url`; status 0 where nobody answers.
pub(crate) fn get(url: &str) -> (u16, String) {
    curl(&[url])
}

/// POSTs `body` to `url`.
pub(crate) fn post(url: &str, body: &Value) -> (u16, Value) {
    let (status, text) =
        curl(&["--header", "content-type: application/json", "--data", &body.to_string(), url]);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The `data:` lines of a streamed answer.
pub(crate) fn stream(url: &str, body: &Value) -> Vec<String> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let (status, text) =
        curl(&["--header", "content-type: application/json", "--data", &body.to_string(), url]);
    assert_eq!(status, 200, "{text}");
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}
