//! The last stage: an answer as events or as one body, an error as OpenAI's envelope.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use helios_api::openai::{self, Encoder};
use helios_api::{Answer, ApiError, http_status};
use helios_types::ErrorCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::answer_stream::AnswerStream;

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: String) -> Response<Body> {
    with_type(status, "application/json", body)
}

/// A body of another type.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error as OpenAI's envelope, with what HTTP wants said in headers.
pub fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(http_status(error.code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, openai::error_body(error));
    if let Some(wait) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if error.code == ErrorCode::Unauthenticated {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// At least one, rounded up: that is all the header can say.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

/// The whole answer as one body.
pub(crate) async fn body(mut answer: AnswerStream, mut encoder: Encoder) -> Result<Response<Body>, ApiError> {
    let mut collected = Answer::default();
    while let Some(events) = answer.next().await? {
        events.into_iter().for_each(|event| collected.push(event));
    }
    Ok(json(StatusCode::OK, encoder.body(&collected)))
}

/// The answer as server-sent events, `[DONE]` at the end. One that breaks ends with an error event and no `[DONE]`.
pub(crate) fn events(answer: AnswerStream, encoder: Encoder) -> Response<Body> {
    let state = Some((answer, encoder));
    let frames = stream::unfold(state, |state| async move {
        let (mut answer, mut encoder) = state?;
        match answer.next().await {
            Ok(Some(events)) => {
                let texts = events.into_iter().flat_map(|event| encoder.event(event));
                Some((frame(texts), Some((answer, encoder))))
            }
            Ok(None) => Some((frame([openai::DONE.to_owned()]), None)),
            Err(error) => Some((frame([openai::error_body(&error)]), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Events that are written together.
fn frame(texts: impl IntoIterator<Item = String>) -> Result<Bytes, Infallible> {
    let mut frame = String::new();
    for text in texts {
        frame.push_str("data: ");
        frame.push_str(&text);
        frame.push_str("\n\n");
    }
    Ok(Bytes::from(frame))
}
