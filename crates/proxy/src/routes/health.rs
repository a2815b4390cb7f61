//! `/health` and `/ready`: the only routes that anyone may ask.

use std::time::Duration;

use axum::body::Body;
use helios_api::ApiError;
use helios_types::{ErrorCode, ModelRef};
use http::{Response, StatusCode};

use crate::fleet::TrackedWorker;
use crate::proxy::Inner;
use crate::reply;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The process answers.
pub(crate) fn alive() -> Response<Body> {
    reply::json(StatusCode::OK, r#"{"status":"ok"}"#.to_owned())
}

/// Every configured model (or any model, with none configured) has a worker that has made a token, and this proxy has
/// what the model needs of text.
pub(crate) fn ready(proxy: &Inner) -> Result<Response<Body>, ApiError> {
    let workers = proxy.fleet.workers();
    let routable =
        |worker: &TrackedWorker| worker.is_ready() && proxy.texts.has(worker.member.manifest_digest);
    let is_ready = |model: &&ModelRef| {
        workers.iter().any(|worker| worker.member.reference == **model && routable(worker))
    };
    let wanted = proxy.config.models.iter();
    let missing: Vec<String> = wanted.filter(|model| !is_ready(model)).map(ToString::to_string).collect();
    let any_ready = workers.iter().any(|worker| routable(worker));
    if any_ready && missing.is_empty() {
        return Ok(reply::json(StatusCode::OK, r#"{"status":"ready"}"#.to_owned()));
    }
    let message = match missing.is_empty() {
        true => "no worker is ready".to_owned(),
        false => format!("no worker is ready for {}", missing.join(", ")),
    };
    Err(ApiError { retry_after: Some(RETRY_AFTER), ..ApiError::new(ErrorCode::Unavailable, message) })
}
