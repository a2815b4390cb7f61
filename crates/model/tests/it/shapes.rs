//! What models of many families keep of a token, from constructed headers, against figures worked out by hand.

use std::collections::BTreeMap;
use std::path::Path;

use helios_model::profile::parallel::{Degrees, KvPrecision, Precision};
use helios_model::profile::{AttentionWindow, ModelShape, profile_of_path};
use helios_storage::{Gguf, GgufArray, GgufValue, TensorPlan};
use helios_types::TensorType;
use serde_json::{Value, json};

/// The header of a GGUF file with these keys of an architecture, and an embedding of 100 rows.
fn gguf(architecture: &str, numbers: &[(&str, u32)], others: &[(&str, GgufValue)]) -> Vec<u8> {
    let name = |key: &str| format!("{architecture}.{key}");
    let numbers = numbers.iter().map(|(key, number)| (name(key), GgufValue::U32(*number)));
    let mut keys: BTreeMap<String, GgufValue> = numbers.collect();
    keys.extend(others.iter().map(|(key, value)| (name(key), value.clone())));
    keys.insert("general.architecture".to_owned(), GgufValue::String(architecture.to_owned()));
    let tensor = |name: &str, shape: &[usize], tensor_type| TensorPlan {
        name: name.to_owned(),
        tensor_type,
        shape: shape.to_vec(),
    };
    let tensors = [
        tensor("token_embd.weight", &[100, 32], TensorType::Q8_0),
        tensor("blk.0.attn_kv_a_mqa.weight", &[18, 32], TensorType::F16),
        tensor("blk.0.ffn_up_exps.weight", &[8, 16, 32], TensorType::F16),
        tensor("output_norm.weight", &[32], TensorType::F32),
    ];
    let layout = Gguf::layout("model.gguf", &keys, &tensors).expect("a layout");
    let mut file = layout.header;
    file.resize(layout.size, 0);
    file
}

fn shape_of(file: &[u8]) -> Result<ModelShape, String> {
    let header = Gguf::parse("model.gguf", file).expect("a header");
    ModelShape::from_gguf("model.gguf", &header).map_err(|error| error.to_string())
}

/// Keys that every file has.
const PLAIN: [(&str, u32); 5] = [
    ("block_count", 4),
    ("embedding_length", 32),
    ("feed_forward_length", 64),
    ("attention.head_count", 4),
    ("context_length", 1024),
];

fn plain_with(
    architecture: &str,
    more: &[(&str, u32)],
    others: &[(&str, GgufValue)],
) -> Result<ModelShape, String> {
    shape_of(&gguf(architecture, &[&PLAIN[..], more].concat(), others))
}

#[test]
fn a_gguf_file_of_any_family_has_a_profile() {
    // Qwen3 30B-A3B: eight of 128 experts for each token, rotation stretched by YaRN.
    let keys = [
        ("block_count", 48),
        ("embedding_length", 2048),
        ("feed_forward_length", 6144),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 4),
        ("attention.key_length", 128),
        ("attention.value_length", 128),
        ("context_length", 40_960),
        ("expert_count", 128),
        ("expert_used_count", 8),
        ("expert_feed_forward_length", 768),
    ];
    let scaling = [("rope.scaling.type", GgufValue::String("yarn".to_owned()))];
    let file = gguf("qwen3moe", &keys, &scaling);
    let shape = shape_of(&file).expect("a shape");
    // Two of 4 x 128 elements, two bytes each, in 48 layers.
    assert_eq!(shape.kv_bytes_per_token(KvPrecision::F16), 98_304);
    assert_eq!((shape.ffn, shape.vocab, shape.context_tokens), (8 * 768, 100, 40_960));

    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join("model.gguf");
    write(&path, &file);
    let profile = profile_of_path(&path).expect("a profile");
    // The embedding in blocks of 34 bytes; a projection and experts in two bytes an element; a norm.
    assert_eq!(profile.serving_bytes(), 100 * 34 + 2 * 18 * 32 + 2 * 8 * 16 * 32 + 4 * 32);
    assert_eq!((profile.kv_bytes_per_token, profile.accelerate_bytes(Precision::F32)), (98_304, None));
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn windows_are_read_from_keys_or_known_of_the_family() {
    // Gemma 3 1B: every sixth of 26 layers sees everything, so that 4 do.
    let keys = [
        ("block_count", 26),
        ("embedding_length", 1152),
        ("feed_forward_length", 6912),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 256),
        ("attention.value_length", 256),
        ("attention.sliding_window", 512),
        ("context_length", 32_768),
    ];
    let shape = shape_of(&gguf("gemma3", &keys, &[])).expect("a shape");
    assert_eq!(shape.window, Some(AttentionWindow { layers: 22, tokens: 512 }));
    let kv = shape.kv_bytes(32_768, KvPrecision::F16, Degrees::ONE);
    assert_eq!(kv, (4 * 32_768 + 22 * 512) * 2 * 256 * 2);

    let layers = |architecture, more: &[_], others: &[_]| {
        let more = [&[("attention.sliding_window", 16)], more].concat();
        plain_with(architecture, &more, others).expect("a shape").window.map(|window| window.layers)
    };
    const PATTERN: &str = "attention.sliding_window_pattern";
    let listed = GgufValue::Array(GgufArray::Bool(vec![true, false, true, true]));
    assert_eq!(layers("gemma2", &[], &[]), Some(2));
    assert_eq!(layers("new", &[], &[(PATTERN, listed)]), Some(3));
    assert_eq!(layers("new", &[(PATTERN, 4)], &[]), Some(3));
    assert_eq!(layers("new", &[], &[]), None, "as llama.cpp, which knows of no window there");
}

