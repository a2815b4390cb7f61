//! The steps of a transfer: ask, see what the origin is like, fetch, and begin again if the file changed meanwhile, or if
//! what an earlier transfer left turns out to be wrong.

use std::sync::Arc;

use helios_storage::{BlobInfo, BlobWriter, StorageError, Tiers};
use http::HeaderValue;

use super::patience::Patience;
use super::pieces::Fetching;
use super::write::write_in_order;
use super::{Answer, Failure, Origin, PIECE_BYTES, Partial, Transfer};
use crate::blocking::blocking;
use crate::{FetchConfig, RegistryError, registry};

/// Changes of the file at the origin that one transfer begins again for.
const CHANGES_MAX: u32 = 3;

/// A writer that only wants to be committed.
struct Downloaded {
    writer: BlobWriter,
    /// Whether it went on behind what an earlier transfer had left.
    was_resumed: bool,
}

/// Brings the file into the store; `commit` gives it its name. Dropped early, what came stays for the next.
///
/// Of bytes that are wrong as a whole those that were here before may be to blame: the power may have gone before all of
/// them were on the disk. The file is then fetched once more from its beginning.
///
/// # Errors
/// What the origin says, once patience with it ends; what `commit` says.
pub(crate) async fn download<C>(transfer: &Transfer<'_>, commit: C) -> Result<BlobInfo, RegistryError>
where
    C: Fn(BlobWriter) -> Result<BlobInfo, StorageError> + Clone + Send + 'static,
{
    let first = fetch(transfer).await?;
    match committed(first.writer, commit.clone()).await {
        Err(RegistryError::Storage(error @ StorageError::DigestMismatch { .. })) if first.was_resumed => {
            let from = transfer.origin.shown();
            tracing::warn!(%error, from, "a download that was resumed is begun again");
            committed(fetch(transfer).await?.writer, commit).await
        }
        result => result,
    }
}

async fn committed(
    writer: BlobWriter,
    commit: impl FnOnce(BlobWriter) -> Result<BlobInfo, StorageError> + Send + 'static,
) -> Result<BlobInfo, RegistryError> {
    blocking(move || Ok(commit(writer)?)).await
}

async fn fetch(transfer: &Transfer<'_>) -> Result<Downloaded, RegistryError> {
    let patience = Patience::new(transfer.limits);
    let fetching = Fetching { transfer, patience: &patience };
    let mut partial = match transfer.digest {
        Some(digest) => Some(transfer.begin(digest.hex(), true, None).await?),
        None => None,
    };
    let was_resumed = length(&partial) > 0;
    let mut changes = 0;
    loop {
        let episode = patience.ready().await;
        match attempt(&fetching, &mut partial).await {
            Ok(()) => break,
            Err(Failure::Final(error)) => patience.failed(episode, error)?,
            Err(Failure::Changed) if changes < CHANGES_MAX => {
                changes += 1;
                partial = transfer.begin_again(partial).await?;
            }
            Err(Failure::Changed) => {
                let problem = format!("its file changed {} times while it was fetched", changes + 1);
                return Err(RegistryError::OriginLied { url: transfer.origin.shown(), problem });
            }
        }
    }
    let problem = || format!("{} came without a file", transfer.origin.shown());
    let partial = partial.ok_or_else(|| RegistryError::Internal { problem: problem() })?;
    Ok(Downloaded { writer: partial.writer, was_resumed })
}

/// Brings a blob that a manifest names into a store that nobody collects.
///
/// # Errors
/// As [`download`]; [`StorageError::DigestMismatch`] if something else came.
pub(crate) async fn fetch_blob(
    info: &BlobInfo,
    origin: &dyn Origin,
    blobs: &Arc<Tiers>,
    report: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<BlobInfo, RegistryError> {
    let limits = FetchConfig::default();
    let (digest, size) = (Some(info.digest), Some(info.size));
    let transfer = Transfer { origin, blobs, limits: &limits, address: String::new(), digest, size, report };
    download(&transfer, move |writer| writer.commit(digest)).await
}

/// One way through the file. On success `partial` is the whole; on failure it is what came.
async fn attempt(fetching: &Fetching<'_>, partial: &mut Option<Partial>) -> Result<(), Failure> {
    let transfer = fetching.transfer;
    if partial.is_some() && transfer.size == Some(length(partial)) {
        return Ok(());
    }
    let mut answer = transfer.ask(partial).await?;
    if partial.is_none() {
        // The first answer says what the file is, and so whether an earlier pull left some of it.
        *partial = Some(transfer.begin_as(answer.validator.clone()).await?);
        if length(partial) > 0 {
            answer = transfer.ask(partial).await?;
        }
    }
    let total = transfer.total_bytes(&answer, length(partial))?;
    let report = |done| (transfer.report)(done, total);
    if !answer.is_part {
        if length(partial) != answer.start {
            *partial = transfer.begin_again(partial.take()).await?;
        }
        if length(partial) != answer.start {
            return Err(Failure::Changed);
        }
        if partial.is_none() {
            *partial = Some(transfer.begin_as(answer.validator.clone()).await?);
        }
        note_validator(partial, &answer);
        let limit = total.unwrap_or(transfer.limits.file_bytes_max).saturating_sub(answer.start);
        return write_in_order(partial, fetching.stream(answer, limit, total.is_some()), &report).await;
    }
    note_validator(partial, &answer);
    match total {
        Some(total) if total == length(partial) => Ok(()),
        Some(total) if total > answer.start => {
            write_in_order(partial, fetching.pieces(answer, total), &report).await
        }
        _ => Err(Failure::Changed),
    }
}

impl Transfer<'_> {
    /// Asks for the piece that begins where `partial` ends.
    async fn ask(&self, partial: &Option<Partial>) -> Result<Answer, RegistryError> {
        let start = length(partial);
        let end = (start / PIECE_BYTES + 1) * PIECE_BYTES;
        let end = self.size.map_or(end, |size| end.min(size.max(start + 1)));
        let validator = partial.as_ref().filter(|_| start > 0).and_then(|partial| partial.validator.as_ref());
        self.origin.open(start..end, validator).await
    }

    /// The file under the key that fits what the origin says of it, and this boot: no digest would tell that a power loss
    /// has torn what was written before. What earlier boots left is for garbage collection.
    async fn begin_as(&self, validator: Option<HeaderValue>) -> Result<Partial, RegistryError> {
        let boot = self.blobs.boot_id();
        let resumable = validator.is_some() && boot.is_some();
        let validated = validator.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let validated = String::from_utf8_lossy(validated);
        let identity = format!("{}\n{validated}\n{}", self.address, boot.unwrap_or_default());
        let key = registry::digest_of(identity.as_bytes()).hex();
        self.begin(key, resumable, validator).await
    }

    async fn begin(
        &self,
        key: String,
        resumable: bool,
        validator: Option<HeaderValue>,
    ) -> Result<Partial, RegistryError> {
        let (blobs, size) = (Arc::clone(self.blobs), self.size);
        let writer = blocking(move || {
            let mut writer = blobs.writer(&key, size)?;
            if !resumable || size.is_some_and(|size| writer.len() > size) {
                writer.restart()?;
            }
            Ok(writer)
        });
        Ok(Partial { writer: writer.await?, validator })
    }

    /// The file, empty; `None` where its key goes by contents that it has no more.
    async fn begin_again(&self, partial: Option<Partial>) -> Result<Option<Partial>, RegistryError> {
        let Some(Partial { mut writer, .. }) = partial else { return Ok(None) };
        let keeps_key = self.digest.is_some();
        let begin = blocking(move || {
            if !keeps_key {
                writer.discard();
                return Ok(None);
            }
            writer.restart()?;
            Ok(Some(Partial { writer, validator: None }))
        });
        begin.await
    }

    /// Bytes of the whole file, where the answer or the transfer says. `done` bytes are here.
    fn total_bytes(&self, answer: &Answer, done: u64) -> Result<Option<u64>, Failure> {
        let lied = |problem: String| RegistryError::OriginLied { url: self.origin.shown(), problem };
        match (answer.length, self.size) {
            (Some(length), Some(size)) if length != size => {
                Err(lied(format!("{length} bytes, expected {size}")).into())
            }
            (Some(length), None) if length > self.limits.file_bytes_max => {
                Err(lied(format!("{length} bytes, more than any file may have")).into())
            }
            (Some(length), _) if answer.is_part && length < done => Err(Failure::Changed),
            (None, None) if answer.is_part => {
                Err(lied("a part of a file of unknown length".to_owned()).into())
            }
            (length, size) => Ok(size.or(length)),
        }
    }
}

fn length(partial: &Option<Partial>) -> u64 {
    partial.as_ref().map_or(0, |partial| partial.writer.len())
}

/// What later questions go by, where nothing was known before.
fn note_validator(partial: &mut Option<Partial>, answer: &Answer) {
    if let Some(partial) = partial.as_mut().filter(|partial| partial.validator.is_none()) {
        partial.validator.clone_from(&answer.validator);
    }
}
