//! The one answer that carries a file: whole or a range, with what caches and resuming clients want to know (RFC 9110,
//! sections 13 and 14).

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::RegistryError;
use crate::archive::Archive;
use crate::content::Content;

/// What can be answered whole or in part.
pub(crate) trait Ranged {
    /// Its bytes.
    fn size(&self) -> u64;

    /// Its entity tag, without quotes: equal tags mean equal bytes.
    fn tag(&self) -> String;

    /// `range` of its bytes.
    fn body(&self, range: Range<u64>) -> impl Future<Output = Result<Body, RegistryError>> + Send;
}

impl Ranged for Content {
    fn size(&self) -> u64 {
        self.info().size
    }

    fn tag(&self) -> String {
        self.info().digest.hex()
    }

    async fn body(&self, range: Range<u64>) -> Result<Body, RegistryError> {
        Ok(Body::from_stream(self.read(range).await?))
    }
}

impl Ranged for Arc<Archive> {
    fn size(&self) -> u64 {
        Archive::size(self)
    }

    fn tag(&self) -> String {
        Archive::tag(self).to_owned()
    }

    async fn body(&self, range: Range<u64>) -> Result<Body, RegistryError> {
        Ok(Body::from_stream(self.read(range)))
    }
}

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A range that the file does not have.
    Outside,
}

/// The answer to `GET` or `HEAD` of `content`.
pub(crate) async fn answer(
    content: &impl Ranged,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, RegistryError> {
    let size = content.size();
    let tag = format!("\"{}\"", content.tag());
    let common = [(ACCEPT_RANGES, "bytes".to_owned()), (ETAG, tag.clone())];
    if headers.get_all(IF_NONE_MATCH).iter().any(|value| names(value, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let length = |length: u64| (CONTENT_LENGTH, length.to_string());
    if method == Method::HEAD {
        return Ok((common, [length(size)]).into_response());
    }
    match wanted(headers, &tag, size) {
        Wanted::Whole => {
            let body = content.body(0..size).await?;
            Ok((common, [length(size)], body).into_response())
        }
        Wanted::Part(range) => {
            let shown = shown(format!("{}-{}", range.start, range.end - 1), size);
            let about = [length(range.end - range.start), shown];
            let body = content.body(range).await?;
            Ok((StatusCode::PARTIAL_CONTENT, common, about, body).into_response())
        }
        Wanted::Outside => {
            Ok((StatusCode::RANGE_NOT_SATISFIABLE, common, [shown("*".to_owned(), size)]).into_response())
        }
    }
}

fn shown(range: String, size: u64) -> (HeaderName, String) {
    (CONTENT_RANGE, format!("bytes {range}/{size}"))
}

/// Whether a list of entity tags has this one; the weak form names it, too.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let list = list.to_str().unwrap_or_default();
    list.split(',').map(str::trim).any(|named| named == "*" || named.trim_start_matches("W/") == tag)
}

/// A range counts if it is the only one, and if `If-Range` names this very file or is not there.
fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let is_this_file = headers.get(IF_RANGE).is_none_or(|value| value == tag);
    let range = headers.get(RANGE).filter(|_| is_this_file).and_then(|range| range.to_str().ok());
    range.and_then(|range| parse_range(range, size)).unwrap_or(Wanted::Whole)
}

/// `None` for what is no range of bytes, or several: such a header is to be ignored.
fn parse_range(header: &str, size: u64) -> Option<Wanted> {
    let (start, end) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start, end) {
        ("", suffix) => size.saturating_sub(suffix.parse().ok()?)..size,
        (start, "") => start.parse().ok()?..size,
        (start, end) => {
            let (start, last): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
            if last < start {
                return None;
            }
            start..last.saturating_add(1).min(size)
        }
    };
    Some(if range.start < range.end { Wanted::Part(range) } else { Wanted::Outside })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{Wanted, names, parse_range, wanted};

    #[test]
    fn one_range_inside_the_file_is_served() {
        let part = |range| Some(Wanted::Part(range));
        assert_eq!(parse_range("bytes=0-9", 100), part(0..10));
        assert_eq!(parse_range("bytes=90-", 100), part(90..100));
        assert_eq!(parse_range("bytes=-5", 100), part(95..100));
        assert_eq!(parse_range("bytes=50-1000", 100), part(50..100));
        assert_eq!(parse_range("bytes=0-18446744073709551615", 100), part(0..100));
        for outside in ["bytes=100-", "bytes=-0", "bytes=100-200"] {
            assert_eq!(parse_range(outside, 100), Some(Wanted::Outside), "{outside}");
        }
        for ignored in ["bytes=5-4", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", ""] {
            assert_eq!(parse_range(ignored, 100), None, "{ignored}");
        }
    }

    #[test]
    fn a_range_of_another_file_gets_the_whole_of_this_one() {
        let with = |tag: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("range", HeaderValue::from_static("bytes=0-9"));
            headers.insert("if-range", HeaderValue::from_static(tag));
            wanted(&headers, "\"a\"", 100)
        };
        assert_eq!(with("\"a\""), Wanted::Part(0..10));
        assert_eq!(with("\"b\""), Wanted::Whole);
        assert_eq!(with("W/\"a\""), Wanted::Whole);
    }

    #[test]
    fn entity_tags_are_found_in_lists() {
        for list in ["\"a\"", "\"b\", W/\"a\"", "*"] {
            assert!(names(&HeaderValue::from_static(list), "\"a\""), "{list}");
        }
        assert!(!names(&HeaderValue::from_static("\"b\""), "\"a\""));
    }
}
