//! Profiles of files: of those in a folder, only `config.json` and the beginning of each weight file are read.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use helios_storage::{
    DurableFiles, FormatProblem, Gguf, RealDisk, SafetensorsHeader, StorageError, TensorInfo,
};

use super::{MemoryProfile, ModelShape};
use crate::{ModelError, model_files};

/// What is read of a weight file at first: the headers of most shards.
const PREFIX_BYTES: u64 = 1 << 18;
/// Most that is read of one: a GGUF header of 256k tokens has some 12 MB, a safetensors header at most 100 MB.
const PREFIX_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a `config.json`.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A file with weights, wherever it is.
pub struct HeaderFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// All its bytes.
    pub size: u64,
    /// Reads so many of the first.
    pub read: &'a dyn Fn(u64) -> Result<Vec<u8>, StorageError>,
}

/// What the headers of a model say.
#[derive(Default)]
struct Headers {
    shape: Option<ModelShape>,
    tensors: Vec<TensorInfo>,
}

/// The profile of a GGUF file or a folder in the Hugging Face form. Blocks; milliseconds.
///
/// # Errors
/// [`ModelError::Invalid`] for something else, or a family whose dimensions are not known; [`ModelError::Storage`] for files
/// that break their format.
pub fn profile_of_path(path: &Path) -> Result<MemoryProfile, ModelError> {
    let disk = DurableFiles::new(Arc::new(RealDisk));
    let mut headers = Headers::default();
    for (name, path) in model_files(&disk, path)? {
        let read = |bytes| disk.read_range(&path, 0..bytes);
        if name == "config.json" {
            headers.shape = Some(ModelShape::from_hugging_face(&read_config(&disk, &path)?)?);
        } else {
            headers.add(&HeaderFile { name: &name, size: disk.size(&path)?, read: &read })?;
        }
    }
    headers.profile(&path.display().to_string())
}

/// The profile of files of which the beginnings can be read: those with weights, and `config.json` unless they are one GGUF
/// file. Nothing behind the headers is read. Blocks.
///
/// # Errors
/// As [`profile_of_path`]; what reading says.
pub fn profile_of_headers(
    config: Option<&[u8]>,
    weights: &[HeaderFile<'_>],
) -> Result<MemoryProfile, ModelError> {
    let shape = config.map(ModelShape::from_hugging_face).transpose()?;
    let mut headers = Headers { shape, tensors: Vec::new() };
    weights.iter().try_for_each(|file| headers.add(file))?;
    headers.profile(weights.first().map_or("the model", |file| file.name))
}

impl Headers {
    /// Reads the header of a file, if it is one with weights.
    fn add(&mut self, file: &HeaderFile<'_>) -> Result<(), ModelError> {
        let HeaderFile { name, size, read } = *file;
        if name.ends_with(".gguf") {
            let gguf = growing(size, read, |prefix| Gguf::parse_prefix(name, prefix, size as usize))?;
            self.shape = Some(ModelShape::from_gguf(name, &gguf)?);
            self.tensors.extend(gguf.tensors);
        } else if name.ends_with(".safetensors") {
            let parse = |prefix: &[u8]| SafetensorsHeader::parse_prefix(name, prefix, size as usize);
            self.tensors.extend(growing(size, read, parse)?.tensors);
        }
        Ok(())
    }

    fn profile(self, subject: &str) -> Result<MemoryProfile, ModelError> {
        if self.tensors.is_empty() {
            return Err(ModelError::invalid(subject, "it has no weights"));
        }
        let shape = self.shape.ok_or_else(|| ModelError::invalid(subject, "it has no `config.json`"))?;
        Ok(MemoryProfile::new(shape, self.tensors.iter()))
    }
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
