//! Batches to the file, in order, beside the fetching of the next.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::pieces::Batch;
use super::{Failure, Partial};
use crate::RegistryError;
use crate::blocking::blocking;

/// Batches between fetching and writing, so that neither waits for the other's next step.
const WAITING_MAX: usize = 1;

/// Writes `batches` behind what is there until they end or one failed.
pub(super) async fn write_in_order(
    partial: &mut Option<Partial>,
    batches: impl Stream<Item = Batch>,
    written: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Failure> {
    let (filled, mut waiting) = mpsc::channel(WAITING_MAX);
    let fetch = async move {
        let mut batches = std::pin::pin!(batches);
        while let Some(batch) = batches.next().await {
            if filled.send(batch).await.is_err() {
                break;
            }
        }
        drop(filled);
        std::future::pending::<()>().await
    };
    let write = async {
        while let Some(batch) = waiting.recv().await {
            written(append(partial, batch.chunks).await?);
            if let Some(failure) = batch.failure {
                return Err(failure);
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        result = write => result,
        () = fetch => Ok(()),
    }
}

/// Writes in a thread that may block; returns the bytes there now.
async fn append(partial: &mut Option<Partial>, chunks: Vec<Bytes>) -> Result<u64, RegistryError> {
    let Some(Partial { mut writer, validator }) = partial.take() else { return Ok(0) };
    let writer = blocking(move || {
        writer.write_chunks(&chunks)?;
        Ok(writer)
    });
    let writer = writer.await?;
    let done = writer.len();
    *partial = Some(Partial { writer, validator });
    Ok(done)
}
