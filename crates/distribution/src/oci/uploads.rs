//! Uploads of blobs: in one piece, in several, or none at all where the blob is here already.

use axum::extract::Request;
use axum::http::header::{CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_registry::RegistryError;
use helios_registry::protocol::{Incoming, Query};
use helios_types::{Digest, ErrorCode};

use super::blobs::content_digest;
use super::error::OciError;
use super::sessions::Session;
use super::state::{Oci, digest};

/// `POST /v2/NAME/blobs/uploads/`: with `mount` or `digest` it may be the end, too.
pub(super) async fn begin(oci: &Oci, name: &str, request: Request) -> Result<Response, OciError> {
    let query = Query::of(request.uri());
    if let Some(mount) = query.get("mount") {
        let mounted = digest(mount)?;
        if oci.registry.has_blob(&mounted).await? {
            return Ok(created(name, &mounted));
        }
    }
    let bytes_max = oci.registry.file_bytes_max();
    let mut incoming = Incoming::begin(&oci.registry, bytes_max).await?;
    if let Some(whole) = query.get("digest") {
        let expected = digest(whole)?;
        incoming.receive(request.into_body()).await?;
        return finish(oci, name, incoming, expected).await;
    }
    let id = oci.sessions.begin(name, incoming)?;
    Ok((StatusCode::ACCEPTED, position(name, &id, 0)).into_response())
}

/// `GET /v2/NAME/blobs/uploads/ID`: how much is here.
pub(super) async fn state(oci: &Oci, name: &str, id: &str) -> Result<Response, OciError> {
    let session = oci.sessions.get(name, id)?;
    let received = session.incoming.lock().await.received();
    Ok((StatusCode::NO_CONTENT, position(name, id, received)).into_response())
}

/// `PATCH /v2/NAME/blobs/uploads/ID`: the next piece.
pub(super) async fn piece(oci: &Oci, name: &str, id: &str, request: Request) -> Result<Response, OciError> {
    let session = oci.sessions.get(name, id)?;
    let received = take(&session, name, id, request).await?;
    Ok((StatusCode::ACCEPTED, position(name, id, received)).into_response())
}

/// `PUT /v2/NAME/blobs/uploads/ID?digest=DIGEST`: the last piece, which may be empty.
pub(super) async fn end(oci: &Oci, name: &str, id: &str, request: Request) -> Result<Response, OciError> {
    let session = oci.sessions.get(name, id)?;
    let query = Query::of(request.uri());
    let expected = digest(query.get("digest").unwrap_or_default())?;
    take(&session, name, id, request).await?;
    drop(session);
    let session = oci.sessions.end(id).ok_or_else(|| OciError::no_upload(id))?;
    let session = std::sync::Arc::into_inner(session).ok_or_else(|| {
        OciError::new(
            StatusCode::CONFLICT,
            "BLOB_UPLOAD_INVALID",
            "another piece of this upload is coming in",
        )
    })?;
    finish(oci, name, session.incoming.into_inner(), expected).await
}

/// `DELETE /v2/NAME/blobs/uploads/ID`.
pub(super) fn drop_session(oci: &Oci, id: &str) -> Result<Response, OciError> {
    oci.sessions.end(id).ok_or_else(|| OciError::no_upload(id))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes a piece that begins where the one before ended; returns the bytes that are here then.
async fn take(session: &Session, name: &str, id: &str, request: Request) -> Result<u64, OciError> {
    let mut incoming = session.incoming.lock().await;
    let range = request.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.map(|range| start_of(range).ok_or(range)).transpose();
    if start != Ok(None) && start != Ok(Some(incoming.received())) {
        let message = format!("the next piece has to begin at byte {}", incoming.received());
        let error = OciError::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
        return Err(error.with(position(name, id, incoming.received())));
    }
    incoming.receive(request.into_body()).await?;
    Ok(incoming.received())
}

/// The first byte of `START-END`, with or without `bytes ` before it.
fn start_of(range: &str) -> Option<u64> {
    range.trim_start_matches("bytes ").split_once('-')?.0.parse().ok()
}

async fn finish(oci: &Oci, name: &str, incoming: Incoming, expected: Digest) -> Result<Response, OciError> {
    let intake = oci.registry.intake();
    let info = incoming.finish(&intake, Some(expected)).await.map_err(|error| match error {
        RegistryError::InvalidRequest { problem, code: ErrorCode::InvalidRequest } => {
            OciError::bad_digest(problem)
        }
        error => error.into(),
    })?;
    oci.registry.shelve(info, intake)?;
    Ok(created(name, &expected))
}

fn created(name: &str, digest: &Digest) -> Response {
    let location = header(format!("/v2/{name}/blobs/{digest}"));
    (StatusCode::CREATED, [(LOCATION, location)], content_digest(digest)).into_response()
}

/// Where an upload stands and where its next piece goes.
fn position(name: &str, id: &str, received: u64) -> HeaderMap {
    HeaderMap::from_iter([
        (LOCATION, header(format!("/v2/{name}/blobs/uploads/{id}"))),
        (RANGE, header(format!("0-{}", received.saturating_sub(1)))),
        (HeaderName::from_static("docker-upload-uuid"), header(id.to_owned())),
    ])
}

fn header(text: String) -> HeaderValue {
    HeaderValue::from_str(&text).expect("invariant: names, digests and ids are ASCII")
}
