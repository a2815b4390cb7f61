//! What repositories there are, and what is to be said of each.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Request;
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use helios_model::{FileEntry, Manifest};
use helios_registry::protocol::Query;
use serde_json::{Value, json};

use super::error::HubError;
use super::files::POINTER_BYTES;
use super::state::{Hub, Version, base};
use crate::names;
use crate::time::iso8601;
use crate::versions::commit_of;

/// Repositories of one answer; more come with the next page.
const PAGE: usize = 1000;
/// Bytes of a configuration that is looked into.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// What is told of a configuration; tools such as `accelerate` look for it before they read the file.
const CONFIG_KEYS: [&str; 4] = ["architectures", "auto_map", "model_type", "quantization_config"];

/// `GET /api/models/REPOSITORY[/revision/REVISION]`.
pub(super) async fn model(hub: &Hub, repository: &str, revision: &str) -> Result<Response, HubError> {
    let version = hub.version(repository, revision).await?;
    let siblings: Vec<Value> = version
        .files()
        .map(|file| {
            let FileEntry { path, blob, .. } = file;
            let lfs = json!({ "sha256": blob.digest.hex(), "size": blob.size, "pointerSize": POINTER_BYTES });
            json!({ "rfilename": path, "size": blob.size, "blobId": commit_of(&blob.digest), "lfs": lfs })
        })
        .collect();
    let mut about = summary(repository, &version);
    about["siblings"] = siblings.into();
    if let Some(config) = config(hub, &version).await? {
        about["config"] = config;
        about["library_name"] = "transformers".into();
    }
    about["usedStorage"] = version.manifest.size().into();
    about["cardData"] = card(&version.manifest);
    Ok(([version.header()], Json(about)).into_response())
}

/// What `config.json` says, as far as it is told; `None` where there is none, or it is none.
async fn config(hub: &Hub, version: &Version) -> Result<Option<Value>, HubError> {
    let file = version.file("config.json").filter(|file| file.blob.size <= CONFIG_BYTES_MAX);
    let Some(file) = file else { return Ok(None) };
    let bytes = hub.registry.blob(file).await?;
    let Ok(Value::Object(mut config)) = serde_json::from_slice(&bytes) else { return Ok(None) };
    config.retain(|key, _| CONFIG_KEYS.contains(&key.as_str()));
    Ok(Some(config.into()))
}

/// What the hub takes from a model's card: here, what is known of it whether it has one or not.
fn card(manifest: &Manifest) -> Value {
    let mut card = serde_json::Map::new();
    card.extend(manifest.licence().map(|licence| ("license".to_owned(), licence.into())));
    let bases = manifest.lineage.as_ref().map_or(&[][..], |lineage| &lineage.base_models);
    let names: Vec<&str> = bases.iter().map(|base| base.model.as_str()).collect();
    let named: Option<Value> = match names.as_slice() {
        [] => None,
        [one] => Some((*one).into()),
        several => Some(several.to_vec().into()),
    };
    card.extend(named.map(|names| ("base_model".to_owned(), names)));
    let relation = bases.iter().find_map(|base| base.relation);
    card.extend(relation.map(|relation| ("base_model_relation".to_owned(), relation.as_str().into())));
    card.into()
}

/// What lists say of a version, too.
fn summary(repository: &str, version: &Version) -> Value {
    let facts = version.manifest.metadata.as_ref();
    let mut tags: Vec<String> = Vec::new();
    tags.extend(facts.map(|facts| facts.architecture.clone()));
    tags.extend(version.manifest.licence().map(|licence| format!("license:{licence}")));
    for base in version.manifest.lineage.iter().flat_map(|lineage| &lineage.base_models) {
        tags.push(format!("base_model:{}", base.model));
        tags.extend(base.relation.map(|relation| format!("base_model:{relation}:{}", base.model)));
    }
    json!({
        "id": repository,
        "modelId": repository,
        "author": repository.split('/').next(),
        "sha": version.commit(),
        "lastModified": iso8601(version.at),
        "createdAt": iso8601(version.at),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "pipeline_tag": facts.map(|_| "text-generation"),
    })
}

/// `GET /api/models/REPOSITORY/refs`.
pub(super) async fn refs(hub: &Hub, repository: &str) -> Result<Response, HubError> {
    let versions = hub.versions(repository).await?;
    let refs = |kind: &str, name: &str, commit: String| json!({ "name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": commit });
    let main = versions.main().map(|entry| refs("heads", "main", commit_of(&entry.digest)));
    let tags = versions.tags().map(|(tag, entry)| refs("tags", tag, commit_of(&entry.digest)));
    let answer = json!({
        "branches": main.into_iter().collect::<Vec<_>>(),
        "tags": tags.collect::<Vec<_>>(),
        "converts": [],
        "pullRequests": [],
    });
    Ok(Json(answer).into_response())
}

/// `GET /api/models?search=TEXT&author=ORG&limit=N`, ordered by name.
pub(super) async fn list(hub: &Hub, request: Request) -> Result<Response, HubError> {
    let query = Query::of(request.uri());
    let limit = query.number("limit").unwrap_or(PAGE).clamp(1, PAGE);
    let models = hub.registry.list().await?;
    let repositories: BTreeSet<String> =
        models.iter().filter_map(|model| names::repository_of(model.model.name())).collect();
    let fitting: Vec<&String> =
        repositories.iter().filter(|repository| is_asked_for(repository, &query)).collect();
    let mut page = Vec::new();
    for &repository in fitting.iter().take(limit) {
        // One that was removed in between is not there any more.
        if let Ok(version) = hub.version(repository, super::route::MAIN).await {
            page.push(summary(repository, &version));
        }
    }
    let next = (fitting.len() > limit).then(|| fitting[limit - 1].clone());
    let headers = next_page(&request, &query, next);
    Ok((headers, Json(page)).into_response())
}

fn is_asked_for(repository: &str, query: &Query) -> bool {
    let lower = repository.to_lowercase();
    let found = query.get("search").is_none_or(|text| lower.contains(&text.to_lowercase()));
    let author = query.get("author").is_none_or(|author| repository.split('/').next() == Some(author));
    found && author && query.get("cursor").is_none_or(|cursor| repository > cursor)
}

/// The header that leads to what comes after `last`.
pub(super) fn next_page(request: &Request, query: &Query, last: Option<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(last) = last {
        let url =
            format!("{}{}?{}", base(request.headers()), request.uri().path(), query.with("cursor", &last));
        if let Ok(link) = HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")) {
            headers.insert(LINK, link);
        }
    }
    headers
}
