//! Converting between safetensors and GGUF without changing a value.
//!
//! Elements keep their bits. What differs between the forms is said by name and order: tensor names, the row order of
//! the rotated projections, and where configuration and tokenizer stand. One thing changes its width: vectors of 16 bits
//! become F32 in GGUF, because every reader of it computes with them so; the file says which, and the way back narrows
//! them to the same bits. What cannot be said in the other form is refused, by name.

mod elements;
mod gguf_form;
mod hugging_face_form;
mod tensors;

use std::sync::Arc;

use helios_storage::{Blob, BlobWriter, Checkpoint, FileLayout, Gguf, ModelConfig, Tiers};
use helios_types::ModelRef;

use crate::ModelError;
use crate::manifest::{Manifest, Role, WeightFormat};
use elements::Output;
use tensors::Planned;

/// Tensor bytes of one shard, as `transformers` divides.
const SHARD_BYTES_MAX: usize = 5_000_000_000;

/// A model to be converted, opened.
#[derive(Debug)]
pub struct Origin {
    blobs: Arc<Tiers>,
    reference: ModelRef,
    manifest: Arc<Manifest>,
    config: ModelConfig,
    checkpoint: Checkpoint,
    /// The header, where it is a GGUF file.
    gguf: Option<Gguf>,
}

/// A file of the other form.
#[derive(Debug)]
pub enum FormFile<'a> {
    /// A small one.
    Small {
        /// Its name in the model.
        name: String,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// One with tensors.
    Tensors(TensorFile<'a>),
}

/// A laid-out file with tensors, not written yet.
#[derive(Debug)]
pub struct TensorFile<'a> {
    /// Its name in the model.
    pub name: String,
    layout: FileLayout,
    tensors: Vec<Planned<'a>>,
}

impl TensorFile<'_> {
    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.layout.size as u64
    }

    /// What it begins with; files that differ anywhere but in elements differ here.
    pub fn header(&self) -> &[u8] {
        &self.layout.header
    }

    /// Writes all of it to a `writer` that is empty, telling `report` the bytes that are written. Blocks.
    ///
    /// # Errors
    /// [`ModelError::Storage`].
    pub fn write(&self, writer: BlobWriter, report: &mut dyn FnMut(u64)) -> Result<BlobWriter, ModelError> {
        let mut output = Output::new(writer, report);
        output.put(&self.layout.header)?;
        for (index, range) in &self.layout.tensors {
            output.zeros_up_to(range.start as u64)?;
            self.tensors[*index].write(&mut output)?;
        }
        output.zeros_up_to(self.layout.size as u64)?;
        output.finish()
    }
}

impl Origin {
    /// Opens the files of a version, which are all among `blobs`. Blocks.
    ///
    /// # Errors
    /// [`ModelError::NotServable`], [`ModelError::MissingRole`], [`ModelError::Storage`], [`ModelError::Config`].
    pub fn open(blobs: Arc<Tiers>, model: ModelRef, manifest: Arc<Manifest>) -> Result<Self, ModelError> {
        let (config, checkpoint, gguf) = match manifest.facts()?.format {
            WeightFormat::Gguf => {
                let file = manifest.required(Role::Weights)?;
                let (checkpoint, gguf) = Checkpoint::from_gguf(&file.path, blobs.open_file(&file.blob)?)?;
                let config = ModelConfig::from_gguf(&file.path, &gguf)?;
                (config, checkpoint, Some(gguf))
            }
            WeightFormat::Safetensors => {
                let mut files = Vec::new();
                for file in manifest.files(Role::Weights) {
                    files.push((file.path.clone(), blobs.open_file(&file.blob)?));
                }
                let index = match manifest.file(Role::WeightsIndex) {
                    Some(file) => Some(blobs.get(&file.blob)?),
                    None => None,
                };
                let checkpoint = Checkpoint::from_safetensors(files, index.as_deref())?;
                let json = original(&blobs, &manifest, "config.json")?
                    .ok_or(ModelError::MissingRole { role: "config.json" })?;
                let config = ModelConfig::from_hugging_face(&json)?;
                (config, checkpoint, None)
            }
        };
        Ok(Self { blobs, reference: model, manifest, config, checkpoint, gguf })
    }

    /// The files of the other form, in the order in which they are to be written.
    ///
    /// # Errors
    /// [`ModelError::NotConvertible`] for what cannot be said in that form; [`ModelError`] for what cannot be read.
    pub fn form(&self, format: WeightFormat) -> Result<Vec<FormFile<'_>>, ModelError> {
        self.form_in_shards(format, SHARD_BYTES_MAX)
    }

    /// As [`form`](Self::form), with at most `shard_bytes_max` bytes of tensors in a file, or one tensor; a GGUF file is
    /// always one.
    ///
    /// # Errors
    /// As [`form`](Self::form).
    pub fn form_in_shards(
        &self,
        format: WeightFormat,
        shard_bytes_max: usize,
    ) -> Result<Vec<FormFile<'_>>, ModelError> {
        match format {
            WeightFormat::Gguf => gguf_form::files(self),
            WeightFormat::Safetensors => hugging_face_form::files(self, shard_bytes_max),
        }
    }

    /// A small file of the source that was kept as it came.
    fn original(&self, name: &str) -> Result<Option<Blob>, ModelError> {
        original(&self.blobs, &self.manifest, name)
    }

    fn refused(&self, problem: impl Into<String>, hint: &'static str) -> ModelError {
        ModelError::NotConvertible { model: self.reference.to_string(), problem: problem.into(), hint }
    }
}

fn original(blobs: &Tiers, manifest: &Manifest, name: &str) -> Result<Option<Blob>, ModelError> {
    let mut files = manifest.files.iter().filter(|file| file.path == name);
    files.next().map(|file| Ok(blobs.get(&file.blob)?)).transpose()
}

/// The files of the Hugging Face form that are carried through a GGUF file as they are, under `helios.file.NAME`.
const CARRIED_FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
const CARRIED_PREFIX: &str = "helios.file.";

/// The whole `tokenizer.json`: a key of the GGUF specification.
const TOKENIZER_KEY: &str = "tokenizer.huggingface.json";

/// Names of the vectors that were widened, by the type that they had.
const WIDENED_BF16: &str = "helios.widened.bf16";
const WIDENED_F16: &str = "helios.widened.f16";
