//! `cargo xtask test`: every test there is, by part, with the time each part took.

use crate::args::Args;
use crate::deployment::{Deployment, KEYS, Serving, Shape};
use crate::dist;
use crate::failure::{Failure, Result};
use crate::fuzz;
use crate::oci;
use crate::process::{need_programs, run as run_program, say};
use crate::python::{environment, node_folder, npm_clients, postgres_folder, with_node};
use crate::workshop::Workshop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What `--help` prints.
pub(crate) const HELP: &str = "
Run everything that every change must pass. Installs what it needs under target/workshop/.

Usage: cargo xtask test [--only PART] [--full] [--long PART]

  --only PART  one part, for example while working on it
  --full       also the parts that need Debian packages beyond the README's first list; fails with the install
               line when one is missing. CI runs this
  --long PART  the long form of one part, in its own time

Parts:
  rust         cargo test over the workspace: the kept fuzz corpus, the reference fixtures and the strings too
  reference    (--only) of these, tokens of hostile strings against the Python library `tokenizers`
  clients      the openai Python and npm packages, huggingface_hub, transformers and the README's curl lines, in both
               shapes
  crashes      (--full) the binary killed and failed at some of its system calls on the store, by strace
  shells       (--full) completions read by the real bash, zsh and fish; shell scripts by shellcheck
  oci          (--full) skopeo and oras, which Go builds, pull and push models
  dist         (--full) makes the release artefacts and runs what it made

Long forms:
  rust         property tests with 4,096 cases each
  reference    one million strings
  crashes      the binary killed and failed at every system call on the store, and killed at 200 moments
  fuzz         every fuzz target for ten minutes (nightly toolchain and cargo-fuzz)

Examples:
  cargo xtask test
  cargo xtask test --only clients
  cargo test --profile ci -p helios-text       # one crate, while working on it";

/// How many strings the reference tokenizer is asked for.
const STRINGS: u32 = 100_000;

/// The Debian packages that `--full` needs, by the program each brings.
const FULL_PROGRAMS: [(&str, &str); 5] = [
    ("skopeo", "skopeo"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("shellcheck", "shellcheck"),
    ("strace", "strace"),
];

/// When a part runs without being named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Full,
    /// Never: another part covers it.
    Named,
}

/// A part of the test command.
struct Part {
    name: &'static str,
    when: When,
    run: fn(&Workshop) -> Result<()>,
}

impl Part {
    fn runs_unnamed(&self, full: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Full => full,
            When::Named => false,
        }
    }
}

const PARTS: [Part; 7] = [
    Part { name: "rust", when: When::Always, run: |workshop| rust(workshop, None) },
    Part { name: "reference", when: When::Named, run: |workshop| reference(workshop, STRINGS) },
    Part { name: "clients", when: When::Always, run: clients },
    Part { name: "crashes", when: When::Full, run: |workshop| crashes(workshop, "faults_at_some") },
    Part { name: "shells", when: When::Full, run: shells },
    Part { name: "oci", when: When::Full, run: |workshop| oci::test(workshop, &binary(workshop)?) },
    Part { name: "dist", when: When::Full, run: |workshop| dist::make(workshop, true) },
];

const LONG_PARTS: [Part; 4] = [
    Part { name: "rust", when: When::Named, run: |workshop| rust(workshop, Some("4096")) },
    Part { name: "reference", when: When::Named, run: |workshop| reference(workshop, 10 * STRINGS) },
    Part { name: "crashes", when: When::Named, run: |workshop| crashes(workshop, "faults_at_every") },
    Part { name: "fuzz", when: When::Named, run: |workshop| fuzz::fuzz_all(workshop, 600) },
];

/// Runs the chosen parts.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let full = args.flag("--full");
    let only = args.option("--only")?;
    let long = args.option("--long")?;
    args.finish()?;
    let chosen = match (&long, &only) {
        (Some(_), Some(_)) => return Err(Failure::new("--only and --long exclude each other")),
        (Some(name), None) => vec![named(&LONG_PARTS, name)?],
        (None, Some(name)) => vec![named(&PARTS, name)?],
        (None, None) => PARTS.iter().filter(|part| part.runs_unnamed(full)).collect(),
    };
    if chosen.iter().any(|part| part.when == When::Full) {
        need_programs(&FULL_PROGRAMS)?;
    }
    run_in_order(workshop, &chosen)
}

fn named<'a>(parts: &'a [Part], name: &str) -> Result<&'a Part> {
    parts.iter().find(|part| part.name == name).ok_or_else(|| {
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        Failure::new(format!("unknown part {name:?}")).hint(format!("the parts are {}", names.join(", ")))
    })
}

/// Runs each part and prints what each took; the first failure ends the run.
fn run_in_order(workshop: &Workshop, parts: &[&Part]) -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for part in parts {
        say(format_args!("part {}", part.name));
        let start = Instant::now();
        (part.run)(workshop).map_err(|failure| failure.within(format!("part {}", part.name)))?;
        times.push((part.name, start.elapsed()));
    }
    for (name, time) in times {
        say(format_args!("{name:<10} passed in {:>4} s", time.as_secs()));
    }
    Ok(())
}

fn rust(workshop: &Workshop, cases: Option<&str>) -> Result<()> {
    let mut cargo = cargo_test(workshop, STRINGS)?;
    if let Some(cases) = cases {
        cargo.env("PROPTEST_CASES", cases);
    }
    run_program(&mut cargo)
}

