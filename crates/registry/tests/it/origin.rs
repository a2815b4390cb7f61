//! An origin on loopback that serves one file, well or badly, and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use helios_runtime::{Clock, Instant};

/// How an origin answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Whole, with ranges.
    Honest,
    /// The first answers break off after so many bytes.
    Cuts { after: usize, times: usize },
    /// The first answer breaks off; then the file is this one.
    Changes(Vec<u8>),
    /// Whole, but ranges are not understood.
    NoRanges,
    /// Says nothing after the first bytes.
    Stalls,
    /// Promises more bytes than come.
    Overpromises,
    /// Never ends, and does not say how long it is.
    Endless,
    /// Compressed, though nobody asked.
    Compresses,
    /// Sends elsewhere.
    Redirects(String),
    /// An error status.
    Status(u16),
    /// A byte now and then.
    Drips,
    /// Another range than the one asked for.
    OtherRange,
    /// A range of the right name with more bytes than it has, without end.
    LongRange,
    /// Answers to ranges behind the first come only when so many are open at the same time.
    Together(Arc<tokio::sync::Barrier>),
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) authorization: Option<String>,
}

impl Asked {
    /// The range asked for, half open.
    pub(crate) fn bytes(&self) -> Option<std::ops::Range<usize>> {
        let (start, last) = self.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        Some(start.parse().ok()?..last.parse::<usize>().ok()? + 1)
    }
}

/// How often an origin lets itself be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// It refuses so many requests first.
    pub(crate) times: usize,
    /// It says so with this header.
    pub(crate) header: (&'static str, &'static str),
    /// Whoever comes sooner after a refusal is refused for good.
    pub(crate) wait: Duration,
}

struct Shared {
    file: Mutex<Bytes>,
    /// More files, by the last part of their path.
    files: Mutex<HashMap<String, Bytes>>,
    limit: Mutex<Option<Limit>>,
    refused_at: Mutex<Option<Instant>>,
    listing: Mutex<Option<String>>,
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Asked>>,
}

/// The origin; its server ends with the test.
#[derive(Clone)]
pub(crate) struct Origin {
    shared: Arc<Shared>,
    pub(crate) address: String,
}

impl Origin {
    #[allow(clippy::disallowed_methods, reason = "a server that ends with its test")]
    pub(crate) async fn start(file: Vec<u8>, manner: Manner) -> Self {
        let shared = Arc::new(Shared {
            file: Mutex::new(file.into()),
            files: Mutex::default(),
            limit: Mutex::default(),
            refused_at: Mutex::default(),
            listing: Mutex::default(),
            manner: Mutex::new(manner),
            asked: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, address }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("a lock") = manner;
    }

    pub(crate) fn serve(&self, file: Vec<u8>) {
        *self.shared.file.lock().expect("a lock") = file.into();
    }

    pub(crate) fn hold(&self, name: &str, file: Vec<u8>) {
        self.shared.files.lock().expect("a lock").insert(name.to_owned(), file.into());
    }

    pub(crate) fn limit(&self, limit: Limit) {
        *self.shared.limit.lock().expect("a lock") = Some(limit);
    }

    pub(crate) fn list(&self, listing: serde_json::Value) {
        *self.shared.listing.lock().expect("a lock") = Some(listing.to_string());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("a lock").clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/tiny.gguf?signature=secret", self.address)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let asked = Asked {
        path: uri.path().to_owned(),
        range: text(header::RANGE),
        if_range: text(header::IF_RANGE),
        authorization: text(header::AUTHORIZATION),
    };
    shared.asked.lock().expect("a lock").push(asked.clone());
    if let Some(refusal) = refusal(&shared) {
        return refusal;
    }
    if uri.path().starts_with("/api/") {
        let listing = shared.listing.lock().expect("a lock").clone();
        return listing.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response);
    }
    let named = uri.path().rsplit('/').next().and_then(|name| shared.files.lock().ok()?.get(name).cloned());
    let file = named.unwrap_or_else(|| shared.file.lock().expect("a lock").clone());
    let etag = format!(
        "\"{:x}\"",
        file.iter().step_by(997).fold(7_u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte))
    );
    let current = next_manner(&shared);
    let is_current = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = asked.bytes().filter(|_| is_current);
    if let Manner::Together(all) = &current
        && range.as_ref().is_some_and(|range| range.start > 0)
    {
        all.wait().await;
    }
    respond(&current, file, &etag, range)
}

