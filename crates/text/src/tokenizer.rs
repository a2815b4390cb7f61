//! The tokenizer of one model: text to tokens and tokens to bytes, shared cheaply between requests.
//!
//! Splitting and merging are done by the `tokenizers` crate; the way back is a table of byte strings made once.

use std::sync::Arc;

use helios_types::TokenId;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedVocabulary, DecoderWrapper, Model, NormalizerWrapper, OffsetReferential, OffsetType,
    PostProcessorWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, TokenizerImpl,
};

use crate::token_bytes::{ByteForm, TokenBytes};
use crate::{SpecialTokens, TextError};

/// Whether the text of a special token inside the input becomes that token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// It does: for text of the model's own template and for raw prompts.
    Parse,
    /// It does not: `<|im_end|>` typed by a person stays ten characters.
    AsPlainText,
}

/// The crate's tokenizer with the model's type fixed: reading the document straight into a BPE takes a third of the time
/// that the general reader takes, which goes through an intermediate value.
type Inner = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer. Clones share one copy.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Inner,
    /// The added tokens of `inner`, with special ones left as text.
    plain_vocabulary: AddedVocabulary,
    bytes: TokenBytes,
    /// By id.
    is_special: Vec<bool>,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`. Truncation and padding that it asks for are ignored.
    ///
    /// # Errors
    /// [`TextError::InvalidTokenizer`] for a document that the `tokenizers` crate refuses, whose model is not BPE or whose decoder is neither
    /// byte-level nor SentencePiece-like; [`TextError::UnknownSpecialToken`] for a special id beyond the vocabulary.
    pub fn from_json(json: &[u8], special: SpecialTokens) -> Result<Self, TextError> {
        let unreadable = |error: serde_json::Error| TextError::InvalidTokenizer { reason: error.to_string() };
        let mut inner: Inner = serde_json::from_slice(json).map_err(unreadable)?;
        inner.with_truncation(None).map_err(invalid)?;
        inner.with_padding(None);
        let form = byte_form(&inner)?;
        let texts = texts_by_id(&inner)?;
        if let Some(token) = special.largest().filter(|&token| token as usize >= texts.len()) {
            let token = token.to_string();
            return Err(TextError::UnknownSpecialToken { field: "special tokens", token });
        }
        let bytes = TokenBytes::new(form, texts.iter().map(Option::as_deref));
        let mut plain_vocabulary = inner.get_added_vocabulary().clone();
        plain_vocabulary.set_encode_special_tokens(true);
        let mut is_special = vec![false; texts.len()];
        for (id, token) in inner.get_added_vocabulary().get_added_tokens_decoder() {
            is_special[*id as usize] = token.special;
        }
        Ok(Self { shared: Arc::new(Shared { inner, plain_vocabulary, bytes, is_special, special }) })
    }

    /// The tokens of `text`, without a beginning-of-sequence token.
    ///
    /// # Errors
    /// [`TextError::Encode`] when the tokenizer itself fails.
    pub fn encode(&self, text: &str, special: SpecialText) -> Result<Vec<TokenId>, TextError> {
        let vocabulary = match special {
            SpecialText::Parse => self.shared.inner.get_added_vocabulary(),
            SpecialText::AsPlainText => &self.shared.plain_vocabulary,
        };
        let mut pieces = vocabulary.extract_and_normalize(self.shared.inner.get_normalizer(), text);
        self.tokenize(&mut pieces)
            .map_err(|error| TextError::Encode { bytes: text.len(), reason: error.to_string() })?;
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(splits
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .flatten()
            .map(|token| token.id)
            .collect())
    }

    /// The tokens of a plain prompt: [`encode`](Self::encode), after `bos` where the model wants one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str, special: SpecialText) -> Result<Vec<TokenId>, TextError> {
        let mut tokens = self.encode(text, special)?;
        let bos = self.shared.special.bos.filter(|_| self.shared.special.add_bos);
        if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// The bytes that a token stands for; not always whole characters.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn token_bytes(&self, token: TokenId) -> Result<&[u8], TextError> {
        let unknown = TextError::UnknownToken { token, vocabulary: self.vocab_len() };
        self.shared.bytes.get(token).ok_or(unknown)
    }

    /// The text of one token, with U+FFFD for what is not UTF-8: for showing, as in log-probabilities.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn token_text(&self, token: TokenId) -> Result<String, TextError> {
        Ok(String::from_utf8_lossy(self.token_bytes(token)?).into_owned())
    }

    /// The bytes of a token sequence, special tokens included.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn decode_bytes(&self, tokens: &[TokenId]) -> Result<Vec<u8>, TextError> {
        let mut bytes = Vec::new();
        for &token in tokens {
            bytes.extend_from_slice(self.token_bytes(token)?);
        }
        Ok(bytes)
    }

    /// The text of a token sequence, with U+FFFD for what is not UTF-8; `show_special` as in
    /// [`Detokenizer::new`](crate::Detokenizer::new).
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn decode(&self, tokens: &[TokenId], show_special: bool) -> Result<String, TextError> {
        let shown = |token: &TokenId| show_special || !self.is_special(*token);
        let tokens: Vec<TokenId> = tokens.iter().copied().filter(shown).collect();
        Ok(String::from_utf8_lossy(&self.decode_bytes(&tokens)?).into_owned())
    }

    /// Whether a token is a special one: a control token, never text of an answer.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.shared.is_special.get(token as usize).copied().unwrap_or(false)
    }

    /// Whether a token ends generation.
    pub fn is_end(&self, token: TokenId) -> bool {
        self.shared.special.eos.contains(&token)
    }

    /// Number of token ids, added tokens included.
    pub fn vocab_len(&self) -> usize {
        self.shared.bytes.len()
    }

    /// The ids that mean something to the machinery.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.shared.special
    }

    /// The special tokens in `text` as [`SpecialText::Parse`] finds them: byte range and id, in order.
    pub(crate) fn find_special(&self, text: &str) -> Vec<(std::ops::Range<usize>, TokenId)> {
        let no_normalizer: Option<&NormalizerWrapper> = None;
        let pieces = self.shared.inner.get_added_vocabulary().extract_and_normalize(no_normalizer, text);
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let tokens = splits
            .into_iter()
            .filter_map(|(_, (start, end), tokens)| Some((start..end, tokens.as_ref()?.first()?.id)));
        tokens.filter(|(_, token)| self.is_special(*token)).collect()
    }

    /// The texts of all special tokens.
    pub(crate) fn special_texts(&self) -> impl Iterator<Item = &str> {
        let added = self.shared.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.values().filter(|token| token.special).map(|token| token.content.as_str())
    }

    fn tokenize(&self, pieces: &mut PreTokenizedString) -> tokenizers::Result<()> {
        if let Some(pre_tokenizer) = self.shared.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(pieces)?;
        }
        let model = self.shared.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get()))
    }
}

fn invalid(error: tokenizers::Error) -> TextError {
    TextError::InvalidTokenizer { reason: error.to_string() }
}

/// Ids beyond this are refused: the table by id would be absurd.
const TOKEN_ID_MAX: u32 = 4_000_000;

/// Token texts by id, added tokens included.
fn texts_by_id(inner: &Inner) -> Result<Vec<Option<String>>, TextError> {
    let model = inner.get_model();
    let mut texts = Vec::with_capacity(model.get_vocab_size());
    let mut missing = model.get_vocab_size();
    for id in 0..=TOKEN_ID_MAX {
        if missing == 0 {
            break;
        }
        let text = model.id_to_token(id);
        missing -= usize::from(text.is_some());
        texts.push(text);
    }
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let largest = added.keys().copied().max().unwrap_or(0);
    if missing > 0 || largest > TOKEN_ID_MAX {
        let reason = format!("token ids repeat or are over the limit of {TOKEN_ID_MAX}");
        return Err(TextError::InvalidTokenizer { reason });
    }
    texts.resize(texts.len().max(largest as usize + 1), None);
    for (id, token) in added {
        texts[*id as usize] = Some(token.content.clone());
    }
    Ok(texts)
}

/// Reads from the decoder how tokens stand for bytes.
fn byte_form(inner: &Inner) -> Result<ByteForm, TextError> {
    let decoder = serde_json::to_value(inner.get_decoder()).unwrap_or(Value::Null);
    let sequence = std::slice::from_ref(&decoder);
    let steps = decoder.get("decoders").and_then(Value::as_array).map_or(sequence, Vec::as_slice);
    let has = |kind: &str| steps.iter().any(|step| step.get("type").is_some_and(|found| found == kind));
    if has("ByteLevel") {
        Ok(ByteForm::ByteLevel)
    } else if has("ByteFallback") || has("Metaspace") {
        Ok(ByteForm::SentencePiece)
    } else {
        let reason = format!("decoder {decoder} is neither byte-level nor SentencePiece-like");
        Err(TextError::InvalidTokenizer { reason })
    }
}
