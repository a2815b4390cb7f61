//! Runs what `cargo xtask dist` made: nothing is believed because it was written.

use super::Artefacts;
use crate::deployment::{MODEL_NAME, Serving, Shape};
use crate::failure::{Context, Failure, Result};
use crate::process::{capture, need_programs, run as run_program, say, sha256};
use crate::workshop::{Workshop, empty_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DIGEST_KEY: &str = "\"digest\":\"sha256:";

/// Checks the tarball, then the image.
pub(crate) fn run(workshop: &Workshop, artefacts: &Artefacts, version: &str) -> Result<()> {
    let unpacked = workshop.place("check-tarball");
    unpack(&artefacts.tarball(), &unpacked)?;
    let inside = unpacked.join(&artefacts.name);
    for document in ["LICENSE", "README.md", "CHANGELOG.md", "completions/helios.fish"] {
        fs::metadata(inside.join(document)).context(format!("{document} in the tarball"))?;
    }
    check_version(Command::new(inside.join("helios")).arg("--version"), version)?;
    check_served_completion(workshop, &inside.join("helios"))?;
    check_image(workshop, artefacts, version)?;
    say("the artefacts run");
    Ok(())
}

fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    empty_folder(folder)?;
    let mut tar = Command::new("tar");
    run_program(tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder))
}

fn check_version(command: &mut Command, version: &str) -> Result<()> {
    let printed = capture(command)?;
    if printed.trim() == format!("helios {version}") {
        return Ok(());
    }
    Err(Failure::new(format!("`helios --version` printed {printed:?}, expected \"helios {version}\"")))
}

/// Serves the default model with the program from the tarball and asks it one thing.
fn check_served_completion(workshop: &Workshop, binary: &Path) -> Result<()> {
    let deployment = Serving::plain(workshop, binary).start(Shape::OneProcess)?;
    let body = format!(r#"{{"model":"{MODEL_NAME}","prompt":"The sun is","max_tokens":4}}"#);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--header", "content-type: application/json"]);
    let answer =
        capture(curl.args(["--data", &body]).arg(format!("{}/v1/completions", deployment.address())))?;
    if answer.contains("\"choices\"") && answer.contains("\"completion_tokens\":4") {
        return Ok(());
    }
    Err(Failure::new(format!("the served completion is {answer}")))
}

fn check_image(workshop: &Workshop, artefacts: &Artefacts, version: &str) -> Result<()> {
    let unpacked = workshop.place("check-image");
    unpack(&artefacts.image_tar(), &unpacked)?;
    let layer = check_digests(&unpacked)?;
    need_programs(&[("skopeo", "skopeo")])?;
    let root = workshop.place("check-layer");
    unpack(&layer, &root)?;
    check_version(from_layer(&root).arg("--version"), version)?;
    let image = format!("oci:{}:{version}", unpacked.display());
    let format = "{{.Digest}} {{.Os}}/{{.Architecture}}";
    run_program(Command::new("skopeo").args(["inspect", "--format", format, &image]))
}

/// The program in an unpacked layer, started through the layer's own linker and libraries: that needs no privilege
/// and proves that they suffice.
fn from_layer(root: &Path) -> Command {
    let mut program = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    program.arg("--inhibit-cache").arg("--library-path").arg(root.join("lib/x86_64-linux-gnu"));
    program.arg(root.join("usr/bin/helios"));
    program
}

/// Follows every digest from `index.json` down and returns the layer's path.
fn check_digests(layout: &Path) -> Result<PathBuf> {
    let index = read(&layout.join("index.json"))?;
    let manifest = blobs_of(layout, &index)?;
    let [manifest] = manifest.as_slice() else {
        return Err(Failure::new(format!("the index names {} manifests, expected one", manifest.len())));
    };
    match blobs_of(layout, &read(manifest)?)?.as_slice() {
        [_config, layer] => Ok(layer.clone()),
        others => Err(Failure::new(format!("the manifest names {} blobs, expected two", others.len()))),
    }
}

/// The blobs that a document refers to, each verified.
fn blobs_of(layout: &Path, document: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for tail in document.split(DIGEST_KEY).skip(1) {
        let digest = tail.get(..64).unwrap_or_default();
        let size = tail.split("\"size\":").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit));
        let size: u64 = size.map(String::from_iter).unwrap_or_default().parse().context("size of a blob")?;
        let path = layout.join("blobs/sha256").join(digest);
        let found = fs::metadata(&path).context(format!("blob {digest}"))?.len();
        if found != size || sha256(&path)? != digest {
            return Err(Failure::new(format!(
                "blob {digest} has {found} bytes or another digest, expected {size}"
            )));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::oci::ImageLayout;
    use super::super::stage::Stage;
    use super::*;

    /// A fresh folder with an image layout whose layer holds `sh` and what it loads.
    fn layout_with_sh(name: &str) -> (PathBuf, PathBuf) {
        let base = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        let stage = Stage::new(&base.join("stage")).unwrap();
        stage.copy(Path::new("/bin/sh"), "usr/bin/helios", 0o755).unwrap();
        stage.copy_libraries_of(Path::new("/bin/sh")).unwrap();
        stage.tar(&base.join("layer.tar")).unwrap();
        let layout = base.join("image");
        ImageLayout::create(&layout, &base.join("layer.tar"), "0.1.0").unwrap();
        (base, layout)
    }

    #[test]
    fn a_program_runs_out_of_the_layer_with_the_layer_s_libraries() {
        let (base, layout) = layout_with_sh("layer");
        let layer = check_digests(&layout).unwrap();
        let root = base.join("root");
        unpack(&layer, &root).unwrap();
        let printed = capture(from_layer(&root).args(["-c", "echo helios 0.1.0"])).unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(printed, "helios 0.1.0\n");
    }

    #[test]
    fn a_layout_verifies_until_a_byte_of_a_blob_changes() {
        let (base, layout) = layout_with_sh("oci");
        let layer = check_digests(&layout).unwrap();
        let mut bytes = fs::read(&layer).unwrap();
        bytes[9] ^= 1;
        fs::write(&layer, bytes).unwrap();
        let broken = check_digests(&layout);
        fs::remove_dir_all(&base).unwrap();
        assert!(broken.is_err());
    }
}
