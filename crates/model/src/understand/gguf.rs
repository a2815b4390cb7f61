//! What a GGUF file says about its model.

use helios_storage::{Checkpoint, FileBytes, Gguf, ModelConfig, StorageError};
use helios_text::{GgufVocab, Tokenizer, gguf_tokenizer_json};
use helios_types::TokenId;

use super::{Described, Texts, if_supported, in_file, texts};
use crate::manifest::WeightFormat;
use crate::profile::ModelShape;
use crate::{Lineage, ModelError};

pub(super) fn describe(name: &str, file: FileBytes) -> Result<Described, ModelError> {
    let (checkpoint, gguf) = Checkpoint::from_gguf(name, file)?;
    let config = if_supported(ModelConfig::from_gguf(name, &gguf))?;
    let text = |key: &str| gguf.optional(key, Gguf::str).map(|text| text.map(str::to_owned));
    Ok(Described {
        format: WeightFormat::Gguf,
        architecture: gguf.str("general.architecture")?.to_owned(),
        shape: ModelShape::from_gguf(name, &gguf).ok(),
        texts: texts(config.as_ref(), read_texts(name, &gguf))?,
        config,
        checkpoint,
        chat_template: text("tokenizer.chat_template")?,
        licence: text("general.license")?,
        lineage: Lineage::of_gguf(&gguf),
    })
}

fn read_texts(name: &str, gguf: &Gguf) -> Result<Texts, ModelError> {
    let vocab = vocab(name, gguf)?;
    let json = gguf_tokenizer_json(&vocab).map_err(in_file(name))?;
    let special_tokens = vocab.special_tokens();
    let tokenizer = Tokenizer::from_json(&json, special_tokens.clone()).map_err(in_file("tokenizer.json"))?;
    Ok(Texts { made_json: Some(json), special_tokens, tokenizer })
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
