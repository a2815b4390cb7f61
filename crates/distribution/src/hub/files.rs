//! The files of a version: listed, asked for by name, and their bytes.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use helios_model::FileEntry;
use helios_registry::protocol::{Download, Query, answer_file, digest_of};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::HubError;
use super::info::next_page;
use super::state::{Hub, Version, body};
use crate::versions::commit_of;

/// Entries of one answer; more come with the next page.
const PAGE: usize = 1000;
/// Paths that one call may ask for.
const PATHS_MAX: usize = 4096;
/// Size of the pointer that stands for a file of LFS in git; no client relies on it.
pub(super) const POINTER_BYTES: u64 = 135;

/// `GET /api/models/REPOSITORY/tree/REVISION[/PATH]?recursive=BOOL`.
pub(super) async fn tree(
    hub: &Hub,
    repository: &str,
    revision: &str,
    path: &str,
    request: Request,
) -> Result<Response, HubError> {
    let version = hub.version(repository, revision).await?;
    let query = Query::of(request.uri());
    let recursive = query.get("recursive").is_some_and(|value| matches!(value, "true" | "True" | "1"));
    let folder = if path.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches('/')) };
    let entries = entries(&version, &folder, recursive);
    if entries.is_empty() && !path.is_empty() {
        return Err(HubError::no_entry(path).with(HeaderMap::from_iter([version.header()])));
    }
    let cursor = query.get("cursor").unwrap_or_default();
    let limit = query.number("limit").unwrap_or(PAGE).clamp(1, PAGE);
    let behind: Vec<&Entry<'_>> = entries.iter().filter(|entry| entry.path() > cursor).collect();
    let page = &behind[..behind.len().min(limit)];
    let next =
        (page.len() < behind.len()).then(|| page.last().map(|entry| entry.path().to_owned())).flatten();
    let headers = next_page(&request, &query, next);
    let page: Vec<Value> = page.iter().map(|entry| entry.to_json()).collect();
    Ok(([version.header()], headers, Json(page)).into_response())
}

/// `POST /api/models/REPOSITORY/paths-info/REVISION`, a form or JSON: those of the paths that there are.
pub(super) async fn paths(
    hub: &Hub,
    repository: &str,
    revision: &str,
    request: Request,
) -> Result<Response, HubError> {
    let version = hub.version(repository, revision).await?;
    let asked = paths_asked_for(&body(request).await?)?;
    let all = entries(&version, "", true);
    let found = asked.iter().filter_map(|path| {
        let path = path.trim_end_matches('/');
        all.iter().find(|entry| entry.path() == path).map(Entry::to_json)
    });
    Ok(([version.header()], Json(found.collect::<Vec<Value>>())).into_response())
}

fn paths_asked_for(body: &[u8]) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Asked {
        paths: Vec<String>,
    }
    let paths = match serde_json::from_slice::<Asked>(body) {
        Ok(asked) => asked.paths,
        Err(_) => {
            let form =
                std::str::from_utf8(body).map_err(|_| HubError::bad_request("the body is not UTF-8"))?;
            Query::parse(form).all("paths").map(str::to_owned).collect()
        }
    };
    match paths.len() {
        0 => Err(HubError::bad_request("the body names no `paths`")),
        count if count > PATHS_MAX => {
            Err(HubError::bad_request(format!("{count} paths, more than {PATHS_MAX}")))
        }
        _ => Ok(paths),
    }
}

/// `GET` or `HEAD` of `/REPOSITORY/resolve/REVISION/PATH`.
pub(super) async fn resolve(
    hub: &Hub,
    repository: &str,
    revision: &str,
    path: &str,
    request: Request,
) -> Result<Response, HubError> {
    let download = Download::begun_by(&request);
    let version = hub.version(repository, revision).await?;
    let Some(file) = version.file(path) else {
        // Clients remember by the commit that the file is not there.
        return Err(HubError::no_entry(path).with(HeaderMap::from_iter([version.header()])));
    };
    if let Some((download, model)) = download.zip(version.model.as_ref())
        && version.manifest.begins_with(&file.blob.digest)
    {
        hub.registry.note_download(download, model).await;
    }
    let content = hub.registry.content(file.blob);
    let mut response = answer_file(&content, request.method(), request.headers()).await?;
    let headers = response.headers_mut();
    headers.extend([version.header()]);
    let tag = HeaderValue::from_str(&format!("\"{}\"", file.blob.digest.hex()));
    headers.insert(
        HeaderName::from_static("x-linked-etag"),
        tag.expect("invariant: hex digits in quotes are a header"),
    );
    headers.insert(HeaderName::from_static("x-linked-size"), HeaderValue::from(file.blob.size));
    Ok(response)
}

/// A file, or a folder that files lie in.
enum Entry<'a> {
    File(&'a FileEntry),
    Folder(String),
}

impl Entry<'_> {
    fn path(&self) -> &str {
        match self {
            Self::File(file) => &file.path,
            Self::Folder(path) => path,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Folder(path) => {
                let oid = commit_of(&digest_of(path.as_bytes()));
                json!({ "type": "directory", "path": path, "oid": oid, "size": 0 })
            }
            Self::File(FileEntry { path, blob, .. }) => {
                let lfs =
                    json!({ "oid": blob.digest.hex(), "size": blob.size, "pointerSize": POINTER_BYTES });
                let oid = commit_of(&blob.digest);
                json!({ "type": "file", "path": path, "oid": oid, "size": blob.size, "lfs": lfs })
            }
        }
    }
}

/// What lies below `folder` (empty, or with a slash at its end), ordered by path.
fn entries<'a>(version: &'a Version, folder: &str, recursive: bool) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    let mut folders = BTreeSet::new();
    for file in version.files() {
        let Some(rest) = file.path.strip_prefix(folder) else { continue };
        let mut ends = rest.match_indices('/').map(|(at, _)| folder.len() + at);
        if recursive {
            folders.extend(ends.map(|end| &file.path[..end]));
        } else if let Some(end) = ends.next() {
            folders.insert(&file.path[..end]);
            continue;
        }
        entries.push(Entry::File(file));
    }
    entries.extend(folders.into_iter().map(|path| Entry::Folder(path.to_owned())));
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    entries
}
