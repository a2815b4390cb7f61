//! Tokens to text as they arrive.
//!
//! A token may end in the middle of a character. Such bytes are held until the character is complete or cannot become
//! one; then they turn into U+FFFD exactly as [`String::from_utf8_lossy`] over the whole would have it.

use helios_types::TokenId;

use crate::{TextError, Tokenizer};

/// Turns a stream of tokens into a stream of text. Cheap to make: it shares the tokenizer.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    show_special: bool,
    /// The beginning of a character that is not complete: at most three bytes.
    held: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer at the beginning of a text; `show_special` decides whether special tokens appear in it.
    pub fn new(tokenizer: Tokenizer, show_special: bool) -> Self {
        Self { tokenizer, show_special, held: Vec::new() }
    }

    /// The text that `token` completes; empty for a special token that is not shown and inside a character.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn push(&mut self, token: TokenId) -> Result<String, TextError> {
        let bytes = self.tokenizer.token_bytes(token)?;
        if !self.show_special && self.tokenizer.is_special(token) {
            return Ok(String::new());
        }
        self.held.extend_from_slice(bytes);
        Ok(take_complete(&mut self.held))
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Takes everything from `bytes` that later bytes cannot change, as text.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(rest) => {
                text.push_str(rest);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let valid_end = start + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[start..valid_end]));
                let Some(invalid) = error.error_len() else {
                    bytes.drain(..valid_end);
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                start = valid_end + invalid;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::take_complete;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn pieces_join_to_the_lossy_whole(
            pieces in prop::collection::vec(prop::collection::vec(
                prop::sample::select(vec![0x41u8, 0x80, 0xBF, 0xC2, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0x98, 0xF4, 0x90, 0xFF]),
                0..4,
            ), 0..12),
        ) {
            let mut held = Vec::new();
            let mut text = String::new();
            for piece in &pieces {
                held.extend_from_slice(piece);
                text.push_str(&take_complete(&mut held));
                prop_assert!(held.len() <= 3);
            }
            text.push_str(&String::from_utf8_lossy(&held));
            let whole = pieces.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
