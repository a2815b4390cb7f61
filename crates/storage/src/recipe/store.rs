//! Recipes in a store: made, read, verified, listed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_types::Digest;

use super::plan::{Piece, RecipePlan};
use super::{RECIPE_BYTES_MAX, Recipe, RecipePart, SCHEMA};
use crate::disk::{DiskFile, FileStatus, OpenMode};
use crate::durable::StagedFile;
use crate::hashing::{self, BlobHasher, CHUNK_BYTES};
use crate::scrub::ScrubPart;
use crate::tree::TreeHasher;
use crate::{Blob, BlobInfo, BlobStore, DurableFiles, FileBytes, StorageError, Tree, durable, verified};

/// A recipe with its files open.
struct Opened {
    recipe: Recipe,
    files: HashMap<Digest, Box<dyn DiskFile>>,
    /// Of the recipe and of each file, in order.
    states: Vec<FileStatus>,
}

impl Opened {
    /// What stands for the states of all its files where verified files are remembered.
    fn state(&self) -> FileStatus {
        verified::joined(self.recipe.whole.size, &self.states)
    }
}

impl BlobStore {
    /// Opens a file of a model without copying it: the map of the whole blob, or, if it is kept as a recipe, of the blobs
    /// that it lies in. The first time since the system started, and whenever one of the files has changed, all of it is
    /// read and compared with `info`: O(size).
    ///
    /// # Errors
    /// As [`get`](Self::get); [`StorageError::RecipeBroken`] if the file is kept as a recipe whose parts are gone or
    /// wrong. A part that is wrong is then in the quarantine.
    pub fn open_file(&self, info: &BlobInfo) -> Result<FileBytes, StorageError> {
        match self.get_whole(info) {
            Err(StorageError::BlobMissing { digest }) if digest == info.digest => {}
            result => return result.map(FileBytes::from),
        }
        let opened = match self.open_recipe(info)? {
            Some(opened) => opened,
            // Somebody may have brought the whole file back in between.
            None => return self.get_whole(info).map(FileBytes::from),
        };
        if !self.is_verified(opened.state(), info) {
            self.verify_recipe(&opened, info)?;
        }
        self.map_parts(&opened)
    }

    /// The recipe of a file, if it is kept as one.
    ///
    /// # Errors
    /// [`StorageError::RecipeBroken`], [`StorageError::Io`].
    pub fn recipe(&self, digest: &Digest) -> Result<Option<Recipe>, StorageError> {
        let path = self.recipe_path(digest);
        match DurableFiles::new(self.disk().clone()).read(&path, RECIPE_BYTES_MAX) {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => Recipe::parse(digest, &bytes).map(Some).map_err(|problem| broken(digest, problem)),
        }
    }

    /// Whether a file is kept as a recipe whose blobs are all there.
    pub(crate) fn has_recipe(&self, digest: &Digest) -> bool {
        let recipe = self.recipe(digest).ok().flatten();
        recipe.is_some_and(|recipe| recipe.sources().iter().all(|source| self.has_whole(source)))
    }

    /// Makes a recipe of a whole blob, and takes the whole blob's name away; who has it mapped keeps reading it. Until
    /// the recipe is durable and its parts were read back and found right, the whole blob stays.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`StorageError::StorageFull`]; [`StorageError::RecipeBroken`] if the parts are not the
    /// file: it then stays whole.
    pub fn replace_by_recipe(&self, info: &BlobInfo, plan: &RecipePlan) -> Result<Recipe, StorageError> {
        let whole = self.get_whole(info)?;
        let own = self.write_own(info, plan, &whole)?;
        let parts = plan.pieces.iter().map(|piece| part(piece, own.digest)).collect();
        let recipe = Recipe { schema: SCHEMA, whole: *info, own, parts };
        let files = DurableFiles::new(self.disk().clone());
        let path = self.recipe_path(&info.digest);
        files.create_dir(durable::parent(&path))?;
        self.write_recipe(&path, &recipe)?;
        let checked = self.open_recipe(info).and_then(|opened| {
            let opened = opened.ok_or_else(|| broken(&info.digest, "it is gone".to_owned()))?;
            self.verify_recipe(&opened, info)
        });
        if let Err(error) = checked {
            files.remove(&path)?;
            return Err(error);
        }
        files.remove(&self.path(&info.digest))?;
        Ok(recipe)
    }

