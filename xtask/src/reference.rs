//! `cargo xtask reference`: makes the committed fixtures again from implementations that are not ours.

use crate::args::Args;
use crate::deployment::{Serving, Shape};
use crate::failure::{Failure, Result};
use crate::process::{need_programs, run as run_program};
use crate::python::{environment, whole_environment};
use crate::workshop::Workshop;
use crate::{test, yardstick};
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Make the reference fixtures again and fail where they differ from the committed ones.

Usage: cargo xtask reference [--write] [--only PART]

  --write      replace the committed fixtures instead of comparing with them
  --only PART  one part

Parts:
  logits       log-probabilities in float32 and tokens of varied text on the default model: python/reference/make.py,
               with the packages pinned in python/requirements-reference.txt and the native llama.cpp of
               `cargo xtask yardstick`. Takes many minutes
  accelerate   what `accelerate estimate-memory` says of small models of every family, with HF_ENDPOINT at a served
               Helios: python/reference/accelerate_memory.py, with the packages pinned in
               python/requirements-accelerate.txt (1.7 GB on disk, torch without its CUDA libraries)
  elements     numbers and block sizes of ggml's element types: python/reference/element_types.py, with the packages
               pinned in python/requirements-reference.txt

`cargo xtask test` compares Helios with the committed files and does not need this.";

/// Makes the fixtures of one part, or checks them if they are not to be written.
type Make = fn(&Workshop, bool) -> Result<()>;

const PARTS: [(&str, Make); 3] = [("logits", logits), ("accelerate", accelerate), ("elements", elements)];

/// The figures of accelerate.
const ACCELERATE_FIXTURE: &str = "crates/model/tests/fixtures/accelerate.json";
/// The element types of ggml.
const ELEMENTS_FIXTURE: &str = "crates/storage/tests/fixtures/element_types.json";

/// Makes or checks the fixtures.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let write = args.flag("--write");
    let only = args.option("--only")?;
    args.finish()?;
    let chosen: Vec<_> =
        PARTS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)).collect();
    if chosen.is_empty() {
        let unknown = Failure::new(format!("unknown part {:?}", only.unwrap_or_default()));
        return Err(unknown.hint(format!("the parts are {}", PARTS.map(|(name, _)| name).join(", "))));
    }
    chosen.iter().try_for_each(|(_, make)| make(workshop, write))
}

fn logits(workshop: &Workshop, write: bool) -> Result<()> {
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

/// The real tool, asking a served Helios as its hub.
fn accelerate(workshop: &Workshop, write: bool) -> Result<()> {
    need_programs(&[("gcc", "gcc"), ("nm", "binutils")])?;
    let tools = whole_environment(workshop, "accelerate", "python/requirements-accelerate.txt")?;
    let python = tools.join("bin/python");
    run_program(
        Command::new(&python).args(["-B", "python/reference/cuda_stubs.py"]).current_dir(&workshop.root),
    )?;
    let binary = test::binary(workshop)?;
    let served = Serving::plain(workshop, &binary).start(Shape::OneProcess)?;
    let mut make = Command::new(&python);
    make.args(["-B", "python/reference/accelerate_memory.py", "--endpoint", served.address()]);
    make.args(["--out", ACCELERATE_FIXTURE]);
    if !write {
        make.arg("--check");
    }
    run_program(make.current_dir(&workshop.root))
}

/// The tables of ggml's own package.
fn elements(workshop: &Workshop, write: bool) -> Result<()> {
    let tools = environment(workshop, "reference", "python/requirements-reference.txt")?;
    let mut make = Command::new(tools.join("bin/python"));
    make.args(["-B", "python/reference/element_types.py", "--out", ELEMENTS_FIXTURE]);
    if !write {
        make.arg("--check");
    }
    run_program(make.current_dir(&workshop.root))
}
