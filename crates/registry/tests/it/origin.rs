//! An origin on loopback that serves one file, well or badly, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};

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
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct Shared {
    file: Mutex<Bytes>,
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
        authorization: text(header::AUTHORIZATION),
    };
    shared.asked.lock().expect("a lock").push(asked.clone());
    if uri.path().starts_with("/api/") {
        let listing = shared.listing.lock().expect("a lock").clone();
        return listing.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response);
    }
    let file = shared.file.lock().expect("a lock").clone();
    let etag =
        format!("\"{:x}\"", file.iter().fold(7_u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte)));
    let mut manner = shared.manner.lock().expect("a lock");
    let current = manner.clone();
    if let Manner::Changes(to) = &current {
        *shared.file.lock().expect("a lock") = to.clone().into();
        *manner = Manner::Honest;
    }
    if let Manner::Cuts { times, after } = current {
        *manner = if times > 1 { Manner::Cuts { times: times - 1, after } } else { Manner::Honest };
    }
    drop(manner);
    let is_current = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let start = asked
        .range
        .filter(|_| is_current)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    respond(&current, file, &etag, start)
}

fn respond(manner: &Manner, file: Bytes, etag: &str, start: Option<usize>) -> Response {
    let length = file.len();
    let start = start.filter(|_| !matches!(manner, Manner::NoRanges));
    let body = match start {
        Some(start) if start >= length => {
            return (
                StatusCode::RANGE_NOT_SATISFIABLE,
                [(header::CONTENT_RANGE, format!("bytes */{length}"))],
            )
                .into_response();
        }
        Some(start) => file.slice(start..),
        None => file,
    };
    let common = [(header::ETAG, etag.to_owned())];
    let promised = |length: usize| [(header::CONTENT_LENGTH, length.to_string())];
    let whole = |body: Body, length: usize| match start {
        None => (common.clone(), promised(length), body).into_response(),
        Some(start) => {
            let range =
                [(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", start + length - 1, start + length))];
            (StatusCode::PARTIAL_CONTENT, common.clone(), range, promised(length), body).into_response()
        }
    };
    match manner {
        Manner::Honest | Manner::NoRanges => whole(Body::from(body.clone()), body.len()),
        Manner::Cuts { .. } | Manner::Changes(_) => {
            let after = if let Manner::Cuts { after, .. } = manner { *after } else { body.len() / 2 };
            let first = body.slice(..after.min(body.len()));
            let cut = stream::iter([Ok(first), Err(std::io::Error::other("cut"))]);
            // The first part has to be on its way before the connection breaks.
            let cut = cut.then(|part| async {
                tokio::task::yield_now().await;
                part
            });
            whole(Body::from_stream(cut), body.len())
        }
        Manner::Stalls => {
            let first = stream::iter([Ok::<_, Infallible>(body.slice(..10))]);
            whole(Body::from_stream(first.chain(stream::pending())), body.len())
        }
        Manner::Overpromises => {
            let parts = stream::iter([Ok(body.clone()), Err(std::io::Error::other("no more"))]);
            whole(Body::from_stream(parts), body.len() + 100)
        }
        Manner::Endless => {
            let chunk = Bytes::from(vec![0; 1 << 16]);
            let endless = stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()));
            (common, Body::from_stream(endless)).into_response()
        }
        Manner::Compresses => (common, [(header::CONTENT_ENCODING, "gzip")], body).into_response(),
        Manner::Redirects(to) => (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response(),
        Manner::Status(status) => StatusCode::from_u16(*status).expect("a status").into_response(),
    }
}

/// Waits a moment of real time, for what has no event to wait for.
#[allow(clippy::disallowed_methods, reason = "real time of a test")]
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
