//! The registry over HTTP: routes below `/registry/v1/`.
//!
//! | route | what |
//! |---|---|
//! | `GET models` | every model |
//! | `GET model?model=NAME` | manifest, digest, history, and the store's folder for readers on the same host |
//! | `DELETE model?model=NAME` | removes a tag |
//! | `POST pull` | fetches a model; progress as JSON lines, the last `done` or `error` |
//! | `POST tag` · `POST gc` | another name · garbage collection |
//! | `POST push` | puts a model into the remote store |
//! | `POST tag` · `POST rollback` | another name · an earlier version |
//! | `POST gc` · `POST dedup` | garbage collection · deduplication |
//! | `GET tiers` | the directories of the store, what they hold and how they are |
//! | `GET export?model=NAME&model=…` · `POST import` | models as one archive, with ranges · such an archive into the store; progress as JSON lines |
//! | `GET manifests/DIGEST` · `GET blobs/DIGEST` | bytes; blobs verified before the first byte, with ranges |
//! | `GET pieces/DIGEST/N` · `GET trees/DIGEST` | a piece of 2 MiB of a blob here or on its way · its BLAKE3 tree |
//! | `POST swarms/DIGEST` · `PUT holdings` | where to get a piece · which blobs a node has |
//! | `GET profiles/DIGEST` | the memory profile of a manifest, with its details |
//! | `POST uses` | how often which models were asked for, from proxies and workers |
//! | `GET warm` · `PUT warm` · `DELETE warm?model=NAME` | which models are near and why · keeps one · lets it go |
//! | `PUT workers/ID` · `DELETE workers/ID` | renews · ends a lease |
//! | `GET workers?after=VERSION&wait_ms=N` | the live workers, at once or when they change |
//!
//! Bodies are `application/json`, that of an import is `application/x-tar`: no web page can send one here without a
//! preflight, which no route answers.

mod answer;
mod archives;
mod blobs;
pub(crate) mod encoding;
mod models;
mod profiles;
pub(crate) mod ranged;
mod swarm;
mod warm;
pub(crate) mod wire;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post, put};

use crate::{Registry, SharedCache};

/// Bytes of a request body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The content type of an archive.
pub(crate) const ARCHIVE_TYPE: &str = "application/x-tar";

/// Whether the call takes an archive instead of JSON.
pub fn takes_archive(method: &Method, path: &str) -> bool {
    method == Method::POST && path.strip_prefix(ROUTE_PREFIX) == Some("/import")
}

/// The prefix of every route.
pub const ROUTE_PREFIX: &str = "/registry/v1";

/// The routes of a registry. Who may call them is up to the listener.
pub fn router(registry: Arc<Registry>) -> Router {
    let routes = Router::new()
        .route("/models", get(models::list))
        .route("/model", get(models::show).delete(models::remove))
        .route("/pull", post(models::pull))
        .route("/tag", post(models::tag))
        .route("/rollback", post(models::rollback))
        .route("/gc", post(models::gc))
        .route("/push", post(models::push))
        .route("/dedup", post(models::dedup))
        .route("/tiers", get(models::tiers))
        .route("/export", get(archives::export))
        .route("/import", post(archives::import))
        .route("/manifests/{digest}", get(blobs::manifest))
        .route("/blobs/{digest}", get(blobs::blob))
        .route("/pieces/{digest}/{index}", get(swarm::piece))
        .route("/trees/{digest}", get(swarm::tree))
        .route("/swarms/{digest}", post(swarm::ask))
        .route("/holdings", put(swarm::hold))
        .route("/profiles/{digest}", get(profiles::profile))
        .route("/uses", post(warm::note_uses))
        .route("/warm", get(warm::list).put(warm::keep).delete(warm::let_go))
        .route("/workers", get(workers::list))
        .route("/workers/{id}", put(workers::renew).delete(workers::leave))
        .route("/{*rest}", any(answer::no_such_route))
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&registry), swarm::note_way));
    Router::new().nest(ROUTE_PREFIX, routes).with_state(registry)
}

/// The routes of a node of the fleet that is no registry: pieces of blobs. Who may call them is up to the listener.
pub fn node_router(node: Arc<SharedCache>) -> Router {
    let routes = Router::new()
        .route("/pieces/{digest}/{index}", get(swarm::piece_of_node))
        .route("/{*rest}", any(answer::no_such_route))
        .method_not_allowed_fallback(answer::no_such_method);
    Router::new().nest(ROUTE_PREFIX, routes).with_state(node)
}
