//! Which blobs somebody in this process has open right now.

use std::collections::HashMap;

use helios_types::Digest;

use crate::Blob;
use crate::blob::WeakBlob;

/// The open blobs, without keeping them open.
#[derive(Debug, Default)]
pub(crate) struct Readers(HashMap<Digest, Vec<WeakBlob>>);

impl Readers {
    /// Notes that a blob was handed out. Those of the same name that were closed since are forgotten.
    pub(crate) fn opened(&mut self, digest: Digest, blob: &Blob) {
        let open = self.0.entry(digest).or_default();
        open.retain(WeakBlob::is_open);
        open.push(blob.downgrade());
    }

    /// Whether somebody has it open.
    pub(crate) fn has_open(&self, digest: &Digest) -> bool {
        self.0.get(digest).is_some_and(|open| open.iter().any(WeakBlob::is_open))
    }

    /// Forgets what was closed. O(blobs handed out since the last time).
    pub(crate) fn forget_closed(&mut self) {
        self.0.retain(|_, open| open.iter().any(WeakBlob::is_open));
    }
}
