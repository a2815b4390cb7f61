//! The part `oci` of the test command: `skopeo` and `oras` against a served Helios.

use crate::deployment::{KEYS, MODEL_NAME, Serving, Shape};
use crate::failure::{Context, Failure, Result};
use crate::process::{capture, check_sha256, find_program, need_programs, run};
use crate::workshop::{MODEL_SHA256, Workshop, empty_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Go module that `oras` is built from, pinned.
const ORAS: &str = "oras.land/oras/cmd/oras@v1.3.6";

/// What was pushed by one tool and copied by the other is the same, byte for byte, and a model of the store is pulled
/// by both. Where keys are wanted, one with the flag pushes and no other.
pub(crate) fn test(workshop: &Workshop, binary: &Path) -> Result<()> {
    need_programs(&[("skopeo", "skopeo")])?;
    let oras = oras(workshop)?;
    let served = Serving::plain(workshop, binary).start(Shape::OneProcess)?;
    let host = served.registry_address().trim_start_matches("http://").to_owned();
    let folder = workshop.place("oci");
    empty_folder(&folder)?;
    pull_the_model(&oras, &host, &folder)?;
    push_and_pull(&oras, &host, &folder)?;
    copy(&host, &folder)?;
    archive(binary, &oras, &host, &folder)?;
    drop(served);
    push_with_keys(&Serving { keys: Some(KEYS), ..Serving::plain(workshop, binary) }, &folder)
}

/// Builds `oras`, once for each version.
fn oras(workshop: &Workshop) -> Result<PathBuf> {
    let folder = workshop.place("go");
    if find_program("go").is_none() {
        return Err(Failure::new("go was not found")
            .hint("install Go 1.24 or newer, which builds `oras`: https://go.dev/dl"));
    }
    workshop.once(&folder, ORAS, || run(Command::new("go").args(["install", ORAS]).env("GOBIN", &folder)))?;
    Ok(folder.join("oras"))
}

fn pull_the_model(oras: &Path, host: &str, folder: &Path) -> Result<()> {
    let pulled = folder.join("pulled");
    let reference = format!("{host}/{MODEL_NAME}");
    run(Command::new(oras).args(["pull", "--plain-http", "--no-tty", &reference, "--output"]).arg(&pulled))?;
    check_sha256(&pulled.join("SmolLM2-135M-Instruct.Q4_1.gguf"), MODEL_SHA256)?;
    let source = format!("docker://{host}/helios/{MODEL_NAME}");
    let target = format!("dir:{}", folder.join("model").display());
    run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", &source, &target]))
}

fn push_and_pull(oras: &Path, host: &str, folder: &Path) -> Result<()> {
    let (up, down) = (folder.join("up"), folder.join("down"));
    empty_folder(&up)?;
    let files = [("README.md", b"# A card\n".to_vec()), ("data.bin", vec![7; 3 << 20])];
    for (name, bytes) in &files {
        fs::write(up.join(name), bytes).context(format!("writing {name}"))?;
    }
    let reference = format!("{host}/tests/pushed:v1");
    let push = ["push", "--plain-http", "--no-tty", &reference, "README.md", "data.bin"];
    run(Command::new(oras).args(push).current_dir(&up))?;
    run(Command::new(oras).args(["pull", "--plain-http", "--no-tty", &reference, "--output"]).arg(&down))?;
    for (name, bytes) in &files {
        let pulled = fs::read(down.join(name)).context(format!("reading {name}"))?;
        if pulled != *bytes {
            return Err(Failure::new(format!("{name} came back as something else")));
        }
    }
    let tags =
        capture(Command::new(oras).args(["repo", "tags", "--plain-http", &format!("{host}/tests/pushed")]))?;
    if tags.trim() != "v1" {
        return Err(Failure::new(format!("the tags are {tags:?} instead of v1")));
    }
    Ok(())
}

/// Out of the store and into it again, under another name.
fn copy(host: &str, folder: &Path) -> Result<()> {
    let layout = format!("oci:{}:v1", folder.join("layout").display());
    let [from, to] = ["pushed", "copied"].map(|name| format!("docker://{host}/tests/{name}:v1"));
    let copy = ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run(Command::new("skopeo").args(copy).args([&from, &layout]))?;
    run(Command::new("skopeo").args(copy).args([&layout, &to]))?;
    let raw =
        |image: &str| capture(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", image]));
    if raw(&from)? != raw(&to)? {
        return Err(Failure::new("the copied manifest is not the one that was pushed"));
    }
    Ok(())
}

/// With the key as a password, as container tools send it.
fn push_with_keys(serving: &Serving<'_>, folder: &Path) -> Result<()> {
    let served = serving.start(Shape::OneProcess)?;
    let host = served.registry_address().trim_start_matches("http://");
    let layout = format!("oci:{}:v1", folder.join("layout").display());
    let push = |key: &str| {
        let credentials = format!("anybody:{key}");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &credentials, &layout]);
        capture(skopeo.arg(format!("docker://{host}/tests/keyed:v1")))
    };
    for (key, word) in [(KEYS.reader, "may not write models"), ("another", "unauthorized")] {
        match push(key) {
            Err(refused) if refused.to_string().contains(word) => {}
            Err(other) => return Err(other.within(format!("a push with the key {key:?}"))),
            Ok(_) => return Err(Failure::new(format!("the key {key:?} may push"))),
        }
    }
    push(KEYS.writer).map(drop)
}

/// What `helios export` writes is an image layout to both tools, and `helios import` knows it again.
fn archive(binary: &Path, oras: &Path, host: &str, folder: &Path) -> Result<()> {
    let (file, unpacked, pulled) =
        (folder.join("model.tar"), folder.join("unpacked"), folder.join("from-file"));
    let helios = |host: &str| {
        let mut command = Command::new(binary);
        command.env("HELIOS_HOST", host);
        command
    };
    run(helios(&format!("http://{host}")).args(["export", MODEL_NAME]).arg(&file))?;
    let source = format!("oci-archive:{}:{MODEL_NAME}", file.display());
    let target = format!("dir:{}", unpacked.display());
    run(Command::new("skopeo").args(["copy", "--quiet", &source, &target]))?;
    let digest = capture(Command::new("skopeo").arg("manifest-digest").arg(unpacked.join("manifest.json")))?;
    let reference = format!("{}@{}", file.display(), digest.trim());
    run(Command::new(oras).args(["pull", "--oci-layout", "--no-tty", &reference, "--output"]).arg(&pulled))?;
    check_sha256(&pulled.join("SmolLM2-135M-Instruct.Q4_1.gguf"), MODEL_SHA256)?;
    let store = folder.join("store");
    empty_folder(&store)?;
    run(helios("127.0.0.1:1").arg("import").arg(&file).arg("--store").arg(&store))?;
    let shown = capture(helios("127.0.0.1:1").args(["show", MODEL_NAME, "--store"]).arg(&store))?;
    if !shown.contains(MODEL_SHA256) && !shown.contains("Q4_1.gguf") {
        return Err(Failure::new("the model that was imported is another one"));
    }
    Ok(())
}
