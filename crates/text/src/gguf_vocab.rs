//! From a Hugging Face `tokenizer.json` to a GGUF file's tokenizer metadata: the way back of [`crate::gguf`].
//!
//! GGUF names a few ways of splitting text and has no words for the rest, so a tokenizer is carried over only if what
//! [`gguf_tokenizer_json`](crate::gguf_tokenizer_json) would make of the result splits and merges as it does. Everything
//! else is refused by the name of its field.

use helios_types::TokenId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::gguf::{TYPE_CONTROL, TYPE_USER_DEFINED, pre_tokenizer};
use crate::{GgufVocab, KNOWN_PRE_TOKENIZERS, SpecialTokens, TextError};

const TYPE_NORMAL: u32 = 1;
const TYPE_UNUSED: u32 = 5;

/// Rows of an embedding that stand for no token; more would be absurd.
const ENTRIES_MAX: usize = 1 << 22;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Bpe,
}

#[derive(Deserialize)]
struct Added {
    id: TokenId,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Map<String, Value>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(flatten)]
    options: Map<String, Value>,
}

/// A pair, in the newer or the older way of writing it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

/// The GGUF fields of a `tokenizer.json` for a model with `entries` rows in its embedding; rows without a token become
/// unused tokens.
///
/// # Errors
/// [`TextError::InvalidTokenizer`] for another document, [`TextError::NoGgufForm`] for what GGUF cannot say.
pub fn gguf_vocab(
    tokenizer_json: &[u8],
    special: &SpecialTokens,
    entries: usize,
) -> Result<GgufVocab, TextError> {
    let document: Document = serde_json::from_slice(tokenizer_json)
        .map_err(|error| TextError::InvalidTokenizer { reason: error.to_string() })?;
    check_steps(&document, special)?;
    check_options(&document.model)?;
    let (tokens, token_types) = tokens(&document, entries)?;
    let mut ends = special.eos.iter().copied();
    let vocab = GgufVocab {
        model: "gpt2".to_owned(),
        pre: Some(pre_tokenizer_name(document.pre_tokenizer.as_ref())?.to_owned()),
        tokens,
        token_types,
        merges: document.model.merges.into_iter().map(Merge::into_text).collect(),
        bos: special.bos,
        eos: ends.next(),
        eot: ends.next(),
        eom: ends.next(),
        unknown: special.unknown,
        pad: special.pad,
        add_bos: special.add_bos,
    };
    match ends.next() {
        Some(token) => Err(no_form("eos_token_id", format!("{token} is one of more than three"))),
        None => Ok(vocab),
    }
}

impl Merge {
    fn into_text(self) -> String {
        match self {
            Self::Pair(left, right) => format!("{left} {right}"),
            Self::Text(text) => text,
        }
    }
}

fn no_form(field: &'static str, problem: impl Into<String>) -> TextError {
    TextError::NoGgufForm { field, problem: problem.into() }
}

/// Texts and types by id.
fn tokens(document: &Document, entries: usize) -> Result<(Vec<String>, Vec<u32>), TextError> {
    if entries > ENTRIES_MAX {
        return Err(no_form("model.vocab", format!("is for {entries} rows, more than {ENTRIES_MAX}")));
    }
    let mut tokens: Vec<Option<(String, u32)>> = vec![None; entries];
    let mut put = |id: u64, text: &str, kind: u32| -> Result<(), TextError> {
        let slot = usize::try_from(id).ok().and_then(|id| tokens.get_mut(id));
        let beyond = || no_form("model.vocab", format!("has {text:?} at {id}, beyond {entries} rows"));
        *slot.ok_or_else(beyond)? = Some((text.to_owned(), kind));
        Ok(())
    };
    for (text, id) in &document.model.vocab {
        let id = id.as_u64().ok_or_else(|| no_form("model.vocab", format!("has no id for {text:?}")))?;
        put(id, text, TYPE_NORMAL)?;
    }
    for token in &document.added_tokens {
        if token.single_word || token.lstrip || token.rstrip {
            return Err(no_form("added_tokens", format!("wants its own matching of {:?}", token.content)));
        }
        put(token.id.into(), &token.content, if token.special { TYPE_CONTROL } else { TYPE_USER_DEFINED })?;
    }
    let unused = |id: usize| (format!("[PAD{id}]"), TYPE_UNUSED);
    Ok(tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| unused(id))).unzip())
}

/// Refuses steps around the model that GGUF has no field for.
fn check_steps(document: &Document, special: &SpecialTokens) -> Result<(), TextError> {
    if let Some(normalizer) = &document.normalizer {
        return Err(no_form("normalizer", format!("is {}", kind(normalizer))));
    }
    let decoder = document.decoder.as_ref().map_or("null", kind);
    if decoder != "ByteLevel" {
        return Err(no_form("decoder", format!("is {decoder}, not ByteLevel")));
    }
    match document.post_processor.as_ref() {
        Some(step) if kind(step) == "TemplateProcessing" => check_template(step, special),
        Some(step) if kind(step) != "ByteLevel" => {
            Err(no_form("post_processor", format!("is {}", kind(step))))
        }
        _ => Ok(()),
    }
}

