//! The bytes of one file of the store for whoever sends them on: how many there are, and any range of them as a stream.
//!
//! No byte is handed out that was not verified. What is not here is fetched when it is read: who only asks about a file
//! waits for nothing. While a file is read, the versions that have it stay: whoever fetches a model file by file for longer
//! than what was handed out is safe finds the next one, too.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use helios_runtime::{Clock, Instant};
use helios_storage::{BlobInfo, FileBytes};
use helios_types::Digest;

use crate::blocking::blocking;
use crate::{Registry, RegistryError};

/// Bytes of one piece of a stream.
const PIECE_BYTES: u64 = 256 << 10;
/// How often a stream says that it is read.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// One file of the store, not read yet.
#[derive(Clone, Debug)]
pub struct Content {
    info: BlobInfo,
    registry: Arc<Registry>,
}

/// Somebody who reads a file.
struct Reader {
    blob: Digest,
    /// A stream that nobody ends must not keep a store open.
    registry: Weak<Registry>,
    noted_at: Instant,
}

impl Reader {
    /// Says now and then that the file is read still.
    async fn note(&mut self) {
        if self.noted_at.elapsed() < NOTE_EVERY {
            return;
        }
        self.noted_at = Clock.now();
        if let Some(registry) = self.registry.upgrade() {
            registry.read_elsewhere(&self.blob).await;
        }
    }
}

impl Content {
    /// What it is: digest, BLAKE3 root, size.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// Verifies the bytes and streams `range` of them, which must lie within the size. The first time in this process
    /// that takes a pass over the whole blob, before this returns; the pages are then touched as the stream is taken. A
    /// blob that is not here is fetched first, whole.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if the blob is gone or corrupt and not to be had; what the place says that should have
    /// it.
    pub async fn read(
        &self,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, RegistryError>> + Send + use<>, RegistryError> {
        self.registry.read_elsewhere(&self.info.digest).await;
        self.registry.ensure_blob(&self.info).await?;
        let (blobs, info) = (Arc::clone(self.registry.blobs()), self.info);
        let file = blocking(move || Ok(blobs.open_file(&info)?)).await?;
        let reader =
            Reader { blob: info.digest, registry: Arc::downgrade(&self.registry), noted_at: Clock.now() };
        let bytes = pieces(range).flat_map(move |piece| ranges(&file, piece));
        Ok(stream::unfold((bytes, reader), |(mut bytes, mut reader)| async move {
            reader.note().await;
            Some((Ok(bytes.next()?), (bytes, reader)))
        }))
    }
}

/// A piece as ranges of the blobs that it lies in, not copied.
fn ranges(file: &FileBytes, piece: Range<usize>) -> Vec<Bytes> {
    file.pieces(piece).map(|(blob, range)| Bytes::from_owner(blob.clone()).slice(range)).collect()
}

/// `range` cut into pieces.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    let cut = move |start: u64| start as usize..end.min(start.saturating_add(PIECE_BYTES)) as usize;
    range.step_by(PIECE_BYTES as usize).map(cut)
}

impl Registry {
    /// The file of that description, which is fetched again when it is read, if it is not here.
    pub fn content(self: &Arc<Self>, info: BlobInfo) -> Content {
        Content { info, registry: Arc::clone(self) }
    }
}
