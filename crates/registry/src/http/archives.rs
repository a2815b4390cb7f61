//! Routes of archives: models out as one file, and in.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_runtime::Clock;
use helios_types::{ErrorCode, ModelRef, ModelRefError};

use super::encoding::check_encoding;
use super::wire::{ErrorDetail, ImportLine};
use super::{ARCHIVE_TYPE, ranged};
use crate::archive::{ArchiveImport, ImportEvent};
use crate::incoming::BodyPieces;
use crate::query::Query;
use crate::{Progress, Registry, RegistryError};

/// Longest silence in the answer to an import; see the pull's.
const SILENCE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn export(
    State(registry): State<Arc<Registry>>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RegistryError> {
    let query = Query::of(&uri);
    let models: Result<Vec<ModelRef>, ModelRefError> = query.all("model").map(str::parse).collect();
    let archive = registry.archive(&models?).await?;
    let mut response = ranged::answer(&archive, &method, &headers).await?;
    let value = axum::http::HeaderValue::from_static(ARCHIVE_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

pub(super) async fn import(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Response, RegistryError> {
    check_encoding(request.headers())?;
    if request.headers().get(CONTENT_TYPE).is_none_or(|value| value != ARCHIVE_TYPE) {
        let problem = format!("the body of an import is of type `{ARCHIVE_TYPE}`");
        return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::UnsupportedMediaType });
    }
    let pieces = stream::unfold(BodyPieces::of(request.into_body()), |mut pieces| async move {
        let piece = pieces.next().await.transpose()?;
        Some((piece, pieces))
    });
    let import = registry.start_import(pieces.boxed());
    let following = Following { import, latest: Progress::default() };
    let lines =
        stream::unfold(Some(following), |following| async move { Some(following?.next_line().await) });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// An import whose events go out as lines.
struct Following {
    import: ArchiveImport,
    latest: Progress,
}

impl Following {
    /// The next line, and whatever comes behind it.
    async fn next_line(mut self) -> (Result<Bytes, Infallible>, Option<Self>) {
        match Clock.timeout(SILENCE_MAX, self.import.next()).await {
            Err(_elapsed) => (line(&ImportLine::Progress(self.latest.clone())), Some(self)),
            Ok(Ok(ImportEvent::Progress(progress))) => {
                self.latest = progress.clone();
                (line(&ImportLine::Progress(progress)), Some(self))
            }
            Ok(Ok(ImportEvent::Done(report))) => (line(&ImportLine::Done(report)), None),
            Ok(Err(error)) => (line(&ImportLine::Error(ErrorDetail::from(&error))), None),
        }
    }
}

fn line(line: &ImportLine) -> Result<Bytes, Infallible> {
    let mut bytes = serde_json::to_vec(line).expect("invariant: a line has only string keys");
    bytes.push(b'\n');
    Ok(bytes.into())
}
