//! The scrubber: reads every blob again once in a while, slowly, and brings back what the disk has damaged or lost.
//!
//! A blob that is wrong goes to the quarantine; then the repairer is asked for a new one. One that left to make room, or
//! was never fetched, is left where it is: whoever reads it fetches it. Where the pass has come is kept in `scrub.json`, so
//! that a restart goes on there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use helios_runtime::{Clock, Instant, Tasks};
use helios_storage::tiers::CopyScrub;
use helios_storage::{BlobInfo, ScrubStep, StorageError};
use helios_types::Digest;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::pace::Pace;
use crate::{Registry, RegistryError, files, metrics};

/// Bytes read between two looks at the clock.
const STEP_BYTES: u64 = 1 << 20;
/// Shortest pause: what less has been read owes is paid together with what follows.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// How often the position is kept. Losing it costs as much reading.
const KEEP_POSITION_EVERY: Duration = Duration::from_secs(10);

/// How often and how fast a store is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Bytes read in a second; 0 switches the scrubber off.
    pub bytes_per_second: u64,
    /// From the beginning of one pass to the beginning of the next.
    pub period: Duration,
}

impl Default for ScrubConfig {
    /// 8 MB/s, which no disk of today notices, reads 19 TB in four weeks.
    fn default() -> Self {
        Self { bytes_per_second: 8_000_000, period: Duration::from_secs(28 * 24 * 3600) }
    }
}

/// What a pass of the scrubber found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blobs that were read, or should have been.
    pub blobs: usize,
    /// Blobs that are not here and need not be.
    pub absent: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that were wrong, missing or unreadable.
    pub damaged: usize,
    /// Of those, the ones that were brought back.
    pub repaired: usize,
}

/// Brings back blobs that no directory of the store has right: from a peer, a parent, or where the model came from.
pub trait Repair: Send + Sync {
    /// Puts the blob, which is not in the store, into it.
    fn repair<'a>(
        &'a self,
        registry: &'a Arc<Registry>,
        blob: BlobInfo,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;
}

/// Repairs from upstream - a parent and its fleet, a remote store - or from the source that a model was pulled from.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromSource;

impl Repair for FromSource {
    fn repair<'a>(
        &'a self,
        registry: &'a Arc<Registry>,
        blob: BlobInfo,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(registry.bring_back(blob))
    }
}

/// Where the passes are: the contents of `scrub.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    /// When the pass began, in milliseconds since 1970.
    began_at: u64,
    /// The last blob that was read in it; blobs are read in order of digest.
    after: Option<Digest>,
    /// Whether the pass is done.
    done: bool,
}

/// One pass that runs.
struct Pass {
    position: Position,
    kept_at: Instant,
    pace: Arc<Pace>,
    report: ScrubReport,
}

impl Pass {
    /// Counts what was read, and sleeps as the rate demands; the end of a pass pays what is owed still.
    async fn read(&mut self, bytes: u64, is_end: bool) {
        self.report.bytes += bytes;
        let pause = self.pace.take(bytes);
        if pause >= PAUSE_MIN || is_end {
            Clock.sleep(pause).await;
        }
    }
}

impl Registry {
    /// Reads the store again in the background, pass after pass, as the configuration says, until `tasks` stop.
    pub fn keep_scrubbed(self: &Arc<Self>, tasks: &Tasks, repair: Arc<dyn Repair>) {
        if self.config().scrub.bytes_per_second == 0 {
            return;
        }
        let (registry, shutdown) = (Arc::clone(self), tasks.shutdown().clone());
        tasks.spawn("scrubber", async move {
            let passes = async {
                loop {
                    Clock.sleep(registry.until_next_scrub().await).await;
                    match registry.scrub(&*repair).await {
                        Ok(report) => tracing::info!(?report, "the store was read again"),
                        Err(error) => {
                            tracing::warn!(%error, "the store could not be read again; the next pass tries");
                            Clock.sleep(registry.config().scrub.period).await;
                        }
                    }
                }
            };
            shutdown.race(passes).await;
        });
    }

    /// One pass: what is left of the one that was interrupted, else all blobs. Sleeps as the rate demands.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if the position cannot be kept; [`RegistryError::Metadata`]. A damaged blob is no error
    /// of the pass.
    pub async fn scrub(self: &Arc<Self>, repair: &dyn Repair) -> Result<ScrubReport, RegistryError> {
        let mut position = self.scrub_position().await;
        if position.done || position.began_at == 0 {
            position = Position { began_at: Clock.unix_ms(), ..Position::default() };
        }
        let pace = Pace::new(self.config().scrub.bytes_per_second.max(1));
        let mut pass = Pass { position, kept_at: Clock.now(), pace, report: ScrubReport::default() };
        loop {
            let blobs = self.metadata().blobs_after(pass.position.after.as_ref()).await?;
            for blob in &blobs {
                self.scrub_blob(*blob, repair, &mut pass).await?;
                pass.position.after = Some(blob.digest);
                if pass.kept_at.elapsed() >= KEEP_POSITION_EVERY {
                    self.keep_scrub_position(&pass.position).await?;
                    pass.kept_at = Clock.now();
                }
            }
            if blobs.is_empty() {
                break;
            }
        }
        pass.read(0, true).await;
        pass.position.done = true;
        self.keep_scrub_position(&pass.position).await?;
        Ok(pass.report)
    }

