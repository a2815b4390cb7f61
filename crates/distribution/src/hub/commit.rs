//! `POST /api/models/REPOSITORY/commit/REVISION`: a new version out of the parent's files and the operations of the
//! commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use helios_model::{is_derived, is_safe_path};
use helios_registry::protocol::{BodyPieces, Intake};
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};
use serde::Deserialize;
use serde_json::json;

use super::error::HubError;
use super::lines::{Line, Lines};
use super::repositories::reference;
use super::state::{Hub, Version, base};
use crate::names;
use crate::versions::{Versions, commit_of, tag_of};

/// Operations of one commit.
const OPERATIONS_MAX: usize = 16_384;
/// Files of one version; beside them a manifest has room for what is derived.
pub(super) const FILES_MAX: usize = 4000;

/// A line of a commit.
#[derive(Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Said {
    Header(Header),
    File(SaidFile),
    LfsFile(SaidObject),
    DeletedFile(SaidPath),
    DeletedFolder(SaidPath),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    parent_commit: Option<String>,
}

#[derive(Deserialize)]
struct SaidFile {
    path: String,
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct SaidObject {
    path: String,
    algo: Option<String>,
    oid: String,
}

#[derive(Deserialize)]
struct SaidPath {
    path: String,
}

/// What a commit does, its files being known.
enum Operation {
    Add { path: String, blob: BlobInfo },
    DeleteFile(String),
    DeleteFolder(String),
}

pub(super) async fn commit(
    hub: &Hub,
    repository: &str,
    revision: &str,
    request: Request,
) -> Result<Response, HubError> {
    let name = reference(repository, tag_of(revision))?;
    let base = base(request.headers());
    let intake = hub.registry.intake();
    let (header, operations) = read(hub, &intake, request).await?;
    let files = async || {
        let parent = parent(hub, repository, revision).await?;
        check_parent(&header, parent.as_ref(), revision)?;
        apply(parent.as_ref(), &operations)
    };
    // What has to be fetched again may take long, and no other commit has to wait for it.
    let wanted: Vec<BlobInfo> = files().await?.into_values().collect();
    hub.registry.bring(&wanted, &intake).await?;
    let _one_at_a_time = hub.commits.lock().await;
    let files = files().await?;
    let digest = hub.store(&name, files, intake).await?;
    let commit = commit_of(&digest);
    let answer = json!({
        "success": true,
        "commitOid": commit,
        "commitUrl": format!("{base}/{repository}/commit/{commit}"),
        "hookOutput": "",
    });
    Ok(Json(answer).into_response())
}

/// Takes the whole body; every file that it brings is in the store and pinned then, every one that it names is known.
async fn read(
    hub: &Hub,
    intake: &Arc<Intake>,
    request: Request,
) -> Result<(Header, Vec<Operation>), HubError> {
    let mut lines = Lines::of(BodyPieces::of(request.into_body()), hub.limits.commit_file_bytes);
    let mut header = Header::default();
    let mut operations = Vec::new();
    while let Some(line) = lines.next(&hub.registry).await? {
        if operations.len() >= OPERATIONS_MAX {
            return Err(HubError::bad_request(format!("a commit has at most {OPERATIONS_MAX} operations")));
        }
        let Line { json, content } = line;
        let said = serde_json::from_slice(&json);
        let said = said.map_err(|error| HubError::bad_request(format!("a line of the commit: {error}")))?;
        operations.push(match (said, content) {
            (Said::Header(said), _) => {
                header = said;
                continue;
            }
            (Said::File(SaidFile { path, encoding }), Some(content)) => {
                check_path(&path)?;
                if encoding.as_deref() != Some("base64") {
                    return Err(HubError::bad_request(format!("`{path}`: the encoding has to be base64")));
                }
                Operation::Add { path, blob: content.finish(intake, None).await? }
            }
            (Said::File(SaidFile { path, .. }), None) => {
                return Err(HubError::bad_request(format!("`{path}` has no content")));
            }
            (Said::LfsFile(said), _) => object(hub, said).await?,
            (Said::DeletedFile(SaidPath { path }), _) => Operation::DeleteFile(path),
            (Said::DeletedFolder(SaidPath { path }), _) => Operation::DeleteFolder(path),
        });
    }
    Ok((header, operations))
}

/// A file that was sent before, or is a file of some version here.
async fn object(hub: &Hub, said: SaidObject) -> Result<Operation, HubError> {
    let SaidObject { path, algo, oid } = said;
    check_path(&path)?;
    if algo.is_some_and(|algo| algo != "sha256") {
        return Err(HubError::bad_request(format!("`{path}`: the algorithm has to be sha256")));
    }
    let digest: Digest = format!("sha256:{oid}")
        .parse()
        .map_err(|_| HubError::bad_request(format!("`{path}`: its id is not a SHA-256 in hex")))?;
    match hub.registry.known_blob(&digest).await? {
        Some(blob) => Ok(Operation::Add { path, blob }),
        None => Err(HubError::bad_request(format!(
            "`{path}`: {digest} was not sent, or so long ago that it is gone\nhint: upload again"
        ))),
    }
}

/// What the commit builds on: nothing, where the revision is new.
async fn parent(hub: &Hub, repository: &str, revision: &str) -> Result<Option<Version>, HubError> {
    let name = names::model_name(repository);
    let versions = Versions::of(&hub.registry, name).await?;
    match versions.as_ref().and_then(|versions| versions.find(revision)) {
        None => Ok(None),
        Some(_) => hub.version(repository, revision).await.map(Some),
    }
}

fn check_parent(header: &Header, parent: Option<&Version>, revision: &str) -> Result<(), HubError> {
    let Some(expected) = &header.parent_commit else { return Ok(()) };
    let actual = parent.map(Version::commit).unwrap_or_default();
    if *expected == actual {
        return Ok(());
    }
    let message = format!("`{revision}` is at `{actual}` and not at `{expected}`\nhint: read it again first");
    Err(HubError::new(StatusCode::PRECONDITION_FAILED, message))
}

/// The files of the new version.
fn apply(parent: Option<&Version>, operations: &[Operation]) -> Result<BTreeMap<String, BlobInfo>, HubError> {
    let mut files: BTreeMap<String, BlobInfo> = BTreeMap::new();
    if let Some(parent) = parent {
        files.extend(parent.files().map(|file| (file.path.clone(), file.blob)));
    }
    for operation in operations {
        match operation {
            Operation::Add { path, blob } => drop(files.insert(path.clone(), *blob)),
            Operation::DeleteFile(path) => {
                files.remove(path).ok_or_else(|| HubError::no_entry(path))?;
            }
            Operation::DeleteFolder(path) => {
                let folder = format!("{}/", path.trim_end_matches('/'));
                let before = files.len();
                files.retain(|path, _| !path.starts_with(&folder));
                if files.len() == before {
                    return Err(HubError::no_entry(path));
                }
            }
        }
    }
    if files.len() > FILES_MAX {
        return Err(HubError::bad_request(format!("{} files, more than {FILES_MAX}", files.len())));
    }
    Ok(files)
}

fn check_path(path: &str) -> Result<(), HubError> {
    if !is_safe_path(path) {
        return Err(HubError::bad_request(format!("{path:?} is no safe name of a file")));
    }
    if is_derived(path) {
        let message =
            format!("`{path}` is in the folder of what Helios derives\nhint: choose another folder");
        return Err(HubError::bad_request(message));
    }
    Ok(())
}

impl Hub {
    /// Makes a version of files, which `intake` pins from here on, and points `name` at it.
    pub(super) async fn store(
        &self,
        name: &ModelRef,
        files: BTreeMap<String, BlobInfo>,
        intake: Arc<Intake>,
    ) -> Result<Digest, HubError> {
        self.registry.add_version(name, files, Vec::new(), intake).await.map_err(HubError::from)
    }
}
