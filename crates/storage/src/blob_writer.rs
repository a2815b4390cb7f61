//! A blob that arrives in pieces: hashed as it is written, resumable until it is committed.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use helios_runtime::Clock;
use helios_types::Digest;

use crate::durable::StagedFile;
use crate::hashing::{self, BlobHasher};
use crate::layout::Layout;
use crate::{BlobInfo, StorageError};

/// Bytes after which the disk is asked to begin with what was written. Left to itself the kernel begins late, and the
/// fsync of the commit then waits for all of it: of a GiB that comes at the disk's rate, half a second of two and a half.
const WRITE_BACK_BYTES: u64 = 16 << 20;

/// Writes one blob. Dropped without a commit, what was written stays for a later writer of the same key.
#[derive(Debug)]
pub struct BlobWriter {
    staged: StagedFile,
    layout: Arc<Layout>,
    hasher: BlobHasher,
    watch: Option<Box<dyn WriteWatch>>,
}

/// Follows a writer on behalf of who gave it out: keeps its room, and knows where it can go on.
pub(crate) trait WriteWatch: fmt::Debug + Send + Sync {
    /// Makes sure of room for `bytes` in all.
    fn reserve(&mut self, bytes: u64) -> Result<(), StorageError>;

    /// `bytes` were written within `elapsed`, and the blob has come to `end`.
    fn wrote(&mut self, bytes: u64, end: u64, elapsed: Duration);

    /// Whether there is room now for `bytes` that did not fit, so that it is worth trying again.
    fn made_room(&mut self, error: &StorageError, bytes: u64) -> bool;

    /// Writing failed.
    fn failed(&mut self, error: &StorageError);

    /// A writer of the same key in another directory with room for `bytes` at least.
    fn elsewhere(&mut self, bytes: u64) -> Option<BlobWriter>;

    /// The blob is there.
    fn committed(&mut self, info: &BlobInfo);
}

impl BlobWriter {
    /// Takes over a staged file with what it holds.
    pub(crate) fn resume(staged: StagedFile, layout: Arc<Layout>) -> Result<Self, StorageError> {
        let mut hasher = BlobHasher::default();
        hashing::for_each_chunk(staged.file(), |chunk| hasher.update(chunk))
            .map_err(|error| StorageError::io("read", staged.path(), error))?;
        Ok(Self { staged, layout, hasher, watch: None })
    }

    /// Has it followed.
    pub(crate) fn watched(self, watch: Box<dyn WriteWatch>) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Bytes written so far, those of an earlier writer included.
    #[expect(clippy::len_without_is_empty, reason = "a position, not a collection")]
    pub fn len(&self) -> u64 {
        self.hasher.size()
    }

