//! The bytes of one file of the store for whoever sends them on: how many there are, and any range of them as a stream.
//!
//! No byte is handed out that was not verified. What is not here is fetched when it is read: who only asks about a file
//! waits for nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use helios_storage::{BlobInfo, FileBytes};

use crate::blocking::blocking;
use crate::{Registry, RegistryError};

/// Bytes of one piece of a stream.
const PIECE_BYTES: u64 = 256 << 10;

/// One file of the store, not read yet.
#[derive(Clone, Debug)]
pub struct Content {
    info: BlobInfo,
    registry: Arc<Registry>,
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
        self.registry.ensure_blob(&self.info).await?;
        let (blobs, info) = (Arc::clone(self.registry.blobs()), self.info);
        let file = blocking(move || Ok(blobs.open_file(&info)?)).await?;
        let pieces = pieces(range).flat_map(move |piece| ranges(&file, piece));
        Ok(stream::iter(pieces.map(Ok)))
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
