//! `cargo xtask fuzz TARGET`: one fuzz target for a bounded time, on the nightly toolchain that cargo-fuzz needs.

use crate::args::Args;
use crate::failure::{Context, Failure, Result};
use crate::process::{capture, run as run_program, say};
use crate::workshop::Workshop;
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Fuzz one parser until the time is up or an input breaks it.

Usage: cargo xtask fuzz TARGET [--seconds N]

  TARGET       a target of fuzz/Cargo.toml; without it, the targets are listed
  --seconds N  how long, 60 by default

New inputs gather under target/workshop/fuzz/TARGET/. One that breaks the target is kept under fuzz/artifacts/; move
it to fuzz/corpus/TARGET/ with the fix. The kept corpus replays on the stable toolchain in `cargo xtask test`. Needs a
nightly toolchain and cargo-fuzz.";

/// Runs one target, or lists them.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let seconds = args.option("--seconds")?.unwrap_or_else(|| "60".to_owned());
    let seconds: u64 = seconds.parse().context(format!("--seconds {seconds:?}"))?;
    let target = args.positional();
    args.finish()?;
    let targets = targets(&workshop.read("fuzz/Cargo.toml")?);
    match target {
        None => targets.iter().for_each(|name| println!("{name}")),
        Some(name) if targets.contains(&name) => fuzz(workshop, &name, seconds)?,
        Some(name) => {
            return Err(Failure::new(format!("unknown fuzz target {name:?}"))
                .hint(format!("the targets are {}", targets.join(", "))));
        }
    }
    Ok(())
}

/// Every target for the same time, one after the other.
pub(crate) fn fuzz_all(workshop: &Workshop, seconds_each: u64) -> Result<()> {
    for target in targets(&workshop.read("fuzz/Cargo.toml")?) {
        fuzz(workshop, &target, seconds_each)?;
    }
    Ok(())
}

fn fuzz(workshop: &Workshop, target: &str, seconds: u64) -> Result<()> {
    need_tools()?;
    say(format_args!("fuzzing {target} for {seconds} s"));
    // What it finds goes to the first folder and stays out of the repository; the kept corpus only seeds it.
    let found = workshop.place("fuzz").join(target);
    std::fs::create_dir_all(&found).context(format!("creating {}", found.display()))?;
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", target]).arg(&found).arg(format!("fuzz/corpus/{target}"));
    command.args(["--", &format!("-max_total_time={seconds}")]);
    run_program(command.current_dir(&workshop.root).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO"))
}

fn need_tools() -> Result<()> {
    let clean = |words: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(words).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        capture(&mut command)
    };
    clean(&["+nightly", "--version"])
        .map_err(|_| Failure::new("no nightly toolchain").hint("rustup toolchain install nightly"))?;
    clean(&["fuzz", "--version"])
        .map_err(|_| Failure::new("cargo-fuzz is not installed").hint("cargo install --locked cargo-fuzz"))?;
    Ok(())
}

/// The names of the `[[bin]]` tables.
fn targets(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_binary = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_binary = line == "[[bin]]";
        } else if let (true, Some((key, value))) = (in_binary, line.split_once('='))
            && key.trim() == "name"
        {
            names.push(value.trim().trim_matches('"').to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_binaries_of_the_manifest() {
        let manifest = "[package]\nname = \"fuzz\"\n[[bin]]\nname = \"gguf\"\npath = \"a.rs\"\n[[bin]]\nname=\"safetensors\"";
        assert_eq!(targets(manifest), ["gguf", "safetensors"]);
    }
}
