//! The dimensions in a Hugging Face `config.json`.

use serde_json::Value;

use super::{AttentionWindow, DIMENSION_MAX, ModelShape};
use crate::ModelError;

const FILE: &str = "`config.json`";
const CONTEXT_DEFAULT: u64 = 2048;

impl ModelShape {
    /// Reads a Hugging Face `config.json`. A field that is missing has the default of the family's class.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] naming the field that is missing or absurd, or what the profile does not know of.
    pub fn from_hugging_face(json: &[u8]) -> Result<Self, ModelError> {
        let config: Value =
            serde_json::from_slice(json).map_err(|error| ModelError::invalid(FILE, error.to_string()))?;
        let fields = Fields(&config);
        let architecture = config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (hidden, heads) = (fields.required("hidden_size")?, fields.required("num_attention_heads")?);
        let latent = fields.latent()?;
        let kv_heads = fields.optional("num_key_value_heads").unwrap_or(heads);
        let head_dim =
            fields.optional("head_dim").unwrap_or_else(|| default_head_dim(&architecture, hidden, heads));
        let shape = Self {
            layers: fields.required("num_hidden_layers")?,
            hidden,
            ffn: fields.feed_forward()?,
            heads,
            kv_heads: latent.map_or(kv_heads, |_| 1),
            head_dim: latent.unwrap_or(head_dim),
            kv_head_elements: latent,
            vocab: fields.required("vocab_size")?,
            context_tokens: fields.optional("max_position_embeddings").unwrap_or(CONTEXT_DEFAULT),
            window: None,
            architecture,
        };
        let window = window(&config, &shape);
        Self { window, ..shape }.checked(FILE)
    }
}

/// The numbers of a configuration.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn optional(&self, field: &str) -> Option<u64> {
        self.0.get(field).and_then(Value::as_u64)
    }

    fn required(&self, field: &str) -> Result<u64, ModelError> {
        match self.optional(field) {
            Some(value) if (1..=DIMENSION_MAX).contains(&value) => Ok(value),
            Some(value) => Err(invalid(format!("`{field}` is {value}, expected 1 to {DIMENSION_MAX}"))),
            None => Err(invalid(format!("`{field}` is missing"))),
        }
    }

    /// The width that one token passes: of the dense layers, or of the experts that it uses.
    fn feed_forward(&self) -> Result<u64, ModelError> {
        let dense = self.required("intermediate_size")?;
        let Some(used) = self.optional("num_experts_per_tok") else { return Ok(dense) };
        let expert = self.optional("moe_intermediate_size").unwrap_or(dense);
        let shared = self.optional("shared_expert_intermediate_size");
        let shared = shared.or_else(|| Some(self.optional("n_shared_experts")?.saturating_mul(expert)));
        let experts = used.saturating_mul(expert).saturating_add(shared.unwrap_or(0)).max(dense);
        if experts > DIMENSION_MAX {
            let problem = format!("{used} experts of {expert} for one token are {experts} wide");
            return Err(invalid(format!("{problem}, expected at most {DIMENSION_MAX}")));
        }
        Ok(experts)
    }

    /// Elements that latent attention keeps of a token in each layer, where the model has it.
    fn latent(&self) -> Result<Option<u64>, ModelError> {
        if self.optional("kv_lora_rank").is_none() {
            return Ok(None);
        }
        if self.optional("index_topk").is_some() {
            return Err(invalid("`index_topk`: what its indexer keeps of a token is not known".to_owned()));
        }
        Ok(Some(self.required("kv_lora_rank")? + self.required("qk_rope_head_dim")?))
    }
}

fn invalid(problem: String) -> ModelError {
    ModelError::invalid(FILE, problem)
}

fn default_head_dim(architecture: &str, hidden: u64, heads: u64) -> u64 {
    match architecture {
        "qwen3" => 128,
        "gemma3_text" => 256,
        _ => hidden / heads,
    }
}

/// Which layers have a window: as listed, or by Gemma's pattern of one whole layer in every six.
fn window(config: &Value, shape: &ModelShape) -> Option<AttentionWindow> {
    const PATTERN_DEFAULT: u64 = 6;
    let tokens = config.get("sliding_window").and_then(Value::as_u64)?;
    if config.get("use_sliding_window").and_then(Value::as_bool) == Some(false) {
        return None;
    }
    let listed = config
        .get("layer_types")
        .and_then(Value::as_array)
        .map(|types| types.iter().filter(|kind| kind.as_str() == Some("sliding_attention")).count() as u64);
    let layers = match (listed, shape.architecture.as_str()) {
        (Some(layers), _) => layers.min(shape.layers),
        (None, "gemma3_text") => {
            let pattern = config.get("sliding_window_pattern").and_then(Value::as_u64);
            shape.layers - shape.layers / pattern.unwrap_or(PATTERN_DEFAULT).max(1)
        }
        (None, "mistral") => shape.layers,
        (None, _) => 0,
    };
    (layers > 0).then_some(AttentionWindow { layers, tokens })
}
