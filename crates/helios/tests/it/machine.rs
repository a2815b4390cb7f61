//! `helios doctor` and `helios bench storage`: what they find, what they print, what they leave behind.

use std::process::Command;

use serde_json::Value;

use crate::harness::{helios, verb, verb_ok};

fn level<'v>(report: &'v Value, what: &str) -> Option<&'v str> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["what"] == what)?["level"].as_str()
}

#[test]
fn doctor_names_what_it_found_and_leaves_nothing_behind() {
    let store = tempfile::tempdir().unwrap();
    let report: Value =
        serde_json::from_str(&verb_ok(store.path(), &["doctor", "--json", "--measure"])).unwrap();
    for what in ["kernel", "processor", "io_uring", "locked memory", "store", "free space", "sequential read"]
    {
        assert!(level(&report, what).is_some(), "{what}: {report}");
    }
    assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
    let text = verb_ok(store.path(), &["doctor"]);
    assert!(text.lines().any(|line| line.contains("I/O backend")), "{text}");
}

/// What `helios doctor` says of the I/O backend.
pub(crate) fn backend(doctor: &mut Command) -> String {
    let output = doctor.args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["what"] == "I/O backend").unwrap();
    finding.to_string()
}

#[test]
fn the_io_backend_can_be_chosen() {
    let store = tempfile::tempdir().unwrap();
    let asked = backend(helios(store.path()).env("HELIOS_STORE__IO", "threads"));
    assert!(asked.contains("threads (asked for)"), "{asked}");
    let auto = backend(helios(store.path()).env("HELIOS_STORE__IO", "auto"));
    assert!(auto.contains("io_uring (the system") || auto.contains("threads (no io_uring"), "{auto}");
}

#[test]
fn a_store_that_cannot_be_written_is_a_bad_finding_with_a_hint() {
    let output = verb(std::path::Path::new("/proc/nowhere"), &["doctor", "--json"]);
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(level(&report, "store"), Some("bad"), "{report}");
}

#[test]
fn the_storage_bench_has_every_row_and_deletes_its_files() {
    // On a disk: what lies in memory is never cold.
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = ["bench", "storage", "--json", "--size", "64MiB", "--repeats", "1", "--only", "loads,pull"];
    let text = verb_ok(store.path(), &bench);
    let report: Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let row = |what: &str| rows.iter().find(|row| row["what"] == what).unwrap();
    for what in ["cold load into memory, verified", "cold map, verified since boot", "warm open, 4 shards"] {
        assert!(row(what)["value"].as_f64().is_some_and(|value| value > 0.0), "{what}");
        assert!(row(what)["goal"].is_f64(), "{what}");
    }
    let memory = row("pull from a local origin: memory")["value"].as_f64().unwrap();
    assert!(memory > 10.0, "a pull in {memory} MB");
    for what in ["CPU, verified, tensorizer", "registry: resolve a tag, p99", "download by huggingface_hub"] {
        assert!(row(what)["value"].is_null() && row(what)["met"] == false, "{what} was not asked for");
    }
    assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
}