/// What whoever asks too often is told.
fn refusal(shared: &Shared) -> Option<Response> {
    let mut limit = shared.limit.lock().expect("a lock");
    let limit = limit.as_mut()?;
    let mut refused_at = shared.refused_at.lock().expect("a lock");
    if refused_at.is_some_and(|at| Clock.now() - at < limit.wait) {
        return Some(StatusCode::FORBIDDEN.into_response());
    }
    limit.times = limit.times.checked_sub(1)?;
    *refused_at = Some(Clock.now());
    Some((StatusCode::TOO_MANY_REQUESTS, [limit.header]).into_response())
}

/// How this request is answered; the next one perhaps otherwise.
fn next_manner(shared: &Shared) -> Manner {
    let mut manner = shared.manner.lock().expect("a lock");
    let current = manner.clone();
    if let Manner::Changes(to) = &current {
        *shared.file.lock().expect("a lock") = to.clone().into();
        *manner = Manner::Honest;
    }
    match current {
        Manner::Cuts { times, after } if times > 1 => *manner = Manner::Cuts { times: times - 1, after },
        Manner::Cuts { .. } => *manner = Manner::Honest,
        _ => {}
    }
    current
}

fn respond(manner: &Manner, file: Bytes, etag: &str, range: Option<Range<usize>>) -> Response {
    if let Manner::Redirects(to) = manner {
        return (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response();
    }
    let total = file.len();
    let range = range.filter(|_| !matches!(manner, Manner::NoRanges));
    let common = [(header::ETAG, etag.to_owned())];
    let body = match &range {
        Some(range) if range.start >= total => {
            let length = [(header::CONTENT_RANGE, format!("bytes */{total}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, length).into_response();
        }
        Some(range) => file.slice(range.start..range.end.min(total)),
        None => file,
    };
    let named = |start: usize, length: usize, total: usize| {
        [(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", start + length - 1))]
    };
    let promised = |length: usize| [(header::CONTENT_LENGTH, length.to_string())];
    // Says that `length` bytes come, of a file that is that much longer than its part.
    let whole = |body: Body, part: usize, length: usize| match &range {
        None => (common.clone(), promised(length), body).into_response(),
        Some(range) => {
            let named = named(range.start, length, total + length - part);
            (StatusCode::PARTIAL_CONTENT, common.clone(), named, promised(length), body).into_response()
        }
    };
    let part = body.len();
    match manner {
        Manner::Honest | Manner::NoRanges | Manner::Together(_) => whole(Body::from(body), part, part),
        Manner::Cuts { .. } | Manner::Changes(_) => {
            let after = if let Manner::Cuts { after, .. } = manner { *after } else { body.len() / 2 };
            let first = body.slice(..after.min(body.len()));
            let cut = stream::iter([Ok(first), Err(std::io::Error::other("cut"))]);
            // The first part has to be on its way before the connection breaks.
            let cut = cut.then(|part| async {
                tokio::task::yield_now().await;
                part
            });
            whole(Body::from_stream(cut), part, part)
        }
        Manner::Stalls => {
            let first = stream::iter([Ok::<_, Infallible>(body.slice(..10))]);
            whole(Body::from_stream(first.chain(stream::pending())), part, part)
        }
        Manner::Overpromises => {
            let parts = stream::iter([Ok(body.clone()), Err(std::io::Error::other("no more"))]);
            whole(Body::from_stream(parts), part, part + 100)
        }
        Manner::Endless => (common, endless()).into_response(),
        Manner::LongRange => {
            let range = range.unwrap_or(0..part);
            (StatusCode::PARTIAL_CONTENT, common, named(range.start, part, total), endless()).into_response()
        }
        Manner::OtherRange => {
            (StatusCode::PARTIAL_CONTENT, common, named(1, part, total + 1), promised(part), body)
                .into_response()
        }
        Manner::Drips => {
            let drops = stream::iter(body).then(|byte| async move {
                moment().await;
                Ok::<_, Infallible>(Bytes::copy_from_slice(&[byte]))
            });
            whole(Body::from_stream(drops), part, part)
        }
        Manner::Compresses => (common, [(header::CONTENT_ENCODING, "gzip")], body).into_response(),
        Manner::Redirects(_) => StatusCode::LOOP_DETECTED.into_response(),
        Manner::Status(status) => StatusCode::from_u16(*status).expect("a status").into_response(),
    }
}

fn endless() -> Body {
    let chunk = Bytes::from(vec![0; 1 << 16]);
    Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone())))
}

/// Waits a moment of real time, for what has no event to wait for.
#[allow(clippy::disallowed_methods, reason = "real time of a test")]
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
