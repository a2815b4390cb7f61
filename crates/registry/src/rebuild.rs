//! The database made again from the files of the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use helios_metadata::{Change, Counts, Metadata, MetadataError, SqlMetadata, TagEntry};
use helios_storage::DurableFiles;
use helios_types::ModelRef;

use crate::blocking::blocking;
use crate::changes::{retried, wait};
use crate::ground::Ground;
use crate::{MetadataConfig, Registry, RegistryConfig, RegistryError, files, small_files, tags};

/// Small files whose contents go into one commit.
const BATCH: usize = 500;
/// The kind of the records that name the stores whose files the database knows.
pub(crate) const STORES: &str = "store";
/// The database's file in the store.
pub(crate) const DATABASE_FILE: &str = "metadata.db";

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Small files read.
    pub done: usize,
    /// Small files there are.
    pub total: usize,
}

impl Registry {
    /// Makes the database of the store in `dir` again from its manifests and tags, which are files; O(small files). The
    /// old database may be damaged or gone. Records that can still be read from it are kept.
    ///
    /// # Errors
    /// [`RegistryError::StoreInUse`] while a server has it open; [`RegistryError::Storage`];
    /// [`RegistryError::Metadata`].
    pub async fn rebuild(
        dir: &Path,
        config: &RegistryConfig,
        mut report: impl FnMut(RebuildProgress) + Send + 'static,
    ) -> Result<Counts, RegistryError> {
        let ground = Ground::open(Arc::new(helios_storage::RealDisk), dir.to_owned(), Vec::new()).await?;
        let file = dir.join(DATABASE_FILE);
        let is_own = config.metadata.is_own();
        let mut kept = Vec::new();
        if is_own {
            kept = readable_records(&file).await;
            let (files, old) = (ground.files.clone(), file.clone());
            blocking(move || set_aside(&files, &old)).await?;
        }
        let metadata = config.metadata.open(&file).await?;
        let database = Arc::clone(&metadata);
        let counts = blocking(move || {
            for records in kept.chunks(BATCH) {
                wait(database.commit(records))?;
            }
            import(&ground, &*database, is_own, &mut report)?;
            Ok(wait(database.counts())?)
        })
        .await;
        metadata.close().await;
        counts
    }
}

impl Registry {
    /// Copies the database of the store in `dir` to a new file, also while a server uses it.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`]: among others if there is no database, if the file is there, or the database is one
    /// of PostgreSQL, which has `pg_dump`.
    pub async fn backup(dir: &Path, config: &RegistryConfig, target: &Path) -> Result<(), RegistryError> {
        let file = dir.join(DATABASE_FILE);
        // Opening would make one, whose copy would look like that of a store without models.
        if matches!(config.metadata, MetadataConfig::Sqlite)
            && !small_files::exists(&DurableFiles::default(), &file)?
        {
            return Err(MetadataError::Missing { database: file.display().to_string() }.into());
        }
        let metadata = config.metadata.open(&dir.join(DATABASE_FILE)).await?;
        let copied = metadata.backup(target).await;
        metadata.close().await;
        Ok(copied?)
    }
}

/// Reads every small file into the database, and notes that it knows this store. Blocks. `is_own` says that no other
/// registry uses the database.
pub(crate) fn import(
    ground: &Ground,
    metadata: &dyn Metadata,
    is_own: bool,
    report: &mut dyn FnMut(RebuildProgress),
) -> Result<(), RegistryError> {
    let (files, tags_dir) = (&ground.files, ground.dir.join("tags"));
    let manifests = files.list(&ground.dir.join("manifests"), false)?;
    let tags = files.list(&tags_dir, true)?;
    let mut progress = RebuildProgress { done: 0, total: manifests.len() + tags.len() };
    let mut note = |read: usize| {
        progress.done += read;
        report(progress);
    };
    in_batches(&manifests, |path| small_files::manifest(files, path, &ground.id), &mut |changes, read| {
        wait(metadata.commit(&changes))?;
        note(read);
        Ok(())
    })?;
    // A database of one store that knows no tag yet learns none from others meanwhile.
    let is_new = is_own && wait(metadata.tags())?.is_empty();
    in_batches(&tags, |path| small_files::tag(files, &tags_dir, path), &mut |histories, read| {
        match is_new {
            true => {
                let set = |(reference, history)| Change::SetTag { reference, history, from: None };
                wait(metadata.commit(&histories.into_iter().map(set).collect::<Vec<_>>()))?;
            }
            false => retried(|| Ok(wait(metadata.commit(&missing(&histories, metadata)?))?))?,
        }
        note(read);
        Ok(())
    })?;
    let known = Change::PutRecord { kind: STORES.to_owned(), key: ground.id.clone(), value: "{}".to_owned() };
    Ok(wait(metadata.commit(&[known]))?)
}

/// Reads files in batches, each while the one before it is committed. `commit` also gets how many were read.
fn in_batches<T: Send>(
    paths: &[PathBuf],
    read: impl Fn(&Path) -> Result<Option<T>, RegistryError> + Sync,
    commit: &mut dyn FnMut(Vec<T>, usize) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    type Batch<T> = Result<Vec<Option<T>>, RegistryError>;
    let read = &read;
    thread::scope(|scope| {
        let read_all = |paths: &[PathBuf]| paths.iter().map(|path| read(path)).collect::<Batch<T>>();
        let mut batches = paths.chunks(BATCH).map(|paths| scope.spawn(move || read_all(paths)));
        let mut reading = batches.next();
        while let Some(batch) = reading {
            let batch = batch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            reading = batches.next();
            let files = batch.len();
            commit(batch.into_iter().flatten().collect(), files)?;
        }
        Ok(())
    })
}

/// What makes the database know the histories of files, beside what other registries on it did to the same tags.
fn missing(
    histories: &[(ModelRef, Vec<TagEntry>)],
    metadata: &dyn Metadata,
) -> Result<Vec<Change>, RegistryError> {
    let mut changes = Vec::new();
    for (reference, in_file) in histories {
        let known = wait(metadata.history(reference))?;
        let history = tags::merged(&known, in_file);
        if history != known {
            let reference = reference.clone();
            changes.push(Change::SetTag { reference, history, from: Some(known) });
        }
    }
    Ok(changes)
}

/// The records of a database that may be damaged, as far as it can be read.
async fn readable_records(file: &Path) -> Vec<Change> {
    let mut kept = Vec::new();
    let read = async {
        let old = SqlMetadata::sqlite(file).await?;
        for kind in old.record_kinds().await?.into_keys() {
            for (key, value) in old.records(&kind).await? {
                kept.push(Change::PutRecord { kind: kind.clone(), key, value });
            }
        }
        old.close().await;
        Ok::<(), RegistryError>(())
    };
    if let Err(error) = read.await {
        tracing::warn!(%error, "not all records of the old database could be read");
    }
    kept
}

/// Gives the old database another name, beside the new one. Its log goes: it was merged, or cannot be read.
fn set_aside(files: &DurableFiles, file: &Path) -> Result<(), RegistryError> {
    if small_files::exists(files, file)? {
        files::rename(files, file, &file.with_extension("db.old"))?;
    }
    for ending in ["db-wal", "db-shm"] {
        files.remove(&file.with_extension(ending))?;
    }
    Ok(())
}
