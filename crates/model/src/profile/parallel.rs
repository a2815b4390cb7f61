//! What one rank holds: weights, KV and activations at every precision and parallel degree.
//!
//! Tensor-parallel ranks divide matrices by rows or columns and KV by whole heads (more ranks than KV heads: each keeps
//! one); vectors are on every rank. Pipeline stages divide layers; the first has the embedding, the last the output. All
//! shares round up, so that the figures are bounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ModelShape, ProfileDetails, Weights};

/// Tokens whose KV is allocated together.
pub const BLOCK_TOKENS: u64 = 16;
/// The degrees that a profile lists, of ranks that share every layer and of stages that share the layers.
const DEGREES: [u64; 4] = [1, 2, 4, 8];
/// The batches that a profile lists: sequences that one step samples.
const BATCHES: [u64; 3] = [1, 16, 64];

/// How weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As the files have them.
    Stored,
    /// 4 bytes each.
    F32,
    /// 2 bytes each: f16 or bf16.
    F16,
    /// Blocks of 32 bytes and a scale (`Q8_0`); vectors in f32.
    Int8,
    /// Blocks of 16 bytes and a scale (`Q4_0`); vectors in f32.
    Int4,
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvPrecision {
    /// 4 bytes an element.
    F32,
    /// 2 bytes: f16 or bf16.
    F16,
    /// 1 byte: fp8 or int8.
    Int8,
}

/// How many ranks share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degrees {
    /// Ranks that share every layer.
    pub tensor: u64,
    /// Stages that share the layers.
    pub pipeline: u64,
}

/// One line of a profile's table: what the fullest rank needs where so many share the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankNeeds {
    /// How many ranks there are.
    pub degrees: Degrees,
    /// Weights, by how they are held, as far as that is known.
    pub weight_bytes: BTreeMap<Precision, u64>,
    /// KV of one token, by how keys and values are held.
    pub kv_bytes_per_token: BTreeMap<KvPrecision, u64>,
    /// Peak of working memory for a step of [`STEP_TOKENS`] tokens, by how many sequences it samples.
    pub activation_bytes: BTreeMap<u64, u64>,
}

/// Tokens of a step in tables; the native engine's limit.
pub const STEP_TOKENS: u64 = 512;

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 5] = [Self::Stored, Self::F32, Self::F16, Self::Int8, Self::Int4];

    /// The name in flags and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    fn matrix_bytes(self, weights: Weights) -> u64 {
        const BLOCK: u64 = 32;
        match self {
            Self::Stored => weights.bytes,
            Self::F32 => 4 * weights.elements,
            Self::F16 => 2 * weights.elements,
            Self::Int8 => 34 * weights.elements.div_ceil(BLOCK),
            Self::Int4 => 18 * weights.elements.div_ceil(BLOCK),
        }
    }

    fn vector_bytes(self, weights: Weights) -> u64 {
        match self {
            Self::Stored => weights.bytes,
            Self::F16 => 2 * weights.elements,
            Self::F32 | Self::Int8 | Self::Int4 => 4 * weights.elements,
        }
    }
}

impl KvPrecision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name in flags and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }
}

impl Degrees {
    /// One rank.
    pub const ONE: Self = Self { tensor: 1, pipeline: 1 };

    /// All ranks together.
    pub fn ranks(self) -> u64 {
        self.tensor * self.pipeline
    }

    /// Whether a model can be divided so: whole heads and whole layers.
    pub(crate) fn divide(self, shape: &ModelShape) -> bool {
        let whole_heads = shape.heads.is_multiple_of(self.tensor);
        let whole_groups =
            shape.kv_heads.is_multiple_of(self.tensor) || self.tensor.is_multiple_of(shape.kv_heads);
        self.tensor > 0 && (1..=shape.layers).contains(&self.pipeline) && whole_heads && whole_groups
    }

    fn stage_layers(self, shape: &ModelShape) -> u64 {
        shape.layers.div_ceil(self.pipeline)
    }

    fn kv_heads(self, shape: &ModelShape) -> u64 {
        shape.kv_heads.div_ceil(self.tensor)
    }
}

