//! The configuration in a Hugging Face `config.json`.

use serde::Deserialize;
use serde_json::Value;

use super::ModelConfigError;
use super::{ARCHITECTURES, FieldNames, ModelConfig, NameScheme, RopeLayout, unsupported};

const FILE: &str = "config.json";

const FIELDS: FieldNames = FieldNames {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    ffn: "intermediate_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    vocab: "vocab_size",
    context_tokens: "max_position_embeddings",
    rope_theta: "rope_theta",
    norm_eps: "rms_norm_eps",
};

/// The fields that matter, with the defaults of `transformers.LlamaConfig`.
#[derive(Deserialize)]
struct Raw {
    model_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_context")]
    max_position_embeddings: usize,
    rope_theta: Option<f32>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    partial_rotary_factor: Option<f64>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<Value>,
    quantization_config: Option<Value>,
}

fn default_context() -> usize {
    2048
}

fn default_eps() -> f32 {
    1e-6
}

fn default_activation() -> String {
    "silu".to_owned()
}

impl ModelConfig {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// JSON that is malformed or lacks a field, a family or feature that is not implemented, or absurd numbers.
    pub fn from_hugging_face(json: &[u8]) -> Result<Self, ModelConfigError> {
        let malformed = |error: serde_json::Error| ModelConfigError::Invalid {
            file: FILE.to_owned(),
            field: "model_type".to_owned(),
            problem: format!("cannot be read: {error}"),
        };
        let value: Value = serde_json::from_slice(json).map_err(malformed)?;
        // The family first: another one may well lack the fields of this one.
        let family = value.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if family != "llama" {
            return Err(unsupported(FILE, "model_type", family, ARCHITECTURES));
        }
        let raw: Raw = serde_json::from_value(value).map_err(|error| ModelConfigError::Invalid {
            file: FILE.to_owned(),
            field: "(root)".to_owned(),
            problem: format!("cannot be read: {error}"),
        })?;
        raw.refuse_unsupported()?;
        raw.into_config()?.validate(FILE, &FIELDS)
    }
}

impl Raw {
    /// Refuses every feature that would need other arithmetic.
    fn refuse_unsupported(&self) -> Result<(), ModelConfigError> {
        let scaled = |rope: &Value| rope_type(rope) != "default";
        if let Some(rope) = self.rope_scaling.as_ref().filter(|rope| scaled(rope)) {
            return Err(unsupported(FILE, "rope_scaling", rope, "null"));
        }
        if let Some(rope) = self.rope_parameters.as_ref().filter(|rope| scaled(rope)) {
            return Err(unsupported(FILE, "rope_parameters", rope, "rope_type `default`"));
        }
        if let Some(factor) = self.partial_rotary_factor.filter(|&factor| factor != 1.0) {
            return Err(unsupported(FILE, "partial_rotary_factor", factor, "1"));
        }
        if self.hidden_act != "silu" {
            return Err(unsupported(FILE, "hidden_act", &self.hidden_act, "silu"));
        }
        for (field, present) in [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)] {
            if present {
                return Err(unsupported(FILE, field, true, "false"));
            }
        }
        for (field, value) in
            [("sliding_window", &self.sliding_window), ("quantization_config", &self.quantization_config)]
        {
            if let Some(value) = value {
                return Err(unsupported(FILE, field, value, "null"));
            }
        }
        Ok(())
    }

    fn into_config(self) -> Result<ModelConfig, ModelConfigError> {
        let bad = |field: &str, problem: String| ModelConfigError::Invalid {
            file: FILE.to_owned(),
            field: field.to_owned(),
            problem,
        };
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None => self
                .hidden_size
                .checked_div(self.num_attention_heads)
                .ok_or_else(|| bad(FIELDS.heads, "is 0".to_owned()))?,
        };
        const THETA_DEFAULT: f32 = 10_000.0;
        let nested_theta =
            self.rope_parameters.as_ref().and_then(|rope| rope.get("rope_theta")).and_then(Value::as_f64);
        Ok(ModelConfig {
            architecture: self.model_type,
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            ffn: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            vocab: self.vocab_size,
            context_tokens: self.max_position_embeddings,
            rope_theta: self.rope_theta.or(nested_theta.map(|theta| theta as f32)).unwrap_or(THETA_DEFAULT),
            rope_layout: RopeLayout::HalfSplit,
            norm_eps: self.rms_norm_eps,
            tied_embeddings: self.tie_word_embeddings,
            names: NameScheme::HuggingFace,
        })
    }
}

/// The kind of scaling that a rope description asks for, under its new or old name.
fn rope_type(rope: &Value) -> &str {
    rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or("default")
}
