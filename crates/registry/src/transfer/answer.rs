//! What an origin answers when it is asked for a range of a file, and how HTTP says it.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use reqwest::{Response, StatusCode};

use crate::RegistryError;

/// Bytes of a file on their way.
pub(crate) struct Answer {
    /// Whether only the range comes; else everything from `start` to the end, as from servers that know no ranges or
    /// ignore where one ends.
    pub(crate) is_part: bool,
    /// Where in the file the first byte is.
    pub(crate) start: u64,
    /// Bytes of the whole file, where the origin says.
    pub(crate) length: Option<u64>,
    /// What identifies the contents at the origin: a strong ETag, or the time of change.
    pub(crate) validator: Option<HeaderValue>,
    /// The bytes. Errors are those of the transfer.
    pub(crate) body: BoxStream<'static, Result<Bytes, RegistryError>>,
}

impl Answer {
    /// The answer of an HTTP server that was asked for `range`. `broken` makes the error of a connection.
    ///
    /// # Errors
    /// [`RegistryError::OriginLied`] for another range than the one asked for. Other error statuses are the caller's.
    pub(crate) fn of_http(
        shown: &str,
        range: &Range<u64>,
        response: Response,
        broken: impl Fn(&reqwest::Error) -> RegistryError + Send + 'static,
    ) -> Result<Self, RegistryError> {
        let headers = response.headers();
        let is_strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
        let validator = headers.get(ETAG).filter(is_strong).or_else(|| headers.get(LAST_MODIFIED)).cloned();
        let (is_part, start, length) = match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let length = text(headers, CONTENT_RANGE)
                    .and_then(|value| value.strip_prefix("bytes */")?.parse().ok());
                return Ok(Self {
                    is_part: true,
                    start: range.start,
                    length,
                    validator,
                    body: stream::empty().boxed(),
                });
            }
            StatusCode::PARTIAL_CONTENT => match text(headers, CONTENT_RANGE).and_then(content_range) {
                Some((part, length)) if part.start == range.start && part.end <= range.end => {
                    (true, part.start, length)
                }
                Some((part, length)) if part.start == range.start && length == Some(part.end) => {
                    (false, part.start, length)
                }
                _ => {
                    let problem = format!("another range than bytes {} to {}", range.start, range.end);
                    return Err(RegistryError::OriginLied { url: shown.to_owned(), problem });
                }
            },
            _ => (false, 0, text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok())),
        };
        let body = stream::unfold(Some((response, broken)), |state| async {
            let (mut response, broken) = state?;
            match response.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some((response, broken)))),
                Ok(None) => None,
                Err(error) => Some((Err(broken(&error)), None)),
            }
        });
        Ok(Self { is_part, start, length, validator, body: body.boxed() })
    }
}

/// The value of a `Range` header.
pub(crate) fn range_header(range: &Range<u64>) -> HeaderValue {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    HeaderValue::from_str(&text).expect("invariant: digits are a header value")
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Range and complete length of a `bytes START-END/LENGTH`.
fn content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, length) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let range = start.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    Some((range, length.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn content_ranges_parse_and_nonsense_does_not() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0..10, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5..6, None)));
        for bad in ["bytes */100", "items 0-9/100", "bytes 0-18446744073709551615/1", "bytes 0-9", "0-9/100"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
