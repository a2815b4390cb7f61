//! One file over HTTP: resumed after interruption, bounded, checked.
//!
//! A partial file is kept under what identifies its contents: the digest where it is known, else the address with the
//! origin's validator (a strong ETag or the time of change). Without either it is begun anew each time. Within one pull
//! the same holds: a range is asked for with `If-Range`, so that a file that changed comes whole.

use std::time::Duration;

use bytes::BytesMut;
use helios_runtime::Clock;
use helios_storage::{BlobInfo, BlobWriter, StorageError};
use helios_types::{Classify, Digest};
use http::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::origin::{check_status, shown, unreachable};
use super::{Context, Expected, Gathered, file_name};
use crate::blocking::blocking;
use crate::progress::Phase;
use crate::{RegistryError, Secret, registry};

/// Bytes gathered before they go to the file: a hop to a blocking thread for each is then free.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that an attempt must bring to count as progress: an origin that drips is given up like one that is silent.
const PROGRESS_BYTES_MIN: u64 = 1 << 20;

/// A file at an origin.
pub(super) struct Remote {
    pub(super) url: Url,
    /// Sent to the origin of `url` only.
    pub(super) bearer: Option<Secret>,
    /// Its name in reports.
    pub(super) name: String,
    pub(super) digest: Option<Digest>,
    pub(super) size: Option<u64>,
}

/// A file of which some bytes may be here.
struct Partial {
    writer: BlobWriter,
    /// What identifies the contents at the origin.
    validator: Option<HeaderValue>,
}

/// The file behind an `https:` source.
pub(super) async fn gather(
    context: &Context,
    url: &Url,
    expected: Option<&Expected>,
) -> Result<Gathered, RegistryError> {
    let name = file_name(url.path());
    if !name.ends_with(".gguf") {
        return Err(RegistryError::invalid_source(url.as_str(), "its path does not end in .gguf"));
    }
    let remote = Remote {
        url: url.clone(),
        bearer: None,
        name: name.to_owned(),
        digest: expected.map(|expected| expected.digest),
        size: expected.map(|expected| expected.size),
    };
    Ok(Gathered::one(name, download(context, &remote).await?))
}

/// Brings the file into the store, unless it is there already. Transient failures are tried again, without end as long
/// as each attempt brings enough.
pub(super) async fn download(context: &Context, remote: &Remote) -> Result<BlobInfo, RegistryError> {
    if let Some(digest) = remote.digest
        && let Some(info) = context.adopt(&digest).await
    {
        return Ok(info);
    }
    let config = context.registry.fetcher().config();
    let mut partial = None;
    let mut failures = 0;
    loop {
        let before = length(&partial);
        let error = match transfer(context, remote, &mut partial).await {
            Ok(()) => break,
            Err(error) => error,
        };
        failures = if length(&partial) >= before + PROGRESS_BYTES_MIN { 1 } else { failures + 1 };
        if !error.is_transient() || failures >= config.attempts_max {
            return Err(error);
        }
        let doubled = config.backoff_min.saturating_mul(1 << (failures - 1).min(16));
        let wait = error.retry_after().unwrap_or(Duration::ZERO).max(doubled).min(config.backoff_max);
        tracing::info!(file = remote.name, %error, ?wait, "a download broke off and goes on");
        Clock.sleep(wait).await;
    }
    match partial {
        Some(partial) => commit(context, remote, partial.writer).await,
        None => Err(RegistryError::Internal { problem: format!("`{}` came without a file", remote.name) }),
    }
}

fn length(partial: &Option<Partial>) -> u64 {
    partial.as_ref().map_or(0, |partial| partial.writer.len())
}

async fn commit(context: &Context, remote: &Remote, writer: BlobWriter) -> Result<BlobInfo, RegistryError> {
    let (intake, digest, url) = (context.intake.clone(), remote.digest, shown(&remote.url));
    blocking(move || {
        intake.commit(writer, digest).map_err(|error| match error {
            StorageError::DigestMismatch { .. } => {
                RegistryError::OriginLied { url, problem: error.to_string() }
            }
            error => error.into(),
        })
    })
    .await
}

/// One attempt. On success `partial` is the whole file; on failure it is what came.
async fn transfer(
    context: &Context,
    remote: &Remote,
    partial: &mut Option<Partial>,
) -> Result<(), RegistryError> {
    let mut response = ask(context, remote, partial.as_ref()).await?;
    if partial.is_none() {
        // The first answer says what the file is, and so whether an earlier pull left some of it.
        *partial = Some(begin(context, remote, &response).await?);
        if length(partial) > 0 {
            response = ask(context, remote, partial.as_ref()).await?;
        }
    }
    let Some(current) = partial.as_mut() else { return Ok(()) };
    let done = current.writer.len();
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE
        && remote.size.or(complete_length(&response)) == Some(done)
    {
        return Ok(());
    }
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        current.writer.restart()?;
        let problem = "its file is another than the one begun".to_owned();
        return Err(RegistryError::OriginUnreachable { url: shown(&remote.url), problem });
    }
    let response = check_status(&remote.url, response)?;
    let total = total_bytes(context, remote, current, &response)?;
    receive(context, remote, partial, response, total).await
}

