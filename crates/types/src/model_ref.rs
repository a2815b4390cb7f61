//! How people name a model: `name:tag`, the tag `latest` where none is given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The tag meant when none is written.
pub const DEFAULT_TAG: &str = "latest";

const NAME_BYTES_MAX: usize = 200;
const TAG_BYTES_MAX: usize = 128;

/// A model's name and tag, such as `smollm2:135m-instruct` or `org/repo:latest`.
///
/// Names consist of parts joined by `/`; a part or a tag has letters, digits, `.`, `_` and `-` and does not begin with
/// `.` or `-`, so that a reference is always safe as a relative path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelRef {
    name: String,
    tag: String,
}

/// Why a text is not a model reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a model name: expected NAME or NAME:TAG of letters, digits, `.`, `_`, `-` (and `/` in the name), \
     no part beginning with `.` or `-`"
)]
pub struct ModelRefError {
    /// The text that was refused, shortened to 100 characters.
    pub text: String,
}

impl ModelRef {
    /// The name without the tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with(['.', '-'])
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        let (name, tag) = text.split_once(':').unwrap_or((text, DEFAULT_TAG));
        let fits = name.len() <= NAME_BYTES_MAX && tag.len() <= TAG_BYTES_MAX;
        if fits && name.split('/').all(is_part) && is_part(tag) {
            Ok(Self { name: name.to_owned(), tag: tag.to_owned() })
        } else {
            Err(ModelRefError { text: text.chars().take(100).collect() })
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl fmt::Debug for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ModelRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::ModelRef;

    #[test]
    fn names_parse_with_and_without_tag() {
        let model: ModelRef = "smollm2:135m-instruct".parse().expect("a catalogue name");
        assert_eq!((model.name(), model.tag()), ("smollm2", "135m-instruct"));
        let model: ModelRef = "org/Repo_1.5".parse().expect("a hub name");
        assert_eq!(model.to_string(), "org/Repo_1.5:latest");
    }

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        let long = "a".repeat(201);
        for bad in [
            "", ":", "a:", ":t", "../x", "a/../b", "/a", "a/", "a//b", "a:b:c", "a b", "ä", ".hidden",
            "-flag", "a:..", &long,
        ] {
            assert!(bad.parse::<ModelRef>().is_err(), "{bad}");
        }
    }
}
