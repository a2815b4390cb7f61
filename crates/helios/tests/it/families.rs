//! A model that the native engine does not run, through the command line.

use crate::harness::{verb, verb_ok};

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
