//! The kept fuzz corpus, replayed through the entry functions of the fuzz targets.

use std::fs;
use std::path::PathBuf;

use helios_types::TensorType;

use crate::gguf_builder::{GgufBuilder, RawTensor, array_header, gguf_types, sample};
use crate::safetensors::padded_file;

#[path = "../../../../fuzz/entry.rs"]
mod entry;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, entry: fn(&[u8])) {
    let inputs = fs::read_dir(corpus(target)).expect("the corpus");
    let mut replayed = 0;
    for input in inputs {
        entry(&fs::read(input.expect("an entry").path()).expect("an input"));
        replayed += 1;
    }
    assert!(replayed >= 10, "the corpus of {target} has {replayed} inputs");
}

#[test]
fn the_gguf_corpus_replays() {
    replay("gguf", entry::gguf);
}

#[test]
fn the_safetensors_corpus_replays() {
    replay("safetensors", entry::safetensors);
}

/// Writes the seeds of the corpus again: `cargo test -p helios-storage write_seeds -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for (name, bytes) in gguf_seeds() {
        fs::write(corpus("gguf").join(format!("seed-{name}")), bytes).expect("written");
    }
    for (name, header, data_bytes) in safetensors_seeds() {
        fs::write(corpus("safetensors").join(format!("seed-{name}")), padded_file(header, data_bytes))
            .expect("written");
    }
    let index =
        r#"{"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"../two.safetensors"}}"#;
    fs::write(corpus("safetensors").join("seed-index"), index).expect("written");
}

fn gguf_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let tensor = |dimensions: Vec<u64>, type_number, offset| {
        let tensor = RawTensor { name: b"a".into(), dimensions, type_number, offset };
        GgufBuilder::default().raw_tensor(tensor).data(64).build()
    };
    let mut wide = GgufBuilder::default().value("general.alignment", &helios_storage::GgufValue::U32(64));
    wide.alignment = 64;
    let mut old = sample();
    old.version = 2;
    let mut counts = sample();
    (counts.tensor_count, counts.metadata_count) = (Some(u64::MAX), Some(4096));
    let cut = sample().build()[..200].to_vec();
    let every_type = gguf_types().into_iter().fold(GgufBuilder::default(), |builder, tensor_type| {
        builder.tensor(tensor_type.as_str(), tensor_type, &[2, 2, 256])
    });
    vec![
        ("sample", sample().build()),
        ("version-2", old.build()),
        ("every-type", every_type.build()),
        ("alignment-64", wide.tensor("a", TensorType::F32, &[1]).build()),
        ("counts", counts.build()),
        ("cut", cut),
        ("overflow", tensor(vec![1 << 32, 1 << 32], 0, 0)),
        ("offset", tensor(vec![1], 0, u64::MAX - 31)),
        ("zero", tensor(vec![0], 0, 0)),
        ("q4-k", tensor(vec![256], 12, 0)),
        ("nested", GgufBuilder::default().raw_value(b"a", &array_header(9, 1)).build()),
        ("array", GgufBuilder::default().raw_value(b"a", &array_header(8, 1 << 61)).build()),
    ]
}

fn safetensors_seeds() -> Vec<(&'static str, &'static str, usize)> {
    vec![
        ("empty", "{}", 0),
        ("one", r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, 24),
        (
            "metadata",
            r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}"#,
            2,
        ),
        (
            "two",
            r#"{"a":{"dtype":"F16","shape":[4],"data_offsets":[8,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            16,
        ),
        (
            "overlap",
            r#"{"a":{"dtype":"F16","shape":[4],"data_offsets":[6,14]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            14,
        ),
        (
            "duplicate",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
        ),
        ("overflow", r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
        (
            "range",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551611,18446744073709551615]}}"#,
            4,
        ),
        ("dtype", r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, 8),
        ("zero", r#"{"a":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}"#, 0),
        ("escapes", r#"{"\u0061\n":{"d\u0074ype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4),
        ("deep", r#"{"__metadata__":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#, 0),
    ]
}
