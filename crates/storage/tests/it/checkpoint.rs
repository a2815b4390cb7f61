//! Checkpoints: tensors by name over one file or several, and an index that must agree.

use std::collections::BTreeMap;

use helios_storage::{Blob, Checkpoint, ShardIndex};
use safetensors::tensor::Dtype;

use crate::gguf_builder::sample;
use crate::safetensors::reference_file;

fn shard(names: &[&str]) -> Blob {
    let tensors: BTreeMap<_, _> =
        names.iter().map(|name| ((*name).to_owned(), (Dtype::F32, vec![2, 3]))).collect();
    Blob::from_vec(reference_file(&tensors))
}

fn shards() -> Vec<(String, Blob)> {
    vec![("one.safetensors".into(), shard(&["b", "c"])), ("two.safetensors".into(), shard(&["a"]))]
}

fn refusal(index: &str) -> String {
    Checkpoint::from_safetensors(shards(), Some(index.as_bytes())).expect_err("a wrong index").to_string()
}

#[test]
fn a_gguf_file_gives_its_tensors_by_name() {
    let file = sample().build();
    let (checkpoint, gguf) =
        Checkpoint::from_gguf("sample.gguf", Blob::from_vec(file.clone())).expect("a right file");
    assert_eq!(checkpoint.tensors().len(), 3);
    for info in &gguf.tensors {
        let view = checkpoint.tensor(&info.name).expect("there");
        assert_eq!((view.info, view.bytes), (info, &file[info.range.clone()]));
    }
    assert!(checkpoint.tensor("output.weight").is_none());
    let error = Checkpoint::from_gguf("bad.gguf", Blob::from_vec(file[..40].to_vec())).expect_err("cut");
    assert!(error.to_string().starts_with("bad.gguf: "), "{error}");
}

#[test]
fn shards_give_their_tensors_by_name() {
    let index = r#"{"metadata":{"total_size":72},"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"one.safetensors"}}"#;
    for index in [None, Some(index.as_bytes())] {
        let checkpoint = Checkpoint::from_safetensors(shards(), index).expect("right files");
        let names: Vec<_> = checkpoint.tensors().map(|tensor| (tensor.name.as_str(), tensor.file)).collect();
        assert_eq!(names, [("a", 1), ("b", 0), ("c", 0)]);
        assert_eq!(checkpoint.tensor("a").expect("there").bytes, [3; 24]);
        assert_eq!(checkpoint.files().len(), 2);
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let files = vec![("one".into(), shard(&["a"])), ("two".into(), shard(&["a"]))];
    let error = Checkpoint::from_safetensors(files, None).expect_err("doubled");
    assert_eq!(error.to_string(), "one, two: tensor `a`: appears more than once");
}

#[test]
fn an_index_that_disagrees_is_refused() {
    let index = "model.safetensors.index.json";
    let moved =
        refusal(r#"{"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"one.safetensors"}}"#);
    assert_eq!(
        moved,
        format!("{index}: tensor `a`: the index places it in `one.safetensors`, it is in `two.safetensors`")
    );
    let unlisted = refusal(r#"{"weight_map":{"a":"two.safetensors","b":"one.safetensors"}}"#);
    assert_eq!(
        unlisted,
        format!("{index}: tensor `c`: the index places it in `no file`, it is in `one.safetensors`")
    );
    let absent = refusal(
        r#"{"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"one.safetensors","d":"one.safetensors"}}"#,
    );
    assert_eq!(
        absent,
        format!("{index}: tensor `d`: the index places it in `one.safetensors`, it is in `no file`")
    );
}

#[test]
fn an_index_names_plain_files_once() {
    let index = ShardIndex::parse(
        "i",
        br#"{"weight_map":{"a":"y.safetensors","b":"x.safetensors","c":"y.safetensors"}}"#,
    );
    let index = index.expect("a right index");
    assert_eq!(index.files(), ["x.safetensors", "y.safetensors"]);
    assert_eq!((index.file_of("b"), index.file_of("z")), (Some("x.safetensors"), None));
    for name in ["../x", "/etc/passwd", "a/b", "", ".", "..", "a\\\\b"] {
        let error = ShardIndex::parse("i", format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#).as_bytes())
            .expect_err(name);
        assert!(error.to_string().contains("is not a plain file name"), "{error}");
    }
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"weight_map":[]}"#,
        r#"{"weight_map":{"a":1}}"#,
        r#"{"weight_map":{"a":"x","a":"y"}}"#,
    ] {
        let error = ShardIndex::parse("i", bad.as_bytes()).expect_err("not an index").to_string();
        assert!(error.starts_with("i: index: "), "{error}");
    }
}
