//! Python's pip as a child process, so that the user's own configuration (index, proxy, certificates) applies.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};

use crate::RegistryError;

/// Bytes of pip's messages that are kept for an error.
const MESSAGES_BYTES_MAX: u64 = 64 << 10;

/// Downloads the wheel of `requirement` into `dir`. Dropping the future ends pip.
pub(super) async fn download(python: &str, requirement: &str, dir: &Path) -> Result<(), RegistryError> {
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--progress-bar=off",
        ])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(dir)
        .arg(requirement)
        // pip unpacks and gathers in the temporary folder, which may be a small one in memory.
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| not_started(python, &error))?;
    let said = match child.stderr.take() {
        Some(messages) => read(messages).await.map_err(broken)?,
        None => String::new(),
    };
    let status = child.wait().await.map_err(broken)?;
    judge(requirement, status, &said)
}

/// The first of the messages; the others are read as well, so that they hold nobody up.
async fn read(mut messages: ChildStderr) -> std::io::Result<String> {
    let mut kept = Vec::new();
    (&mut messages).take(MESSAGES_BYTES_MAX).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut messages, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

fn broken(error: std::io::Error) -> RegistryError {
    RegistryError::Internal { problem: format!("following pip failed: {error}") }
}

fn not_started(python: &str, error: &std::io::Error) -> RegistryError {
    RegistryError::Pip {
        problem: format!("`{python}` could not be started: {error}"),
        hint: "install Python 3 with pip (Debian and Ubuntu: apt-get install python3 python3-pip)".to_owned(),
    }
}

fn judge(requirement: &str, status: ExitStatus, messages: &str) -> Result<(), RegistryError> {
    if status.success() {
        return Ok(());
    }
    if messages.contains("No module named pip") {
        return Err(RegistryError::Pip {
            problem: "Python has no pip".to_owned(),
            hint: "install it (Debian and Ubuntu: apt-get install python3-pip)".to_owned(),
        });
    }
    let lines = || messages.lines().rev().filter(|line| !line.trim().is_empty());
    let reason =
        lines().find(|line| line.starts_with("ERROR:")).or_else(|| lines().next()).unwrap_or("no message");
    let reason = reason.trim_start_matches("ERROR:").trim();
    Err(RegistryError::Pip {
        problem: format!("pip could not download {requirement} ({status}): {reason}"),
        hint: format!(
            "`python3 -m pip download --no-deps {requirement}` shows more; pip's own configuration applies"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::judge;

    #[test]
    fn a_missing_pip_and_a_missing_package_say_what_to_do() {
        let failed = ExitStatus::from_raw(256);
        let error = judge("a==1", failed, "/usr/bin/python3: No module named pip").expect_err("failed");
        assert!(error.to_string().contains("apt-get install python3-pip"), "{error}");
        let messages =
            ["Looking", "ERROR: Could not", "ERROR: No matching distribution found for a==1", "[notice]"];
        let messages = messages.join("\n");
        let error = judge("a==1", failed, &messages).expect_err("failed").to_string();
        assert!(error.contains("No matching distribution found for a==1"), "{error}");
        assert!(judge("a==1", ExitStatus::from_raw(0), "").is_ok());
    }
}
