//! Running other programs: each one is shown before it starts, and its failure carries the command line.

use crate::failure::{Context, Failure, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prints one line of what the workshop is doing, on standard error, where the tools' own progress goes.
pub(crate) fn say(line: impl std::fmt::Display) {
    eprintln!("xtask: {line}");
}

/// Shows and runs a command with the caller's output; a non-zero exit is a failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("  $ {shown}");
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{shown}` ended with {status}"))) }
}

/// Runs a command silently and returns its standard output; a failure carries its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return String::from_utf8(output.stdout)
            .context(format!("reading the output of `{}`", show(command)));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("`{}` ended with {}\n{}", show(command), output.status, complaint.trim())))
}

/// The full path of a program on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Fails with one install line that names every Debian package whose program is missing.
pub(crate) fn need_programs(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = needed.iter().filter(|(program, _)| find_program(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Err(Failure::new(format!("missing on this machine: {}", programs.join(", ")))
        .hint(format!("apt-get install -y --no-install-recommends {}", packages.join(" "))))
}

/// The SHA-256 of a file in hexadecimal, by `sha256sum` from coreutils.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let line = capture(Command::new("sha256sum").arg("--binary").arg(path))?;
    match line.trim_start_matches('\\').split_whitespace().next() {
        Some(hex) if hex.len() == 64 => Ok(hex.to_owned()),
        _ => Err(Failure::new(format!("sha256sum printed {line:?} for {}", path.display()))),
    }
}

/// Fails unless the file has this SHA-256.
pub(crate) fn check_sha256(path: &Path, expected: &str) -> Result<()> {
    let found = sha256(path)?;
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(format!("{} has SHA-256 {found}, expected {expected}", path.display()))
        .hint("delete the file and run the command again"))
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("starting `{}`: {error}", command.get_program().to_string_lossy()))
}

/// The command line as a person would type it; words with blanks are quoted.
fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains([' ', '\n', '"', '\'', '$', '*']) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        word.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named() {
        let failure =
            capture(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err().to_string();
        assert!(failure.contains("sh -c 'echo no >&2; exit 3'"), "{failure}");
        assert!(failure.ends_with("\nno"), "{failure}");
    }

    #[test]
    fn missing_programs_give_the_install_line() {
        let failure = need_programs(&[("sh", "dash"), ("no-such-program", "some-package")]).unwrap_err();
        assert!(failure.to_string().ends_with("apt-get install -y --no-install-recommends some-package"));
    }

    #[test]
    fn digests_are_those_of_coreutils() {
        let path = std::env::temp_dir().join(format!("xtask-sha256-{}", std::process::id()));
        std::fs::write(&path, b"abc").unwrap();
        let digest = sha256(&path).unwrap();
        assert!(check_sha256(&path, "00").is_err());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
