//! A blob that a client sends: received in pieces, bounded in size and in silence, hashed as it is written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use helios_runtime::Clock;
use helios_storage::{BlobInfo, BlobWriter, StorageError};
use helios_types::{Digest, ErrorCode};

use crate::blocking::blocking;
use crate::pins::Intake;
use crate::{Registry, RegistryError};

/// Bytes gathered before they go to the file.
const WRITE_BYTES: usize = 1 << 20;
/// Longest silence of a client in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A blob on its way into the store. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    /// Taken at the end. Shared with the thread that writes: a client that goes away ends no write half-way.
    writer: Arc<Mutex<Option<BlobWriter>>>,
    /// What came and is not in the file yet.
    buffer: BytesMut,
    received: u64,
    bytes_max: u64,
}

impl Incoming {
    /// Begins a blob of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn begin(registry: &Registry, bytes_max: u64) -> Result<Self, RegistryError> {
        let blobs = Arc::clone(registry.blobs());
        let writer = blocking(move || Ok(blobs.temporary_writer(None)?)).await?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        Ok(Self { writer, buffer: BytesMut::new(), received: 0, bytes_max })
    }

    /// Bytes that came so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes a whole body; what came before it broke off stays.
    ///
    /// # Errors
    /// As [`push`](Self::push); [`RegistryError::InvalidRequest`] for a body that breaks off or stalls.
    pub async fn receive(&mut self, body: Body) -> Result<(), RegistryError> {
        let mut pieces = BodyPieces::of(body);
        let taken = loop {
            match pieces.next().await {
                Ok(Some(piece)) => {
                    if let Err(error) = self.push(&piece).await {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.flush().await.and(taken)
    }

    /// Takes some bytes.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] past the bound; [`RegistryError::Storage`].
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let received = self.received + bytes.len() as u64;
        if received > self.bytes_max {
            return Err(too_large("the file", self.bytes_max));
        }
        self.received = received;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Ends the blob; `intake` pins it.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] if its bytes have another digest than `expected`; [`RegistryError::Storage`].
    pub async fn finish(
        mut self,
        intake: &Arc<Intake>,
        expected: Option<Digest>,
    ) -> Result<BlobInfo, RegistryError> {
        self.flush().await?;
        let intake = Arc::clone(intake);
        let committed = self.with_writer(move |writer| {
            let writer = writer.take().ok_or_else(lost)?;
            Ok(intake.commit(writer, expected)?)
        });
        committed.await.map_err(|error| match error {
            RegistryError::Storage(StorageError::DigestMismatch { expected, actual }) => {
                let problem = format!("the bytes sent have digest {actual}, not {expected}");
                RegistryError::InvalidRequest { problem, code: ErrorCode::InvalidRequest }
            }
            error => error,
        })
    }

    async fn flush(&mut self) -> Result<(), RegistryError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        self.with_writer(move |writer| Ok(writer.as_mut().ok_or_else(lost)?.write(&bytes)?)).await
    }

    async fn with_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<BlobWriter>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let writer = Arc::clone(&self.writer);
        blocking(move || work(&mut writer.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

fn lost() -> RegistryError {
    RegistryError::Internal { problem: "an upload was ended twice".to_owned() }
}

/// A body in pieces, each of which has to come in time.
pub struct BodyPieces(axum::body::BodyDataStream);

impl BodyPieces {
    /// The pieces of a body.
    pub fn of(body: Body) -> Self {
        Self(body.into_data_stream())
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] if the body breaks off or stalls.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let failed = |problem: String, code| RegistryError::InvalidRequest { problem, code };
        match Clock.timeout(SILENCE_MAX, self.0.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => {
                Err(failed(format!("the request body broke off: {error}"), ErrorCode::InvalidRequest))
            }
            Err(elapsed) => {
                Err(failed(format!("the request body stalled: {elapsed}"), ErrorCode::DeadlineExceeded))
            }
        }
    }

    /// All of it, which must not be more than `bytes_max`.
    ///
    /// # Errors
    /// As [`next`](Self::next); [`RegistryError::InvalidRequest`] if it is more.
    pub async fn whole(mut self, bytes_max: usize) -> Result<Bytes, RegistryError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > bytes_max {
                return Err(too_large("the request body", bytes_max as u64));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// The error for something that is longer than its bound.
pub(crate) fn too_large(what: &str, bytes_max: u64) -> RegistryError {
    let problem = format!("{what} has more than {bytes_max} bytes");
    RegistryError::InvalidRequest { problem, code: ErrorCode::PayloadTooLarge }
}
