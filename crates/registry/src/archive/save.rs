//! An archive into a file: written beside it under another name, verified as it is written, durable before it gets its
//! name. What an interrupted export left is verified and gone on with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::{DurableFiles, GrowingFile};
use helios_types::{ErrorCode, ModelRef};
use serde::{Deserialize, Serialize};

use super::import::{Pieces, through_a_thread};
use super::verify::Verifier;
use super::{Archive, ArchivedModel, ByteStream};
use crate::blocking::blocking;
use crate::progress::{Phase, Progress, Reporter};
use crate::{RegistryClient, RegistryError};

/// Bytes read at a time of what was written before.
const CHUNK_BYTES: usize = 1 << 20;
/// Times that an export begins before it gives up: what was there may be wrong, and the models may change meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// Where the bytes of an archive come from.
#[derive(Clone, Debug)]
pub enum ArchiveSource {
    /// The store of this process.
    Here(Arc<Archive>),
    /// A server.
    Elsewhere(RegistryClient, Vec<ModelRef>),
}

/// An archive, or the rest of one.
pub struct Opened {
    /// The first byte that comes.
    pub start: u64,
    /// Bytes of the whole.
    pub total: u64,
    /// The bytes from `start` on.
    pub bytes: ByteStream,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("start", &self.start)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveReport {
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Bytes of it that an interrupted export had left.
    pub resumed: u64,
    /// The models in it.
    pub models: Vec<ArchivedModel>,
}

/// A file that is written, and what is known of it.
struct Growing {
    file: GrowingFile,
    verifier: Verifier,
}

impl ArchiveSource {
    /// The archive from byte `from.0` on if it is still the one with the tag `from.1`, else from its beginning.
    ///
    /// # Errors
    /// What the store or the server says.
    pub async fn open(&self, from: Option<(u64, &str)>) -> Result<Opened, RegistryError> {
        match self {
            Self::Here(archive) => {
                let total = archive.size();
                let from = from.filter(|(start, tag)| *tag == archive.tag() && *start < total);
                let start = from.map_or(0, |(start, _)| start);
                Ok(Opened { start, total, bytes: archive.read(start..total) })
            }
            Self::Elsewhere(client, models) => client.export(models, from).await,
        }
    }

    /// Writes the archive to `target`, replacing what is there once the new one is whole. Until then it is
    /// `TARGET.partial`, which stays when this is interrupted, for the next export of the same models to go on with.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] while another process writes it; [`RegistryError::Storage`]; what the source
    /// says.
    pub async fn save(
        &self,
        target: &Path,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<SaveReport, RegistryError> {
        let (reporter, mut progress) = Reporter::new();
        let mut work = std::pin::pin!(self.save_reporting(target, reporter));
        let mut reports = true;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                changed = progress.changed(), if reports => match changed {
                    Ok(()) => report(progress.borrow_and_update().clone()),
                    Err(_) => reports = false,
                },
            }
        }
    }

    async fn save_reporting(&self, target: &Path, reporter: Reporter) -> Result<SaveReport, RegistryError> {
        let mut outcome = Err(RegistryError::Internal { problem: "no attempt was made".to_owned() });
        for _ in 0..ATTEMPTS_MAX {
            outcome = self.attempt(target, &reporter).await;
            match &outcome {
                // The file was cut before what is wrong.
                Err(RegistryError::InvalidArchive { .. }) => {}
                _ => break,
            }
        }
        outcome
    }

    async fn attempt(&self, target: &Path, reporter: &Reporter) -> Result<SaveReport, RegistryError> {
        let path = target.to_owned();
        let growing = blocking(move || Growing::begin(&path)).await?;
        let (there, tag) = (growing.verifier.position(), growing.verifier.tag());
        let opened = self.open(tag.as_deref().map(|tag| (there, tag))).await?;
        let (start, total) = (opened.start, opened.total);
        let (file, reporter) = (target.display().to_string(), reporter.clone());
        let done = move |done| reporter.file(Phase::Exporting, &file, done, Some(total));
        let models =
            through_a_thread(opened.bytes, move |pieces| growing.write(start, total, pieces, &done)).await?;
        Ok(SaveReport { file: target.to_owned(), size: total, resumed: start, models })
    }
}

impl Growing {
    /// Opens the file under its other name, and verifies what is in it.
    fn begin(target: &Path) -> Result<Self, RegistryError> {
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let grown = DurableFiles::default().grow(Path::new(&partial), target)?;
        let file = grown.ok_or_else(|| {
            let problem = format!(
                "another process is writing `{}`\nhint: wait for it, or choose another file",
                target.display()
            );
            RegistryError::InvalidRequest { problem, code: ErrorCode::Conflict }
        })?;
        loop {
            let mut verifier = Verifier::default();
            match read_along(&file, &mut verifier) {
                Ok(()) if verifier.can_go_on() => return Ok(Self { file, verifier }),
                Ok(()) | Err(RegistryError::InvalidArchive { .. }) => file.truncate(verifier.certain())?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the bytes from `start` on; the file gets its name if they make a whole archive of `total` bytes.
    fn write(
        mut self,
        start: u64,
        total: u64,
        mut pieces: Pieces,
        done: &dyn Fn(u64),
    ) -> Result<Vec<ArchivedModel>, RegistryError> {
        if start == 0 {
            self.verifier = Verifier::default();
        } else if start != self.verifier.position() {
            let problem = format!("asked for byte {}, got byte {start}", self.verifier.position());
            return Err(RegistryError::Internal { problem });
        }
        self.file.truncate(start)?;
        while let Some(piece) = pieces.blocking_recv() {
            let (piece, position) = (piece?, self.verifier.position());
            if let Err(error) = self.verifier.push(&piece) {
                self.file.truncate(self.verifier.certain())?;
                return Err(error);
            }
            self.file.write_at(&piece, position)?;
            done(self.verifier.position());
        }
        if self.verifier.position() != total {
            let problem =
                format!("the archive broke off after {} of {total} bytes", self.verifier.position());
            return Err(RegistryError::Internal { problem });
        }
        let models = self.verifier.finish()?;
        self.file.finish()?;
        Ok(models)
    }
}

/// Shows the verifier what is in the file.
fn read_along(file: &GrowingFile, verifier: &mut Verifier) -> Result<(), RegistryError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read_at(&mut buffer, verifier.position())? {
            0 => return Ok(()),
            length => verifier.push(&buffer[..length])?,
        }
    }
}
