//! A model from one form to the other and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use helios_model::{Role, WeightFormat};
use helios_registry::{FetchConfig, FleetConfig, FromSource, Registry, Resolved};
use helios_storage::{Checkpoint, Gguf, NameScheme, SafetensorsHeader, TensorNames, TensorPlan};
use helios_text::gguf_tokenizer_json;
use helios_types::{Classify, ErrorCode, TensorType};

use crate::models::{self, Place};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const HIDDEN: usize = 32;
const FFN: usize = 48;
const LAYERS: usize = 2;

/// The tensors of a small model, matrices and vectors of the given types, with bytes that are all different.
fn tensors(tied: bool, matrix: TensorType, vector: TensorType) -> Vec<(TensorPlan, Vec<u8>)> {
    let names = TensorNames::of(NameScheme::HuggingFace);
    let (query, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut shapes =
        vec![(names.embedding.to_owned(), vec![258, HIDDEN]), (names.output_norm.to_owned(), vec![HIDDEN])];
    if !tied {
        shapes.push((names.output.to_owned(), vec![258, HIDDEN]));
    }
    for layer in 0..LAYERS {
        for (suffix, shape) in [
            (names.attention_norm, vec![HIDDEN]),
            (names.query, vec![query, HIDDEN]),
            (names.key, vec![kv, HIDDEN]),
            (names.value, vec![kv, HIDDEN]),
            (names.attention_output, vec![HIDDEN, query]),
            (names.ffn_norm, vec![HIDDEN]),
            (names.gate, vec![FFN, HIDDEN]),
            (names.up, vec![FFN, HIDDEN]),
            (names.down, vec![HIDDEN, FFN]),
        ] {
            shapes.push((names.in_layer(layer, suffix), shape));
        }
    }
    let fill = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let tensor_type = if shape.len() == 1 { vector } else { matrix };
        let length = tensor_type.bytes_of(shape.iter().product()).expect("plain types");
        // The exponent's byte stays small: no infinity and no NaN.
        let byte = |at: usize| {
            if at % tensor_type.block_bytes() == tensor_type.block_bytes() - 1 {
                0x3c
            } else {
                (at * 7 + number * 13) as u8
            }
        };
        (TensorPlan { name, tensor_type, shape }, (0..length).map(byte).collect())
    };
    shapes.into_iter().enumerate().map(fill).collect()
}

fn safetensors(tensors: &[(TensorPlan, Vec<u8>)]) -> Vec<u8> {
    let plans: Vec<TensorPlan> = tensors.iter().map(|(plan, _)| plan.clone()).collect();
    let layout = SafetensorsHeader::layout("model.safetensors", &plans, &BTreeMap::new()).expect("a layout");
    let mut file = layout.header;
    file.resize(layout.size, 0);
    for (index, range) in layout.tensors {
        file[range].copy_from_slice(&tensors[index].1);
    }
    file
}

pub(crate) fn write_model(dir: &Path, tied: bool, matrix: TensorType, vector: TensorType) {
    fs::create_dir_all(dir).expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a file");
    let config = serde_json::json!({
        "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": 258,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": tied,
        "eos_token_id": [257, 256], "initializer_range": 0.02,
    });
    put("config.json", config.to_string().as_bytes());
    put("tokenizer.json", &gguf_tokenizer_json(&models::vocab()).expect("a tokenizer"));
    let tokenizer = serde_json::json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": "{{ messages[0].content }}",
    });
    put("tokenizer_config.json", tokenizer.to_string().as_bytes());
    put("model.safetensors", &safetensors(&tensors(tied, matrix, vector)));
}

async fn convert(registry: &Arc<Registry>, from: &str, to: WeightFormat, name: &str) -> Resolved {
    let name = name.parse().expect("a name");
    registry.pull(&format!("convert:{from}#{to}"), Some(name), &mut |_| {}).await.expect("converted")
}

#[tokio::test]
async fn versions_that_are_made_from_each_other_are_an_error_and_not_an_endless_wait() {
    let place = Place::new();
    let registry = place.open().await;
    write_model(&place.path("model"), true, TensorType::BF16, TensorType::BF16);
    let named = Some("a".parse().expect("a name"));
    registry.import(&place.path("model"), named, &mut |_| {}).await.expect("imported");
    let gguf = convert(&registry, "a", WeightFormat::Gguf, "b").await;
    let back = convert(&registry, "b", WeightFormat::Safetensors, "a").await;
    let weights = [&gguf, &back].map(|model| model.manifest.required(Role::Weights).expect("weights"));
    for file in weights {
        fs::remove_file(place.store().join("blobs/sha256").join(file.blob.digest.hex())).expect("lost");
    }
    let (one, other) = tokio::join!(registry.blob(weights[0]), registry.blob(weights[1]));
    for error in [one.expect_err("a circle"), other.expect_err("a circle")] {
        let text = error.to_string();
        assert!(text.contains("convert:") && text.contains("made from it in turn"), "{text}");
        assert!(text.contains("hint: pull or import one of the two again"), "{text}");
    }
    let report = registry.scrub(&FromSource).await.expect("the scrubber goes on");
    assert_eq!((report.damaged, report.repaired), (2, 0));
}

