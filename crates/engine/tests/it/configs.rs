//! Model files that the engine must refuse, each with the file and field in the error.

use helios_engine::{EngineError, Model, ModelConfig};
use helios_storage::Blob;
use helios_types::TensorType;
use serde_json::{Value, json};

use crate::tiny_model::{GgufField, TinyModel, safetensors_bytes};

fn gguf_error(changes: &[(&str, GgufField)]) -> String {
    let bytes = TinyModel::gguf(TensorType::F32, true).gguf_bytes(changes);
    Model::from_gguf("tiny.gguf", Blob::from_vec(bytes)).expect_err("this file should be refused").to_string()
}

#[test]
fn gguf_fields_that_make_no_sense_are_named() {
    let cases = [
        ("general.architecture", GgufField::Text("qwen2"), "supported is llama"),
        ("llama.attention.head_count", GgufField::U32(0), "is 0"),
        ("llama.attention.head_count", GgufField::U32(3), "no multiple of 2"),
        ("llama.attention.head_count_kv", GgufField::U32(0), "is 0"),
        ("llama.block_count", GgufField::U32(u32::MAX), "is 4294967295"),
        ("llama.block_count", GgufField::Text("two"), "tiny.gguf"),
        ("llama.attention.key_length", GgufField::U32(17), "no multiple of 16"),
        ("llama.rope.dimension_count", GgufField::U32(8), "is `8`"),
        ("llama.rope.scaling.type", GgufField::Text("yarn"), "is `yarn`"),
        ("llama.rope.freq_base", GgufField::F32(f32::NAN), "is NaN"),
        ("llama.attention.layer_norm_rms_epsilon", GgufField::F32(-1.0), "is -1"),
        ("llama.expert_count", GgufField::U32(8), "is `8`"),
    ];
    for (field, value, problem) in cases {
        let error = gguf_error(&[(field, value)]);
        assert!(error.contains("tiny.gguf") && error.contains(field) && error.contains(problem), "{error}");
    }
}

#[test]
fn hugging_face_features_that_are_not_implemented_are_named() {
    let cases = [
        ("model_type", json!("mistral")),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        ("rope_parameters", json!({"rope_type": "linear"})),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("sliding_window", json!(4096)),
        ("quantization_config", json!({"bits": 4})),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("hidden_size", json!("wide")),
    ];
    for (field, value) in cases {
        let mut config = TinyModel::hugging_face(TensorType::F32, true).config_json();
        config[field] = value;
        let error = ModelConfig::from_hugging_face(config.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        // The JSON reader knows the place of a wrong type, and the head count shows through the ratio of the two.
        let named = ["hidden_size", "num_key_value_heads"].contains(&field) || error.contains(field);
        assert!(named, "{field}: {error}");
    }
    assert!(ModelConfig::from_hugging_face(b"{").is_err());
    assert!(ModelConfig::from_hugging_face(b"[]").is_err());
}

#[test]
fn both_spellings_of_default_rope_are_read() {
    let mut config = TinyModel::hugging_face(TensorType::F32, true).config_json();
    config["rope_theta"] = Value::Null;
    config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
    let config = ModelConfig::from_hugging_face(config.to_string().as_bytes()).unwrap();
    assert_eq!(config.rope_theta, 5e5);
    let json = serde_json::to_vec(&config).unwrap();
    assert_eq!(serde_json::from_slice::<ModelConfig>(&json).unwrap(), config);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let open = |change: &dyn Fn(&mut TinyModel)| {
        let mut model = TinyModel::hugging_face(TensorType::BF16, false);
        change(&mut model);
        let file = ("model.safetensors".to_owned(), Blob::from_vec(safetensors_bytes(&model.tensors)));
        Model::from_safetensors(model.config_json().to_string().as_bytes(), vec![file], None)
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    let missing = open(&|model| drop(model.tensors.remove(name))).unwrap_err();
    assert_eq!(missing.to_string(), format!("tensor `{name}` is missing"));
    let turned = open(&|model| model.tensors.get_mut(name).unwrap().shape.reverse()).unwrap_err().to_string();
    assert!(turned.contains(name) && turned.contains("[64, 96]") && turned.contains("[96, 64]"), "{turned}");
    let eight_bits = open(&|model| {
        let weights = model.tensors.get_mut(name).unwrap();
        weights.tensor_type = TensorType::F8E4M3;
        weights.bytes.truncate(weights.values.len());
    });
    let stored = format!("tensor `{name}` is stored as f8_e4m3, which the engine does not compute with");
    assert_eq!(eight_bits.unwrap_err().to_string(), stored);
    let bias = "model.layers.0.self_attn.q_proj.bias";
    let extra = open(&|model| {
        let norm = model.tensors.remove("model.norm.weight").unwrap();
        model.tensors.insert(bias.to_owned(), norm);
        model.tensors.extend(
            TinyModel::hugging_face(TensorType::BF16, false)
                .tensors
                .into_iter()
                .filter(|t| t.0 == "model.norm.weight"),
        );
    });
    assert!(matches!(extra, Err(EngineError::Tensor { tensor, .. }) if tensor == bias));
    assert!(open(&|_| ()).is_ok());
}
