//! What a model needs of memory, from headers alone: no tensor is read, a model of any size takes milliseconds.
//!
//! [`MemoryProfile`] is kept in the manifest. Two totals are kept apart because they answer two questions:
//! [`MemoryProfile::weight_bytes`] is every tensor of the files, resident, and decides whether a model fits;
//! [`AccelerateScope`] is what `accelerate estimate-memory` prints, which builds the model without its head.
//! [`ProfileTotals`] gives both by name. [`parallel`] says what one rank holds at every precision and degree, [`fit`] whether that fits somewhere.

mod accelerate;
pub mod fit;
mod headers;
pub mod parallel;
mod shape;
mod weights;

use std::collections::BTreeMap;

use helios_storage::TensorInfo;
use helios_types::TensorType;
use parallel::{KvPrecision, Precision};
use serde::{Deserialize, Serialize};

pub use accelerate::AccelerateScope;
pub use headers::{HeaderFile, profile_of_headers, profile_of_path};
pub use shape::{AttentionWindow, ModelShape};
pub use weights::{WeightParts, Weights};

/// What the model needs of memory, computed from headers alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryProfile {
    /// Bytes of all tensors: what serving keeps resident.
    pub weight_bytes: u64,
    /// Those bytes by element type.
    pub weight_bytes_by_type: BTreeMap<TensorType, u64>,
    /// Bytes of the largest layer; an embedding counts as a layer of its own.
    pub largest_layer_bytes: u64,
    /// KV memory of one token in f16, all layers; 0 if the files do not say.
    pub kv_bytes_per_token: u64,
    /// What the arithmetic of precisions and degrees needs; absent in manifests of releases before 0.2, for which
    /// [`profile_of_headers`] computes it again, and for families whose dimensions are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<ProfileDetails>>,
}

/// The part of a profile that answers for other precisions and several ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileDetails {
    /// Dimensions of the model.
    pub shape: ModelShape,
    /// Its weights by what several ranks do with them.
    pub parts: WeightParts,
    /// Whether an element may be several weights, so that only their bytes as stored are known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packed: bool,
    /// The scope of `accelerate estimate-memory`, for families whose buffers are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerate: Option<AccelerateScope>,
}

/// The two totals of a profile, as JSON shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileTotals {
    /// Every tensor of the files, resident: what decides whether the model fits.
    pub serving_bytes: u64,
    /// What `accelerate estimate-memory` says by precision; `None` for families whose buffers are not known.
    pub accelerate_bytes: Option<BTreeMap<Precision, u64>>,
}

impl MemoryProfile {
    /// Sums up the headers of a model, of whatever is known of its dimensions. O(tensors).
    pub fn new<'a>(
        shape: impl Into<Option<ModelShape>>,
        tensors: impl Iterator<Item = &'a TensorInfo> + Clone,
    ) -> Self {
        let mut by_type = BTreeMap::new();
        let mut by_layer: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in tensors.clone() {
            let bytes = tensor.range.len() as u64;
            *by_type.entry(tensor.tensor_type).or_default() += bytes;
            *by_layer.entry(weights::layer_of(&tensor.name)).or_default() += bytes;
        }
        let details = shape.into().map(|shape| {
            let accelerate = AccelerateScope::new(&shape, tensors.clone());
            let packed = tensors.clone().any(weights::is_packed);
            Box::new(ProfileDetails { parts: WeightParts::new(tensors), shape, packed, accelerate })
        });
        let kv_bytes = |details: &ProfileDetails| details.shape.kv_bytes_per_token(KvPrecision::F16);
        Self {
            weight_bytes: by_type.values().sum(),
            weight_bytes_by_type: by_type,
            largest_layer_bytes: by_layer.into_values().max().unwrap_or(0),
            kv_bytes_per_token: details.as_deref().map_or(0, kv_bytes),
            details,
        }
    }

    /// The two totals by the names they have wherever a profile is shown.
    pub fn totals(&self) -> ProfileTotals {
        let scope = self.details.as_ref().and_then(|details| details.accelerate);
        let precisions = [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4];
        let told = |scope: AccelerateScope| {
            precisions
                .iter()
                .filter_map(|&precision| Some((precision, scope.total_bytes(precision)?)))
                .collect()
        };
        ProfileTotals { serving_bytes: self.serving_bytes(), accelerate_bytes: scope.map(told) }
    }

    /// Whether an element may be several weights. Known where the dimensions are.
    pub fn is_packed(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.packed)
    }

    /// What serving keeps resident: every tensor of the files.
    pub fn serving_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// What `accelerate estimate-memory` says for a precision, where the family's buffers are known.
    pub fn accelerate_bytes(&self, precision: Precision) -> Option<u64> {
        self.details.as_ref()?.accelerate?.total_bytes(precision)
    }
}
