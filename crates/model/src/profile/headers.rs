//! Profiles of files: of those in a folder, only `config.json` and the beginning of each weight file are read.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use helios_storage::{
    Blob, Checkpoint, DurableFiles, FormatProblem, Gguf, RealDisk, SafetensorsHeader, StorageError,
    TensorInfo,
};

use super::{MemoryProfile, ModelShape};
use crate::{ModelError, model_files};

/// What is read of a weight file at first: the headers of most shards.
const PREFIX_BYTES: u64 = 1 << 18;
/// Most that is read of one: a GGUF header of 256k tokens has some 12 MB, a safetensors header at most 100 MB.
const PREFIX_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a `config.json`.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The profile of a GGUF file or a folder in the Hugging Face form. Blocks; milliseconds.
///
/// # Errors
/// [`ModelError::Invalid`] for something else; [`ModelError::Storage`] for files that break their format.
pub fn profile_of_path(path: &Path) -> Result<MemoryProfile, ModelError> {
    let disk = DurableFiles::new(Arc::new(RealDisk));
    let mut shape = None;
    let mut tensors = Vec::new();
    for (name, path) in model_files(&disk, path)? {
        let read = |bytes| disk.read_range(&path, 0..bytes);
        let size = disk.size(&path)?;
        match name.rsplit('.').next() {
            Some("gguf") => {
                let gguf = growing(size, read, |prefix| Gguf::parse_prefix(&name, prefix, size as usize))?;
                shape = Some(ModelShape::from_gguf(&name, &gguf)?);
                tensors.extend(gguf.tensors);
            }
            Some("safetensors") => {
                let parse = |prefix: &[u8]| SafetensorsHeader::parse_prefix(&name, prefix, size as usize);
                tensors.extend(growing(size, read, parse)?.tensors);
            }
            _ if name == "config.json" => {
                shape = Some(ModelShape::from_hugging_face(&read_config(&disk, &path)?)?)
            }
            _ => {}
        }
    }
    finish(&path.display().to_string(), shape, &tensors)
}

/// The profile of files that are mapped already: weights by name, with `config.json` unless they are one GGUF file.
///
/// # Errors
/// [`ModelError::Invalid`] for files without weights or configuration; [`ModelError::Storage`].
pub fn profile_of_files(
    config: Option<&[u8]>,
    mut weights: Vec<(String, Blob)>,
) -> Result<MemoryProfile, ModelError> {
    let subject = weights.first().map_or_else(|| "the model".to_owned(), |(name, _)| format!("`{name}`"));
    let (shape, tensors): (ModelShape, Vec<TensorInfo>) = match (config, weights.as_slice()) {
        (None, [(name, blob)]) if name.ends_with(".gguf") => {
            let gguf = Gguf::parse(name, blob)?;
            (ModelShape::from_gguf(name, &gguf)?, gguf.tensors)
        }
        (Some(config), [_, ..]) => {
            let checkpoint = Checkpoint::from_safetensors(std::mem::take(&mut weights), None)?;
            (ModelShape::from_hugging_face(config)?, checkpoint.tensors().cloned().collect())
        }
        _ => return Err(ModelError::invalid(subject, "it has no weights with a configuration")),
    };
    Ok(MemoryProfile::new(shape, tensors.iter()))
}

/// The whole of a `config.json`.
fn read_config(disk: &DurableFiles, path: &Path) -> Result<Vec<u8>, ModelError> {
    match disk.read(path, CONFIG_BYTES_MAX) {
        Err(StorageError::Io { path, source, .. }) if source.kind() == ErrorKind::FileTooLarge => {
            Err(ModelError::invalid_manifest(format!("`{}`", path.display()), source.to_string()))
        }
        result => Ok(result?),
    }
}

fn finish(
    subject: &str,
    shape: Option<ModelShape>,
    tensors: &[TensorInfo],
) -> Result<MemoryProfile, ModelError> {
    let shape = shape.ok_or_else(|| ModelError::invalid(subject, "it has no `config.json`"))?;
    Ok(MemoryProfile::new(shape, tensors.iter()))
}

/// Reads ever more of a file until its header parses.
fn growing<T>(
    size: u64,
    read: impl Fn(u64) -> Result<Vec<u8>, StorageError>,
    parse: impl Fn(&[u8]) -> Result<T, StorageError>,
) -> Result<T, ModelError> {
    let mut bytes = PREFIX_BYTES;
    loop {
        let prefix = read(bytes.min(size))?;
        match parse(&prefix) {
            Err(error) if goes_on(&error) && bytes < size.min(PREFIX_BYTES_MAX) => bytes *= 4,
            parsed => return Ok(parsed?),
        }
    }
}

fn goes_on(error: &StorageError) -> bool {
    matches!(error, StorageError::Format(error) if matches!(error.problem, FormatProblem::Truncated { .. }))
}
