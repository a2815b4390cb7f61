//! Routes of bytes: manifests and blobs by digest.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use helios_types::Digest;

use super::answer::Segment;
use crate::{Registry, RegistryError};

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) async fn manifest(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
) -> Result<Response, RegistryError> {
    let manifest = registry.manifest(&digest).await?;
    Ok(([(CONTENT_TYPE, "application/json")], manifest.to_bytes()).into_response())
}

/// The whole blob is verified before its first byte leaves, whatever range is asked for.
pub(super) async fn blob(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
    headers: HeaderMap,
) -> Result<Response, RegistryError> {
    let info = registry.blob_info(&digest).await?;
    let bytes = Bytes::from_owner(registry.blob_by_info(info).await?);
    let common = [(ACCEPT_RANGES, "bytes".to_owned()), (ETAG, format!("\"{}\"", digest.hex()))];
    let requested =
        headers.get(RANGE).map(|range| range.to_str().ok().and_then(|range| parse_range(range, bytes.len())));
    match requested {
        None => {
            let length = [(CONTENT_LENGTH, bytes.len().to_string())];
            Ok((common, length, body(bytes)).into_response())
        }
        Some(Some(range)) => {
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
            let length = [(CONTENT_LENGTH, range.len().to_string()), (CONTENT_RANGE, shown)];
            Ok((StatusCode::PARTIAL_CONTENT, common, length, body(bytes.slice(range))).into_response())
        }
        Some(None) => {
            let length = [(CONTENT_RANGE, format!("bytes */{}", bytes.len()))];
            Ok((StatusCode::RANGE_NOT_SATISFIABLE, common, length).into_response())
        }
    }
}

/// The bytes in chunks: the map's pages are touched as the connection takes them, never all at once.
fn body(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(bytes, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some((Ok::<_, std::convert::Infallible>(chunk), rest))
    }))
}

/// The one range of a `Range` header, if it is one and lies in `length` bytes.
fn parse_range(header: &str, length: usize) -> Option<Range<usize>> {
    let (start, end) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start, end) {
        ("", suffix) => length.saturating_sub(suffix.parse().ok()?)..length,
        (start, "") => start.parse().ok()?..length,
        (start, end) => start.parse().ok()?..end.parse::<usize>().ok()?.saturating_add(1).min(length),
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn one_range_inside_the_blob_is_served() {
        assert_eq!(parse_range("bytes=0-9", 100), Some(0..10));
        assert_eq!(parse_range("bytes=90-", 100), Some(90..100));
        assert_eq!(parse_range("bytes=-5", 100), Some(95..100));
        assert_eq!(parse_range("bytes=50-1000", 100), Some(50..100));
        assert_eq!(parse_range("bytes=0-18446744073709551615", 100), Some(0..100));
        for bad in
            ["bytes=100-", "bytes=5-4", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes=-0"]
        {
            assert_eq!(parse_range(bad, 100), None, "{bad}");
        }
    }
}
