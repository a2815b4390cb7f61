//! What the tiers remember across restarts: measured bandwidth, which directory is which, and how blobs were used.
//!
//! All of it can be lost: without it bandwidth is measured again and every blob is equally likely to be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use helios_types::Digest;
use serde::{Deserialize, Serialize};

use crate::{DurableFiles, StorageError};

/// The file, in the main directory.
const FILE: &str = "tiers.json";

/// The file that tells one directory from another that is mounted in its place.
const MARKER: &str = "tier.json";

/// Bytes of either file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// By path.
    pub(crate) directories: BTreeMap<PathBuf, SavedDirectory>,
    /// Uses of blobs: weight, and when it had that, in milliseconds since 1970.
    pub(crate) uses: Vec<(Digest, f64, u64)>,
}

/// What is remembered of a directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedDirectory {
    /// What its marker says.
    pub(crate) id: Option<String>,
    pub(crate) read_bytes_per_second: Option<u64>,
    pub(crate) write_bytes_per_second: Option<u64>,
}

impl SavedState {
    /// What an earlier process saved in `main`; nothing if that cannot be read.
    pub(crate) fn load(files: &DurableFiles, main: &Path) -> Self {
        match read_json(files, &main.join(FILE)) {
            Ok(saved) => saved.unwrap_or_default(),
            Err(problem) => {
                tracing::warn!(file = %main.join(FILE).display(), problem, "what the tiers had learned is lost");
                Self::default()
            }
        }
    }

    /// Saves it in `main`.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; what was saved before stays.
    pub(crate) fn save(&self, files: &DurableFiles, main: &Path) -> Result<(), StorageError> {
        let bytes = serde_json::to_vec(self).expect("invariant: paths that were read from text are text");
        files.write_atomic(&main.join(FILE), &bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct Marker {
    id: String,
}

/// The id of the tier in `dir`; `None` if there is none.
pub(crate) fn read_marker(files: &DurableFiles, dir: &Path) -> Option<String> {
    read_json::<Marker>(files, &dir.join(MARKER)).ok().flatten().map(|marker| marker.id)
}

/// Makes `dir` a tier of its own, and returns its id.
pub(crate) fn write_marker(files: &DurableFiles, dir: &Path) -> Result<String, StorageError> {
    let id = format!("{:016x}", helios_runtime::random_u64());
    let bytes =
        serde_json::to_vec(&Marker { id: id.clone() }).expect("invariant: a marker has only string keys");
    files.write_atomic(&dir.join(MARKER), &bytes).map(|()| id)
}

/// The value in a file; `None` if there is no file.
fn read_json<T: serde::de::DeserializeOwned>(files: &DurableFiles, path: &Path) -> Result<Option<T>, String> {
    match files.read(path, FILE_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