fn reference(workshop: &Workshop, strings: u32) -> Result<()> {
    run_program(cargo_test(workshop, strings)?.args(["--test", "suite", "strings::"]))
}

/// The tests that inject faults into the binary's system calls, those whose name begins so.
fn crashes(workshop: &Workshop, tests: &str) -> Result<()> {
    need_programs(&[("strace", "strace")])?;
    let mut cargo = cargo_test(workshop, STRINGS)?;
    run_program(cargo.args(["--test", "it", &format!("crashes::{tests}"), "--", "--ignored", "--nocapture"]))
}

/// `cargo test` with the model and the reference's strings. Always over the workspace, even for one test, because
/// cargo would build the dependencies again for the features of one crate.
fn cargo_test(workshop: &Workshop, strings: u32) -> Result<Command> {
    let model = workshop.test_model()?;
    let strings = reference_strings(workshop, &model, strings)?;
    let mut cargo = workshop.cargo();
    cargo.args(["test", "--profile", "ci", "--workspace", "--locked", "--no-fail-fast"]);
    cargo.env("HELIOS_TEST_MODEL", model).env("HELIOS_TEST_STRINGS", strings);
    cargo.env("HELIOS_TEST_POSTGRES", postgres_folder(workshop)?);
    let moto = environment(workshop, "moto", "python/requirements-moto.txt")?;
    cargo.env("HELIOS_TEST_MOTO", moto.join("bin/moto_server"));
    Ok(cargo)
}

/// A file of strings and the tokens that the Python library gives them, made anew when its scripts changed.
fn reference_strings(workshop: &Workshop, model: &Path, count: u32) -> Result<PathBuf> {
    let tools = environment(workshop, "python", "python/requirements-test.txt")?;
    let folder = workshop.place(&format!("strings-{count}"));
    let file = folder.join("strings");
    let mut inputs = workshop.read("python/requirements-test.txt")?;
    for script in ["tokenizer_strings.py", "hostile.py", "vocabulary.py"] {
        inputs.push_str(&workshop.read(&format!("python/reference/{script}"))?);
    }
    workshop.once(&folder, &inputs, || {
        say(format_args!("asking the Python library for the tokens of {count} strings"));
        let mut make = Command::new(tools.join("bin/python"));
        make.arg("-B").arg("python/reference/tokenizer_strings.py").arg("--model").arg(model);
        make.arg("--count").arg(count.to_string()).arg("--out").arg(&file);
        run_program(make.current_dir(&workshop.root))
    })?;
    Ok(file)
}

/// The real clients against a served Helios, in both shapes and with a key.
fn clients(workshop: &Workshop) -> Result<()> {
    need_programs(&[("curl", "curl")])?;
    let python = environment(workshop, "python", "python/requirements-test.txt")?.join("bin/python");
    let node = node_folder(workshop)?;
    let npm = npm_clients(workshop, &node)?;
    let binary = binary(workshop)?;
    // Small, so that files of a few megabytes go the way of large ones.
    let settings = &[("HELIOS_STORE__COMMIT_FILE_MAX", "4MiB")];
    let serving = Serving { settings, ..Serving::plain(workshop, &binary) };
    for shape in Shape::ALL {
        let served = serving.start(shape)?;
        run_program(&mut pytest(workshop, &python, "tests/clients/served", &served))?;
        run_program(with_node(&node, "node").arg("--test").current_dir(&npm).envs(served.variables()))?;
    }
    let keyed = Serving { keys: Some(KEYS), ..serving };
    for shape in Shape::ALL {
        let served = keyed.start(shape)?;
        run_program(&mut pytest(workshop, &python, "tests/clients/keyed", &served))?;
        // Of three processes, the one with the store takes no client's keys.
        if shape == Shape::OneProcess {
            run_program(&mut pytest(workshop, &python, "tests/clients/writing", &served))?;
        }
    }
    Ok(())
}

fn pytest(workshop: &Workshop, python: &Path, tests: &str, served: &Deployment) -> Command {
    let mut pytest = Command::new(python);
    pytest.args(["-B", "-m", "pytest", "-p", "no:cacheprovider", "--quiet", tests]);
    pytest.current_dir(&workshop.root).envs(served.variables());
    pytest
}

/// Completions as the real shells read them, and the repository's own scripts.
fn shells(workshop: &Workshop) -> Result<()> {
    need_programs(&FULL_PROGRAMS)?;
    let binary = binary(workshop)?;
    for shell in ["bash", "zsh", "fish"] {
        let script = workshop.place(&format!("completion.{shell}"));
        dist::write_completion(&binary, shell, &script)?;
        run_program(Command::new(shell).arg("-n").arg(&script))?;
    }
    run_program(Command::new("shellcheck").arg(".ci/run").current_dir(&workshop.root))
}

/// The binary in the profile of the tests, with the features that `cargo test` gives the dependencies.
pub(crate) fn binary(workshop: &Workshop) -> Result<PathBuf> {
    let mut cargo = workshop.cargo();
    run_program(cargo.args(["build", "--profile", "ci", "--workspace", "--bins", "--tests", "--locked"]))?;
    Ok(workshop.target.join("ci/helios"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_part() {
        for part in PARTS.iter().chain(&LONG_PARTS) {
            assert!(HELP.contains(&format!("\n  {:<13}", part.name)), "{}", part.name);
        }
    }

    #[test]
    fn an_unknown_part_is_refused_with_the_list() {
        let failure = named(&PARTS, "rsut").err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(failure.contains("rust, reference, clients"), "{failure}");
    }
}