impl ProfileDetails {
    /// Weights of the fullest rank, at one of [`Self::precisions`].
    pub fn weight_bytes(&self, precision: Precision, degrees: Degrees) -> u64 {
        let (shape, parts) = (&self.shape, &self.parts);
        let of_stage = |bytes: u64| (bytes * degrees.stage_layers(shape)).div_ceil(shape.layers);
        let divided = |part: Weights| precision.matrix_bytes(part).div_ceil(degrees.tensor);
        let kv_bytes = precision.matrix_bytes(parts.kv_projections);
        let layers = of_stage(divided(parts.matrices))
            + of_stage((kv_bytes * degrees.kv_heads(shape)).div_ceil(shape.kv_heads))
            + of_stage(precision.vector_bytes(parts.vectors));
        let (embedding, output) = (divided(parts.embedding), divided(parts.output));
        if degrees.pipeline == 1 {
            return layers + embedding + output;
        }
        // A tied output is the embedding, which the last stage then needs a copy of.
        let last = if parts.output.elements == 0 { embedding } else { output };
        layers + embedding.max(last)
    }

    /// The precisions whose bytes are known.
    pub fn precisions(&self) -> &'static [Precision] {
        match self.packed {
            true => &[Precision::Stored],
            false => &Precision::ALL,
        }
    }

    /// The table: a line for all degrees that divide the model, fewest stages first.
    pub fn table(&self) -> Vec<RankNeeds> {
        let degrees = DEGREES.iter().flat_map(|&pipeline| DEGREES.map(|tensor| Degrees { tensor, pipeline }));
        let dividing = degrees.filter(|degrees| degrees.divide(&self.shape));
        dividing.map(|degrees| self.rank_needs(degrees)).collect()
    }

    /// One line of the table.
    fn rank_needs(&self, degrees: Degrees) -> RankNeeds {
        let weights = |precision| (precision, self.weight_bytes(precision, degrees));
        let kv = |precision| (precision, self.shape.kv_bytes(1, precision, degrees) / BLOCK_TOKENS);
        let activations =
            |sequences| (sequences, self.shape.activation_bytes(STEP_TOKENS, sequences, degrees));
        RankNeeds {
            degrees,
            weight_bytes: self.precisions().iter().copied().map(weights).collect(),
            kv_bytes_per_token: KvPrecision::ALL.map(kv).into(),
            activation_bytes: BATCHES.map(activations).into(),
        }
    }
}

impl ModelShape {
    /// KV of one sequence of `tokens` on the fullest rank, in whole blocks; layers with a window keep no more than it.
    pub fn kv_bytes(&self, tokens: u64, precision: KvPrecision, degrees: Degrees) -> u64 {
        let blocks = |tokens: u64| tokens.next_multiple_of(BLOCK_TOKENS);
        let windowed = self.window.map_or(0, |window| window.layers);
        let kept = self.window.map_or(0, |window| blocks(tokens.min(window.tokens)));
        let layer_tokens = (self.layers - windowed) * blocks(tokens) + windowed * kept;
        let of_stage = (layer_tokens * degrees.stage_layers(self)).div_ceil(self.layers);
        of_stage * self.kv_bytes_per_layer_token(precision, degrees.kv_heads(self))
    }

    /// Peak of working memory on one rank, in float32, for a step of `step_tokens` that samples `sequences` of them: the
    /// residual stream and its norm, queries and their result, keys and values, the feed-forward layer three times (both
    /// halves and their product), and the logits, which every rank gathers. For one rank it is what
    /// [`ModelConfig::activation_bytes`](helios_storage::ModelConfig::activation_bytes) says of the native engine.
    pub fn activation_bytes(&self, step_tokens: u64, sequences: u64, degrees: Degrees) -> u64 {
        const F32_BYTES: u64 = 4;
        let divided = 2 * self.heads * self.head_dim / degrees.tensor
            + 2 * degrees.kv_heads(self) * self.head_dim
            + 3 * self.ffn.div_ceil(degrees.tensor);
        F32_BYTES * (step_tokens * (2 * self.hidden + divided) + sequences * self.vocab)
    }
}

#[cfg(test)]
mod tests {
    use helios_storage::ModelConfig;

    use super::*;
    use crate::profile::WeightParts;

    /// A model small enough to work everything out by hand: matrices in two bytes each, vectors in four.
    fn small() -> ProfileDetails {
        let shape = ModelShape {
            architecture: "llama".to_owned(),
            layers: 4,
            hidden: 8,
            ffn: 12,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            kv_head_elements: None,
            vocab: 10,
            context_tokens: 64,
            window: None,
        };
        let matrices = |elements| Weights { elements, bytes: 2 * elements };
        let parts = WeightParts {
            embedding: matrices(10 * 8),
            output: matrices(10 * 8),
            // Two of 2 x 4 rows in each of four layers.
            kv_projections: matrices(4 * 2 * 8 * 8),
            // Queries and the attention's output, and three of the feed-forward layer.
            matrices: matrices(4 * (2 * 16 * 8 + 3 * 12 * 8)),
            // Two norms a layer, and the last.
            vectors: Weights { elements: 9 * 8, bytes: 4 * 9 * 8 },
        };
        ProfileDetails { shape, parts, packed: false, accelerate: None }
    }

