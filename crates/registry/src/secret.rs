//! A text that must not end up in a log.

use std::fmt;

use serde::Deserialize;
use subtle::ConstantTimeEq;

/// A token or key. Its debug form hides it, and comparison takes the same time wherever a guess goes wrong.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the secret. Takes time that depends on the length of the guess only.
    pub fn matches(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn only_the_whole_secret_matches_and_it_is_never_shown() {
        let secret = Secret::from("open sesame".to_owned());
        assert!(secret.matches(b"open sesame"));
        for guess in [&b""[..], b"open", b"open sesame ", b"OPEN SESAME"] {
            assert!(!secret.matches(guess));
        }
        assert!(!format!("{secret:?}").contains("sesame"));
    }
}
