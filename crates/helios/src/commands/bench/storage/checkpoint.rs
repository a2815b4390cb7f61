//! The checkpoint that is loaded: four safetensors files of bytes that do not compress, as blobs of a store, with names as
//! the peers want them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use helios_storage::{BlobInfo, BlobStore, probe};

/// Files of the checkpoint.
const SHARDS: u64 = 4;
/// Tensors of each.
const TENSORS: u64 = 16;

/// A temporary folder on the disk to be measured; deleted when dropped.
pub(super) struct Checkpoint(PathBuf);

impl Checkpoint {
    pub(super) fn folder_in(parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join(format!(".helios-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| {
            format!("cannot create `{}`\nhint: choose a folder with --dir", folder.display())
        })?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot delete `{}`: {error}", self.0.display());
        }
    }
}

/// Writes the checkpoint into a store in `folder`, with links `model-N.safetensors` beside it.
pub(super) fn write(folder: &Path, bytes: u64) -> anyhow::Result<Vec<BlobInfo>> {
    let store = BlobStore::open(&folder.join("store"))?;
    (0..SHARDS).map(|shard| write_shard(&store, folder, shard, bytes / SHARDS)).collect()
}

fn write_shard(store: &BlobStore, folder: &Path, shard: u64, bytes: u64) -> anyhow::Result<BlobInfo> {
    let elements = bytes / TENSORS / 2;
    let mut header = serde_json::Map::new();
    for tensor in 0..TENSORS {
        let (start, end) = (tensor * elements * 2, (tensor + 1) * elements * 2);
        let entry = serde_json::json!({"dtype": "BF16", "shape": [elements], "data_offsets": [start, end]});
        header.insert(format!("layers.{shard}.{tensor}.weight"), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut blob = Pieces(store.writer(&format!("shard-{shard}"))?);
    blob.write_all(&(header.len() as u64).to_le_bytes())?;
    blob.write_all(&header)?;
    probe::write_noise(&mut blob, elements * 2 * TENSORS, shard)?;
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
