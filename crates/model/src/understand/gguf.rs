//! What a GGUF file says about its model.

use helios_storage::{Blob, Checkpoint, Gguf, ModelConfig, StorageError};
use helios_text::{GgufVocab, gguf_tokenizer_json};
use helios_types::TokenId;

use super::{Described, TokenizerJson, in_file};
use crate::manifest::WeightFormat;
use crate::{Lineage, ModelError};

pub(super) fn describe(name: &str, blob: Blob) -> Result<Described, ModelError> {
    let (checkpoint, gguf) = Checkpoint::from_gguf(name, blob)?;
    let config = ModelConfig::from_gguf(name, &gguf)?;
    let vocab = vocab(name, &gguf)?;
    let text = |key: &str| gguf.optional(key, Gguf::str).map(|text| text.map(str::to_owned));
    Ok(Described {
        format: WeightFormat::Gguf,
        config,
        checkpoint,
        tokenizer_json: TokenizerJson::Derived(gguf_tokenizer_json(&vocab).map_err(in_file(name))?),
        special_tokens: vocab.special_tokens(),
        chat_template: text("tokenizer.chat_template")?,
        licence: text("general.license")?,
        lineage: Lineage::of_gguf(&gguf),
    })
}

/// The tokenizer in the metadata of a file.
pub(crate) fn vocab(name: &str, gguf: &Gguf) -> Result<GgufVocab, ModelError> {
    let strings = |key: &str| -> Result<Vec<String>, StorageError> {
        let array = gguf.optional(key, Gguf::strings)?;
        Ok(array.map(|array| array.iter().map(str::to_owned).collect()).unwrap_or_default())
    };
    let id = |key: &str| -> Result<Option<TokenId>, StorageError> {
        gguf.optional(&format!("tokenizer.ggml.{key}_token_id"), Gguf::u32)
    };
    let types = gguf.optional("tokenizer.ggml.token_type", Gguf::i32s)?.unwrap_or_default();
    let token_types: Result<Vec<u32>, _> = types.iter().map(|&kind| u32::try_from(kind)).collect();
    Ok(GgufVocab {
        model: gguf.str("tokenizer.ggml.model")?.to_owned(),
        pre: gguf.optional("tokenizer.ggml.pre", Gguf::str)?.map(str::to_owned),
        tokens: strings("tokenizer.ggml.tokens")?,
        token_types: token_types
            .map_err(|_| ModelError::invalid(format!("`{name}`"), "tokenizer.ggml.token_type is negative"))?,
        merges: strings("tokenizer.ggml.merges")?,
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        eom: id("eom")?,
        unknown: id("unknown")?,
        pad: id("padding")?,
        add_bos: gguf.optional("tokenizer.ggml.add_bos_token", Gguf::bool)?.unwrap_or(false),
    })
}
