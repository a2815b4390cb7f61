//! The id that a client, its logs and ours call a request by.

use helios_runtime::random_u64;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CLIENT_ID_BYTES_MAX: usize = 128;

/// The client's own id if it is short and visible, else a new one.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
    own.map_or_else(|| format!("req-{}", unique()), str::to_owned)
}

fn is_sane(id: &str) -> bool {
    (1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// 32 hex digits that no other request has.
pub(crate) fn unique() -> String {
    format!("{:016x}{:016x}", random_u64(), random_u64())
}

/// `id` for a header.
pub(crate) fn header(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).expect("invariant: a request id is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::{REQUEST_ID, of};

    #[test]
    fn only_sane_ids_are_echoed() {
        let with = |id: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(REQUEST_ID, id.parse().expect("a header value"));
            of(&headers)
        };
        assert_eq!(with("a-1"), "a-1");
        assert_eq!(with(&"x".repeat(128)), "x".repeat(128));
        for bad in ["", "two words", "ä", &"x".repeat(129)] {
            assert!(with(bad).starts_with("req-"), "{bad}");
        }
    }
}
