//! Models that share tensors, and stores that keep them once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use helios_registry::{Registry, RegistryConfig, Resolved};
use helios_storage::{DedupLimits, SafetensorsHeader, TensorPlan};
use helios_types::TensorType;

use crate::models::{self, Place};

const ROWS: usize = 64;

/// A folder whose weights are tensors with these fills.
pub(crate) fn write_variant(place: &Place, folder: &str, fills: &[u8]) {
    models::hugging_face(&place.path(folder), 1);
    let plan = |number: usize| TensorPlan {
        name: format!("model.layers.{number}.weight"),
        tensor_type: TensorType::BF16,
        shape: vec![ROWS, 128],
    };
    let plans: Vec<TensorPlan> = (0..fills.len()).map(plan).collect();
    let note = BTreeMap::from([("note".to_owned(), folder.to_owned())]);
    let layout = SafetensorsHeader::layout("model.safetensors", &plans, &note).expect("a layout");
    let mut file = layout.header;
    file.resize(layout.size, 0);
    for (index, range) in layout.tensors {
        file[range].fill(fills[index]);
    }
    fs::write(place.path(folder).join("model.safetensors"), file).expect("a file");
}

/// Settings with which the smallest saving is worth it.
pub(crate) fn config(deduplicate: bool) -> RegistryConfig {
    let dedup = DedupLimits { shared_share_min: 0.2, saved_bytes_min: 1 };
    RegistryConfig {
        dedup,
        deduplicate,
        gc_grace: std::time::Duration::ZERO,
        members_rebuild: std::time::Duration::ZERO,
        ..RegistryConfig::default()
    }
}

pub(crate) async fn open(place: &Place, deduplicate: bool) -> Arc<Registry> {
    Registry::open(&place.store(), config(deduplicate)).await.expect("the store opens")
}

pub(crate) async fn import(registry: &Arc<Registry>, place: &Place, folder: &str) -> Resolved {
    registry.import(&place.path(folder), None, &mut |_| {}).await.expect(folder)
}
