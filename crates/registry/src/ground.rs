//! What a store stands on: its folder under the exclusive lock, its files and blobs, and its id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::tiers::TierDirectory;
use helios_storage::{DirLock, Disk, DurableFiles, StorageError, Tiers};

use crate::blocking::blocking;
use crate::{RegistryError, files, small_files};

/// A store's folder, locked.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) dir: PathBuf,
    /// Names the store where several share a database.
    pub(crate) id: String,
    pub(crate) files: DurableFiles,
    pub(crate) blobs: Arc<Tiers>,
    pub(crate) lock: DirLock,
}

impl Ground {
    /// Locks the folder, creating it if need be, and clears what an earlier process left half done.
    pub(crate) async fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        tiers: Vec<TierDirectory>,
    ) -> Result<Self, RegistryError> {
        blocking(move || {
            let lock = DirLock::acquire_on(&*disk, &dir).map_err(|error| in_use(&dir, error))?;
            let files = DurableFiles::new(Arc::clone(&disk));
            // Nobody else can be using what an earlier process left: the lock is held.
            files.remove_dir(&downloads_dir(&dir))?;
            for folder in ["manifests", "tags"] {
                files.create_dir(&dir.join(folder))?;
            }
            files.remove_stale_temporaries(&dir.join("manifests"))?;
            let blobs = Tiers::open_on(disk, &dir, tiers)?;
            Ok(Self { id: id(&files, &dir.join("id"))?, dir, files, blobs, lock })
        })
        .await
    }
}

/// The id in a file, or a new one.
fn id(files: &DurableFiles, path: &Path) -> Result<String, RegistryError> {
    if small_files::exists(files, path)? {
        let bytes = files::read(files, path)?;
        let id = String::from_utf8(bytes).ok().filter(|id| id.len() == 32 && id.is_ascii());
        return id.ok_or_else(|| RegistryError::InvalidManifest {
            subject: format!("`{}`", path.display()),
            problem: "it holds no id of a store".to_owned(),
        });
    }
    let id = format!("{:016x}{:016x}", helios_runtime::random_u64(), helios_runtime::random_u64());
    files.write_atomic(path, id.as_bytes())?;
    Ok(id)
}

/// Where wheels lie while they are unpacked.
pub(crate) fn downloads_dir(dir: &Path) -> PathBuf {
    dir.join("downloads")
}

fn in_use(dir: &Path, error: StorageError) -> RegistryError {
    match error {
        StorageError::Locked { holder_pid, .. } => {
            RegistryError::StoreInUse { store: dir.display().to_string(), holder_pid }
        }
        error => error.into(),
    }
}
