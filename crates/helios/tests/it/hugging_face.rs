//! A Hugging Face directory, in two shards, from pull to answer.

use std::path::Path;

use helios_engine::Model;
use helios_storage::{Blob, Checkpoint};
use helios_types::TensorType;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::bf16_form::{self, Bf16Tensor};
use crate::harness::{Deployment, MODEL, model_file, store_with_model, verb_ok};

const BF16: &str = "smollm2:bf16";
const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\
                        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Writes the test model as transformers would have it, with the tokenizer that the import in `store` made.
fn write_directory(dir: &Path, store: &Path) {
    let blob = Blob::from_vec(std::fs::read(model_file()).unwrap());
    let config = Model::from_gguf("model.gguf", blob.clone()).unwrap().config().clone();
    let (checkpoint, _) = Checkpoint::from_gguf("model.gguf", blob).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    let mut config_json = bf16_form::config_json(&config);
    config_json["eos_token_id"] = json!(2);
    put("config.json", config_json.to_string().as_bytes());
    put("tokenizer.json", &tokenizer_of(store));
    let tokenizer_config =
        json!({ "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE });
    put("tokenizer_config.json", tokenizer_config.to_string().as_bytes());

    let tensors: Vec<Bf16Tensor> = bf16_form::tensors(&config, &checkpoint).collect();
    let mut weight_map = serde_json::Map::new();
    for (shard, tensors) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let name = format!("model-{:05}-of-00002.safetensors", shard + 1);
        put(&name, &shard_bytes(tensors));
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    put("model.safetensors.index.json", json!({ "weight_map": weight_map }).to_string().as_bytes());
}

fn shard_bytes(tensors: &[Bf16Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| (tensor.name.clone(), view(tensor)));
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

fn view(tensor: &Bf16Tensor) -> TensorView<'_> {
    let dtype = if tensor.tensor_type == TensorType::F32 { Dtype::F32 } else { Dtype::BF16 };
    TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes).unwrap()
}

fn tokenizer_of(store: &Path) -> Vec<u8> {
    let show: Value = serde_json::from_str(&verb_ok(store, &["show", MODEL, "--json"])).unwrap();
    let files = show["manifest"]["files"].as_array().unwrap();
    let tokenizer = files.iter().find(|file| file["role"] == "tokenizer").unwrap();
    let digest = tokenizer["digest"].as_str().unwrap().trim_start_matches("sha256:");
    std::fs::read(store.join("blobs/sha256").join(digest)).unwrap()
}

#[test]
fn a_sharded_bf16_directory_answers_like_the_file_it_came_from() {
    let store = store_with_model();
    let dir = tempfile::tempdir().unwrap();
    write_directory(dir.path(), store.path());
    verb_ok(store.path(), &["pull", &format!("file:{}", dir.path().display()), "--as", BF16]);
    let deployment = Deployment::one_process(&[BF16], store);
    let answer = deployment.ask(BF16, "What is the capital of France?", 24);
    let choice = &answer["choices"][0];
    assert!(choice["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(choice["finish_reason"], "stop", "{answer}");
}

#[test]
fn a_converted_model_gives_the_same_greedy_answer() {
    let store = store_with_model();
    let dir = tempfile::tempdir().unwrap();
    write_directory(dir.path(), store.path());
    let source = format!("file:{}", dir.path().display());
    verb_ok(store.path(), &["pull", &source, "--as", BF16]);
    let converted = verb_ok(store.path(), &["convert", BF16, "smollm2:bf16-gguf", "--to", "gguf", "--json"]);
    assert!(converted.lines().last().unwrap().contains("smollm2:bf16-gguf"), "{converted}");
    let quantised =
        crate::harness::verb(store.path(), &["convert", MODEL, "smollm2:x", "--to", "safetensors"]);
    let error = String::from_utf8(quantised.stderr).unwrap();
    assert!(
        error.contains("`token_embd.weight` is q8_0") && error.contains("hint: nothing is quantised"),
        "{error}"
    );

    let deployment = Deployment::one_process(&[BF16, "smollm2:bf16-gguf"], store);
    let text = |model: &str| {
        let answer = deployment.ask(model, "Name three rivers of Africa.", 48);
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(text(BF16), text("smollm2:bf16-gguf"));
}
