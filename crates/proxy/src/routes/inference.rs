//! `POST /v1/chat/completions` and `POST /v1/completions`: the way of a request through all stages.

use std::sync::Arc;

use axum::body::Body;
use helios_api::openai::{self, Encoder, Head, Kind};
use helios_api::{ApiError, Request};
use helios_runtime::Clock;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::answer_stream::AnswerStream;
use crate::dispatch::{Opened, dispatch};
use crate::prepare::{Prepared, prepare};
use crate::proxy::Inner;
use crate::record::Record;
use crate::resolve::resolve_for_use;
use crate::token_stream::Limits;
use crate::{body, reply, request_id};

/// Answers with a model's text.
pub(crate) async fn answer(
    proxy: &Arc<Inner>,
    kind: Kind,
    id: &str,
    parts: &Parts,
    incoming: Incoming,
) -> Result<Response<Body>, ApiError> {
    let mut record = Record::start(id);
    let opened = async {
        // The place comes first: it bounds how many bodies are in memory.
        let place = proxy.admission.enter().await?;
        let body = body::read(incoming, &parts.headers, &proxy.config).await?;
        let request = parse(kind, &body)?;
        let (prepared, opened) = open(proxy, id, &request, &mut record).await?;
        Ok((place, request, prepared, opened))
    };
    let (place, request, prepared, opened) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let error: ApiError = error;
            record.failed(error.code);
            return Err(error);
        }
    };
    let encoder = Encoder::new(kind, head(kind, &request), request.delivery, request.logprobs.is_some());
    let answer = AnswerStream::new(opened, prepared, &request.stop, record, place);
    match request.delivery.stream {
        true => Ok(reply::events(answer, encoder)),
        false => reply::body(answer, encoder).await,
    }
}

fn parse(kind: Kind, body: &[u8]) -> Result<Request, ApiError> {
    match kind {
        Kind::Chat => openai::chat::parse(body),
        Kind::Completion => openai::completions::parse(body),
    }
}

/// Resolve, prepare, route and dispatch: ends when the worker has shown its first token.
async fn open(
    proxy: &Arc<Inner>,
    id: &str,
    request: &Request,
    record: &mut Record,
) -> Result<(Prepared, Opened), ApiError> {
    record.asked_for(&request.model);
    let model = resolve_for_use(proxy, &request.model).await?;
    record.resolved(model.reference.to_string());
    let prepared = prepare(proxy, model.manifest_digest, id, request).await?;
    let limits = Limits {
        max_tokens: prepared.generate.max_tokens,
        wants_logprobs: request.logprobs.is_some(),
        chunk_wait_max: proxy.config.chunk_wait_max(),
    };
    let opened = dispatch(&proxy.fleet, &proxy.router, prepared.need, limits, &prepared.generate).await?;
    record.dispatched(opened.rest.worker_id());
    Ok((prepared, opened))
}

fn head(kind: Kind, request: &Request) -> Head {
    let prefix = match kind {
        Kind::Chat => "chatcmpl",
        Kind::Completion => "cmpl",
    };
    Head {
        id: format!("{prefix}-{}", request_id::unique()),
        created: Clock.unix_ms() / 1000,
        model: request.model.clone(),
    }
}
