//! The tensors of a model by name, wherever they lie: in one GGUF file or in several safetensors shards.

use crate::tensor::sort_by_unique_name;
use crate::{Blob, Gguf, SafetensorsHeader, ShardIndex, StorageError, TensorInfo, TensorView};

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
    /// Opens a GGUF file.
    ///
    /// # Errors
    /// [`StorageError::Format`].
    pub fn from_gguf(file_name: &str, blob: Blob) -> Result<(Self, Gguf), StorageError> {
        let gguf = Gguf::parse(file_name, &blob)?;
        let mut tensors = gguf.tensors.clone();
        sort_by_unique_name(&mut tensors).map_err(|error| error.in_file(file_name))?;
        Ok((Self { files: vec![blob], tensors }, gguf))
    }

    /// Opens the shards of a safetensors checkpoint, given with their names, and compares them with the index if there
    /// is one.
    ///
    /// # Errors
    /// [`StorageError::Format`]: a wrong file, a tensor in two files, or an index that says otherwise.
    pub fn from_safetensors(files: Vec<(String, Blob)>, index: Option<&[u8]>) -> Result<Self, StorageError> {
        let mut tensors = Vec::new();
        for (file, (name, blob)) in files.iter().enumerate() {
            let header = SafetensorsHeader::parse(name, blob)?;
            tensors.extend(header.tensors.into_iter().map(|tensor| TensorInfo { file, ..tensor }));
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        sort_by_unique_name(&mut tensors).map_err(|error| error.in_file(&names.join(", ")))?;
        if let Some(index) = index {
            ShardIndex::parse(INDEX_NAME, index)?.check(INDEX_NAME, &tensors, &names)?;
        }
        Ok(Self { files: files.into_iter().map(|(_, blob)| blob).collect(), tensors })
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

    /// The files that [`TensorInfo::file`] counts.
    pub fn files(&self) -> &[Blob] {
        &self.files
    }
}
