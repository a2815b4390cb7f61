//! Verbs of the store from outside, on tiny models: what they print, and what the store holds afterwards.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, helios, refused, verb_ok};
use crate::tiny_models::gguf;

/// A store with a tiny model `m:v1`.
fn store() -> tempfile::TempDir {
    let store = tempfile::tempdir().unwrap();
    pull(store.path(), "m:v1", &gguf(1.0));
    store
}

fn pull(store: &Path, model: &str, bytes: &[u8]) {
    let file = store.join("m.gguf");
    std::fs::write(&file, bytes).unwrap();
    verb_ok(store, &["pull", &format!("file:{}", file.display()), "--as", model]);
}

fn told(store: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&verb_ok(store, args)).unwrap()
}

/// Bytes of the tiny model: 258 x 32 for the embedding, four projections, three of the feed-forward layer, three norms.
const WEIGHT_BYTES: u64 = 4 * (258 * 32 + 4 * 32 * 32 + 3 * 48 * 32 + 3 * 32);
/// Numbers of one token in a step: stream and norm, queries and result, keys and values, three of the feed-forward layer.
const STEP_BYTES: u64 = 4 * (512 * (6 * 32 + 3 * 48) + 258);
/// A key and a value of 32 elements in f16.
const KV_BYTES_PER_TOKEN: u64 = 2 * 32 * 2;

#[test]
fn fit_says_where_a_model_of_the_store_fits_and_with_what_context() {
    let store = store();
    let args = ["fit", "m:v1", "--memory", "1GiB", "--device", "1KiB"];
    let answer = told(store.path(), &[&args[..], &["--json"]].concat());
    assert_eq!(answer["serving_bytes"], WEIGHT_BYTES, "{answer}");
    assert_eq!(answer["accelerate_bytes"]["f16"], answer["accelerate_bytes"]["f32"].as_u64().unwrap() / 2);
    let [machine, device] = [&answer["fits"][0], &answer["fits"][1]];
    let (weights, step) = (machine["weight_bytes"].as_u64(), machine["activation_bytes"].as_u64());
    assert_eq!(
        (machine["fits"].as_bool(), weights, step),
        (Some(true), Some(WEIGHT_BYTES), Some(STEP_BYTES))
    );
    // All 64 tokens the model was made for.
    assert_eq!(machine["kv_bytes_per_sequence"], 64 * KV_BYTES_PER_TOKEN);
    assert_eq!((&machine["context_tokens"], &machine["context_tokens_max"]), (&64.into(), &64.into()));
    let left = (1 << 30) - WEIGHT_BYTES - STEP_BYTES - 64 * KV_BYTES_PER_TOKEN;
    assert_eq!(machine["left_bytes"].as_u64(), Some(left));
    assert_eq!((&device["fits"], &device["context_tokens_max"]), (&false.into(), &0.into()), "{device}");
    assert_eq!(answer["table"][0]["kv_bytes_per_token"]["f16"], KV_BYTES_PER_TOKEN);

    let text = verb_ok(store.path(), &args);
    assert!(text.contains("this machine: fits") && text.contains("1 x 1.0 KiB: does not fit"), "{text}");
    assert!(text.contains("at most 64 tokens"), "{text}");
}

#[test]
fn fit_prints_the_table_of_precisions_degrees_and_batches() {
    let store = store();
    let text = verb_ok(store.path(), &["fit", "m:v1", "--memory", "1GiB", "--table"]);
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("ranks")).collect();
    // One layer and two heads: only one or two ranks, one stage.
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn fit_says_what_it_cannot_answer_for() {
    let store = store();
    let nothing = refused(store.path(), &["fit", "nothing"]);
    assert!(nothing.contains("nothing") && nothing.contains("pull"), "{nothing}");
    let afar = refused(store.path(), &["fit", "hf:org/repo"]);
    assert!(afar.contains("helios pull hf:org/repo"), "{afar}");
    let few = refused(store.path(), &["fit", "m:v1", "--device", "1GiB", "--tensor-parallel", "2"]);
    assert!(few.contains("2 ranks need as many devices"), "{few}");
    let three = ["--device", "1GiB", "--device", "1GiB", "--device", "1GiB", "--tensor-parallel", "3"];
    let text = verb_ok(store.path(), &[&["fit", "m:v1"], &three[..]].concat());
    assert!(text.contains("cannot be divided so: it has 2 heads"), "{text}");
}

