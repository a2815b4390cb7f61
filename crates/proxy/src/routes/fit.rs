//! `GET /admin/v1/fit`: does a model fit a place, answered from the cached memory profile; `GET /admin/v1/profile` gives
//! that profile to who asks about more places.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use helios_api::ApiError;
use helios_model::MemoryProfile;
use helios_model::profile::fit::{Place, Question, fit};
use helios_model::profile::parallel::Degrees;
use helios_types::ErrorCode;
use http::{Response, StatusCode, Uri};
use serde::Deserialize;

use crate::proxy::Inner;
use crate::reply;

/// More devices than any one model is divided over.
const DEVICES_MAX: u64 = 1024;

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    model: String,
    /// Memory of each device.
    memory_bytes: u64,
    #[serde(default = "one")]
    devices: u64,
    #[serde(default)]
    reserve_percent: u64,
    tensor_parallel: Option<u64>,
    pipeline_parallel: Option<u64>,
    context: Option<u64>,
    #[serde(default = "one")]
    sequences: u64,
}

/// The query for a profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    model: String,
}

/// The memory profile of a model, as JSON.
pub(super) async fn profile(proxy: &Inner, uri: &Uri) -> Result<Response<Body>, ApiError> {
    let Query(Named { model }) = Query::try_from_uri(uri).map_err(|error| invalid(error.body_text()))?;
    let body = serde_json::to_string(&*cached(proxy, &model).await?);
    Ok(reply::json(StatusCode::OK, body.expect("invariant: a profile of plain values has a JSON form")))
}

async fn cached(proxy: &Inner, model: &str) -> Result<Arc<MemoryProfile>, ApiError> {
    let resolved = proxy.models.resolve(model).await?;
    proxy.profiles.get(proxy.models.as_ref(), resolved.manifest_digest).await
}

fn invalid(problem: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, problem)
}

fn one() -> u64 {
    1
}

/// The answer for one place, as JSON.
pub(super) async fn answer(proxy: &Inner, uri: &Uri) -> Result<Response<Body>, ApiError> {
    let Query(asked) = Query::<Asked>::try_from_uri(uri).map_err(|error| invalid(error.body_text()))?;
    let sane = asked.reserve_percent < 100
        && (1..=DEVICES_MAX).contains(&asked.devices)
        && [asked.tensor_parallel, asked.pipeline_parallel]
            .iter()
            .flatten()
            .all(|n| (1..=DEVICES_MAX).contains(n))
        && asked.context.is_none_or(|tokens| (1..=1 << 24).contains(&tokens))
        && (1..=1 << 16).contains(&asked.sequences);
    if !sane {
        return Err(invalid("the question has a number that no place or request can have".to_owned()));
    }
    let profile = cached(proxy, &asked.model).await?;
    let details = profile.details.as_deref();
    let details = details.ok_or_else(|| invalid(format!("`{}` has no detailed profile", asked.model)))?;
    let question =
        Question { context_tokens: asked.context, sequences: asked.sequences, ..Question::default() };
    let answer = fit(details, &question, &place(&asked));
    let answer = answer.ok_or_else(|| invalid(format!("`{}` cannot be divided so", asked.model)))?;
    let body = serde_json::to_string(&answer);
    Ok(reply::json(StatusCode::OK, body.expect("invariant: an answer of plain values has a JSON form")))
}

fn place(asked: &Asked) -> Place {
    let given = asked.tensor_parallel.or(asked.pipeline_parallel).is_some();
    let degrees = Degrees {
        tensor: asked.tensor_parallel.unwrap_or(1),
        pipeline: asked.pipeline_parallel.unwrap_or(1),
    };
    Place {
        name: "as asked".to_owned(),
        devices: asked.devices,
        device_bytes: asked.memory_bytes,
        reserve_percent: asked.reserve_percent,
        degrees: given.then_some(degrees),
    }
}
