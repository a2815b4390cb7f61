//! Routes of models: list, show, remove, pull, tag, collect.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use helios_runtime::Clock;

use super::answer::{Body, Query};
use super::wire::{
    ErrorDetail, Model, ModelQuery, Models, Nothing, Pointer, PullBody, PullLine, RollbackBody, TagBody,
    TierList,
};
use crate::registry::invalid_request;
use crate::{DedupReport, GcReport, Progress, Pull, PullEvent, PushReport, Registry, RegistryError, via};

/// Longest silence in the answer to a pull: the latest progress is then said again, so that both ends know of each
/// other.
const SILENCE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn list(State(registry): State<Arc<Registry>>) -> Result<Json<Models>, RegistryError> {
    Ok(Json(Models { models: registry.list().await? }))
}

pub(super) async fn show(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<ModelQuery>,
) -> Result<Json<Model>, RegistryError> {
    let resolved = registry.hand_out(&query.model).await?;
    Ok(Json(Model {
        // The tag is known by now: asking for its history by name would look it up once more.
        history: registry.metadata().history(&resolved.reference).await?,
        model: resolved.reference,
        digest: resolved.digest,
        manifest: (*resolved.manifest).clone(),
        stores: registry.blobs().directories(),
    }))
}

pub(super) async fn remove(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<ModelQuery>,
) -> Result<Json<Nothing>, RegistryError> {
    registry.remove(&query.model).await?;
    Ok(Json(Nothing {}))
}

pub(super) async fn tag(
    State(registry): State<Arc<Registry>>,
    Body(body): Body<TagBody>,
) -> Result<Json<Pointer>, RegistryError> {
    let resolved = registry.tag(&body.from, &body.to).await?;
    Ok(Json(Pointer { model: resolved.reference, digest: resolved.digest }))
}

pub(super) async fn push(
    State(registry): State<Arc<Registry>>,
    Body(query): Body<ModelQuery>,
) -> Result<Json<PushReport>, RegistryError> {
    registry.push(&query.model).await.map(Json)
}

pub(super) async fn rollback(
    State(registry): State<Arc<Registry>>,
    Body(body): Body<RollbackBody>,
) -> Result<Json<Pointer>, RegistryError> {
    let Ok(target) = body.to.parse();
    let resolved = registry.rollback(&body.model, &target).await?;
    Ok(Json(Pointer { model: resolved.reference, digest: resolved.digest }))
}

pub(super) async fn gc(
    State(registry): State<Arc<Registry>>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<GcReport>, RegistryError> {
    registry.gc().await.map(Json)
}

pub(super) async fn dedup(
    State(registry): State<Arc<Registry>>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<DedupReport>, RegistryError> {
    registry.deduplicate().await.map(Json)
}

pub(super) async fn tiers(State(registry): State<Arc<Registry>>) -> Result<Json<TierList>, RegistryError> {
    Ok(Json(TierList { tiers: registry.tiers().await? }))
}

pub(super) async fn pull(
    State(registry): State<Arc<Registry>>,
    Body(body): Body<PullBody>,
) -> Result<Response, RegistryError> {
    let spec = match (body.model, body.source) {
        (Some(spec), None) | (None, Some(spec)) => spec,
        _ => return Err(invalid_request("the body of a pull has either `model` or `source`")),
    };
    let following =
        Following { pull: registry.start_pull(&spec, body.name).await?, latest: Progress::default() };
    // The answer's body is read after this function; the way of the question goes with it.
    let way = via::current();
    let lines = stream::unfold(Some(following), move |following| {
        let way = way.clone();
        async move { Some(via::scope(way, following?.next_line()).await) }
    });
    let body = axum::body::Body::from_stream(lines);
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// A pull whose events go out as lines.
struct Following {
    pull: Pull,
    latest: Progress,
}

impl Following {
    /// The next line, and whatever comes behind it.
    async fn next_line(mut self) -> (Result<Bytes, std::convert::Infallible>, Option<Self>) {
        match Clock.timeout(SILENCE_MAX, self.pull.next()).await {
            Err(_elapsed) => (line(&PullLine::Progress(self.latest.clone())), Some(self)),
            Ok(Ok(PullEvent::Progress(progress))) => {
                self.latest = progress.clone();
                (line(&PullLine::Progress(progress)), Some(self))
            }
            Ok(Ok(PullEvent::Done(resolved))) => {
                let pointer = Pointer { model: resolved.reference, digest: resolved.digest };
                (line(&PullLine::Done(pointer)), None)
            }
            Ok(Err(error)) => (line(&PullLine::Error(ErrorDetail::from(&error))), None),
        }
    }
}

fn line(line: &PullLine) -> Result<Bytes, std::convert::Infallible> {
    let mut bytes = serde_json::to_vec(line).expect("invariant: a line has only string keys");
    bytes.push(b'\n');
    Ok(bytes.into())
}
