//! The workshop: `cargo xtask COMMAND` is everything that is run on the repository besides cargo itself.
//!
//! What it is not: part of Helios. It uses the standard library only, so that it is there in seconds, and it
//! installs what a command needs under `target/workshop/`. Every command is idempotent: a second run finds
//! what the first one made.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // the seams of `helios-runtime` are for what is served and simulated

mod args;
mod deny;
mod deployment;
mod dist;
mod failure;
mod fuzz;
mod oci;
mod process;
mod python;
mod reference;
mod test;
mod tidy;
mod workshop;
mod yardstick;

use args::Args;
use failure::{Failure, Result};
use std::process::ExitCode;
use workshop::Workshop;

/// One subcommand: its help is what `cargo xtask NAME --help` prints.
struct Command {
    name: &'static str,
    summary: &'static str,
    help: &'static str,
    run: fn(&Workshop, Args) -> Result<()>,
}

const COMMANDS: [Command; 7] = [
    Command {
        name: "test",
        summary: "everything that every change must pass",
        help: test::HELP,
        run: test::run,
    },
    Command {
        name: "tidy",
        summary: "the house's ratchet on length, layers, words",
        help: tidy::HELP,
        run: tidy::run,
    },
    Command {
        name: "deny",
        summary: "licences, bans and sources of all dependencies",
        help: deny::HELP,
        run: deny::run,
    },
    Command {
        name: "reference",
        summary: "make the reference fixtures again, fail on drift",
        help: reference::HELP,
        run: reference::run,
    },
    Command {
        name: "yardstick",
        summary: "build the peers that benches compare with",
        help: yardstick::HELP,
        run: yardstick::run,
    },
    Command { name: "fuzz", summary: "fuzz one of the parsers", help: fuzz::HELP, run: fuzz::run },
    Command { name: "dist", summary: "make the release artefacts", help: dist::HELP, run: dist::run },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[String]) -> Result<()> {
    let name = match words.first().map(String::as_str) {
        None | Some("help" | "--help" | "-h") => {
            print!("{}", overview());
            return Ok(());
        }
        Some(name) => name,
    };
    let command = COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| {
        Failure::new(format!("unknown command {name:?}")).hint("`cargo xtask` alone lists the commands")
    })?;
    let rest = &words[1..];
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        println!("{}", command.help.trim());
        return Ok(());
    }
    (command.run)(&Workshop::locate()?, Args::new(rest))
}

/// The list of commands that `cargo xtask` alone prints.
fn overview() -> String {
    let mut text =
        String::from("The workshop of Helios.\n\nUsage: cargo xtask COMMAND [OPTIONS]\n\nCommands:\n");
    for command in &COMMANDS {
        text.push_str(&format!("  {:<10} {}\n", command.name, command.summary));
    }
    text.push_str("\n`cargo xtask COMMAND --help` tells more of each.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_help_that_names_it() {
        for command in &COMMANDS {
            assert!(command.help.contains(&format!("cargo xtask {}", command.name)), "{}", command.name);
            assert!(overview().contains(command.name));
        }
    }

    #[test]
    fn an_unknown_command_is_refused_with_a_hint() {
        let failure = dispatch(&["tets".to_owned()]).unwrap_err();
        assert!(failure.to_string().contains("unknown command \"tets\""));
        assert!(failure.to_string().contains("hint:"));
    }
}
