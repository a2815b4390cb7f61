//! Paths of requests, cut and decoded.

use percent_encoding::percent_decode_str;

/// The segments of an absolute path, each decoded once; `None` if one is not UTF-8 or has control characters. A slash
/// that was encoded stays within its segment.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(decoded).collect()
}

fn decoded(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn segments_are_decoded_once_and_never_split_again() {
        assert_eq!(segments("/a/b%2Fc/d%252F").expect("segments"), ["a", "b/c", "d%2F"]);
        for bad in ["", "a", "/%00", "/a%0ab", "/%ff"] {
            assert_eq!(segments(bad), None, "{bad}");
        }
    }
}