/// Asks for the file from where `partial` ends.
async fn ask(
    context: &Context,
    remote: &Remote,
    partial: Option<&Partial>,
) -> Result<Response, RegistryError> {
    let mut headers = HeaderMap::new();
    if let Some(partial) = partial.filter(|partial| partial.writer.len() > 0) {
        let range = format!("bytes={}-", partial.writer.len());
        headers.insert(RANGE, HeaderValue::from_str(&range).expect("invariant: digits are a header value"));
        if let Some(validator) = &partial.validator {
            headers.insert(IF_RANGE, validator.clone());
        }
    }
    context.registry.fetcher().get(&remote.url, remote.bearer.as_ref(), &headers).await
}

/// The file under the key that fits what the origin says of it.
async fn begin(context: &Context, remote: &Remote, response: &Response) -> Result<Partial, RegistryError> {
    let headers = response.headers();
    let is_strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
    let validator = headers.get(ETAG).filter(is_strong).or_else(|| headers.get(LAST_MODIFIED)).cloned();
    let identity = match (&remote.digest, &validator) {
        (Some(digest), _) => Some(digest.to_string()),
        (None, Some(validator)) => {
            Some(format!("{}\n{}", remote.url, String::from_utf8_lossy(validator.as_bytes())))
        }
        (None, None) => None,
    };
    let key = registry::digest_of(identity.as_deref().unwrap_or(remote.url.as_str()).as_bytes()).hex();
    let intake = context.intake.clone();
    let resumable = identity.is_some();
    let writer = blocking(move || {
        let mut writer = intake.blobs().writer(&key)?;
        if !resumable {
            writer.restart()?;
        }
        Ok(writer)
    });
    Ok(Partial { writer: writer.await?, validator })
}

/// Bytes of the whole file, where the answer says; the writer is put where the answer begins.
fn total_bytes(
    context: &Context,
    remote: &Remote,
    partial: &mut Partial,
    response: &Response,
) -> Result<Option<u64>, RegistryError> {
    let lied = |problem: String| Err(RegistryError::OriginLied { url: shown(&remote.url), problem });
    let mut total = response.content_length();
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let done = partial.writer.len();
        match content_range(response) {
            Some((start, length)) if start == done && length.is_none_or(|length| length >= done) => {
                total = length.or(total.map(|rest| rest + done));
            }
            _ => return lied(format!("another range than the one asked for, from byte {done}")),
        }
    } else if partial.writer.len() > 0 {
        partial.writer.restart()?;
    }
    match (total, remote.size) {
        (Some(total), Some(size)) if total != size => lied(format!("{total} bytes, expected {size}")),
        (Some(total), None) if total > context.registry.fetcher().config().file_bytes_max => {
            lied(format!("{total} bytes, more than any file may have"))
        }
        (total, size) => Ok(size.or(total)),
    }
}

/// Start and complete length of a `Content-Range: bytes START-END/LENGTH`.
fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, length) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, length.parse().ok()))
}

/// The complete length in the `Content-Range: bytes */LENGTH` of a refused range.
fn complete_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

/// Writes the body behind what is there.
async fn receive(
    context: &Context,
    remote: &Remote,
    partial: &mut Option<Partial>,
    mut response: Response,
    total: Option<u64>,
) -> Result<(), RegistryError> {
    let limit = total.unwrap_or(context.registry.fetcher().config().file_bytes_max);
    let lied = |problem: String| Err(RegistryError::OriginLied { url: shown(&remote.url), problem });
    let mut buffer = BytesMut::with_capacity(WRITE_BYTES);
    loop {
        let chunk = response.chunk().await.map_err(|error| unreachable(&remote.url, &error));
        let ended = !matches!(&chunk, Ok(Some(_)));
        if let Ok(Some(chunk)) = &chunk {
            buffer.extend_from_slice(chunk);
        }
        if ended || buffer.len() >= WRITE_BYTES {
            if length(partial) + buffer.len() as u64 > limit {
                return lied(format!("more than the {limit} bytes it should have"));
            }
            let done = append(partial, std::mem::take(&mut buffer)).await?;
            context.reporter.file(Phase::Downloading, &remote.name, done, total);
        }
        // What came before a failure is kept; then the failure counts.
        if chunk?.is_none() {
            break;
        }
    }
    match total {
        Some(total) if length(partial) != total => {
            lied(format!("{} bytes, expected {total}", length(partial)))
        }
        _ => Ok(()),
    }
}

/// Writes in a thread that may block; returns the bytes there now.
async fn append(partial: &mut Option<Partial>, bytes: BytesMut) -> Result<u64, RegistryError> {
    let Some(Partial { mut writer, validator }) = partial.take() else { return Ok(0) };
    let writer = blocking(move || {
        writer.write(&bytes)?;
        Ok(writer)
    });
    let writer = writer.await?;
    let done = writer.len();
    *partial = Some(Partial { writer, validator });
    Ok(done)
}