#[test]
fn show_has_the_totals_that_fit_has() {
    let store = store();
    let shown = told(store.path(), &["show", "m:v1", "--json"]);
    let fit = told(store.path(), &["fit", "m:v1", "--memory", "1GiB", "--json"]);
    assert_eq!(shown["serving_bytes"], WEIGHT_BYTES);
    for total in ["serving_bytes", "accelerate_bytes"] {
        assert_eq!(shown[total], fit[total], "{total}");
    }
    let text = verb_ok(store.path(), &["show", "m:v1"]);
    for said in ["m:v1", "llama", "64 tokens", "apache-2.0", "weights", "history, newest first"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

/// Adds a file to a repository by the hub's protocol.
fn upload(registry: &Server, repository: &str, path: &str, bytes: &[u8]) {
    let mut encode =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = encode.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let fed = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let content = String::from_utf8(encode.wait_with_output().unwrap().stdout).unwrap();
    fed.join().unwrap();
    let body = tempfile::NamedTempFile::new().unwrap();
    let file = json!({ "key": "file", "value": { "content": content, "path": path, "encoding": "base64" } });
    std::fs::write(&body, format!("{}\n{file}\n", json!({ "key": "header", "value": { "summary": "s" } })))
        .unwrap();
    let url = format!("{}/api/models/{repository}/commit/main", registry.url);
    let data = format!("@{}", body.path().display());
    let sent = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--header", "content-type: application/x-ndjson"])
        .args(["--data-binary", &data, &url])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

#[test]
fn show_and_fit_answer_for_models_that_cannot_be_served() {
    let store = tempfile::tempdir().unwrap();
    let mut command = helios(store.path());
    command.args(["registry", "--listen", "127.0.0.1:0"]);
    let registry = Server::start(command);
    // The tiny model of another family, whose name is as long.
    let text = gguf(1.0);
    let mut file = text.clone();
    for at in 0..text.len() {
        if text[at..].starts_with(b"llama") {
            file[at..at + 5].copy_from_slice(b"qwen3");
        }
    }
    upload(&registry, "org/other", "m.gguf", &file);
    upload(&registry, "org/notes", "notes.txt", b"no model");
    drop(registry);

    let shown = told(store.path(), &["show", "org/other", "--json"]);
    let fit = told(store.path(), &["fit", "org/other", "--memory", "1GiB", "--json"]);
    assert_eq!(shown["serving_bytes"], WEIGHT_BYTES);
    assert_eq!(shown["accelerate_bytes"], fit["accelerate_bytes"], "{shown}");
    assert_eq!((&fit["serving_bytes"], &fit["fits"][0]["fits"]), (&WEIGHT_BYTES.into(), &true.into()));
    let notes = told(store.path(), &["show", "org/notes", "--json"]);
    assert_eq!((&notes["serving_bytes"], &notes["accelerate_bytes"]), (&Value::Null, &Value::Null));
    let error = refused(store.path(), &["fit", "org/notes"]);
    assert!(error.contains("it has no weights"), "{error}");
}

#[test]
fn rollback_points_the_tag_at_the_version_before() {
    let store = store();
    let digest = || told(store.path(), &["show", "m:v1", "--json"])["digest"].clone();
    let first = digest();
    pull(store.path(), "m:v1", &gguf(2.0));
    assert_ne!(digest(), first);
    verb_ok(store.path(), &["rollback", "m:v1", "--to", "1"]);
    assert_eq!(digest(), first);
    let error = refused(store.path(), &["rollback", "m:v1", "--to", "9"]);
    assert!(error.contains("helios history"), "{error}");
}

#[test]
fn the_database_is_made_again_from_the_files_and_copied() {
    let store = store();
    let list = || verb_ok(store.path(), &["list", "--json"]);
    let before = list();
    let copy = store.path().join("copy.db");
    verb_ok(store.path(), &["registry", "backup", copy.to_str().unwrap()]);
    assert!(std::fs::read(&copy).unwrap().starts_with(b"SQLite format 3\0"));
    let again = refused(store.path(), &["registry", "backup", copy.to_str().unwrap()]);
    assert!(again.contains("already exists") && again.contains("hint: name a file"), "{again}");
    let nowhere = refused(store.path(), &["registry", "backup", "/no/folder/copy.db"]);
    assert!(nowhere.contains("`/no/folder/copy.db`") && nowhere.contains("hint:"), "{nowhere}");

    let database = |suffix: &str| store.path().join(format!("metadata.db{suffix}"));
    std::fs::write(database(""), [0x42; 4096]).unwrap();
    ["-wal", "-shm"].iter().for_each(|suffix| drop(std::fs::remove_file(database(suffix))));
    let error = refused(store.path(), &["list"]);
    assert!(error.contains("helios registry rebuild"), "{error}");
    let counts = told(store.path(), &["registry", "rebuild", "--json"]);
    assert_eq!((&counts["manifests"], &counts["tags"]), (&1.into(), &1.into()), "{counts}");
    assert_eq!(list(), before);
}

#[test]
fn bench_prefetch_prints_the_tables_of_generated_traces() {
    let store = tempfile::tempdir().unwrap();
    let args = ["bench", "prefetch", "--first-seed", "1", "--seeds", "1"];
    let rows = told(store.path(), &[&args[..], &["--json"]].concat())["rows"].clone();
    let bounded: Vec<&Value> = rows.as_array().unwrap().iter().filter(|row| !row["goal"].is_null()).collect();
    // Where nothing can be learned and where the pattern changes: hit rate and bytes, against LRU and no prefetch.
    assert_eq!(bounded.len(), 8, "{rows}");
    assert!(bounded.iter().all(|row| row["met"] == true), "{bounded:?}");
    let text = verb_ok(store.path(), &args);
    for title in ["hit rate, %", "waited, s", "saved by prefetch, s", "fetched, GB", "models fetched ahead"] {
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with(title)).take(8).collect();
        assert!(lines.len() == 8 && lines[7].starts_with("changing half-way"), "{title}: {text}");
    }
    let other = verb_ok(store.path(), &[&args[..], &["--probability", "100"]].concat());
    assert!(text != other && other.contains("oracle"), "{other}");
}

#[test]
fn bench_prefetch_replays_a_recorded_history_from_its_first_event() {
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("history.json");
    let model = |name: &str| json!({ "model": name, "bytes": 1_000_000_000 });
    // Two models in turn, a minute apart, each fetched in 8.1 s.
    let mut events = vec![(1_700_000_000_000_u64, 0, 0)];
    events.extend((1..10).map(|turn| (60_000, turn % 2, 0)));
    let history = json!({
        "version": 1, "models": [model("a:v1"), model("b:v1")], "events": events,
        "allowance_bytes": 0, "unused": [], "found": 0, "uses": 10,
    });
    std::fs::write(&file, history.to_string()).unwrap();
    let args = ["bench", "prefetch", "--budget", "100", "--history", file.to_str().unwrap()];
    let rows = told(store.path(), &[&args[..], &["--json"]].concat())["rows"].clone();
    let hit_rate = |peer: &str| {
        let what = format!("recorded: hit rate, {peer}");
        let row = rows.as_array().unwrap().iter().find(|row| row["what"] == what.as_str()).unwrap();
        row["peer_value"].as_f64().unwrap().round()
    };
    assert_eq!(hit_rate("LRU"), 80.0, "each was missing once");
    assert_eq!(hit_rate("oracle"), 90.0, "the first could not come before it was asked for");
    assert!(verb_ok(store.path(), &args).contains("recorded"));
}
