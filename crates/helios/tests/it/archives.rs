//! Models carried over in one file by the binary: between stores, through pipes and a running server, and by processes
//! that are killed half-way.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Server, helios, verb, verb_ok, wait_until};
use crate::tiny_models::{gguf, hugging_face, large_gguf};

/// A store with `a:v1` and `org/b:v2`, which share all files but the weights.
fn store_with_two_models() -> tempfile::TempDir {
    let store = tempfile::tempdir().unwrap();
    for (model, bytes) in [("a:v1", gguf(1.0)), ("org/b:v2", gguf(2.0))] {
        pull(store.path(), model, &bytes);
    }
    store
}

fn pull(store: &Path, model: &str, bytes: &[u8]) {
    let file = store.join("m.gguf");
    std::fs::write(&file, bytes).unwrap();
    verb_ok(store, &["pull", &format!("file:{}", file.display()), "--as", model]);
}

/// What a store says of its models, without when and from where they came.
fn models(store: &Path) -> Vec<(Value, Value)> {
    let list: Value = serde_json::from_str(&verb_ok(store, &["list", "--json"])).unwrap();
    let models = list["models"].as_array().unwrap().iter();
    models
        .map(|model| {
            let shown = verb_ok(store, &["show", model["model"].as_str().unwrap(), "--json"]);
            let shown: Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(shown["digest"], model["digest"]);
            (model["model"].clone(), shown["manifest"].clone())
        })
        .collect()
}

fn last_line(json_lines: &str) -> Value {
    serde_json::from_str(json_lines.lines().last().unwrap()).unwrap()
}