    /// The blobs that recipes among `live` need: they must stay as long as those.
    ///
    /// # Errors
    /// [`StorageError::Io`]. A recipe that cannot be read needs nothing: it is of no use any more.
    pub fn recipe_sources(&self, live: &HashSet<Digest>) -> Result<Vec<Digest>, StorageError> {
        let mut sources = Vec::new();
        for digest in self.recipes()? {
            if live.contains(&digest)
                && let Ok(Some(recipe)) = self.recipe(&digest)
            {
                sources.extend(recipe.sources());
            }
        }
        Ok(sources)
    }

    /// The files that are kept as recipes, ordered by digest.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn recipes(&self) -> Result<Vec<Digest>, StorageError> {
        let dir = self.recipes_dir();
        if !durable::is_dir(&**self.disk(), &dir) {
            return Ok(Vec::new());
        }
        let named = |path: PathBuf| {
            let hex = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
            format!("sha256:{hex}").parse::<Digest>().ok()
        };
        let mut recipes: Vec<Digest> =
            durable::files_in(&**self.disk(), &dir)?.into_iter().filter_map(named).collect();
        recipes.sort_unstable();
        Ok(recipes)
    }

    /// The ranges that a recipe consists of, to be read; `None` if the file is not kept as one.
    pub(crate) fn recipe_parts(&self, info: &BlobInfo) -> Result<Option<Vec<ScrubPart>>, StorageError> {
        let Some(Opened { recipe, files, .. }) = self.open_recipe(info)? else { return Ok(None) };
        let files: HashMap<Digest, Arc<dyn DiskFile>> =
            files.into_iter().map(|(digest, file)| (digest, Arc::from(file))).collect();
        let part = |part: &RecipePart| ScrubPart {
            file: Arc::clone(&files[&part.blob]),
            start: part.offset,
            end: part.offset + part.length,
        };
        Ok(Some(recipe.parts.iter().map(part).collect()))
    }

    /// Reads a recipe that was found wrong once more, to find out which part is.
    pub(crate) fn verify_recipe_again(&self, info: &BlobInfo) -> Result<(), StorageError> {
        self.verified().revoke(info);
        self.open_recipe(info)?.map_or(Ok(()), |opened| self.verify_recipe(&opened, info).map(drop))
    }

    /// Deletes a recipe and returns its own size on disk, 0 if it was not there.
    pub(crate) fn remove_recipe(&self, digest: &Digest) -> Result<u64, StorageError> {
        self.verified().forget(digest);
        self.remove_file(&self.recipe_path(digest))
    }

    /// Durably; what a killed process leaves of it goes at the next start, as all that is in that folder.
    fn write_recipe(&self, path: &Path, recipe: &Recipe) -> Result<(), StorageError> {
        let staged = StagedFile::temporary(self.disk(), &self.layout().partial)?;
        let written = staged.file().write_all_at(&recipe.to_bytes(), 0);
        written.map_err(|error| StorageError::io("write", path, error))?;
        staged.persist(path)
    }

    /// Writes the blob of what only this file has.
    fn write_own(&self, info: &BlobInfo, plan: &RecipePlan, whole: &Blob) -> Result<BlobInfo, StorageError> {
        let mut writer = self.writer(&format!("recipe-{}", info.digest.hex()))?;
        writer.restart()?;
        for piece in &plan.pieces {
            let Piece::Own { range, offset } = piece else { continue };
            let gap = offset.saturating_sub(writer.len());
            writer.write(&vec![0; gap as usize])?;
            for chunk in whole[range.start as usize..range.end as usize].chunks(CHUNK_BYTES) {
                writer.write(chunk)?;
            }
        }
        writer.commit(None)
    }

    fn open_recipe(&self, info: &BlobInfo) -> Result<Option<Opened>, StorageError> {
        let path = self.recipe_path(&info.digest);
        let state = match self.disk().status(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(|error| StorageError::io("inspect", &path, error))?,
        };
        let Some(recipe) = self.recipe(&info.digest)? else { return Ok(None) };
        if self.disk().status(&path).ok() != Some(state) {
            // Replaced or removed while it was read.
            return self.open_recipe(info);
        }
        let (mut files, mut states) = (HashMap::new(), vec![state]);
        for source in recipe.sources() {
            let path = self.path(&source);
            let file = match self.disk().open(&path, OpenMode::Read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(broken(&info.digest, format!("its part {source} is gone")));
                }
                result => result.map_err(|error| StorageError::io("open", &path, error))?,
            };
            let status = file.status().map_err(|error| StorageError::io("inspect", &path, error))?;
            let fits = |part: &&RecipePart| {
                part.offset.checked_add(part.length).is_some_and(|end| end <= status.size)
            };
            if !recipe.parts.iter().filter(|part| part.blob == source).all(|part| fits(&part)) {
                self.blame(&source)?;
                return Err(broken(&info.digest, format!("its part {source} is too short")));
            }
            states.push(status);
            files.insert(source, file);
        }
        Ok(Some(Opened { recipe, files, states }))
    }

    /// The tree of a file that is kept as a recipe. O(size).
    pub(crate) fn tree_of_recipe(&self, info: &BlobInfo) -> Result<Tree, StorageError> {
        let opened = self.open_recipe(info)?.ok_or(StorageError::BlobMissing { digest: info.digest })?;
        self.verify_recipe(&opened, info)
    }

    /// Reads the parts (not their maps: a failing disk is then an error, not a signal) and compares them with `info`; what
    /// is right is remembered.
    fn verify_recipe(&self, opened: &Opened, info: &BlobInfo) -> Result<Tree, StorageError> {
        let mut hasher = TreeHasher::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        for part in &opened.recipe.parts {
            let file = &opened.files[&part.blob];
            let mut done = 0;
            while done < part.length {
                let length = buffer.len().min((part.length - done) as usize);
                let chunk = &mut buffer[..length];
                hashing::read_exact_at(&**file, chunk, part.offset + done)
                    .map_err(|error| StorageError::io("read", &self.path(&part.blob), error))?;
                hasher.update(chunk);
                done += length as u64;
            }
        }
        let tree = hasher.finish();
        if (tree.size(), tree.root()) == (info.size, info.blake3) {
            // A file that changed meanwhile has another state when the recipe is opened next.
            self.verified().insert(opened.state(), info);
            return Ok(tree);
        }
        for source in opened.recipe.sources() {
            if self.blame(&source)? {
                return Err(broken(
                    &info.digest,
                    format!("its part {source} is corrupt and was moved to the quarantine"),
                ));
            }
        }
        self.remove_recipe(&info.digest)?;
        Err(broken(
            &info.digest,
            "its parts are right, but are not the file; the recipe was removed".to_owned(),
        ))
    }

    /// Moves a blob whose bytes are not its name's to the quarantine; whether it was one.
    fn blame(&self, digest: &Digest) -> Result<bool, StorageError> {
        let path = self.path(digest);
        let file = self.open_blob(digest)?;
        let mut hasher = BlobHasher::default();
        let read = hashing::for_each_chunk(&*file, |chunk| hasher.update(chunk));
        read.map_err(|error| StorageError::io("read", &path, error))?;
        if hasher.finish().0.digest == *digest {
            return Ok(false);
        }
        self.verified().forget(digest);
        let quarantine = self.layout().quarantine.join(digest.hex());
        self.disk().rename(&path, &quarantine).map_err(|error| StorageError::io("move", &path, error))?;
        tracing::error!(%digest, quarantine = %quarantine.display(), "a corrupt part of a recipe was moved to the quarantine");
        Ok(true)
    }

    fn map_parts(&self, opened: &Opened) -> Result<FileBytes, StorageError> {
        let mut maps = HashMap::new();
        for (digest, file) in &opened.files {
            let map = file.map().map_err(|error| StorageError::io("map", &self.path(digest), error))?;
            maps.insert(*digest, map);
        }
        let range = |part: &RecipePart| part.offset as usize..(part.offset + part.length) as usize;
        Ok(FileBytes::join(opened.recipe.parts.iter().map(|part| (maps[&part.blob].clone(), range(part)))))
    }

    fn recipes_dir(&self) -> PathBuf {
        // Beside `quarantine`, in the store's own folder.
        durable::parent(&self.layout().quarantine).join("recipes")
    }

    pub(crate) fn recipe_path(&self, digest: &Digest) -> PathBuf {
        self.recipes_dir().join(format!("{}.json", digest.hex()))
    }
}

fn part(piece: &Piece, own: Digest) -> RecipePart {
    match piece {
        Piece::Own { range, offset } => {
            RecipePart { blob: own, offset: *offset, length: range.end - range.start }
        }
        Piece::Shared { range, blob, offset } => {
            RecipePart { blob: *blob, offset: *offset, length: range.end - range.start }
        }
    }
}

fn broken(digest: &Digest, problem: String) -> StorageError {
    StorageError::RecipeBroken { digest: *digest, problem }
}
