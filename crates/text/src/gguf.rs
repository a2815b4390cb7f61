//! From a GGUF file's tokenizer metadata to a Hugging Face `tokenizer.json`, so that every import ends in the same
//! kind of derived blob.

use std::collections::HashSet;

use helios_types::TokenId;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{SpecialTokens, TextError};

/// The values of `tokenizer.ggml.pre` that Helios knows.
pub const KNOWN_PRE_TOKENIZERS: &[&str] = &["smollm"];

/// Token types of the GGUF specification.
pub(crate) const TYPE_CONTROL: u32 = 3;
pub(crate) const TYPE_USER_DEFINED: u32 = 4;

/// The `tokenizer.ggml.*` fields of a GGUF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufVocab {
    /// `model`: the kind of vocabulary; `gpt2` is byte-level BPE.
    pub model: String,
    /// `pre`: how text is split before merging.
    pub pre: Option<String>,
    /// `tokens`: texts by id, in the byte-level alphabet.
    pub tokens: Vec<String>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<u32>,
    /// `merges`: pairs with a space between, best first.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<TokenId>,
    /// `eos_token_id`.
    pub eos: Option<TokenId>,
    /// `eot_token_id`: end of turn.
    pub eot: Option<TokenId>,
    /// `eom_token_id`: end of message.
    pub eom: Option<TokenId>,
    /// `unknown_token_id`.
    pub unknown: Option<TokenId>,
    /// `padding_token_id`.
    pub pad: Option<TokenId>,
    /// `add_bos_token`.
    pub add_bos: bool,
}

impl GgufVocab {
    /// The ids that mean something to the machinery. All of `eos`, `eot`, `eom` end generation.
    pub fn special_tokens(&self) -> SpecialTokens {
        let mut eos = Vec::new();
        for token in [self.eos, self.eot, self.eom].into_iter().flatten() {
            if !eos.contains(&token) {
                eos.push(token);
            }
        }
        SpecialTokens { bos: self.bos, eos, unknown: self.unknown, pad: self.pad, add_bos: self.add_bos }
    }
}

/// Writes the `tokenizer.json` of a GGUF vocabulary. The same vocabulary always gives the same bytes.
///
/// # Errors
/// [`TextError::UnsupportedVocabulary`], [`TextError::UnknownPreTokenizer`], and [`TextError::InvalidVocabulary`] for
/// fields that contradict each other.
pub fn gguf_tokenizer_json(vocab: &GgufVocab) -> Result<Vec<u8>, TextError> {
    if vocab.model != "gpt2" {
        return Err(TextError::UnsupportedVocabulary { model: vocab.model.clone() });
    }
    let pre_tokenizer = pre_tokenizer(vocab.pre.as_deref().unwrap_or_default())?;
    check_ids(vocab)?;
    let known = distinct_tokens(&vocab.tokens)?;
    let document = Document {
        version: "1.0",
        added_tokens: added_tokens(vocab),
        pre_tokenizer,
        decoder: byte_level(),
        model: Bpe { kind: "BPE", vocab: Vocab(&vocab.tokens), merges: merges(&vocab.merges, &known)? },
    };
    serde_json::to_vec(&document).map_err(|error| invalid("tokens", error.to_string()))
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    added_tokens: Vec<Value>,
    pre_tokenizer: Value,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    vocab: Vocab<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Serialised as a map from text to id, in the order of ids.
struct Vocab<'a>(&'a [String]);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0u32..))
    }
}

/// How text is split, by the name in the file. Source: `llama-vocab.cpp` of llama.cpp, where `smollm` splits digits
/// one by one and then as GPT-2 did.
pub(crate) fn pre_tokenizer(name: &str) -> Result<Value, TextError> {
    match name {
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            Ok(json!({"type": "Sequence", "pretokenizers": [digits, byte_level()]}))
        }
        _ => {
            let known = KNOWN_PRE_TOKENIZERS.join(", ");
            Err(TextError::UnknownPreTokenizer { name: name.to_owned(), known })
        }
    }
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

/// Control tokens become special added tokens, user-defined ones added tokens that are ordinary text.
fn added_tokens(vocab: &GgufVocab) -> Vec<Value> {
    let mut added = Vec::new();
    for (id, (text, kind)) in vocab.tokens.iter().zip(&vocab.token_types).enumerate() {
        if matches!(*kind, TYPE_CONTROL | TYPE_USER_DEFINED) {
            let special = *kind == TYPE_CONTROL;
            added.push(json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }));
        }
    }
    added
}

fn check_ids(vocab: &GgufVocab) -> Result<(), TextError> {
    let (tokens, types) = (vocab.tokens.len(), vocab.token_types.len());
    if types != 0 && types != tokens {
        return Err(invalid("token_type", format!("{types} types for {tokens} tokens")));
    }
    match vocab.special_tokens().largest().filter(|&id| id as usize >= tokens) {
        Some(id) => {
            Err(invalid("special token ids", format!("id {id} is beyond the vocabulary of {tokens} tokens")))
        }
        None => Ok(()),
    }
}

fn distinct_tokens(tokens: &[String]) -> Result<HashSet<&str>, TextError> {
    let mut known = HashSet::with_capacity(tokens.len());
    for (id, text) in tokens.iter().enumerate() {
        if !known.insert(text.as_str()) {
            return Err(invalid("tokens", format!("token {id} repeats the text {text:?}")));
        }
    }
    Ok(known)
}

fn merges<'a>(merges: &'a [String], known: &HashSet<&str>) -> Result<Vec<(&'a str, &'a str)>, TextError> {
    let mut pairs = Vec::with_capacity(merges.len());
    let mut joined = String::new();
    for (rank, merge) in merges.iter().enumerate() {
        let pair =
            merge.split_once(' ').filter(|(left, right)| known.contains(left) && known.contains(right));
        let (left, right) = pair.ok_or_else(|| {
            invalid("merges", format!("merge {rank} ({merge:?}) is not of two known tokens"))
        })?;
        joined.clear();
        joined.extend([left, right]);
        if !known.contains(joined.as_str()) {
            return Err(invalid("merges", format!("merge {rank} makes {joined:?}, which is not a token")));
        }
        pairs.push((left, right));
    }
    Ok(pairs)
}

fn invalid(field: &'static str, reason: String) -> TextError {
    TextError::InvalidVocabulary { field, reason }
}