#[test]
fn keys_may_have_a_number_for_each_layer() {
    let per_layer = GgufValue::Array(GgufArray::I32(vec![2, 4, 4, 1]));
    let shape = plain_with("openelm", &[], &[("attention.head_count_kv", per_layer)]).expect("a shape");
    assert_eq!((shape.kv_heads, shape.head_dim), (4, 8));
    let narrow_values = [("attention.key_length", 12), ("attention.value_length", 8)];
    let shape = plain_with("new", &narrow_values, &[]).expect("a shape");
    assert_eq!(shape.kv_bytes_per_token(KvPrecision::F16), 4 * 4 * (12 + 8) * 2);
}

/// DeepSeek-V2, of which its authors say 34.6 K elements of a token in all layers (arXiv 2405.04434, table 9).
const DEEPSEEK_V2_ELEMENTS: u64 = 60 * (512 + 64);

#[test]
fn latent_attention_keeps_the_latent_once_on_every_rank() {
    let config = json!({
        "model_type": "deepseek_v2", "num_hidden_layers": 60, "hidden_size": 5120, "intermediate_size": 12_288,
        "moe_intermediate_size": 1536, "num_experts_per_tok": 6, "n_shared_experts": 2, "num_attention_heads": 128,
        "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "vocab_size": 102_400, "max_position_embeddings": 163_840,
    });
    let from_config = ModelShape::from_hugging_face(config.to_string().as_bytes()).expect("a shape");
    let keys = [
        ("block_count", 60),
        ("embedding_length", 5120),
        ("feed_forward_length", 12_288),
        ("attention.head_count", 128),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 576),
        ("attention.value_length", 512),
        ("attention.key_length_mla", 192),
        ("attention.value_length_mla", 128),
        ("attention.kv_lora_rank", 512),
        ("context_length", 163_840),
        ("expert_used_count", 6),
        ("expert_shared_count", 2),
        ("expert_feed_forward_length", 1536),
    ];
    let from_keys = shape_of(&gguf("deepseek2", &keys, &[])).expect("a shape");
    for shape in [&from_config, &from_keys] {
        assert_eq!(shape.kv_bytes_per_token(KvPrecision::F16), 2 * DEEPSEEK_V2_ELEMENTS);
        assert_eq!(shape.ffn, 12_288, "eight of 1,536, as much as the dense layer");
        let eight = Degrees { tensor: 8, pipeline: 1 };
        let kv = |degrees| shape.kv_bytes(1600, KvPrecision::F16, degrees);
        assert_eq!(kv(eight), kv(Degrees::ONE), "a latent cannot be divided");
    }
    let absent = ["vocab", "architecture"];
    let dimensions = |shape: &ModelShape| {
        let mut value = serde_json::to_value(shape).expect("JSON");
        absent.iter().for_each(|field| value[field] = Value::Null);
        value
    };
    assert_eq!(dimensions(&from_config), dimensions(&from_keys));

    // A file that was made before llama.cpp kept the latent: what the heads make of it is kept.
    let older = [&keys[..4], &[("attention.head_count_kv", 128), ("attention.key_length", 192)], &keys[10..]]
        .concat();
    let older = [&older[..], &[("attention.value_length", 128), ("attention.kv_lora_rank", 512)]].concat();
    let shape = shape_of(&gguf("deepseek2", &older, &[])).expect("a shape");
    assert_eq!(shape.kv_bytes_per_token(KvPrecision::F16), 60 * 128 * (192 + 128) * 2);
}

