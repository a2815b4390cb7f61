//! Downloads by other protocols, which are uses of models like any other: one each time a client begins with a model's
//! weights.
//!
//! A model of several files, or in several ranges, begins once: with the first byte of the first file of its weights.
//! What a client begins again within [`SAME_DOWNLOAD`] is the same download.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::Method;
use axum::http::header::{IF_NONE_MATCH, RANGE};
use helios_runtime::{Clock, Instant};
use helios_types::ModelRef;

use super::ModelUse;
use crate::Registry;

/// How long what a client begins again is the same download.
const SAME_DOWNLOAD: Duration = Duration::from_secs(60);
/// Downloads remembered; beyond, none counts until the oldest are [over](SAME_DOWNLOAD).
const DOWNLOADS_MAX: usize = 4096;

/// A request that begins with a file, if that counts as a use of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Download {
    /// Who asks, where the listener says so; all others are one.
    client: Option<IpAddr>,
}

impl Download {
    /// None for a request about a file, for one of a later range, and for one whose sender has a copy.
    pub fn begun_by(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let range = headers.get(RANGE).map_or(Ok("bytes=0-"), |range| range.to_str());
        let is_begin = range.is_ok_and(|range| range.starts_with("bytes=0-"));
        let begins = request.method() == Method::GET && is_begin && !headers.contains_key(IF_NONE_MATCH);
        let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
        begins.then(|| Self { client: address.map(|ConnectInfo(address)| address.ip()) })
    }
}

/// The downloads of the last minute, each with its beginning.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<HashMap<(Download, ModelRef), Instant>>);

impl Downloads {
    /// Whether this is not one that is known; then it is from now on. O(1), but for the times that there are too many.
    fn begins(&self, download: Download, model: &ModelRef, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |began: &Instant| now.saturating_duration_since(*began) < SAME_DOWNLOAD;
        let key = (download, model.clone());
        if known.get(&key).is_some_and(is_same) {
            return false;
        }
        if known.len() >= DOWNLOADS_MAX {
            known.retain(|_, began| is_same(began));
        }
        let has_room = known.len() < DOWNLOADS_MAX;
        if has_room {
            known.insert(key, now);
        }
        has_room
    }
}

impl Registry {
    /// Notes that a client begins to download the weights of `model`. Losable, as [`note_uses`](Self::note_uses) is.
    pub async fn note_download(self: &Arc<Self>, download: Download, model: &ModelRef) {
        if !self.demand().downloads.begins(download, model, Clock.now()) {
            return;
        }
        let one = ModelUse { model: model.clone(), count: 1, ago_ms: 0 };
        if let Err(error) = self.note_uses(&[one]).await {
            tracing::debug!(%model, %error, "a download is not in the history of uses");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::extract::{ConnectInfo, Request};
    use helios_runtime::Clock;
    use helios_types::ModelRef;

    use super::{DOWNLOADS_MAX, Download, Downloads, SAME_DOWNLOAD};

    fn begun(method: &str, headers: &[(&str, &str)], address: Option<&str>) -> Option<Download> {
        let request = headers
            .iter()
            .fold(Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
        let mut request = request.body(Body::empty()).expect("a request");
        let address = address.map(|address| ConnectInfo(address.parse::<SocketAddr>().expect("an address")));
        address.map(|address| request.extensions_mut().insert(address));
        Download::begun_by(&request)
    }

    #[test]
    fn only_a_request_for_the_first_byte_begins() {
        for (method, headers) in [
            ("HEAD", &[][..]),
            ("GET", &[("range", "bytes=1-")]),
            ("GET", &[("range", "bytes=-1")]),
            ("GET", &[("if-none-match", "\"a\"")]),
        ] {
            assert_eq!(begun(method, headers, None), None, "{method} {headers:?}");
        }
        let whole = begun("GET", &[], Some("10.0.0.1:5"));
        assert_eq!(whole, begun("GET", &[("range", "bytes=0-99")], Some("10.0.0.1:6")), "another port");
        assert!(whole.is_some() && whole != begun("GET", &[], Some("10.0.0.2:5")));
    }

    #[test]
    fn a_client_begins_a_model_once_within_a_minute_and_no_more_are_remembered_than_there_is_room_for() {
        let (downloads, now) = (Downloads::default(), Clock.now());
        let model = |number: usize| format!("m{number}").parse::<ModelRef>().expect("a name");
        let [one, other] = ["10.0.0.1:5", "10.0.0.2:5"].map(|address| begun("GET", &[], Some(address)));
        let (one, other) = (one.expect("a download"), other.expect("a download"));
        assert!(downloads.begins(one, &model(0), now));
        assert!(!downloads.begins(one, &model(0), now));
        assert!(downloads.begins(other, &model(0), now) && downloads.begins(one, &model(1), now));
        assert!(downloads.begins(one, &model(0), now + SAME_DOWNLOAD));
        for number in 3..DOWNLOADS_MAX {
            assert!(downloads.begins(one, &model(number), now + SAME_DOWNLOAD), "{number}");
        }
        assert!(downloads.begins(one, &model(DOWNLOADS_MAX), now + SAME_DOWNLOAD), "older ones made room");
    }
}