/// A template may do what `add_bos_token` does, and no more.
fn check_template(step: &Value, special: &SpecialTokens) -> Result<(), TextError> {
    let pieces = step["single"].as_array().map_or(&[][..], Vec::as_slice);
    let is = |piece: &Value, kind: &str| piece.get(kind).is_some();
    match pieces {
        [text] if is(text, "Sequence") && !special.add_bos => Ok(()),
        [bos, text] if is(bos, "SpecialToken") && is(text, "Sequence") && special.add_bos => Ok(()),
        _ => Err(no_form("post_processor", "adds more than a beginning-of-sequence token")),
    }
}

/// Refuses options of the merging that GGUF has no field for.
fn check_options(model: &Bpe) -> Result<(), TextError> {
    if let Some(other) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(no_form("model.type", format!("is {other}, not BPE")));
    }
    for field in
        ["byte_fallback", "ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"]
    {
        let neutral = |value: &&Value| {
            value.is_null()
                || **value == Value::Bool(false)
                || value.as_str() == Some("")
                || value.as_f64() == Some(0.0)
        };
        if let Some(value) = model.options.get(field).filter(|value| !neutral(value)) {
            return Err(no_form("model", format!("has `{field}` {value}")));
        }
    }
    Ok(())
}

fn pre_tokenizer_name(own: Option<&Value>) -> Result<&'static str, TextError> {
    let own = own.map(canonical);
    for name in KNOWN_PRE_TOKENIZERS {
        if own == Some(canonical(&pre_tokenizer(name)?)) {
            return Ok(name);
        }
    }
    let known = KNOWN_PRE_TOKENIZERS.join(", ");
    Err(no_form("pre_tokenizer", format!("splits text in none of the ways that have a name here ({known})")))
}

/// A step without what changes offsets only, and with its defaults written out.
fn canonical(step: &Value) -> Value {
    let mut step = step.clone();
    if let Some(steps) = step.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        *steps = steps.iter().map(canonical).collect();
    }
    if kind(&step) == "ByteLevel"
        && let Some(fields) = step.as_object_mut()
    {
        fields.remove("trim_offsets");
        fields.entry("use_regex").or_insert(Value::Bool(true));
    }
    step
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::gguf_vocab;
    use crate::{GgufVocab, SpecialTokens, gguf_tokenizer_json};

    fn vocab() -> GgufVocab {
        GgufVocab {
            model: "gpt2".to_owned(),
            pre: Some("smollm".to_owned()),
            tokens: ["a", "b", "ab", "<|end|>", "[PAD4]"].map(str::to_owned).to_vec(),
            token_types: vec![1, 1, 1, 3, 5],
            merges: vec!["a b".to_owned()],
            eos: Some(3),
            ..GgufVocab::default()
        }
    }

    fn document() -> serde_json::Value {
        let mut vocab = vocab();
        vocab.tokens.pop();
        vocab.token_types.pop();
        serde_json::from_slice(&gguf_tokenizer_json(&vocab).expect("a tokenizer")).expect("JSON")
    }

    fn special() -> SpecialTokens {
        SpecialTokens { eos: vec![3], ..SpecialTokens::default() }
    }

    #[test]
    fn a_tokenizer_comes_back_as_the_vocabulary_it_was_made_from() {
        let json = document().to_string();
        assert_eq!(gguf_vocab(json.as_bytes(), &special(), 5).expect("a vocabulary"), vocab());
    }

    #[test]
    fn what_gguf_cannot_say_is_refused_by_its_field() {
        type Edit = fn(&mut serde_json::Value);
        let edits: [(&str, Edit); 7] = [
            ("normalizer", |document| document["normalizer"] = serde_json::json!({"type": "NFC"})),
            ("decoder", |document| document["decoder"] = serde_json::json!({"type": "Metaspace"})),
            ("pre_tokenizer", |document| {
                document["pre_tokenizer"] = serde_json::json!({"type": "Whitespace"})
            }),
            ("post_processor", |document| {
                document["post_processor"] = serde_json::json!({"type": "BertProcessing"});
            }),
            ("model", |document| document["model"]["ignore_merges"] = true.into()),
            ("model.type", |document| document["model"]["type"] = "Unigram".into()),
            ("added_tokens", |document| document["added_tokens"][0]["lstrip"] = true.into()),
        ];
        for (field, edit) in edits {
            let mut document = document();
            edit(&mut document);
            let error = gguf_vocab(document.to_string().as_bytes(), &special(), 5).expect_err(field);
            assert!(error.to_string().contains(&format!("`{field}`")), "{field}: {error}");
        }
        let many = SpecialTokens { eos: vec![0, 1, 2, 3], ..SpecialTokens::default() };
        assert!(gguf_vocab(document().to_string().as_bytes(), &many, 5).is_err());
        assert!(gguf_vocab(document().to_string().as_bytes(), &special(), 3).is_err());
    }
}
