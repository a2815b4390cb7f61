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

use helios_storage::{Blob, BlobInfo, Checkpoint, FileLayout, Gguf, ModelConfig};
use helios_types::ModelRef;

use crate::blocking::blocking;
use crate::fetch::{Context, Gathered, GatheredFile, INDEX_FILE};
use crate::manifest::WeightFormat;
use crate::pins::Intake;
use crate::progress::{Phase, Reporter};
use crate::{Conversion, Lineage, RegistryError, Resolved, Role};

use elements::Output;
use tensors::Planned;

/// A model to be converted, opened.
struct Origin {
    resolved: Resolved,
    config: ModelConfig,
    checkpoint: Checkpoint,
    /// The header, where it is a GGUF file.
    gguf: Option<Gguf>,
}

/// Where the files of the other form go.
struct Sink<'a> {
    intake: &'a Intake,
    reporter: &'a Reporter,
}

/// Brings `model` into the store once more, in the other form.
pub(crate) async fn gather(
    context: &Context,
    model: &ModelRef,
    format: WeightFormat,
) -> Result<Gathered, RegistryError> {
    let resolved = context.registry.resolve(model).await?;
    if resolved.manifest.facts()?.format == format {
        let problem = format!("it is in the {format} form already");
        return Err(refused(&resolved, problem, "`helios tag` gives a model another name"));
    }
    context.registry.ensure_files(&resolved.manifest).await?;
    let (intake, reporter) = (context.intake.clone(), context.reporter.clone());
    blocking(move || {
        let origin = Origin::open(&intake, resolved)?;
        let sink = Sink { intake: &intake, reporter: &reporter };
        let files = match format {
            WeightFormat::Gguf => gguf_form::write(&origin, &sink)?,
            WeightFormat::Safetensors => hugging_face_form::write(&origin, &sink)?,
        };
        let licence = origin.resolved.manifest.facts()?.licence.clone();
        Ok(Gathered { files, licence, lineage: lineage_of(&origin.resolved) })
    })
    .await
}

/// The lineage of what is made from a version: its own, and one step more.
fn lineage_of(resolved: &Resolved) -> Lineage {
    let converted = Conversion {
        by: concat!("helios ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: resolved.reference.clone(),
        manifest: resolved.digest,
    };
    Lineage { converted: Some(converted), ..resolved.manifest.lineage.clone().unwrap_or_default() }
}

impl Origin {
    fn open(intake: &Intake, resolved: Resolved) -> Result<Self, RegistryError> {
        let manifest = &resolved.manifest;
        let blobs = intake.blobs();
        match manifest.facts()?.format {
            WeightFormat::Gguf => {
                let file = manifest.required(Role::Weights)?;
                let (checkpoint, gguf) = Checkpoint::from_gguf(&file.path, blobs.open_file(&file.blob)?)?;
                let config = ModelConfig::from_gguf(&file.path, &gguf)?;
                Ok(Self { resolved, config, checkpoint, gguf: Some(gguf) })
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
                let json = original(intake, &resolved, "config.json")?
                    .ok_or(RegistryError::MissingRole { role: "config.json" })?;
                let config = ModelConfig::from_hugging_face(&json)?;
                Ok(Self { resolved, config, checkpoint, gguf: None })
            }
        }
    }

    fn refused(&self, problem: impl Into<String>, hint: &'static str) -> RegistryError {
        refused(&self.resolved, problem, hint)
    }
}

fn refused(resolved: &Resolved, problem: impl Into<String>, hint: &'static str) -> RegistryError {
    RegistryError::NotConvertible { model: resolved.reference.to_string(), problem: problem.into(), hint }
}

/// A small file of the source that was kept as it came.
fn original(intake: &Intake, resolved: &Resolved, name: &str) -> Result<Option<Blob>, RegistryError> {
    let mut files = resolved.manifest.files.iter().filter(|file| file.path == name);
    files.next().map(|file| Ok(intake.blobs().get(&file.blob)?)).transpose()
}

impl Sink<'_> {
    /// Stores a small file.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<GatheredFile, RegistryError> {
        Ok(GatheredFile { path: path.to_owned(), blob: self.intake.put(bytes)? })
    }

    /// Writes a laid-out file with the tensors in their places.
    fn file(
        &self,
        path: &str,
        layout: &FileLayout,
        tensors: &[Planned<'_>],
    ) -> Result<GatheredFile, RegistryError> {
        let total = layout.size as u64;
        let mut report = |done| self.reporter.file(Phase::Converting, path, done, Some(total));
        let key = format!("convert-{}", blake3_name(&layout.header));
        let mut writer = self.intake.blobs().writer(&key, Some(total))?;
        writer.restart()?;
        let mut output = Output::new(writer, &mut report);
        output.put(&layout.header)?;
        for (index, range) in &layout.tensors {
            output.zeros_up_to(range.start as u64)?;
            tensors[*index].write(&mut output)?;
        }
        output.zeros_up_to(layout.size as u64)?;
        let blob: BlobInfo = self.intake.commit(output.finish()?, None)?;
        Ok(GatheredFile { path: path.to_owned(), blob })
    }
}

/// A name for the partial file of a header: two conversions that write different files never share one.
fn blake3_name(header: &[u8]) -> String {
    crate::registry::digest_of(header).hex()[..32].to_owned()
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

const INDEX: &str = INDEX_FILE;
