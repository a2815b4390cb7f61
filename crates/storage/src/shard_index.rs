//! The index of a sharded safetensors checkpoint (`model.safetensors.index.json`): which file has which tensor.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::format::{FormatProblem, shorten};
use crate::{StorageError, TensorInfo};

/// Tensors of one checkpoint; the largest mixtures of experts of today have about 100,000.
const TENSORS_MAX: usize = 1_000_000;

/// Shard files by tensor name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Document {
    weight_map: WeightMap,
}

struct WeightMap(BTreeMap<String, String>);

impl ShardIndex {
    /// Reads an index. Its file names are plain names: none leaves the folder. `file` is its own name for errors.
    ///
    /// # Errors
    /// [`StorageError::Format`].
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| FormatProblem::Json { message: error.to_string() }.at("index").in_file(file))?;
        let weight_map = document.weight_map.0;
        for (tensor, shard) in &weight_map {
            if !is_plain_file_name(shard) {
                let problem = FormatProblem::UnsafeFileName { name: shorten(shard) };
                return Err(problem
                    .at(format_args!("weight_map of `{}`", shorten(tensor)))
                    .in_file(file)
                    .into());
            }
        }
        Ok(Self { weight_map })
    }

    /// The shard files, each once, in order of name.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// The shard that the index names for a tensor.
    pub fn file_of(&self, tensor: &str) -> Option<&str> {
        self.weight_map.get(tensor).map(String::as_str)
    }

    /// Fails unless the index and `tensors`, ordered by name and pointing into `files`, are the same assignment.
    pub(crate) fn check(
        &self,
        index: &str,
        tensors: &[TensorInfo],
        files: &[&str],
    ) -> Result<(), StorageError> {
        let wrong = |tensor: &str, indexed: Option<&str>, actual: Option<&str>| {
            let name = |file: Option<&str>| file.map_or_else(|| "no file".to_owned(), shorten);
            let problem = FormatProblem::WrongShard { index: name(indexed), actual: name(actual) };
            Err(problem.at(format_args!("tensor `{}`", shorten(tensor))).in_file(index).into())
        };
        for tensor in tensors {
            let (indexed, actual) = (self.file_of(&tensor.name), files[tensor.file]);
            if indexed != Some(actual) {
                return wrong(&tensor.name, indexed, Some(actual));
            }
        }
        let found = |name: &str| tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).is_ok();
        match self.weight_map.iter().find(|(name, _)| !found(name)) {
            Some((name, file)) => wrong(name, Some(file), None),
            None => Ok(()),
        }
    }
}

/// Whether a name is one file of the folder it is looked up in.
fn is_plain_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of file names by tensor name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut weight_map = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if weight_map.len() == TENSORS_MAX {
                return Err(A::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
            }
            if weight_map.contains_key(&tensor) {
                return Err(A::Error::custom(format_args!(
                    "tensor `{}` appears more than once",
                    shorten(&tensor)
                )));
            }
            weight_map.insert(tensor, file);
        }
        Ok(WeightMap(weight_map))
    }
}
