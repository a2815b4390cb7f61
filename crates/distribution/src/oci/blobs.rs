//! Blobs by digest: files, and the manifests of Helios that are the configuration of artifacts made here.

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use helios_registry::protocol::{Download, answer_file};
use helios_storage::BlobInfo;
use helios_types::Digest;

use super::error::OciError;
use super::state::{Oci, digest};

/// Tags that are looked at to find out which model a blob is downloaded for.
const TAGS_MAX: usize = 32;

/// `GET` or `HEAD` of `/v2/NAME/blobs/DIGEST`.
pub(super) async fn read(oci: &Oci, name: &str, text: &str, request: Request) -> Result<Response, OciError> {
    let digest = digest(text)?;
    if let Some(download) = Download::begun_by(&request) {
        note_download(oci, name, &digest, download).await;
    }
    let mut response = match to_be_had(oci, &digest).await? {
        Some(info) => {
            let content = oci.registry.content(info);
            answer_file(&content, request.method(), request.headers()).await?
        }
        None => match oci.registry.manifest(&digest).await {
            Ok(manifest) => Bytes::from(manifest.to_bytes()).into_response(),
            Err(_) => {
                let message = format!("no blob {digest}");
                return Err(OciError::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message));
            }
        },
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().extend(content_digest(&digest));
    Ok(response)
}

/// What is known of a blob that is here or can be fetched again. Any other counts as missing, so that a client that has
/// it sends it.
async fn to_be_had(oci: &Oci, digest: &Digest) -> Result<Option<BlobInfo>, OciError> {
    match oci.registry.known_blob(digest).await? {
        Some(info) if oci.registry.is_to_be_had(digest).await? => Ok(Some(info)),
        _ => Ok(None),
    }
}

/// Notes a use of the model of that name whose weights begin with the blob.
async fn note_download(oci: &Oci, name: &str, digest: &Digest, download: Download) {
    let begins_some = oci.registry.manifest_with(digest).await;
    if !begins_some.is_ok_and(|found| found.is_some_and(|(_, manifest)| manifest.begins_with(digest))) {
        return;
    }
    let Ok((_, versions)) = oci.versions(name).await else { return };
    for (model, entry) in versions.current().take(TAGS_MAX) {
        if oci.registry.manifest(&entry.digest).await.is_ok_and(|manifest| manifest.begins_with(digest)) {
            return oci.registry.note_download(download, model).await;
        }
    }
}

/// The header that names what an answer is about.
pub(super) fn content_digest(digest: &Digest) -> HeaderMap {
    let value = HeaderValue::from_str(&digest.to_string()).expect("invariant: a digest is ASCII");
    HeaderMap::from_iter([(HeaderName::from_static("docker-content-digest"), value)])
}
