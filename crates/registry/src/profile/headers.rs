//! Profiles of models that are not in the store: only `config.json` and the beginning of each weight file are read.

use std::path::Path;
use std::sync::Arc;

use helios_storage::{
    DurableFiles, FormatProblem, Gguf, ModelConfig, RealDisk, SafetensorsHeader, StorageError, TensorInfo,
};

use super::{MemoryProfile, ModelShape};
use crate::fetch::local_files;
use crate::{RegistryError, files};

/// What is read of a weight file at first: the headers of most shards.
const PREFIX_BYTES: u64 = 1 << 18;
/// Most that is read of one: a GGUF header of 256k tokens has some 12 MB, a safetensors header at most 100 MB.
const PREFIX_BYTES_MAX: u64 = 128 << 20;

/// The profile of a GGUF file or a folder in the Hugging Face form. Blocks; milliseconds.
///
/// # Errors
/// [`RegistryError::InvalidModel`] for something else; [`RegistryError::Storage`] for files that break their format.
pub fn profile_of_path(path: &Path) -> Result<MemoryProfile, RegistryError> {
    let disk = DurableFiles::new(Arc::new(RealDisk));
    let mut shape = None;
    let mut tensors = Vec::new();
    for (name, path) in local_files(&disk, path)? {
        let read = |bytes| files::prefix(&path, bytes);
        let size = disk.size(&path)?;
        match name.rsplit('.').next() {
            Some("gguf") => {
                let gguf = growing(size, read, |prefix| Gguf::parse_prefix(&name, prefix, size as usize))?;
                shape = Some(ModelShape::from(&ModelConfig::from_gguf(&name, &gguf)?));
                tensors.extend(gguf.tensors);
            }
            Some("safetensors") => {
                let parse = |prefix: &[u8]| SafetensorsHeader::parse_prefix(&name, prefix, size as usize);
                tensors.extend(growing(size, read, parse)?.tensors);
            }
            _ if name == "config.json" => {
                shape = Some(ModelShape::from_hugging_face(&files::read(&disk, &path)?)?)
            }
            _ => {}
        }
    }
    finish(&path.display().to_string(), shape, &tensors)
}

fn finish(
    subject: &str,
    shape: Option<ModelShape>,
    tensors: &[TensorInfo],
) -> Result<MemoryProfile, RegistryError> {
    let shape = shape.ok_or_else(|| RegistryError::invalid_model(subject, "it has no `config.json`"))?;
    Ok(MemoryProfile::new(shape, tensors.iter()))
}

/// Reads ever more of a file until its header parses.
fn growing<T>(
    size: u64,
    read: impl Fn(u64) -> Result<Vec<u8>, RegistryError>,
    parse: impl Fn(&[u8]) -> Result<T, StorageError>,
) -> Result<T, RegistryError> {
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
