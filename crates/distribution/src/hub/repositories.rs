//! Repositories as such: made, removed, and their revisions named.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use helios_registry::protocol::check_new;
use helios_types::{DEFAULT_TAG, ModelRef};
use serde::Deserialize;
use serde_json::json;

use super::error::HubError;
use super::route::MAIN;
use super::state::{Hub, base, json};
use crate::names;
use crate::versions::{Versions, is_commit, tag_of};

/// `GET /api/whoami-v2`: keys have no user behind them.
pub(super) fn whoami() -> Response {
    let token =
        json!({ "type": "access_token", "accessToken": { "displayName": "helios", "role": "write" } });
    let user = json!({ "type": "user", "id": "helios", "name": "helios", "fullname": "Helios", "orgs": [], "auth": token });
    Json(user).into_response()
}

/// `POST /api/validate-yaml`: what a model card says is its author's matter.
pub(super) fn validate_card() -> Response {
    Json(json!({ "errors": [], "warnings": [] })).into_response()
}

#[derive(Deserialize)]
struct Named {
    name: String,
    organization: Option<String>,
    r#type: Option<String>,
}

impl Named {
    fn repository(&self) -> Result<String, HubError> {
        let kind = self.r#type.as_deref().unwrap_or("model");
        if kind != "model" {
            return Err(HubError::bad_request(format!("this server keeps models, no {kind}s")));
        }
        let repository = match &self.organization {
            Some(organization) => format!("{organization}/{}", self.name),
            None if self.name.contains('/') => self.name.clone(),
            None => names::repository_of(&self.name).unwrap_or_default(),
        };
        if names::is_repository(&repository) {
            return Ok(repository);
        }
        if let Ok(model) = repository.parse() {
            check_new(&model)?;
        }
        Err(HubError::bad_request(format!(
            "{repository:?} is no name of a repository\nhint: ORG/NAME of letters, digits, `.`, `_`, `-`"
        )))
    }
}

/// `POST /api/repos/create`: a version without files, so that the repository is there.
pub(super) async fn create(hub: &Hub, request: Request) -> Result<Response, HubError> {
    let base = base(request.headers());
    let repository = json::<Named>(request).await?.repository()?;
    let url = format!("{base}/{repository}");
    let _one_at_a_time = hub.commits.lock().await;
    if Versions::of(&hub.registry, names::model_name(&repository)).await?.is_some() {
        let error = format!("the repository `{repository}` exists already");
        return Ok((StatusCode::CONFLICT, Json(json!({ "error": error, "url": url }))).into_response());
    }
    hub.store(&reference(&repository, DEFAULT_TAG)?, BTreeMap::new(), hub.registry.intake()).await?;
    Ok(Json(json!({ "url": url, "name": repository })).into_response())
}

/// `DELETE /api/repos/delete`: removes every tag of the repository.
pub(super) async fn delete(hub: &Hub, request: Request) -> Result<Response, HubError> {
    let repository = json::<Named>(request).await?.repository()?;
    let _one_at_a_time = hub.commits.lock().await;
    for tag in hub.versions(&repository).await?.references() {
        hub.registry.remove(tag).await?;
    }
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewBranch {
    starting_point: Option<String>,
}

/// `POST /api/models/REPOSITORY/branch/NAME`.
pub(super) async fn branch(
    hub: &Hub,
    repository: &str,
    name: &str,
    request: Request,
) -> Result<Response, HubError> {
    let body: NewBranch = json(request).await?;
    add_revision(hub, repository, name, body.starting_point.as_deref().unwrap_or(MAIN)).await
}

#[derive(Deserialize)]
struct NewTag {
    tag: String,
}

/// `POST /api/models/REPOSITORY/tag/REVISION`.
pub(super) async fn tag(
    hub: &Hub,
    repository: &str,
    revision: &str,
    request: Request,
) -> Result<Response, HubError> {
    let body: NewTag = json(request).await?;
    add_revision(hub, repository, &body.tag, revision).await
}

/// Branches and tags are the same here: a tag on a version.
async fn add_revision(hub: &Hub, repository: &str, name: &str, from: &str) -> Result<Response, HubError> {
    let to = reference(repository, tag_of(name))?;
    let _one_at_a_time = hub.commits.lock().await;
    let version = hub.version(repository, from).await?;
    if hub.versions(repository).await?.references().any(|known| *known == to) {
        return Err(HubError::new(StatusCode::CONFLICT, format!("the revision `{name}` exists already")));
    }
    let source = format!("{repository}@{}", version.commit());
    hub.registry.point(to, version.digest, version.manifest, source).await?;
    Ok(StatusCode::OK.into_response())
}

/// The model and tag behind a repository and the name of a tag to write. Not one that looks like a commit: where that
/// commit exists, nobody would find the tag.
pub(super) fn reference(repository: &str, tag: &str) -> Result<ModelRef, HubError> {
    if is_commit(tag) {
        return Err(HubError::bad_request(format!(
            "`{tag}` looks like a commit, and commits never change\nhint: name a tag or `main`"
        )));
    }
    let text = format!("{}:{tag}", names::model_name(repository));
    let reference = match tag.contains(':') {
        true => None,
        false => text.parse::<ModelRef>().ok(),
    };
    reference.ok_or_else(|| {
        HubError::bad_request(format!(
            "{tag:?} is no name of a revision\nhint: letters, digits, `.`, `_`, `-`, beginning with none of `.` and `-`"
        ))
    })
}
