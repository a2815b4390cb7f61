//! The Hugging Face hub's protocol: with `HF_ENDPOINT` at this server, `huggingface_hub` and everything built on it read
//! the store's models and, with the right to write, add versions.
//!
//! - A repository is a model's name, a revision a tag, `main` or a commit ([`crate::versions`]). Files are those the
//!   model came with; what Helios derived from them is its own matter and not shown.
//! - Every file is shown as one of LFS, so that its entity tag is its SHA-256 in listings and answers alike.
//! - A commit makes a new manifest: files kept from the parent, added, deleted. It is durable when it is answered.
//!
//! `python/requirements-test.txt` pins the client whose source this follows.

mod commit;
mod error;
mod files;
mod info;
mod lfs;
mod lines;
mod repositories;
mod route;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_registry::Registry;
use helios_registry::protocol::check_encoding;

pub use error::refusal;
pub use state::Limits;

use crate::Route;
use error::HubError;
use route::Call;
use state::Hub;

/// What the call of that method and path asks of its caller; `None` where the protocol has no such call.
pub fn route(method: &Method, path: &str) -> Option<Route> {
    Call::parse(method, path).map(|call| call.route())
}

/// The protocol's routes. Who may call them is up to the listener, which asks [`route`].
pub fn router(registry: Arc<Registry>, limits: Limits) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Hub::new(registry, limits)))
}

async fn answer(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let Some(call) = Call::parse(request.method(), request.uri().path()) else {
        return HubError::new(StatusCode::NOT_FOUND, "the hub's protocol has no such call here")
            .into_response();
    };
    if let Err(error) = check_encoding(request.headers()) {
        return HubError::from(error).into_response();
    }
    dispatch(&hub, call, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn dispatch(hub: &Hub, call: Call, request: Request) -> Result<Response, HubError> {
    let (repository, about) = match call {
        Call::Whoami => return Ok(repositories::whoami()),
        Call::ValidateCard => return Ok(repositories::validate_card()),
        Call::List => return info::list(hub, request).await,
        Call::CreateRepository => return repositories::create(hub, request).await,
        Call::DeleteRepository => return repositories::delete(hub, request).await,
        Call::Repository { repository, request } => (repository, request),
    };
    use route::Request as About;
    match about {
        About::Info { revision } => info::model(hub, &repository, &revision).await,
        About::Refs => info::refs(hub, &repository).await,
        About::Tree { revision, path } => files::tree(hub, &repository, &revision, &path, request).await,
        About::PathsInfo { revision } => files::paths(hub, &repository, &revision, request).await,
        About::Resolve { revision, path } => {
            files::resolve(hub, &repository, &revision, &path, request).await
        }
        About::Preupload { revision } => lfs::preupload(hub, &repository, &revision, request).await,
        About::XetToken => Err(lfs::no_xet()),
        About::LfsBatch => lfs::batch(hub, &repository, request).await,
        About::LfsUpload { digest } => lfs::upload(hub, digest, request).await,
        About::Commit { revision } => commit::commit(hub, &repository, &revision, request).await,
        About::Branch { name } => repositories::branch(hub, &repository, &name, request).await,
        About::Tag { revision } => repositories::tag(hub, &repository, &revision, request).await,
    }
}
