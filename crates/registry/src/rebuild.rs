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
/// Behind the name of a database: one that is being made.
const NEW: &str = ".new";
/// Behind the name of a database: the one before it.
const OLD: &str = ".old";
/// Behind the name of a database: SQLite's log of it.
const LOG: &str = "-wal";
/// Behind the name of a database: the index of that log.
const LOG_INDEX: &str = "-shm";

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
    /// old database may be damaged or gone. Records that can still be read from it are kept. The new one is whole before it
    /// takes the place of the old one, which stays as `metadata.db.old`.
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
        let (file, files) = (dir.join(DATABASE_FILE), ground.files.clone());
        let is_own = config.metadata.is_own();
        let mut kept = Vec::new();
        if is_own {
            let (file, files) = (file.clone(), files.clone());
            blocking(move || finish_replacing(&files, &file)).await?;
            kept = readable_records(&dir.join(DATABASE_FILE)).await;
        }
        let metadata = config.metadata.open(&if is_own { beside(&file, NEW) } else { file.clone() }).await?;
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
        let counts = counts?;
        if is_own {
            blocking(move || replace(&files, &file)).await?;
        }
        Ok(counts)
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

/// The records of a database that may be damaged or gone, as far as it can be read.
async fn readable_records(file: &Path) -> Vec<Change> {
    let mut kept = Vec::new();
    // Opening would make one.
    if !small_files::exists(&DurableFiles::default(), file).unwrap_or(true) {
        return kept;
    }
    let read = async {
        let old = SqlMetadata::sqlite(file).await?;
        let read = read_records(&old, &mut kept).await;
        // Its log is gone by then, which SQLite would else delete by its name, from beside the new one.
        old.close().await;
        read
    };
    if let Err(error) = read.await {
        tracing::warn!(%error, "not all records of the old database could be read");
    }
    kept
}

async fn read_records(old: &SqlMetadata, kept: &mut Vec<Change>) -> Result<(), MetadataError> {
    for kind in old.record_kinds().await?.into_keys() {
        for (key, value) in old.records(&kind).await? {
            kept.push(Change::PutRecord { kind: kind.clone(), key, value });
        }
    }
    Ok(())
}

/// Puts the new database, which is whole, into the place of the old one, which stays beside it with its log. A crash
/// anywhere in it leaves what [`finish_replacing`] goes on with.
fn replace(files: &DurableFiles, file: &Path) -> Result<(), RegistryError> {
    let (new, old) = (beside(file, NEW), beside(file, OLD));
    if small_files::exists(files, &beside(&new, LOG))? {
        let problem = format!("`{}` was not closed", new.display());
        return Err(RegistryError::Internal { problem });
    }
    if small_files::exists(files, file)? {
        // The log of the old one before it would be taken for this one's.
        files.remove(&beside(&old, LOG))?;
        files::rename(files, file, &old)?;
    }
    if small_files::exists(files, &beside(file, LOG))? {
        files::rename(files, &beside(file, LOG), &beside(&old, LOG))?;
    }
    for leftover in [beside(file, LOG_INDEX), beside(&old, LOG_INDEX)] {
        files.remove(&leftover)?;
    }
    files::rename(files, &new, file)
}

/// Goes on with a replacement that a crash interrupted, or clears what is left of a database that was not whole yet.
pub(crate) fn finish_replacing(files: &DurableFiles, file: &Path) -> Result<(), RegistryError> {
    let new = beside(file, NEW);
    let is_there = |path: &Path| small_files::exists(files, path);
    if is_there(&new)? && !is_there(&beside(&new, LOG))? && !is_there(file)? {
        return replace(files, file);
    }
    // The log last: without it, what is left looks whole.
    for leftover in [new.clone(), beside(&new, LOG_INDEX), beside(&new, LOG)] {
        if is_there(&leftover)? {
            files.remove(&leftover)?;
        }
    }
    Ok(())
}

/// The file beside a database whose name has another ending behind it.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use helios_storage::disk::{Fault, Unsynced};
    use helios_storage::{DurableFiles, SimulatedDisk};

    use super::{finish_replacing, replace};

    const FILE: &str = "/store/metadata.db";

    fn read(files: &DurableFiles, ending: &str) -> Option<String> {
        let bytes = files.read(Path::new(&format!("{FILE}{ending}")), 100).ok()?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn a_crash_anywhere_in_a_replacement_leaves_one_whole_database_with_its_own_log() {
        for operation in 0..200 {
            let disk = SimulatedDisk::new(operation);
            let files = DurableFiles::new(Arc::new(disk.clone()));
            files.create_dir(Path::new("/store")).expect("a folder");
            for ending in ["", "-wal", ".old", ".old-wal", ".new"] {
                let path = format!("{FILE}{ending}");
                files.write_atomic(Path::new(&path), format!("first{ending}").as_bytes()).expect("a file");
            }
            disk.inject(disk.operations() + operation, Fault::Crash);
            let replaced = replace(&files, Path::new(FILE));
            match operation % 2 {
                0 => disk.lose_power(Unsynced::Scattered),
                _ => disk.kill(),
            }
            finish_replacing(&files, Path::new(FILE)).expect("finished");
            let found = ["", "-wal", ".old", ".old-wal", ".new"].map(|ending| read(&files, ending));
            let found = found.each_ref().map(Option::as_deref);
            let is_new = found == [Some("first.new"), None, Some("first"), Some("first-wal"), None];
            let is_old = found[0] == Some("first") && found[1] == Some("first-wal") && found[4].is_none();
            assert!(is_new || is_old, "operation {operation}: {found:?}");
            if replaced.is_ok() {
                assert!(is_new, "operation {operation}: {found:?}");
                return;
            }
        }
        unreachable!("a replacement has fewer operations");
    }

    #[test]
    fn a_database_that_was_not_whole_goes() {
        let files = DurableFiles::new(Arc::new(SimulatedDisk::new(1)));
        files.create_dir(Path::new("/store")).expect("a folder");
        for ending in [".new", ".new-wal"] {
            files.write_atomic(Path::new(&format!("{FILE}{ending}")), b"half").expect("a file");
        }
        finish_replacing(&files, Path::new(FILE)).expect("cleared");
        assert_eq!([".new", ".new-wal", ""].map(|ending| read(&files, ending)), [None, None, None]);
    }
}
