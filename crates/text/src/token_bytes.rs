//! The bytes that each token of a vocabulary stands for, precomputed in one buffer.

use helios_types::TokenId;

/// How a vocabulary writes bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteForm {
    /// GPT-2's: every byte is one printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` a byte, the rest stands for itself.
    SentencePiece,
}

/// Byte strings by token id.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    /// `ends[id]` is where the token's bytes end; they begin where those before end.
    ends: Vec<usize>,
}

impl TokenBytes {
    /// Builds the table from the texts of tokens `0..n`; ids without a token stand for no bytes.
    pub(crate) fn new<'a>(form: ByteForm, texts: impl Iterator<Item = Option<&'a str>>) -> Self {
        let alphabet = byte_level_alphabet();
        let mut table = Self { bytes: Vec::new(), ends: Vec::new() };
        for text in texts {
            match (text, form) {
                (None, _) => {}
                (Some(text), ByteForm::ByteLevel) => table.push_byte_level(text, &alphabet),
                (Some(text), ByteForm::SentencePiece) => table.push_sentence_piece(text),
            }
            table.ends.push(table.bytes.len());
        }
        table
    }

    /// Number of ids.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of one token.
    pub(crate) fn get(&self, token: TokenId) -> Option<&[u8]> {
        let index = usize::try_from(token).ok()?;
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..end])
    }

    /// A text with a character outside the alphabet (an added token, as a rule) stands for itself.
    fn push_byte_level(&mut self, text: &str, alphabet: &[Option<u8>]) {
        let start = self.bytes.len();
        for character in text.chars() {
            let Some(Some(byte)) = alphabet.get(character as usize) else {
                self.bytes.truncate(start);
                self.bytes.extend_from_slice(text.as_bytes());
                return;
            };
            self.bytes.push(*byte);
        }
    }

    fn push_sentence_piece(&mut self, text: &str) {
        let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => self.bytes.push(byte),
            None => self.bytes.extend_from_slice(text.replace('▁', " ").as_bytes()),
        }
    }
}

/// GPT-2's alphabet, by code point: printable Latin-1 characters stand for themselves, the other bytes, in order, for
/// the characters from U+0100 (source: `bytes_to_unicode` of the GPT-2 release).
fn byte_level_alphabet() -> [Option<u8>; 324] {
    let mut alphabet = [None; 324];
    let mut next = 256;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let code_point = if printable { usize::from(byte) } else { next };
        alphabet[code_point] = Some(byte);
        next += usize::from(!printable);
    }
    alphabet
}

#[cfg(test)]
mod tests {
    use super::{ByteForm, TokenBytes, byte_level_alphabet};

    #[test]
    fn the_alphabet_holds_every_byte_once() {
        let mut bytes: Vec<u8> = byte_level_alphabet().into_iter().flatten().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn byte_level_texts_become_bytes() {
        let texts = [Some("Ġthe"), None, Some("ÃĤ"), Some("<|im_end|>"), Some("two words")];
        let table = TokenBytes::new(ByteForm::ByteLevel, texts.into_iter());
        assert_eq!(table.len(), 5);
        assert_eq!(table.get(0), Some(&b" the"[..]));
        assert_eq!(table.get(1), Some(&b""[..]));
        assert_eq!(table.get(2), Some(&[0xC3, 0x82][..]));
        assert_eq!(table.get(3), Some(&b"<|im_end|>"[..]));
        assert_eq!(table.get(4), Some(&b"two words"[..]));
        assert_eq!(table.get(5), None);
    }

    #[test]
    fn sentence_piece_texts_become_bytes() {
        let texts = [Some("▁the"), Some("<0xE2>"), Some("<0xZZ>"), Some("é")];
        let table = TokenBytes::new(ByteForm::SentencePiece, texts.into_iter());
        assert_eq!(table.get(0), Some(&b" the"[..]));
        assert_eq!(table.get(1), Some(&[0xE2][..]));
        assert_eq!(table.get(2), Some(&b"<0xZZ>"[..]));
        assert_eq!(table.get(3), Some("é".as_bytes()));
    }
}
