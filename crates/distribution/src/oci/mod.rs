//! OCI distribution (specification 1.1) below `/v2/`: `skopeo`, `oras` and container tooling pull and push models as
//! artifacts with a layer for each file.
//!
//! - A name is a model's name (`helios/NAME` means `NAME`, too), a tag is a tag.
//! - What was pushed comes back byte for byte under its digest; of every other model a manifest is made, always the
//!   same.
//! - A pushed artifact becomes a version of the model: layers with a title are its files, everything else is kept beside
//!   them.

mod blobs;
mod error;
mod lists;
mod manifests;
mod route;
mod sessions;
mod state;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_registry::Registry;
use helios_registry::protocol::check_encoding;

pub use error::refusal;

use crate::Route;
use error::OciError;
use route::Call;
use state::Oci;

/// What the call of that method and path asks of its caller; `None` where the protocol has no such call.
pub fn route(method: &Method, path: &str) -> Option<Route> {
    Call::parse(method, path).map(|call| call.route())
}

/// The protocol's routes. Who may call them is up to the listener, which asks [`route`].
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Oci::new(registry)))
}

async fn answer(State(oci): State<Arc<Oci>>, request: Request) -> Response {
    let Some(call) = Call::parse(request.method(), request.uri().path()) else {
        let error =
            OciError::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "OCI distribution has no such call here");
        return error.into_response();
    };
    if let Err(error) = check_encoding(request.headers()) {
        return OciError::from(error).into_response();
    }
    let mut response = dispatch(&oci, call, request).await.unwrap_or_else(IntoResponse::into_response);
    let version = HeaderName::from_static("docker-distribution-api-version");
    response.headers_mut().insert(version, HeaderValue::from_static("registry/2.0"));
    response
}

async fn dispatch(oci: &Oci, call: Call, request: Request) -> Result<Response, OciError> {
    let (name, about) = match call {
        Call::Version => return Ok(axum::Json(serde_json::json!({})).into_response()),
        Call::Catalogue => return lists::catalogue(oci, request).await,
        Call::Named { name, request } => (name, request),
    };
    use route::Request as About;
    match about {
        About::Tags => lists::tags(oci, &name, request).await,
        About::Referrers { digest } => lists::referrers(&digest),
        About::ReadManifest { reference } => manifests::read(oci, &name, &reference, request).await,
        About::PutManifest { reference } => manifests::put(oci, &name, &reference, request).await,
        About::DeleteManifest { reference } => manifests::delete(oci, &name, &reference).await,
        About::ReadBlob { digest } => blobs::read(oci, &name, &digest, request).await,
        About::BeginUpload => uploads::begin(oci, &name, request).await,
        About::UploadState { id } => uploads::state(oci, &name, &id).await,
        About::UploadPiece { id } => uploads::piece(oci, &name, &id, request).await,
        About::EndUpload { id } => uploads::end(oci, &name, &id, request).await,
        About::DropUpload { id } => uploads::drop_session(oci, &id),
    }
}
