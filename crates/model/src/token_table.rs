//! The derived blob `token_bytes`: what each token stands for, for whoever needs bytes and no tokenizer.
//!
//! Layout, all little-endian u32: the number of tokens, then where each token's bytes end, then the bytes, one token's
//! behind the other's.

use helios_text::Tokenizer;

use crate::ModelError;

/// Writes the table of a tokenizer. O(vocabulary).
pub(crate) fn encode(tokenizer: &Tokenizer) -> Result<Vec<u8>, ModelError> {
    let count = u32::try_from(tokenizer.vocab_len()).map_err(|_| too_large())?;
    let mut table = count.to_le_bytes().to_vec();
    let mut bytes = Vec::new();
    for token in 0..count {
        let text = tokenizer.token_bytes(token);
        bytes.extend_from_slice(
            text.map_err(|source| ModelError::Text { file: "tokenizer.json".to_owned(), source })?,
        );
        table.extend(u32::try_from(bytes.len()).map_err(|_| too_large())?.to_le_bytes());
    }
    table.extend(bytes);
    Ok(table)
}

fn too_large() -> ModelError {
    ModelError::invalid("`tokenizer.json`", "its vocabulary is over 4 GiB")
}

/// The bytes of each token in a table, or `None` if it is no table.
pub fn decode(table: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, rest) = table.split_first_chunk::<4>()?;
    let ends_bytes = (u32::from_le_bytes(*count) as usize).checked_mul(4)?;
    let (ends, bytes) = rest.split_at_checked(ends_bytes)?;
    let mut start = 0;
    let mut tokens = Vec::with_capacity(ends.len() / 4);
    for end in ends.as_chunks::<4>().0 {
        let end = u32::from_le_bytes(*end) as usize;
        tokens.push(bytes.get(start..end)?);
        start = end;
    }
    (start == bytes.len()).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn tables_are_read_and_damage_is_seen() {
        let table = [&[2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(decode(&table), Some(vec![&b"a"[..], b"bc"]));
        assert_eq!(decode(&table[..14]), None);
        assert_eq!(decode(&[255, 255, 255, 255]), None);
        assert_eq!(decode(&[]), None);
    }
}