    fn line(tensor: u64, pipeline: u64) -> RankNeeds {
        let degrees = Degrees { tensor, pipeline };
        small().table().into_iter().find(|line| line.degrees == degrees).expect("a line")
    }

    #[test]
    fn the_table_has_the_degrees_that_divide_the_model() {
        // Eight ranks would halve a head, eight stages a layer.
        let degrees: Vec<(u64, u64)> =
            small().table().iter().map(|line| (line.degrees.tensor, line.degrees.pipeline)).collect();
        assert_eq!(degrees, [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2), (1, 4), (2, 4), (4, 4)]);
    }

    #[test]
    fn weights_at_every_precision_are_as_worked_out_by_hand() {
        let of = |line: RankNeeds| Precision::ALL.map(|precision| line.weight_bytes[&precision]);
        // 2,848 elements of matrices and 72 of vectors; blocks of 32: 3 + 3 + 16 + 68 of 34 or 18 bytes.
        assert_eq!(of(line(1, 1)), [5984, 11_680, 5840, 90 * 34 + 288, 90 * 18 + 288]);
        // Halves of the matrices, of which each has one of two key-value heads, and all vectors.
        assert_eq!(of(line(2, 1))[..3], [2848 + 288, 5696 + 288, 2848 + 144]);
        // Quarters, but for the key-value head, which two ranks share.
        assert_eq!(of(line(4, 1))[..3], [40 + 40 + 512 + 1088 + 288, 3360 + 288, 1680 + 144]);
        // Two layers of four, and the embedding or the output.
        assert_eq!(of(line(1, 2))[..3], [512 + 2176 + 144 + 160, 5376 + 144 + 320, 2688 + 72 + 160]);
        assert_eq!(of(line(1, 4))[0], 256 + 1088 + 72 + 160);
        assert_eq!(of(line(2, 2))[0], 256 + 1088 + 144 + 80);
    }

    #[test]
    fn kv_at_every_precision_is_as_worked_out_by_hand() {
        let of = |line: RankNeeds| KvPrecision::ALL.map(|precision| line.kv_bytes_per_token[&precision]);
        // A key and a value of 2 x 4 elements in four layers.
        assert_eq!(of(line(1, 1)), [256, 128, 64]);
        assert_eq!(of(line(2, 1)), [128, 64, 32]);
        assert_eq!(of(line(4, 1)), of(line(2, 1)), "no rank has less than a head");
        assert_eq!(of(line(1, 2)), [128, 64, 32]);
        assert_eq!(of(line(2, 4)), [32, 16, 8]);
    }

    #[test]
    fn working_memory_is_as_worked_out_by_hand() {
        let of = |line: RankNeeds| BATCHES.map(|batch| line.activation_bytes[&batch]);
        // Of 512 tokens 2 x 8 + 2 x 16 + 2 x 8 + 3 x 12 numbers, and 10 logits of each sequence.
        let step = 512 * 100 * 4;
        assert_eq!(of(line(1, 1)), [step + 40, step + 640, step + 2560]);
        assert_eq!(of(line(2, 1))[0], 512 * (16 + 16 + 8 + 18) * 4 + 40);
        assert_eq!(of(line(4, 1))[0], 512 * (16 + 8 + 8 + 9) * 4 + 40);
        assert_eq!(of(line(1, 4)), of(line(1, 1)), "stages divide layers, and a step is in one at a time");
    }

    #[test]
    fn one_rank_works_in_what_the_native_engine_takes() {
        let json = br#"{"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576,
            "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}"#;
        let config = ModelConfig::from_hugging_face(json).expect("a configuration");
        let shape = ModelShape::from_hugging_face(json).expect("a shape");
        for (tokens, sequences) in [(1, 1), (512, 1), (512, 32)] {
            let engine = config.activation_bytes(tokens as usize, sequences as usize) as u64;
            assert_eq!(shape.activation_bytes(tokens, sequences, Degrees::ONE), engine);
        }
    }
}