    /// Appends `bytes`. Where the store has other directories and this one fails or fills, the writer moves there with
    /// what it has.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`], [`StorageError::NoRoom`] or [`StorageError::Io`]; the position is then unchanged
    /// and the same bytes may be written again.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        while let Err(error) = self.write_here(bytes) {
            let Some(watch) = &mut self.watch else { return Err(error) };
            if watch.made_room(&error, bytes.len() as u64) {
                continue;
            }
            watch.failed(&error);
            let end = self.hasher.size() + bytes.len() as u64;
            match watch.elsewhere(end) {
                Some(mut elsewhere) => {
                    self.copy_to(&mut elsewhere)?;
                    std::mem::replace(self, elsewhere).discard();
                }
                // Others may have left since it was looked for.
                None if watch.made_room(&error, bytes.len() as u64) => {}
                None => return Err(error),
            }
        }
        Ok(())
    }

    fn write_here(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_unnamed(bytes)?;
        self.hasher.name_update(bytes);
        Ok(())
    }

    /// Writes bytes whose SHA-256 is computed elsewhere.
    fn write_unnamed(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let (position, began) = (self.len(), Clock.now());
        if let Some(watch) = &mut self.watch {
            watch.reserve(position + bytes.len() as u64)?;
        }
        let written = self.staged.file().write_all_at(bytes, position);
        written.map_err(|error| StorageError::io("write", self.staged.path(), error))?;
        self.begin_writing_back(position, position + bytes.len() as u64);
        self.hasher.tree_update(bytes);
        if let Some(watch) = &mut self.watch {
            watch.wrote(bytes.len() as u64, position + bytes.len() as u64, began.elapsed());
        }
        Ok(())
    }

    /// Has the disk begin with the whole pieces of [`WRITE_BACK_BYTES`] that end in `start..end`. What is on its way stays in
    /// the page cache. No more than a hint: the commit's fsync is what makes a blob durable, and says what went wrong.
    fn begin_writing_back(&self, start: u64, end: u64) {
        let piece = |position: u64| position / WRITE_BACK_BYTES * WRITE_BACK_BYTES;
        let (from, to) = (piece(start), piece(end));
        if let Some(file) = self.staged.file().system_file()
            && let Some(length) = NonZeroU64::new(to - from)
        {
            let _hint = rustix::fs::fadvise(file, from, Some(length), rustix::fs::Advice::DontNeed);
        }
    }

    /// Appends `chunks`, as [`write`](Self::write) each in order. SHA-256, the slowest step, runs on a thread of its own
    /// beside the writing and the BLAKE3 tree.
    ///
    /// # Errors
    /// As there; the position is behind the chunks that were written.
    pub fn write_chunks<B: AsRef<[u8]> + Sync>(&mut self, chunks: &[B]) -> Result<(), StorageError> {
        let mut named = self.hasher.name();
        let (written, named) = thread::scope(|scope| {
            let naming = scope.spawn(|| {
                chunks.iter().for_each(|chunk| named.update(chunk.as_ref()));
                named
            });
            let written =
                chunks.iter().take_while(|chunk| self.write_unnamed(chunk.as_ref()).is_ok()).count();
            (written, naming.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (done, rest) = chunks.split_at(written);
        if rest.is_empty() {
            self.hasher.set_name(named);
            return Ok(());
        }
        done.iter().for_each(|chunk| self.hasher.name_update(chunk.as_ref()));
        // The one that failed again, so that the writer may move elsewhere.
        rest.iter().try_for_each(|chunk| self.write(chunk.as_ref()))
    }

    /// Gives another writer what was written so far.
    fn copy_to(&self, other: &mut Self) -> Result<(), StorageError> {
        other.restart()?;
        let mut copied = Ok(());
        let reading = hashing::for_each_chunk(self.staged.file(), |chunk| {
            // Bytes behind the position are those of a write that failed half-way.
            let rest = self.len().saturating_sub(other.len()).min(chunk.len() as u64) as usize;
            if copied.is_ok() {
                copied = other.write(&chunk[..rest]);
            }
        });
        reading.map_err(|error| StorageError::io("read", self.staged.path(), error))?;
        copied
    }

    /// Forgets everything written, for a source that cannot continue where it stopped.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn restart(&mut self) -> Result<(), StorageError> {
        self.hasher = BlobHasher::default();
        self.truncate()
    }

    /// The digest of what was written so far. O(1).
    pub fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    /// Makes the blob durable and gives it its name.
    ///
    /// # Errors
    /// [`StorageError::DigestMismatch`] if it is not the expected one, or an fsync that fails, which discard it;
    /// another [`StorageError::StorageFull`] or [`StorageError::Io`] keeps it for a later writer.
    pub fn commit(self, expected: Option<Digest>) -> Result<BlobInfo, StorageError> {
        // A write that failed half-way may have left bytes behind the position.
        self.truncate()?;
        let Self { staged, layout, hasher, watch } = self;
        let (info, tree) = hasher.finish();
        match expected {
            Some(expected) if expected != info.digest => {
                staged.discard();
                Err(StorageError::DigestMismatch { expected, actual: info.digest })
            }
            _ => {
                layout.settle(staged, &info, &tree)?;
                watch.into_iter().for_each(|mut watch| watch.committed(&info));
                Ok(info)
            }
        }
    }

    /// Deletes what was written.
    pub fn discard(self) {
        self.staged.discard();
    }

    /// Cuts the file at the position.
    fn truncate(&self) -> Result<(), StorageError> {
        let cut = self.staged.file().set_len(self.len());
        cut.map_err(|error| StorageError::io("truncate", self.staged.path(), error))
    }
}
