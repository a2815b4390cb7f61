//! Asking an HTTP origin: redirects, credentials, time limits and error statuses.
//!
//! Redirects are followed here and not by the client, so that credentials go to the origin they are for and nowhere
//! else, and so that nothing falls back from TLS to plain text.

use std::sync::OnceLock;

use futures::FutureExt;
use helios_runtime::Clock;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, Url};

use super::rate_limit;
use crate::config::FetchConfig;
use crate::transfer::{Drip, patiently};
use crate::{RegistryError, Secret};

/// Redirects of one request.
const REDIRECTS_MAX: usize = 10;

/// The HTTP client with its limits.
#[derive(Debug)]
pub(crate) struct Fetcher {
    config: FetchConfig,
    /// Made when first needed: a store that fetches nothing needs no TLS.
    client: OnceLock<Client>,
}

impl Fetcher {
    pub(crate) fn new(config: FetchConfig) -> Self {
        Self { config, client: OnceLock::new() }
    }

    pub(crate) fn config(&self) -> &FetchConfig {
        &self.config
    }

    fn client(&self) -> Result<&Client, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.config.connect_timeout)
            .user_agent(concat!("helios/", env!("CARGO_PKG_VERSION")))
            .build();
        let client =
            built.map_err(|error| RegistryError::Internal { problem: format!("no HTTP client: {error}") })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Asks for `url` and follows redirects. `bearer` is sent to the origin of `url` only.
    pub(crate) async fn get(
        &self,
        url: &Url,
        bearer: Option<&Secret>,
        headers: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        self.get_redirected(url, url.clone(), bearer, headers).await
    }

    /// As [`get`](Self::get), beginning at `next`, where an earlier redirect from `url` led.
    pub(crate) async fn get_redirected(
        &self,
        url: &Url,
        mut next: Url,
        bearer: Option<&Secret>,
        headers: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(bearer) = bearer.filter(|_| next.origin() == url.origin()) {
                headers.insert(AUTHORIZATION, authorization(bearer)?);
            }
            let request = self.client()?.get(next.clone()).headers(headers);
            let sent = Clock.timeout(self.config.stall_timeout, request.send()).await;
            let response =
                sent.map_err(|_elapsed| stalled(&next))?.map_err(|error| unreachable(&next, &error))?;
            if !response.status().is_redirection() {
                return refuse_encoding(&next, response);
            }
            next = redirect_target(&next, &response)?;
        }
        Err(RegistryError::OriginLied {
            url: shown(url),
            problem: format!("more than {REDIRECTS_MAX} redirects"),
        })
    }

    /// A small document, whole; asked for with the patience of a transfer.
    pub(crate) async fn get_small(
        &self,
        url: &Url,
        bearer: Option<&Secret>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        patiently(&self.config, || self.ask_small(url, bearer, bytes_max).boxed()).await
    }

    async fn ask_small(
        &self,
        url: &Url,
        bearer: Option<&Secret>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut response = check_status(url, self.get(url, bearer, &HeaderMap::new()).await?)?;
        let mut body = Vec::new();
        let stall = self.config.stall_timeout;
        let mut drip = Drip::new(stall);
        while let Some(chunk) = Clock
            .timeout(stall, response.chunk())
            .await
            .map_err(|_elapsed| stalled(url))?
            .map_err(|error| unreachable(url, &error))?
        {
            if body.len() + chunk.len() > bytes_max {
                let problem = format!("an answer over {bytes_max} bytes");
                return Err(RegistryError::OriginLied { url: shown(url), problem });
            }
            body.extend_from_slice(&chunk);
            let passed = drip.pass(chunk.len());
            passed.map_err(|problem| RegistryError::OriginUnreachable { url: shown(url), problem })?;
        }
        Ok(body)
    }
}

pub(crate) fn authorization(bearer: &Secret) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", bearer.expose())).map_err(|_| {
        RegistryError::Internal { problem: "a token has characters that no HTTP header can carry".to_owned() }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The URL as logs and errors may show it: no query, which may be a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The error of a connection, with its causes, which say more than its own text.
pub(crate) fn unreachable(url: &Url, error: &reqwest::Error) -> RegistryError {
    RegistryError::OriginUnreachable { url: shown(url), problem: causes(error) }
}

fn stalled(url: &Url) -> RegistryError {
    RegistryError::OriginUnreachable { url: shown(url), problem: "it stalled".to_owned() }
}

/// The innermost cause of a client error, or what kind of time ran out.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() { "no connection in time" } else { "it stalled" }.to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The response, unless its status is an error.
pub(crate) fn check_status(url: &Url, response: Response) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let hint = match status.as_u16() {
        401 | 403 => {
            "the origin wants other credentials; for the hub set HF_TOKEN, and accept the model's terms there"
        }
        404 | 410 => "check the name, revision and file of the source",
        416 => "the file changed while it was fetched; pull again",
        429 => "the origin limits how often it is asked; pull again later",
        400..500 => "check the source; the origin refuses this request",
        _ => "the origin has a problem of its own; pull again later",
    };
    let retry_after = rate_limit::retry_after(response.headers());
    Err(RegistryError::OriginStatus { url: shown(url), status: status.as_u16(), hint, retry_after })
}

/// Only plain bytes are taken: what is compressed on the way has no known size.
fn refuse_encoding(url: &Url, response: Response) -> Result<Response, RegistryError> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(RegistryError::OriginLied {
            url: shown(url),
            problem: format!("content encoding {encoding:?}, which was not asked for"),
        }),
        _ => Ok(response),
    }
}

fn redirect_target(from: &Url, response: &Response) -> Result<Url, RegistryError> {
    let lied = |problem: String| RegistryError::OriginLied { url: shown(from), problem };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| lied("a redirect to nowhere".to_owned()))?;
    let target = from.join(location).map_err(|error| lied(format!("a redirect to no address: {error}")))?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        _ => Err(lied(format!("a redirect to `{}`, which is less safe", shown(&target)))),
    }
}
