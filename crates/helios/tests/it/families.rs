//! A model that the native engine does not run, through the command line.

use serde_json::json;

use crate::harness::{refused, verb, verb_ok};

#[test]
fn a_family_that_is_not_run_is_pulled_and_shown_and_refused_by_name_when_it_is_to_run() {
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("other.gguf");
    std::fs::write(&file, crate::tiny_models::gguf_of("qwen2", 1.0)).unwrap();
    let pulled = verb(store.path(), &["pull", &format!("file:{}", file.display())]);
    let said = String::from_utf8_lossy(&pulled.stderr);
    assert!(pulled.status.success(), "{said}");
    assert!(said.contains("does not run this model of the family `qwen2`"), "{said}");
    let shown = verb_ok(store.path(), &["show", "other"]);
    assert!(shown.contains("architecture  qwen2") && shown.contains("by type       f32"), "{shown}");
    assert!(shown.contains("context       64 tokens") && shown.contains("native        no"), "{shown}");
    let run = verb(store.path(), &["run", "other", "hi"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success(), "{said}");
    assert!(said.contains("the native engine does not run this model of the family `qwen2`"), "{said}");
    assert!(said.contains("hint: "), "{said}");
}

/// As GPTQ and its kin write them: eight weights of four bits in an integer.
#[test]
fn weights_that_a_quantiser_packed_are_told_as_stored_and_in_no_other_precision() {
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().join("packed");
    crate::tiny_models::hugging_face(&folder, 1);
    let weights = "model.layers.0.mlp.up_proj.qweight";
    let header =
        json!({ weights: { "dtype": "I32", "shape": [4, 64], "data_offsets": [0, 1024] } }).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 1024]].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    let source = format!("file:{}", folder.display());
    let answer = verb_ok(store.path(), &["fit", &source, "--memory", "1GiB", "--table"]);
    assert!(answer.contains("1.0 KiB in i32") && !answer.contains("accelerate"), "{answer}");
    let precisions = "stored     KV f32";
    assert!(answer.contains(precisions), "no other column of weights: {answer}");
    let asked = refused(store.path(), &["fit", &source, "--memory", "1GiB", "--weights", "f16"]);
    assert!(
        asked.contains("packed several into each element") && asked.contains("hint: `--weights stored`"),
        "{asked}"
    );
}
