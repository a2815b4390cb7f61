//! `cargo xtask dist`: the release artefacts, byte for byte the same for the same source and toolchain.

mod check;
mod oci;
mod stage;

use crate::args::Args;
use crate::failure::{Context, Failure, Result};
use crate::process::{capture, run as run_program, say};
use crate::workshop::{Workshop, empty_folder, remove_if_there};
use oci::ImageLayout;
use stage::Stage;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `--help` prints.
pub(crate) const HELP: &str = "
Make the release artefacts under target/artefacts/.

Usage: cargo xtask dist [--check]

  --check  also run what was made: the program from the unpacked tarball and from the image's layer, a served
           completion, every digest of the image layout, and the layout as skopeo reads it

Makes, from a build in profile `dist`:
  helios-VERSION-x86_64-linux.tar.gz   the stripped program, licence, README, completions
  helios-VERSION-x86_64-linux.oci/     an OCI image layout: the program, the shared libraries that it loads,
                                       and the certificate authorities of this machine
  helios-VERSION-x86_64-linux.oci.tar  the same layout as one file";

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The artefacts of one build.
pub(crate) struct Artefacts {
    /// `helios-VERSION-x86_64-linux`.
    name: String,
    folder: PathBuf,
}

impl Artefacts {
    fn tarball(&self) -> PathBuf {
        self.folder.join(format!("{}.tar.gz", self.name))
    }

    fn image(&self) -> PathBuf {
        self.folder.join(format!("{}.oci", self.name))
    }

    fn image_tar(&self) -> PathBuf {
        self.folder.join(format!("{}.oci.tar", self.name))
    }
}

/// The command line.
pub(crate) fn run(workshop: &Workshop, mut args: Args) -> Result<()> {
    let check = args.flag("--check");
    args.finish()?;
    make(workshop, check)
}

/// Makes every artefact and perhaps runs it.
pub(crate) fn make(workshop: &Workshop, check: bool) -> Result<()> {
    let binary = build(workshop)?;
    let version = version(&workshop.read("Cargo.toml")?)?;
    let artefacts = Artefacts {
        name: format!("helios-{version}-x86_64-linux"),
        folder: workshop.target.join("artefacts"),
    };
    fs::create_dir_all(&artefacts.folder).context(format!("creating {}", artefacts.folder.display()))?;
    make_tarball(workshop, &artefacts, &binary)?;
    make_image(workshop, &artefacts, &binary, &version)?;
    for path in [artefacts.tarball(), artefacts.image(), artefacts.image_tar()] {
        println!("{}", path.display());
    }
    if check { check::run(workshop, &artefacts, &version) } else { Ok(()) }
}

/// Writes what `helios completions SHELL` prints.
pub(crate) fn write_completion(binary: &Path, shell: &str, path: &Path) -> Result<()> {
    let script = capture(Command::new(binary).args(["completions", shell]))?;
    if script.trim().is_empty() {
        return Err(Failure::new(format!("`helios completions {shell}` printed nothing")));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context(format!("creating {}", folder.display()))?;
    }
    fs::write(path, script).context(format!("writing {}", path.display()))
}

fn build(workshop: &Workshop) -> Result<PathBuf> {
    say("building in profile dist (thin LTO, takes minutes)");
    run_program(workshop.cargo().args(["build", "--profile", "dist", "--locked", "--package", "helios"]))?;
    Ok(workshop.target.join("dist/helios"))
}

/// The version in `[workspace.package]`.
fn version(manifest: &str) -> Result<String> {
    let section = manifest.split("[workspace.package]").nth(1).unwrap_or_default();
    let line =
        section.lines().take_while(|line| !line.starts_with('[')).find(|line| line.starts_with("version"));
    let value = line.and_then(|line| line.split('"').nth(1));
    value.map(str::to_owned).ok_or_else(|| Failure::new("no version in [workspace.package] of Cargo.toml"))
}

fn make_tarball(workshop: &Workshop, artefacts: &Artefacts, binary: &Path) -> Result<()> {
    let outer = workshop.place("stage-tarball");
    let stage = Stage::new(&outer)?;
    let name = &artefacts.name;
    stage.copy(binary, &format!("{name}/helios"), 0o755)?;
    for document in ["LICENSE", "README.md", "CHANGELOG.md"] {
        stage.copy(&workshop.root.join(document), &format!("{name}/{document}"), 0o644)?;
    }
    for shell in SHELLS {
        let script = workshop.place(&format!("completion.{shell}"));
        write_completion(binary, shell, &script)?;
        stage.copy(&script, &format!("{name}/completions/helios.{shell}"), 0o644)?;
    }
    let tar = artefacts.folder.join(format!("{name}.tar"));
    stage.tar(&tar)?;
    gzip(&tar)
}

fn make_image(workshop: &Workshop, artefacts: &Artefacts, binary: &Path, version: &str) -> Result<()> {
    let stage = Stage::new(&workshop.place("stage-layer"))?;
    stage.copy(binary, "usr/bin/helios", 0o755)?;
    stage.copy_libraries_of(binary)?;
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.is_file() {
        stage.copy(authorities, "etc/ssl/certs/ca-certificates.crt", 0o644)?;
    }
    stage.folder("tmp", 0o1777)?;
    stage.folder("var/lib/helios", 0o1777)?;
    let layer = workshop.place("layer.tar");
    stage.tar(&layer)?;
    empty_folder(&artefacts.image())?;
    ImageLayout::create(&artefacts.image(), &layer, version)?;
    let whole = Stage::over(&artefacts.image());
    whole.normalise()?;
    remove_if_there(&artefacts.image_tar())?;
    whole.tar(&artefacts.image_tar())
}

/// Compresses a file in place to `FILE.gz`, without name and time.
fn gzip(path: &Path) -> Result<()> {
    run_program(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_workspace_s() {
        let manifest =
            "[workspace]\nversion = \"9\"\n[workspace.package]\nversion = \"0.1.0\"\n[x]\nversion = \"2\"";
        assert_eq!(version(manifest).unwrap(), "0.1.0");
        assert!(version("[workspace.package]\n[x]\nversion = \"2\"").is_err());
    }
}