    async fn scrub_blob(
        self: &Arc<Self>,
        blob: BlobInfo,
        repair: &dyn Repair,
        pass: &mut Pass,
    ) -> Result<(), RegistryError> {
        let before = pass.report.bytes;
        let result = self.read_again(blob, pass).await;
        metrics::scrubbed(pass.report.bytes - before);
        let is_missing = matches!(result, Err(RegistryError::Storage(StorageError::BlobMissing { .. })));
        if is_missing && !self.blobs().contains(&blob.digest) && !self.is_lost(&blob.digest).await? {
            pass.report.absent += 1;
            return Ok(());
        }
        pass.report.blobs += 1;
        let Err(error) = result else { return Ok(()) };
        // A model that was removed meanwhile takes its blobs along.
        if self.blob_info(&blob.digest).await.is_ok() {
            self.bring_back_damaged(blob, &error, repair, &mut pass.report).await;
        }
        Ok(())
    }

    async fn bring_back_damaged(
        self: &Arc<Self>,
        blob: BlobInfo,
        error: &RegistryError,
        repair: &dyn Repair,
        report: &mut ScrubReport,
    ) {
        report.damaged += 1;
        tracing::error!(digest = %blob.digest, %error, "the scrubber found a damaged blob");
        let repaired = if self.heal(blob).await { Ok(()) } else { repair.repair(self, blob).await };
        metrics::damaged(if repaired.is_ok() { "repaired" } else { "lost" });
        match repaired {
            Ok(()) => {
                report.repaired += 1;
                tracing::warn!(digest = %blob.digest, "a damaged blob was replaced");
            }
            Err(error) => {
                tracing::error!(digest = %blob.digest, %error, "a damaged blob could not be replaced")
            }
        }
    }

    /// Whether another directory had the blob right.
    async fn heal(&self, blob: BlobInfo) -> bool {
        let store = Arc::clone(self.blobs());
        blocking(move || Ok(store.heal(&blob))).await.unwrap_or(false)
    }

    /// Reads every copy of a blob at the configured rate; the error of the last that was wrong.
    async fn read_again(&self, blob: BlobInfo, pass: &mut Pass) -> Result<(), RegistryError> {
        let store = Arc::clone(self.blobs());
        let mut outcome = Ok(());
        for copy in blocking(move || Ok(store.scrub(&blob)?)).await? {
            outcome = self.read_copy_again(copy, pass).await.and(outcome);
        }
        outcome
    }

    async fn read_copy_again(&self, mut copy: CopyScrub, pass: &mut Pass) -> Result<(), RegistryError> {
        loop {
            let store = Arc::clone(self.blobs());
            let work = move || {
                let step = store.scrub_step(&mut copy, STEP_BYTES)?;
                Ok((step, copy))
            };
            let (step, resumed) = blocking(work).await?;
            copy = resumed;
            let (ScrubStep::Read(bytes) | ScrubStep::Right(bytes)) = step;
            pass.read(bytes, false).await;
            if matches!(step, ScrubStep::Right(_)) {
                return Ok(());
            }
        }
    }

    async fn until_next_scrub(&self) -> Duration {
        let position = self.scrub_position().await;
        if !position.done {
            return Duration::ZERO;
        }
        let since = Clock.unix_ms().saturating_sub(position.began_at);
        self.config().scrub.period.saturating_sub(Duration::from_millis(since))
    }

    fn scrub_file(&self) -> PathBuf {
        self.dir().join("scrub.json")
    }

    /// Where the passes are; a position that is lost costs one pass.
    async fn scrub_position(&self) -> Position {
        let (files, path) = (self.files().clone(), self.scrub_file());
        let bytes = blocking(move || files::read(&files, &path)).await;
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    async fn keep_scrub_position(&self, position: &Position) -> Result<(), RegistryError> {
        let (files, path) = (self.files().clone(), self.scrub_file());
        let bytes = serde_json::to_vec(position).expect("invariant: a position has only string keys");
        blocking(move || Ok(files.write_atomic(&path, &bytes)?)).await
    }
}
