//! What a store asks that limits how often it is asked: to be left alone for a while.
//!
//! The client of `object_store` makes a request again that was refused with 429 or a status of the server's own, but on a
//! schedule of its own: it does not read `Retry-After`. So the answer that asks for a wait is handed to it after that wait.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_runtime::Clock;
use http::StatusCode;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use crate::fetch::retry_after;

/// A store that wants to be left alone for longer than we wait.
#[derive(Debug, thiserror::Error)]
#[error("answered {status} and wants to be asked again in {wait:?}")]
pub(super) struct Limited {
    pub(super) status: u16,
    pub(super) wait: Duration,
}

/// HTTP that waits as long as it is asked to.
#[derive(Debug)]
pub(super) struct Patient<H> {
    pub(super) http: H,
    /// The longest wait; a longer one is [`Limited`].
    pub(super) wait_max: Duration,
}

impl<H: HttpConnector> HttpConnector for Patient<H> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Patient { http: self.http.connect(options)?, wait_max: self.wait_max }))
    }
}

impl HttpService for Patient<HttpClient> {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        async move {
            let response = self.http.execute(request).await?;
            let Some(wait) = wish(&response) else { return Ok(response) };
            if wait > self.wait_max {
                let limited = Limited { status: response.status().as_u16(), wait };
                return Err(HttpError::new(HttpErrorKind::Unknown, limited));
            }
            tracing::info!(status = %response.status(), ?wait, "a store wants to be asked later");
            Clock.sleep(wait).await;
            Ok(response)
        }
        .boxed()
    }
}

/// How long a refusal asks to wait.
fn wish(response: &HttpResponse) -> Option<Duration> {
    let is_limit =
        matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    is_limit.then(|| retry_after(response.headers()))?
}
