//! The tensors of a model by name, wherever they lie: in one GGUF file or in several safetensors shards.

use crate::format::{FormatProblem, shorten};
use crate::tensor::sort_by_unique_name;
use crate::{Blob, FileBytes, Gguf, SafetensorsHeader, ShardIndex, StorageError, TensorInfo, TensorView};

/// What errors call the shard index.
const INDEX_NAME: &str = "model.safetensors.index.json";

/// A model's tensors and the files that hold them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    files: Vec<Blob>,
    /// Ordered by name.
    tensors: Vec<TensorInfo>,
}

impl Checkpoint {
    /// Opens a GGUF file, in one blob or in several.
    ///
    /// # Errors
    /// [`StorageError::Format`].
    pub fn from_gguf(file_name: &str, file: impl Into<FileBytes>) -> Result<(Self, Gguf), StorageError> {
        let file = file.into();
        let gguf = Gguf::parse_prefix(file_name, file.head(), file.len())?;
        let mut tensors = gguf.tensors.clone();
        sort_by_unique_name(&mut tensors).map_err(|error| error.in_file(file_name))?;
        Ok((Self::located(&[(file_name.to_owned(), file)], tensors)?, gguf))
    }

    /// Opens the shards of a safetensors checkpoint, given with their names, and compares them with the index if there
    /// is one.
    ///
    /// # Errors
    /// [`StorageError::Format`]: a wrong file, a tensor in two files, or an index that says otherwise.
    pub fn from_safetensors<F: Into<FileBytes>>(
        files: Vec<(String, F)>,
        index: Option<&[u8]>,
    ) -> Result<Self, StorageError> {
        let files: Vec<(String, FileBytes)> =
            files.into_iter().map(|(name, file)| (name, file.into())).collect();
        let mut tensors = Vec::new();
        for (file, (name, bytes)) in files.iter().enumerate() {
            let header = SafetensorsHeader::parse_prefix(name, bytes.head(), bytes.len())?;
            tensors.extend(header.tensors.into_iter().map(|tensor| TensorInfo { file, ..tensor }));
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        sort_by_unique_name(&mut tensors).map_err(|error| error.in_file(&names.join(", ")))?;
        if let Some(index) = index {
            ShardIndex::parse(INDEX_NAME, index)?.check(INDEX_NAME, &tensors, &names)?;
        }
        Self::located(&files, tensors)
    }

    /// Points every tensor at the blob that has it, instead of at a file that may lie in several.
    fn located(files: &[(String, FileBytes)], mut tensors: Vec<TensorInfo>) -> Result<Self, StorageError> {
        let mut blobs: Vec<Blob> = Vec::new();
        for blob in files.iter().flat_map(|(_, file)| file.blobs()) {
            if !blobs.iter().any(|known| known.is_same(blob)) {
                blobs.push(blob.clone());
            }
        }
        for tensor in &mut tensors {
            let (name, file) = &files[tensor.file];
            let (blob, range) = file.locate(tensor.range.clone()).ok_or_else(|| {
                FormatProblem::Scattered.at(format_args!("tensor `{}`", shorten(&tensor.name))).in_file(name)
            })?;
            let known = blobs.iter().position(|known| known.is_same(blob));
            tensor.file = known.expect("invariant: every blob of every file was gathered");
            tensor.range = range;
        }
        Ok(Self { files: blobs, tensors })
    }

    /// The tensor of that name. O(log n).
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let index = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        let info = &self.tensors[index];
        Some(TensorView { info, bytes: &self.files[info.file][info.range.clone()] })
    }

    /// The tensors, ordered by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> + Clone {
        self.tensors.iter()
    }

    /// The blobs that [`TensorInfo::file`] counts.
    pub fn files(&self) -> &[Blob] {
        &self.files
    }
}
