//! What a folder in the Hugging Face form says about its model.

use helios_storage::{Blob, Checkpoint, ModelConfig};
use helios_text::{HuggingFaceFiles, TokenizerConfig};

use super::{Described, SourceFiles, TokenizerJson, in_file};
use crate::manifest::WeightFormat;
use crate::selection::INDEX_FILE;
use crate::{Lineage, ModelError};

pub(super) fn describe(files: &SourceFiles, source: &str) -> Result<Described, ModelError> {
    let config_json = files.required("config.json", source)?;
    let config = ModelConfig::from_hugging_face(&config_json)?;
    let tokenizer_json = files.required("tokenizer.json", source)?;
    let checkpoint = Checkpoint::from_safetensors(
        files.with_suffix(".safetensors"),
        files.get(INDEX_FILE).map(|blob| &**blob),
    )?;
    let bytes = |name: &str| files.get(name).map(|blob: &Blob| &**blob);
    let template = bytes("chat_template.jinja").map(|template| {
        std::str::from_utf8(template)
            .map_err(|_| ModelError::invalid("`chat_template.jinja`", "it is not UTF-8"))
    });
    let small = HuggingFaceFiles {
        tokenizer_config: bytes("tokenizer_config.json"),
        generation_config: bytes("generation_config.json"),
        special_tokens_map: bytes("special_tokens_map.json"),
        config: Some(&config_json),
        chat_template: template.transpose()?,
    };
    let tokenizer_config = TokenizerConfig::read(&small).map_err(in_file(source))?;
    let special_tokens =
        tokenizer_config.special_tokens(&tokenizer_json).map_err(in_file("tokenizer.json"))?;
    Ok(Described {
        format: WeightFormat::Safetensors,
        config,
        checkpoint,
        tokenizer_json: TokenizerJson::File(tokenizer_json),
        special_tokens,
        chat_template: tokenizer_config.chat_template,
        // What the card says was found where the files were gathered.
        licence: None,
        lineage: Lineage::default(),
    })
}
