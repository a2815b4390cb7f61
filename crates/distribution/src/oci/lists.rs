//! Lists: names, tags, and what refers to a manifest.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use helios_registry::protocol::Query;
use serde_json::json;

use super::error::OciError;
use super::state::{Oci, digest};

/// Entries of one answer; more come with the next page.
const PAGE: usize = 1000;

/// `GET /v2/_catalog?n=COUNT&last=NAME`.
pub(super) async fn catalogue(oci: &Oci, request: Request) -> Result<Response, OciError> {
    let models = oci.registry.list().await?;
    let names: BTreeSet<&str> = models.iter().map(|model| model.model.name()).collect();
    let (page, headers) = page(names, &request);
    Ok((headers, Json(json!({ "repositories": page }))).into_response())
}

/// `GET /v2/NAME/tags/list?n=COUNT&last=TAG`.
pub(super) async fn tags(oci: &Oci, name: &str, request: Request) -> Result<Response, OciError> {
    let (_, versions) = oci.versions(name).await?;
    let tags: BTreeSet<&str> = versions.tags().map(|(tag, _)| tag).collect();
    let (page, headers) = page(tags, &request);
    Ok((headers, Json(json!({ "name": name, "tags": page }))).into_response())
}

/// `GET /v2/NAME/referrers/DIGEST`: always none, for nothing here refers to a manifest.
pub(super) fn referrers(text: &str) -> Result<Response, OciError> {
    const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
    digest(text)?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [] });
    Ok(([(CONTENT_TYPE, INDEX_TYPE)], index.to_string()).into_response())
}

/// The entries behind `last`, `n` at most, and the header that leads on.
fn page<'a>(entries: BTreeSet<&'a str>, request: &Request) -> (Vec<&'a str>, HeaderMap) {
    let query = Query::of(request.uri());
    let last = query.get("last").unwrap_or_default();
    let count = query.number("n").unwrap_or(PAGE).min(PAGE);
    let behind: Vec<&str> = entries.into_iter().filter(|entry| *entry > last).collect();
    let page = behind[..behind.len().min(count)].to_vec();
    let mut headers = HeaderMap::new();
    if let (Some(end), true) = (page.last(), page.len() < behind.len()) {
        let next = format!("<{}?{}>; rel=\"next\"", request.uri().path(), query.with("last", end));
        headers.extend(HeaderValue::from_str(&next).ok().map(|next| (LINK, next)));
    }
    (page, headers)
}