#[test]
fn models_go_from_store_to_store_in_one_file() {
    let (from, to) = (store_with_two_models(), tempfile::tempdir().unwrap());
    let file = from.path().join("models.tar");
    let path = file.to_str().unwrap();
    let exported = last_line(&verb_ok(from.path(), &["export", "a:v1", "org/b:v2", path, "--json"]));
    assert_eq!(exported["done"]["models"].as_array().unwrap().len(), 2);
    assert_eq!(exported["done"]["size"], std::fs::metadata(&file).unwrap().len());
    let imported = last_line(&verb_ok(to.path(), &["import", path, "--json"]));
    assert_eq!(imported["done"]["blobs_there"], 0);
    assert_eq!(models(to.path()), models(from.path()));
    assert_eq!(last_line(&verb_ok(to.path(), &["import", path, "--json"]))["done"]["blobs_added"], 0);

    let piped = tempfile::tempdir().unwrap();
    let mut export = helios(from.path());
    let mut export = export.args(["export", "org/b:v2", "a:v1", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut import = helios(piped.path());
    let import = import.args(["import", "-"]).stdin(export.stdout.take().unwrap()).output().unwrap();
    assert!(export.wait().unwrap().success() && import.status.success(), "{import:?}");
    assert_eq!(models(piped.path()), models(from.path()));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let store = store_with_two_models();
    let file = store.path().join("models.tar");
    let path = file.to_str().unwrap();
    verb_ok(store.path(), &["export", "a:v1", path]);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = |args: &[&str], told: &[&str]| {
        let output = verb(store.path(), args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.iter().all(|told| text.contains(told)), "{args:?}: {text}");
    };
    refused(
        &["import", path],
        &["error: the archive cannot be used: `blobs/sha256/", "hint: the file is cut short"],
    );
    refused(&["import", "/nowhere/m.tar"], &["/nowhere/m.tar"]);
    refused(&["export", "none:v1", path], &["no model `none:v1`", "hint: "]);
    refused(&["export", "a:v1", "-", "--json"], &["both want standard output", "hint: "]);
    refused(&["export", "a:v1", "/nowhere/m.tar"], &["/nowhere/m.tar.partial"]);
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len() / 2, "a failed export leaves the file alone");
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_stopped() {
    let (from, to) = (store_with_two_models(), tempfile::tempdir().unwrap());
    pull(from.path(), "large:v1", &large_gguf(8 << 20));
    let file = from.path().join("models.tar");
    let path = file.to_str().unwrap();
    verb_ok(from.path(), &["export", "a:v1", "large:v1", "org/b:v2", path]);
    let whole = std::fs::read(&file).unwrap();
    let size = |folder: &str| -> u64 {
        let files = std::fs::read_dir(to.path().join(folder)).into_iter().flatten();
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    for share in [4, 2] {
        let mut import = helios(to.path());
        let mut import =
            import.args(["import", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = import.stdin.take().unwrap();
        input.write_all(&whole[..whole.len() / share]).unwrap();
        wait_until("bytes in the store", || size("partial") > (whole.len() / share) as u64 / 2);
        import.kill().unwrap();
        import.wait().unwrap();
        assert!(models(to.path()).is_empty(), "half an archive is no model");
    }
    let report = last_line(&verb_ok(to.path(), &["import", path, "--json"]));
    let added = report["done"]["bytes_added"].as_u64().unwrap();
    assert!(added < (whole.len() * 3 / 4) as u64, "what had come stayed: {added} of {}", whole.len());
    assert_eq!(size("partial"), 0);
    assert_eq!(models(to.path()), models(from.path()));
}

#[test]
fn an_export_that_is_killed_goes_on_where_it_stopped() {
    let store = store_with_two_models();
    pull(store.path(), "large:v1", &large_gguf(64 << 20));
    let args = |file: &str| ["export", "a:v1", "large:v1", "org/b:v2", file].map(str::to_owned);
    let (file, whole) = (store.path().join("models.tar"), store.path().join("whole.tar"));
    let run =
        |file: &Path| helios(store.path()).args(args(file.to_str().unwrap())).stderr(Stdio::null()).spawn();
    assert!(run(&whole).unwrap().wait().unwrap().success());
    let partial = store.path().join("models.tar.partial");
    let there = || std::fs::metadata(&partial).map_or(0, |metadata| metadata.len());
    for mark in [1, 20 << 20, 40 << 20] {
        let mut export = run(&file).unwrap();
        wait_until("bytes in the file", || there() >= mark || file.exists());
        export.kill().unwrap();
        export.wait().unwrap();
        assert!(there() >= mark || file.exists(), "what was written stays");
    }
    assert!(run(&file).unwrap().wait().unwrap().success());
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&whole).unwrap());
    assert!(!partial.exists());
}

#[test]
fn archives_go_through_a_server_that_runs() {
    let (from, to) = (store_with_two_models(), store_with_two_models());
    verb_ok(to.path(), &["rm", "org/b:v2"]);
    verb_ok(to.path(), &["gc"]);
    let serve = |store: &Path| {
        let mut command = helios(store);
        command.args(["serve", "--port", "0", "--model", "a:v1"]);
        Server::start(command)
    };
    let (server, other) = (serve(from.path()), serve(to.path()));
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("models.tar");
    let through = |server: &Server, args: &[&str]| {
        let output = helios(elsewhere.path()).env("HELIOS_HOST", &server.url).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    through(&server, &["export", "org/b:v2", file.to_str().unwrap()]);
    let report = last_line(&through(&other, &["import", file.to_str().unwrap(), "--json"]));
    assert_eq!(report["done"]["blobs_added"], 1, "only the weights were not there");
    let shown = |server: &Server| {
        let shown: Value = serde_json::from_str(&through(server, &["show", "org/b:v2", "--json"])).unwrap();
        (shown["digest"].clone(), shown["manifest"].clone())
    };
    assert_eq!(shown(&server), shown(&other));
    assert!(!elsewhere.path().join("blobs").exists(), "the server has the store open, nobody else");
}

/// Tools that are no friends of ours read the file, where they are installed.
#[test]
fn skopeo_reads_an_archive() {
    let store = store_with_two_models();
    let file = store.path().join("models.tar");
    verb_ok(store.path(), &["export", "a:v1", "org/b:v2", file.to_str().unwrap()]);
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skopeo is not here; `cargo xtask test --full` has the same with it");
        return;
    }
    let source = format!("oci-archive:{}:org/b:v2", file.display());
    let inspected = Command::new("skopeo").args(["inspect", "--raw", &source]).output().unwrap();
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let manifest: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lineage_that_points_at_itself_is_shown_once() {
    let store = tempfile::tempdir().unwrap();
    for (folder, base) in [("selfish", "selfish"), ("hen", "egg"), ("egg", "hen")] {
        let folder = store.path().join(folder);
        hugging_face(&folder, 1);
        let card = format!("---\nlicense: mit\nbase_model: {base}\nbase_model_relation: finetune\n---\n");
        std::fs::write(folder.join("README.md"), card).unwrap();
        verb_ok(store.path(), &["pull", &format!("file:{}", folder.display())]);
    }
    let ancestors = |model: &str| -> Value {
        let shown = verb_ok(store.path(), &["show", model, "--json"]);
        serde_json::from_str::<Value>(&shown).unwrap()["ancestors"].clone()
    };
    let selfish = ancestors("selfish");
    assert_eq!(selfish.as_array().unwrap().len(), 1);
    assert_eq!((&selfish[0]["here"], &selfish[0]["again"]), (&"selfish:latest".into(), &true.into()));
    let hen = ancestors("hen");
    let named: Vec<(&str, bool)> = hen
        .as_array()
        .unwrap()
        .iter()
        .map(|ancestor| (ancestor["model"].as_str().unwrap(), ancestor["again"].as_bool().unwrap()))
        .collect();
    assert_eq!(named, [("egg", false), ("hen", true)]);
    let text = verb_ok(store.path(), &["show", "hen"]);
    for told in [
        "licence       mit",
        "egg (finetune), here as egg:latest",
        "the lineage leads back to it",
        "by type ",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}
