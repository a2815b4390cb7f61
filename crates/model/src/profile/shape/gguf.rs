//! The dimensions in the keys of a GGUF file: `ARCHITECTURE.KEY`, by llama.cpp's `gguf-py/gguf/constants.py`.

use helios_storage::{Gguf, GgufArray, GgufValue};

use super::{AttentionWindow, DIMENSION_MAX, ModelShape};
use crate::ModelError;

impl ModelShape {
    /// Reads the keys of a GGUF file of any family; `file` is its name for errors. A key with a number for each layer
    /// counts as the largest of them: the figures are bounds.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] naming the key that is missing or absurd, or what the profile does not know of;
    /// [`ModelError::Storage`] without an architecture.
    pub fn from_gguf(file: &str, gguf: &Gguf) -> Result<Self, ModelError> {
        let keys = Keys { file, gguf, architecture: gguf.str("general.architecture")? };
        keys.refuse_states()?;
        let (hidden, heads) = (keys.required("embedding_length")?, keys.required("attention.head_count")?);
        let layers = keys.required("block_count")?;
        let head_dim = keys.optional("attention.key_length")?.unwrap_or(hidden / heads);
        let shape = Self {
            architecture: keys.architecture.to_owned(),
            layers,
            hidden,
            ffn: keys.feed_forward()?,
            heads,
            kv_heads: keys.optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            kv_head_elements: keys.kept_elements(head_dim)?,
            vocab: keys.vocab()?,
            context_tokens: keys.required("context_length")?,
            window: keys.window(layers)?,
        };
        shape.checked(&format!("`{file}`"))
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    file: &'a str,
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<&GgufValue> {
        self.gguf.metadata.get(&self.name(key))
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The number of a key, or the largest of those that it has for the layers.
    fn optional(&self, key: &str) -> Result<Option<u64>, ModelError> {
        let largest = match self.value(key) {
            None => return Ok(None),
            Some(GgufValue::Array(GgufArray::U32(values))) => values.iter().map(|&value| value.into()).max(),
            Some(GgufValue::Array(GgufArray::I32(values))) => values.iter().map(|&value| value.into()).max(),
            Some(value) => value.as_integer(),
        };
        let number = largest.and_then(|largest| u64::try_from(largest).ok());
        match number.filter(|number| *number <= DIMENSION_MAX) {
            Some(number) => Ok(Some(number)),
            None => {
                let found = largest.map_or_else(|| "no number".to_owned(), |largest| largest.to_string());
                let expected = format!("expected at most {DIMENSION_MAX}");
                Err(self.invalid(format!("`{}` is {found}, {expected}", self.name(key))))
            }
        }
    }

    fn required(&self, key: &str) -> Result<u64, ModelError> {
        match self.optional(key)? {
            Some(0) => Err(self.invalid(format!("`{}` is 0", self.name(key)))),
            Some(number) => Ok(number),
            None => Err(self.invalid(format!("`{}` is missing", self.name(key)))),
        }
    }

    /// Layers that keep a state instead of keys and values need memory that nothing here counts.
    fn refuse_states(&self) -> Result<(), ModelError> {
        let states = ["ssm.state_size", "ssm.conv_kernel", "wkv.head_size"];
        match states.into_iter().find(|key| self.value(key).is_some()) {
            Some(key) => {
                Err(self.invalid(format!("`{}`: what its layers keep is not known", self.name(key))))
            }
            None => Ok(()),
        }
    }

    /// The width that one token passes: of the dense layers, or of the experts that it uses.
    fn feed_forward(&self) -> Result<u64, ModelError> {
        let used = self.optional("expert_used_count")?.unwrap_or(0);
        let dense = match used {
            0 => self.required("feed_forward_length")?,
            _ => self.optional("feed_forward_length")?.unwrap_or(0),
        };
        let expert = self.optional("expert_feed_forward_length")?.unwrap_or(dense);
        let shared = match self.optional("expert_shared_feed_forward_length")? {
            Some(width) => width,
            None => self.optional("expert_shared_count")?.unwrap_or(0) * expert,
        };
        match dense.max(used * expert + shared) {
            width @ 1..=DIMENSION_MAX => Ok(width),
            width => Err(self.invalid(format!("the experts of one token are {width} wide"))),
        }
    }

    /// [`ModelShape::kv_head_elements`]. A file with `key_length_mla` was written for engines that keep the latent: its
    /// `key_length` is that of the latent and the rotated part, and the values are in it. An older one says what the
    /// heads make of the latent.
    fn kept_elements(&self, key_length: u64) -> Result<Option<u64>, ModelError> {
        if self.optional("attention.key_length_mla")?.is_some_and(|length| length > 0) {
            return Ok(Some(key_length));
        }
        let value_length = self.optional("attention.value_length")?.unwrap_or(key_length);
        Ok((value_length != key_length).then_some(key_length + value_length))
    }

    /// The vocabulary is what the embedding has rows for.
    fn vocab(&self) -> Result<u64, ModelError> {
        let embedding = self.gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        match embedding.and_then(|tensor| tensor.shape.first()) {
            Some(rows) => Ok(*rows as u64),
            None => self.required("vocab_size"),
        }
    }

    /// Which layers have a window: as listed, or by the family's period, the last layer of which sees everything.
    /// Families that llama.cpp gives no window have none here.
    fn window(&self, layers: u64) -> Result<Option<AttentionWindow>, ModelError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let Some(tokens) = self.optional("attention.sliding_window")?.filter(|tokens| *tokens > 0) else {
            return Ok(None);
        };
        let listed = match self.value(PATTERN) {
            Some(GgufValue::Array(GgufArray::Bool(own))) => Some(own.iter().filter(|own| **own).count()),
            Some(GgufValue::Array(GgufArray::U32(own))) => Some(own.iter().filter(|own| **own != 0).count()),
            Some(GgufValue::Array(GgufArray::I32(own))) => Some(own.iter().filter(|own| **own != 0).count()),
            _ => None,
        };
        let period = match self.architecture {
            "gemma2" | "gpt-oss" => Some(2),
            "cohere2" => Some(4),
            "gemma3" => Some(6),
            _ => None,
        };
        let windowed = match listed {
            Some(listed) => layers.min(listed as u64),
            None => self.optional(PATTERN)?.or(period).map_or(0, |period| windowed(layers, period)),
        };
        Ok((windowed > 0).then_some(AttentionWindow { layers: windowed, tokens }))
    }

    fn invalid(&self, problem: String) -> ModelError {
        ModelError::invalid(format!("`{}`", self.file), problem)
    }
}

/// Layers with a window, where the last of every `period` has none; a period of 0 has no such layer.
fn windowed(layers: u64, period: u64) -> u64 {
    layers - layers.checked_div(period).unwrap_or(0)
}
