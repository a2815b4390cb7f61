//! How files are sent before a commit names them: which way each goes, and the LFS protocol.
//!
//! Where the client's package `hf_xet` is installed, which it is by default, a file that is answered `lfs` goes to a Xet
//! storage whatever the server has. So files travel inside the commit (`regular`) up to a bound
//! ([`Limits`](super::Limits)), and only larger ones by LFS, for which such clients have to be told
//! `HF_HUB_DISABLE_XET=1`.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use helios_registry::protocol::Incoming;
use helios_types::Digest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HubError;
use super::state::{Hub, base, json, key};

/// Files of one call.
const FILES_MAX: usize = 4096;

#[derive(Deserialize)]
struct Preupload {
    files: Vec<PreuploadFile>,
}

#[derive(Deserialize)]
struct PreuploadFile {
    path: String,
    size: u64,
}

/// `POST /api/models/REPOSITORY/preupload/REVISION`: which way each file is to go.
pub(super) async fn preupload(
    hub: &Hub,
    repository: &str,
    revision: &str,
    request: Request,
) -> Result<Response, HubError> {
    let asked: Preupload = json(request).await?;
    check_count(asked.files.len())?;
    let known = hub.version(repository, revision).await.ok();
    let files: Vec<Value> = asked
        .files
        .iter()
        .map(|file| {
            let is_regular = file.size <= hub.limits.commit_file_bytes;
            let known = known.as_ref().and_then(|version| version.file(&file.path));
            // For a regular file the client would compare a git hash, which nobody has here.
            let oid = known.filter(|_| !is_regular).map(|known| known.blob.digest.hex());
            let mode = if is_regular { "regular" } else { "lfs" };
            json!({ "path": file.path, "uploadMode": mode, "shouldIgnore": false, "oid": oid })
        })
        .collect();
    Ok(Json(json!({ "files": files })).into_response())
}

/// The error for clients that want a Xet storage.
pub(super) fn no_xet() -> HubError {
    HubError::bad_request(
        "this server has no Xet storage\nhint: set HF_HUB_DISABLE_XET=1, then large files are sent by LFS",
    )
}

#[derive(Deserialize)]
struct Batch {
    operation: String,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    size: u64,
}

/// `POST /REPOSITORY.git/info/lfs/objects/batch`: where to send each file that is not here yet.
pub(super) async fn batch(hub: &Hub, repository: &str, request: Request) -> Result<Response, HubError> {
    let upload = upload_url(repository, &request);
    let batch: Batch = json(request).await?;
    if batch.operation != "upload" {
        return Err(HubError::bad_request(format!(
            "`{}` by LFS is not served, only `upload`",
            batch.operation
        )));
    }
    check_count(batch.objects.len())?;
    let mut objects = Vec::new();
    for Object { oid, size } in batch.objects {
        let mut object = json!({ "oid": oid, "size": size });
        match format!("sha256:{oid}").parse::<Digest>() {
            Err(_) => {
                object["error"] =
                    json!({ "code": 422, "message": "the object's id is not a SHA-256 in hex" });
            }
            // Also one that left and could be fetched again: who has it at hand need not hope for that.
            Ok(digest) if !hub.registry.has_blob(&digest).await? => {
                let action = json!({ "href": format!("{upload}/{oid}"), "header": {} });
                object["actions"] = json!({ "upload": action });
            }
            Ok(_) => {}
        }
        objects.push(object);
    }
    let answer = json!({ "transfer": "basic", "objects": objects });
    Ok(([(CONTENT_TYPE, "application/vnd.git-lfs+json")], Json(answer)).into_response())
}

/// Where objects are sent. The client sends no header of its own there, so its key goes into the address, where HTTP
/// clients take it from for `Authorization: Basic`.
fn upload_url(repository: &str, request: &Request) -> String {
    let base = base(request.headers());
    let base = match (key(request.headers()), base.split_once("://")) {
        (Some(key), Some((scheme, host))) => {
            format!("{scheme}://lfs:{}@{host}", utf8_percent_encode(key, NON_ALPHANUMERIC))
        }
        _ => base,
    };
    format!("{base}/api/models/{repository}/lfs")
}

/// `PUT /api/models/REPOSITORY/lfs/HEX`: the bytes of one object.
pub(super) async fn upload(hub: &Hub, digest: Digest, request: Request) -> Result<Response, HubError> {
    let bytes_max = hub.registry.file_bytes_max();
    let mut incoming = Incoming::begin(&hub.registry, bytes_max).await?;
    incoming.receive(request.into_body()).await?;
    let intake = hub.registry.intake();
    let info = incoming.finish(&intake, Some(digest)).await?;
    hub.registry.shelve(info, intake)?;
    Ok(StatusCode::OK.into_response())
}

fn check_count(count: usize) -> Result<(), HubError> {
    if count > FILES_MAX {
        return Err(HubError::bad_request(format!("{count} files in one call, more than {FILES_MAX}")));
    }
    Ok(())
}
