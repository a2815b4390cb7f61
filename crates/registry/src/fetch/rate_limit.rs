//! When an origin that limits how often it is asked wants to be asked again.

use std::time::{Duration, UNIX_EPOCH};

use helios_runtime::Clock;
use http::HeaderMap;

/// The longest of what the headers of a refusal ask for: `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), the
/// reset of an exhausted `RateLimit` (draft-ietf-httpapi-ratelimit-headers), or the older `RateLimit-Reset`.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let waits = [
        text("retry-after").and_then(seconds_or_date),
        text("ratelimit").and_then(exhausted_limit),
        text("ratelimit-reset").and_then(seconds),
    ];
    waits.into_iter().flatten().max()
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn seconds_or_date(text: &str) -> Option<Duration> {
    seconds(text).or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(at.saturating_sub(Duration::from_millis(Clock.unix_ms())))
    })
}

/// The longest `t` of the policies in `"name";r=REMAINING;t=SECONDS, …` that have nothing remaining.
fn exhausted_limit(text: &str) -> Option<Duration> {
    let reset = |policy: &str| {
        let value =
            |key: &str| policy.split(';').find_map(|part| part.trim().strip_prefix(key)?.parse::<u64>().ok());
        (value("r=")? == 0).then(|| value("t="))?
    };
    text.split(',').filter_map(reset).max().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use helios_runtime::Clock;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::retry_after;

    fn of(name: &'static str, value: &str) -> Option<u64> {
        let value = HeaderValue::from_str(value).expect("a header");
        retry_after(&HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
            .map(|wait| wait.as_secs())
    }

    #[test]
    fn every_way_to_say_when_is_understood() {
        assert_eq!(of("retry-after", "120"), Some(120));
        let at = UNIX_EPOCH + Duration::from_millis(Clock.unix_ms()) + Duration::from_secs(100);
        assert!(
            of("retry-after", &httpdate::fmt_http_date(at)).is_some_and(|wait| (90..=100).contains(&wait))
        );
        assert_eq!(of("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        assert_eq!(of("ratelimit", "\"api\";r=0;t=55, \"resolvers\";r=10;t=90"), Some(55));
        assert_eq!(of("ratelimit", "\"api\";r=3;t=55"), None);
        assert_eq!(of("ratelimit-reset", "7"), Some(7));
        assert_eq!(of("retry-after", "soon"), None);
        assert_eq!(of("ratelimit", "r=0;t=-5"), None);
    }
}