async fn bytes_of(registry: &Arc<Registry>, model: &Resolved, role: Role) -> Vec<u8> {
    registry.derived_bytes(&model.manifest, role).await.expect("a file").to_vec()
}

#[tokio::test]
async fn there_and_back_gives_every_file_again() {
    for (tied, matrix, vector) in [
        (true, TensorType::BF16, TensorType::BF16),
        (false, TensorType::F16, TensorType::F32),
        (false, TensorType::F32, TensorType::F16),
    ] {
        let place = Place::new();
        let registry = place.open().await;
        write_model(&place.path("model"), tied, matrix, vector);
        let first = registry.import(&place.path("model"), None, &mut |_| {}).await.expect("imported");
        let gguf = convert(&registry, "model", WeightFormat::Gguf, "other:gguf").await;
        let back = convert(&registry, "other:gguf", WeightFormat::Safetensors, "back").await;
        let originals = |model: &Resolved| -> BTreeMap<String, _> {
            let kept = model.manifest.files.iter().filter(|file| !file.path.starts_with("helios/"));
            kept.filter(|file| file.role != Role::Weights)
                .map(|file| (file.path.clone(), file.blob.digest))
                .collect()
        };
        assert_eq!(originals(&first), originals(&back), "small files come back as they were");
        let file = bytes_of(&registry, &back, Role::Weights).await;
        let header = SafetensorsHeader::parse("model.safetensors", &file).expect("a header");
        let expected = tensors(tied, matrix, vector);
        assert_eq!(header.tensors.len(), expected.len());
        for (plan, bytes) in expected {
            let info = header.tensors.iter().find(|info| info.name == plan.name).expect(&plan.name);
            assert_eq!((info.tensor_type, &info.shape), (plan.tensor_type, &plan.shape), "{}", plan.name);
            assert!(file[info.range.clone()] == bytes, "{}", plan.name);
        }
        // The same file, but for `__metadata__`, as the reference crate reads it.
        let reference = safetensors::SafeTensors::deserialize(&file).expect("the reference crate reads it");
        assert_eq!(reference.len(), header.tensors.len());
        for role in [Role::Tokenizer, Role::SpecialTokens, Role::ChatTemplate, Role::TokenBytes] {
            assert!(
                bytes_of(&registry, &first, role).await == bytes_of(&registry, &back, role).await,
                "{role:?}"
            );
            if role != Role::Tokenizer {
                assert!(
                    bytes_of(&registry, &first, role).await == bytes_of(&registry, &gguf, role).await,
                    "{role:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn rows_that_rotate_together_are_interleaved_as_llama_cpp_does() {
    let place = Place::new();
    let registry = place.open().await;
    write_model(&place.path("model"), true, TensorType::BF16, TensorType::BF16);
    registry.import(&place.path("model"), None, &mut |_| {}).await.expect("imported");
    let gguf = convert(&registry, "model", WeightFormat::Gguf, "gguf").await;
    let blob = registry.blob(gguf.manifest.required(Role::Weights).expect("weights")).await.expect("a blob");
    let (checkpoint, header) = Checkpoint::from_gguf("model.gguf", blob).expect("a GGUF file");
    assert_eq!(header.u32("general.file_type").expect("a type"), 32);
    assert_eq!(header.u32("tokenizer.ggml.eot_token_id").expect("a second end"), 256);
    assert_eq!(
        header.optional("tokenizer.chat_template", Gguf::str).expect("text"),
        Some("{{ messages[0].content }}")
    );

    let source = tensors(true, TensorType::BF16, TensorType::BF16);
    let bytes = |name: &str| &source.iter().find(|(plan, _)| plan.name == name).expect(name).1;
    let row = HIDDEN * 2;
    let key = checkpoint.tensor("blk.1.attn_k.weight").expect("keys");
    let key_source = bytes("model.layers.1.self_attn.k_proj.weight");
    for (place, origin) in [(0, 0), (1, 8), (2, 1), (15, 15), (16, 16), (17, 24)] {
        assert!(key.bytes[place * row..][..row] == key_source[origin * row..][..row], "row {place}");
    }
    let value = checkpoint.tensor("blk.1.attn_v.weight").expect("values");
    assert!(value.bytes == bytes("model.layers.1.self_attn.v_proj.weight"));
    let norm = checkpoint.tensor("output_norm.weight").expect("a norm");
    assert_eq!(norm.info.tensor_type, TensorType::F32, "every reader of GGUF wants vectors in F32");
    assert_eq!(norm.bytes[2..4], bytes("model.norm.weight")[..2]);
}

#[tokio::test]
async fn a_gguf_file_without_a_past_becomes_a_folder_that_says_the_same() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(0.5));
    let first = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let folder = convert(&registry, "tiny", WeightFormat::Safetensors, "folder").await;
    assert_eq!(folder.manifest.facts().expect("a model").licence.as_deref(), Some("apache-2.0"));
    assert_eq!(folder.manifest.facts().expect("a model").source, "convert:tiny:latest#safetensors");
    assert_eq!(first.manifest.profile, folder.manifest.profile);
    for role in [Role::Tokenizer, Role::SpecialTokens, Role::ChatTemplate, Role::TokenBytes] {
        assert!(
            bytes_of(&registry, &first, role).await == bytes_of(&registry, &folder, role).await,
            "{role:?}"
        );
    }
    let back = convert(&registry, "folder", WeightFormat::Gguf, "back").await;
    let tensors = |bytes: Vec<u8>| {
        let gguf = Gguf::parse("x.gguf", &bytes).expect("a GGUF file");
        let data = |range: &std::ops::Range<usize>| bytes[range.clone()].to_vec();
        let mut tensors: Vec<_> = gguf
            .tensors
            .iter()
            .map(|info| (info.name.clone(), info.shape.clone(), data(&info.range)))
            .collect();
        tensors.sort();
        tensors
    };
    let weights = |model| bytes_of(&registry, model, Role::Weights);
    assert!(tensors(weights(&first).await) == tensors(weights(&back).await));
}

#[tokio::test]
async fn what_the_other_form_cannot_say_is_refused() {
    let place = Place::new();
    let registry = place.open().await;
    write_model(&place.path("model"), true, TensorType::BF16, TensorType::BF16);
    let with_normalizer = place.path("normalizer");
    write_model(&with_normalizer, true, TensorType::BF16, TensorType::BF16);
    let tokenizer = fs::read(with_normalizer.join("tokenizer.json")).expect("a tokenizer");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).expect("JSON");
    tokenizer["normalizer"] = serde_json::json!({"type": "NFC"});
    fs::write(with_normalizer.join("tokenizer.json"), tokenizer.to_string()).expect("a file");
    let with_bias = place.path("bias");
    write_model(&with_bias, true, TensorType::BF16, TensorType::BF16);
    let mut tensors = tensors(true, TensorType::BF16, TensorType::BF16);
    let bias = TensorPlan {
        name: "model.layers.0.x.bias".to_owned(),
        tensor_type: TensorType::BF16,
        shape: vec![1],
    };
    tensors.push((bias, vec![0, 0]));
    fs::write(with_bias.join("model.safetensors"), safetensors(&tensors)).expect("a file");
    for folder in ["model", "normalizer", "bias"] {
        registry.import(&place.path(folder), None, &mut |_| {}).await.expect("imported");
    }
    for (spec, named) in [
        ("convert:model#safetensors", "safetensors form already"),
        ("convert:normalizer#gguf", "`normalizer` is NFC"),
        ("convert:bias#gguf", "model.layers.0.x.bias"),
        ("convert:absent#gguf", "absent"),
        ("convert:model#onnx", "convert:NAME#gguf"),
    ] {
        let error = registry.pull(spec, None, &mut |_| {}).await.expect_err(spec);
        assert!(error.to_string().contains(named), "{spec}: {error}");
        assert_ne!(error.code(), ErrorCode::Internal, "{spec}: {error}");
    }
}

#[tokio::test]
async fn pickles_are_refused_with_a_hint() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("pytorch_model.bin", b"\x80\x02");
    place.write("folder/pytorch_model.bin", b"\x80\x02");
    place.write("folder/config.json", b"{}");
    let url = "http://127.0.0.1:1/model.pth".to_owned();
    for spec in [format!("file:{}", file.display()), format!("file:{}", place.path("folder").display()), url]
    {
        let error = registry.pull(&spec, None, &mut |_| {}).await.expect_err(&spec).to_string();
        assert!(
            error.contains("is a pickle") && error.contains("hint: take the safetensors form"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_model_of_this_store_is_converted_here_whatever_the_parent_has() {
    let above = Place::new();
    let parent = above.open().await;
    let file = above.write("tiny.gguf", &models::gguf(2.0));
    parent.import(&file, None, &mut |_| {}).await.expect("imported");
    let address = crate::over_http::serve(helios_registry::http::router(parent)).await;
    for address in [address, "http://127.0.0.1:9".to_owned()] {
        let place = Place::new();
        let fleet = FleetConfig { parent: Some(address.clone()), ..FleetConfig::default() };
        let registry = place.open_in(fleet, FetchConfig::default()).await;
        let file = place.write("tiny.gguf", &models::gguf(1.0));
        let tiny = registry.import(&file, None, &mut |_| {}).await.expect("imported");
        let converted = registry.pull("convert:tiny:latest#safetensors", None, &mut |_| {}).await;
        let converted = converted.unwrap_or_else(|error| panic!("{address}: {error}"));
        let lineage = converted.manifest.lineage.as_ref().and_then(|lineage| lineage.converted.as_ref());
        assert_eq!(lineage.map(|converted| converted.manifest), Some(tiny.digest), "{address}");
    }
}
