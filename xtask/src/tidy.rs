//! `cargo xtask tidy`: the house's ratchet. Each rule is one function from a file to findings; the allow-list
//! `xtask/tidy.txt` may only shrink.

mod allowed;
mod layers;
mod lengths;
mod patterns;
mod source;
mod words;

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::process::{capture, say};
use crate::workshop::Workshop;
use allowed::Allowed;
use source::RustSource;
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Check the house's rules, docs/style.md, as far as a program can.

Usage: cargo xtask tidy

  lengths   functions up to 70 lines, files up to 500 lines of code without tests; a file over 1,000 says why in a
            `//! Length:` line. What is longer stands in xtask/tidy.txt with its length; an entry may only shrink,
            and a new one needs a reason in review
  docs      a Rust file starts with `//!`, a Python file with a docstring
  layers    crates depend downwards only (docs/architecture.md); `unsafe` stays in helios-kernels and helios-storage
  patterns  no unwrap() outside tests, no todo!, unimplemented!, dbg!, commented-out code, notes without an issue,
            no files named utils, common, misc, helpers, core
  words     no paths of one machine, no registry hosts, no addresses in lock files";

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

/// Runs every rule over every file that git knows or would add.
pub(crate) fn run(workshop: &Workshop, args: Args) -> Result<()> {
    args.finish()?;
    let files = repository_files(workshop)?;
    let mut allowed = Allowed::parse(&workshop.read(allowed::PATH)?)?;
    let mut findings = Vec::new();
    for (path, text) in &files {
        findings.extend(check_file(path, text, &mut allowed));
    }
    findings.extend(layers::check(&files));
    findings.extend(allowed.unused());
    findings.extend(allowed.grown_since(&committed_allow_list(workshop)));
    for finding in &findings {
        println!("{}:{}: {}", finding.path, finding.line, finding.message);
    }
    match findings.len() {
        0 => {
            say(format_args!("tidy: {} files, nothing to say", files.len()));
            Ok(())
        }
        count => Err(Failure::new(format!("tidy found {count} broken rules"))
            .hint("`cargo xtask tidy --help` tells the rules, docs/style.md their reasons")),
    }
}

fn check_file(path: &str, text: &str, allowed: &mut Allowed) -> Vec<Finding> {
    let mut findings = words::check(path, text);
    if path.ends_with(".rs") {
        let source = RustSource::new(path, text);
        findings.extend(lengths::check(&source, allowed));
        findings.extend(patterns::check(&source));
    }
    findings
}

/// Path and text of every text file; a binary file has no rules.
fn repository_files(workshop: &Workshop) -> Result<Vec<(String, String)>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(&workshop.root);
    let mut files = Vec::new();
    for path in capture(&mut git)?.lines() {
        // A file that was removed but not yet committed, or one that is not text, is no file here.
        if let Ok(text) = std::fs::read_to_string(workshop.root.join(path)) {
            files.push((path.to_owned(), text));
        }
    }
    Ok(files)
}

/// The allow-list of the last commit, empty before the first.
fn committed_allow_list(workshop: &Workshop) -> String {
    let object = format!("HEAD:{}", allowed::PATH);
    capture(Command::new("git").args(["show", &object]).current_dir(&workshop.root)).unwrap_or_default()
}
