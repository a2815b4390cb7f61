//! An archive into the store: its bytes come once, from a file, a pipe or a request, and go through a thread that may
//! block. What has come when it ends early stays for the next attempt.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::ArchivedModel;
use super::promised::Promised;
use super::tar_stream::TarStream;
use super::unpack::{Counts, Unpacker};
use crate::blocking::blocking;
use crate::progress::{Progress, Reporter};
use crate::{Registry, RegistryError};

/// Bytes in pieces, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes, RegistryError>>;

/// Pieces between who brings them and who writes them.
const WAITING_MAX: usize = 4;

/// Where imported models came from, in histories.
const SOURCE: &str = "import";

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// The models, each under the name and tag that it was exported with.
    pub models: Vec<ArchivedModel>,
    /// Blobs that came in.
    pub blobs_added: usize,
    /// Blobs that were in the store.
    pub blobs_there: usize,
    /// Bytes that came in, without those that an earlier attempt had brought.
    pub bytes_added: u64,
}

/// An import to be followed with [`next`](Self::next). Dropping it cancels it.
pub struct ArchiveImport {
    work: BoxFuture<'static, Result<ArchiveReport, RegistryError>>,
    progress: watch::Receiver<Progress>,
    reports: bool,
}

impl std::fmt::Debug for ArchiveImport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveImport").finish_non_exhaustive()
    }
}

/// What happens in an import.
#[derive(Debug)]
pub enum ImportEvent {
    /// It has come so far.
    Progress(Progress),
    /// It is done; nothing follows.
    Done(ArchiveReport),
}

impl ArchiveImport {
    /// Waits for the next event. After [`ImportEvent::Done`] or an error there is none.
    ///
    /// # Errors
    /// Why the import failed.
    pub async fn next(&mut self) -> Result<ImportEvent, RegistryError> {
        while self.reports {
            tokio::select! {
                biased;
                done = &mut self.work => return done.map(ImportEvent::Done),
                changed = self.progress.changed() => match changed {
                    Ok(()) => return Ok(ImportEvent::Progress(self.progress.borrow_and_update().clone())),
                    Err(_) => self.reports = false,
                },
            }
        }
        (&mut self.work).await.map(ImportEvent::Done)
    }
}

impl Registry {
    /// Brings the models of an archive in, whose bytes are read once. Blobs that are here are skipped; a blob counts
    /// once its SHA-256 and BLAKE3 root are right, a model once all its blobs do. Dropping the future cancels; the next
    /// import goes on where this one stopped.
    ///
    /// # Errors
    /// [`RegistryError::InvalidArchive`] with the entry that is wrong; [`RegistryError::ReservedName`]; what the stream
    /// or the store says.
    pub async fn import_archive(
        self: &Arc<Self>,
        bytes: ByteStream,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<ArchiveReport, RegistryError> {
        let mut import = self.start_import(bytes);
        loop {
            match import.next().await? {
                ImportEvent::Progress(progress) => report(progress),
                ImportEvent::Done(done) => return Ok(done),
            }
        }
    }

    /// As [`import_archive`](Self::import_archive), to be followed step by step.
    pub fn start_import(self: &Arc<Self>, bytes: ByteStream) -> ArchiveImport {
        let (reporter, progress) = Reporter::new();
        let work = run(Arc::clone(self), bytes, reporter).boxed();
        ArchiveImport { work, progress, reports: true }
    }
}

async fn run(
    registry: Arc<Registry>,
    bytes: ByteStream,
    reporter: Reporter,
) -> Result<ArchiveReport, RegistryError> {
    // Until the end it keeps the blobs that no manifest names yet.
    let intake = registry.intake();
    let unpacker = Unpacker::new(Arc::clone(&registry), Arc::clone(&intake), reporter);
    let (promised, counts) = through_a_thread(bytes, move |pieces| unpack(unpacker, pieces)).await?;
    let (models, mut manifests) = promised.into_manifests()?;
    let mut report = ArchiveReport {
        blobs_added: counts.blobs_added,
        blobs_there: counts.blobs_there,
        bytes_added: counts.bytes_added,
        models: Vec::new(),
    };
    for ArchivedModel { model, digest } in models.into_iter().map(|model| model.model) {
        let manifest = match manifests.remove(&digest) {
            Some(manifest) => registry.add_manifest(manifest).await?.1,
            None => registry.manifest(&digest).await?,
        };
        registry.point(model.clone(), digest, manifest, SOURCE.to_owned()).await?;
        report.models.push(ArchivedModel { model, digest });
    }
    Ok(report)
}

/// The pieces that a thread takes.
pub(super) type Pieces = mpsc::Receiver<Result<Bytes, RegistryError>>;

fn unpack(mut unpacker: Unpacker, mut pieces: Pieces) -> Result<(Promised, Counts), RegistryError> {
    let mut tar = TarStream::default();
    while let Some(piece) = pieces.blocking_recv() {
        tar.push(&piece?, &mut unpacker)?;
    }
    tar.finish()?;
    unpacker.finish()
}

/// Has `work` take the bytes in a thread that may block. Who drops the future ends the bytes, and with them the work.
pub(super) async fn through_a_thread<T: Send + 'static>(
    mut bytes: ByteStream,
    work: impl FnOnce(Pieces) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    let (sender, pieces) = mpsc::channel(WAITING_MAX);
    let mut work = std::pin::pin!(blocking(move || work(pieces)));
    let feed = async move {
        while let Some(piece) = bytes.next().await {
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = feed => {}
    }
    work.await
}
