//! The checkpoint that is loaded: four safetensors files of bytes that do not compress, as blobs of a store, with names as
//! the peers want them.

use std::io::Write;
use std::path::Path;

use helios_storage::{BlobInfo, BlobStore};

use super::made::{Tensor, write_safetensors};

/// Files of the checkpoint.
const SHARDS: u64 = 4;
/// Tensors of each.
const TENSORS: u64 = 16;

/// Writes the checkpoint into a store in `folder`, with links `model-N.safetensors` beside it.
pub(super) fn write(folder: &Path, bytes: u64) -> anyhow::Result<Vec<BlobInfo>> {
    let store = BlobStore::open(&folder.join("store"))?;
    (0..SHARDS).map(|shard| write_shard(&store, folder, shard, bytes / SHARDS)).collect()
}

fn write_shard(store: &BlobStore, folder: &Path, shard: u64, bytes: u64) -> anyhow::Result<BlobInfo> {
    let tensor = |index: u64| Tensor {
        name: format!("layers.{shard}.{index}.weight"),
        elements: bytes / TENSORS / 2,
        seed: shard * TENSORS + index,
    };
    let tensors: Vec<Tensor> = (0..TENSORS).map(tensor).collect();
    let mut blob = Pieces(store.writer(&format!("shard-{shard}"))?);
    write_safetensors(&mut blob, &tensors)?;
    let info = blob.0.commit(None)?;
    std::fs::hard_link(store.path(&info.digest), folder.join(format!("model-{shard:05}.safetensors")))?;
    Ok(info)
}

/// A blob's writer as the standard library's.
struct Pieces(helios_storage::BlobWriter);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
