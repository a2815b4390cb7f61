//! The peer: a native build of llama.cpp, made by `cargo xtask yardstick`, measured with its own bench programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::environment;

/// A build of llama.cpp.
pub(super) struct LlamaCpp {
    bin: PathBuf,
    model: PathBuf,
    threads: usize,
}

impl LlamaCpp {
    /// Finds the newest build, and refuses one that lacks this machine's vector instructions.
    pub(super) fn find(model: &Path, threads: usize) -> anyhow::Result<Self> {
        let missing = "no llama.cpp to compare with\nhint: build it with `cargo xtask yardstick`";
        let cache = environment::yardstick_dir().context(missing)?;
        let entries = cache.read_dir().context(missing)?;
        let builds = entries.filter_map(|entry| Some(entry.ok()?.path().join("build/bin")));
        let newest = builds.filter(|bin| bin.join("llama-bench").exists()).max().context(missing)?;
        let peer = Self { bin: newest, model: model.to_owned(), threads };
        peer.check_features()?;
        Ok(peer)
    }

    /// The build's own name for itself, such as `llama.cpp b11434`.
    pub(super) fn name(&self) -> String {
        let version =
            self.bin.ancestors().find_map(|folder| folder.file_name()?.to_str()?.strip_prefix("llama.cpp-"));
        format!("llama.cpp {}", version.unwrap_or("unknown"))
    }

    fn check_features(&self) -> anyhow::Result<()> {
        let folder = self.bin.parent().unwrap_or(&self.bin);
        let mut native = Command::new("grep");
        native.args(["-q", "GGML_NATIVE:BOOL=ON"]).arg(folder.join("CMakeCache.txt"));
        if !native.status().is_ok_and(|status| status.success()) {
            bail!(
                "the llama.cpp in {} was not built for this machine\nhint: `cargo xtask yardstick`",
                folder.display()
            );
        }
        Ok(())
    }

    /// Tokens per second of a prompt of `tokens`.
    pub(super) fn prefill(&self, tokens: usize) -> anyhow::Result<f64> {
        self.bench(&["-p", &tokens.to_string(), "-n", "0"])
    }

    /// Tokens per second of one sequence.
    pub(super) fn decode_one(&self, tokens: usize) -> anyhow::Result<f64> {
        self.bench(&["-p", "0", "-n", &tokens.to_string()])
    }

    fn bench(&self, args: &[&str]) -> anyhow::Result<f64> {
        let mut command = self.command("llama-bench");
        command.args(args).args(["-r", "1", "-o", "json"]);
        let report: Value =
            serde_json::from_slice(&output(command)?).context("llama-bench printed no JSON")?;
        report[0]["avg_ts"].as_f64().context("llama-bench printed no rate")
    }

    /// Tokens per second of `sequences` together.
    pub(super) fn decode_many(&self, sequences: usize, prompt: usize, tokens: usize) -> anyhow::Result<f64> {
        let context = sequences * (prompt + tokens);
        let mut command = self.command("llama-batched-bench");
        command.args([
            "-npp",
            &prompt.to_string(),
            "-ntg",
            &tokens.to_string(),
            "-npl",
            &sequences.to_string(),
        ]);
        command.args(["-c", &context.to_string(), "--output-format", "jsonl"]);
        let text = output(command)?;
        let text = String::from_utf8_lossy(&text);
        let row = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
        let rate = row.and_then(|row| row["speed_tg"].as_f64());
        rate.context("llama-batched-bench printed no rate")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-m").arg(&self.model).args(["-t", &self.threads.to_string()]);
        command
    }
}

fn output(mut command: Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("starting {} failed", command.get_program().display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().unwrap_or_default();
        bail!("{} failed: {last}", command.get_program().display());
    }
    Ok(output.stdout)
}