#[test]
fn experts_of_a_config_are_as_wide_as_those_of_one_token() {
    let ffn = |fields: Value| {
        let mut config = json!({
            "model_type": "any", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
            "vocab_size": 100, "intermediate_size": 1000,
        });
        config.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        ModelShape::from_hugging_face(config.to_string().as_bytes()).map(|shape| shape.ffn)
    };
    let known = |fields| ffn(fields).expect("a shape");
    assert_eq!(known(json!({})), 1000);
    assert_eq!(known(json!({ "num_local_experts": 8, "num_experts_per_tok": 2 })), 2000, "Mixtral");
    let small = json!({ "num_experts_per_tok": 8, "moe_intermediate_size": 100 });
    assert_eq!(known(small), 1000, "the dense layers are wider");
    let shared = json!({ "num_experts_per_tok": 4, "moe_intermediate_size": 500, "shared_expert_intermediate_size": 700 });
    assert_eq!(known(shared), 2700);
    let absurd = ffn(json!({ "num_experts_per_tok": u64::MAX, "moe_intermediate_size": u64::MAX }));
    assert!(absurd.expect_err("too wide").to_string().contains("experts"));
}

#[test]
fn what_no_profile_knows_of_is_refused_by_name() {
    let refused = |result: Result<ModelShape, String>, problem: &str| {
        let error = result.expect_err(problem);
        assert!(error.contains(problem) && error.contains("model.gguf"), "{error}");
    };
    refused(shape_of(&gguf("new", &PLAIN[1..], &[])), "`new.block_count` is missing");
    refused(
        plain_with("new", &[("attention.head_count_kv", 5)], &[]),
        "it has 5 heads for keys and values, expected 1 to 4",
    );
    refused(plain_with("new", &[("block_count", 0)], &[]), "`new.block_count` is 0");
    refused(
        plain_with("new", &[("expert_used_count", u32::MAX)], &[]),
        "`new.expert_used_count` is 4294967295",
    );
    refused(plain_with("jamba", &[("ssm.state_size", 16)], &[]), "`jamba.ssm.state_size`");
    // Products of the largest numbers that are let through fit; of these they would not.
    refused(plain_with("new", &[("block_count", 1 << 24)], &[]), "16777216 layers, expected 1 to 1024");
    refused(plain_with("new", &[("attention.key_length", 1 << 24)], &[]), "16777216 elements of a head");
    let most = [
        ("block_count", 1024),
        ("attention.head_count", 1024),
        ("attention.key_length", 1 << 13),
        ("context_length", 1 << 24),
    ];
    let largest = plain_with("new", &most, &[]).expect("a shape");
    let kv = largest.kv_bytes(1 << 24, KvPrecision::F32, Degrees::ONE);
    assert_eq!(kv, 1 << (10 + 24 + 10 + 13 + 1 + 2));
    let text = GgufValue::String("many".to_owned());
    refused(
        plain_with("new", &[], &[("attention.key_length", text)]),
        "`new.attention.key_length` is no number",
    );

    let sparse = json!({
        "model_type": "deepseek_v32", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "vocab_size": 100, "intermediate_size": 64, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "index_topk": 8,
    });
    let error = ModelShape::from_hugging_face(sparse.to_string().as_bytes()).expect_err("an indexer");
    assert!(error.to_string().contains("index_topk"), "{error}");
}
