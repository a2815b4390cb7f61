//! Python's pip as a child process, so that the user's own configuration (index, proxy, certificates) applies.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::RegistryError;
use crate::blocking::blocking;

/// Bytes of pip's messages that are kept for an error.
const MESSAGES_BYTES_MAX: u64 = 64 << 10;

/// A child that dies when it is dropped.
struct Running(Arc<Mutex<Child>>);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

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
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(python, &error))?;
    let messages = child.stderr.take();
    let running = Running(Arc::new(Mutex::new(child)));
    let child = Arc::clone(&running.0);
    let requirement = requirement.to_owned();
    blocking(move || {
        let mut text = Vec::new();
        if let Some(mut messages) = messages {
            // The end of its messages is the end of the child; the lock is free until then, for whoever kills it.
            let kept = messages.by_ref().take(MESSAGES_BYTES_MAX).read_to_end(&mut text);
            kept.and_then(|_| std::io::copy(&mut messages, &mut std::io::sink())).map_err(broken)?;
        }
        let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait().map_err(broken)?;
        judge(&requirement, status, &String::from_utf8_lossy(&text))
    })
    .await
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
            "Looking\nERROR: Could not find a version\nERROR: No matching distribution found for a==1\n";
        let error = judge("a==1", failed, messages).expect_err("failed").to_string();
        assert!(error.contains("No matching distribution found for a==1"), "{error}");
        assert!(judge("a==1", ExitStatus::from_raw(0), "").is_ok());
    }
}
