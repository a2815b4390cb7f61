//! `cargo xtask reference`: makes the committed fixtures again from implementations that are not ours.

use crate::args::Args;
use crate::failure::Result;
use crate::process::run as run_program;
use crate::python::environment;
use crate::workshop::Workshop;
use crate::yardstick;
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Make the reference fixtures again and fail where they differ from the committed ones.

Usage: cargo xtask reference [--write]

  --write  replace the committed fixtures instead of comparing with them

The fixtures hold what implementations that are not ours compute on the default model: log-probabilities in
float32 and tokens of varied text. python/reference/make.py makes them, with the packages pinned in
python/requirements-reference.txt and the native llama.cpp of `cargo xtask yardstick`. Takes many minutes;
`cargo xtask test` compares Helios with the committed files and does not need this.";

/// Makes or checks the fixtures.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let write = args.flag("--write");
    args.finish()?;
    let llama_cpp = yardstick::llama_cpp(workshop)?;
    let model = workshop.test_model()?;
    let tools = environment(workshop, "reference", "python/requirements-reference.txt")?;
    let mut make = Command::new(tools.join("bin/python"));
    make.args(["-B", "python/reference/make.py"]).arg("--model").arg(model).arg("--llama-cpp").arg(llama_cpp);
    make.args(["--out", "."]);
    if !write {
        make.arg("--check");
    }
    run_program(make.current_dir(&workshop.root))
}
