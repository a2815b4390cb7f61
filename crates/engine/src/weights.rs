//! A model's tensors: found by name, checked against the configuration, used where they lie in the mapped file.

use std::collections::BTreeSet;
use std::ops::Range;

use helios_kernels::{Format, WeightMatrix, dequantise_row};
use helios_storage::{Blob, Checkpoint, TensorInfo, TensorNames, TensorView};
use helios_types::TensorType;

use crate::{EngineError, ModelConfig};

/// Every tensor of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// `[vocab, hidden]`.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    /// `[hidden]`.
    pub(crate) output_norm: Vec<f32>,
    /// `[vocab, hidden]`; the embedding where the two are tied.
    pub(crate) output: Matrix,
}

/// The tensors of one decoder layer.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) attention_output: Matrix,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// A matrix in place: a byte range of a blob.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    blob: Blob,
    range: Range<usize>,
    format: Format,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// The matrix as kernels take it.
    pub(crate) fn view(&self) -> WeightMatrix<'_> {
        WeightMatrix::new(self.format, self.rows, self.cols, &self.blob[self.range.clone()])
            .expect("invariant: the range was checked against the shape when the tensor was opened")
    }
}

impl Weights {
    /// Finds and checks every tensor that `config` asks for, and refuses a checkpoint that has others: they would
    /// change the result.
    pub(crate) fn open(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<Self, EngineError> {
        let names = TensorNames::of(config.names);
        let mut opener = Opener { checkpoint, used: BTreeSet::new() };
        let (hidden, vocab) = (config.hidden, config.vocab);
        let embedding = opener.matrix(names.embedding, vocab, hidden)?;
        let layers =
            (0..config.layers).map(|layer| opener.layer(config, names, layer)).collect::<Result<_, _>>()?;
        let output_norm = opener.vector(names.output_norm, hidden)?;
        let output = match config.tied_embeddings {
            true => embedding.clone(),
            false => opener.matrix(names.output, vocab, hidden)?,
        };
        opener.refuse_unused(names)?;
        Ok(Self { embedding, layers, output_norm, output })
    }

    /// The formats of all tensors, sorted and joined with `+`; norms count as f32, because that is what they become.
    pub(crate) fn formats(&self) -> String {
        let layers = self.layers.iter().flat_map(LayerWeights::matrices);
        let formats =
            layers.chain([&self.embedding, &self.output]).map(|matrix| type_of(matrix.format).as_str());
        let formats: BTreeSet<&str> = formats.chain(["f32"]).collect();
        formats.into_iter().collect::<Vec<_>>().join("+")
    }
}

impl LayerWeights {
    fn matrices(&self) -> [&Matrix; 7] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.gate, &self.up, &self.down]
    }
}

/// Takes tensors out of a checkpoint and remembers which.
struct Opener<'a> {
    checkpoint: &'a Checkpoint,
    used: BTreeSet<String>,
}

impl<'a> Opener<'a> {
    fn layer(
        &mut self,
        config: &ModelConfig,
        names: &TensorNames,
        layer: usize,
    ) -> Result<LayerWeights, EngineError> {
        let name = |suffix: &str| names.in_layer(layer, suffix);
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (query, kv) = (config.query_width(), config.kv_width());
        Ok(LayerWeights {
            attention_norm: self.vector(&name(names.attention_norm), hidden)?,
            query: self.matrix(&name(names.query), query, hidden)?,
            key: self.matrix(&name(names.key), kv, hidden)?,
            value: self.matrix(&name(names.value), kv, hidden)?,
            attention_output: self.matrix(&name(names.attention_output), hidden, query)?,
            ffn_norm: self.vector(&name(names.ffn_norm), hidden)?,
            gate: self.matrix(&name(names.gate), ffn, hidden)?,
            up: self.matrix(&name(names.up), ffn, hidden)?,
            down: self.matrix(&name(names.down), hidden, ffn)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, EngineError> {
        let view = self.tensor(name, &[rows, cols])?;
        let format = format_of(view.info)?;
        WeightMatrix::new(format, rows, cols, view.bytes)
            .map_err(|error| tensor_error(name, format!("cannot be used: {error}")))?;
        let blob = self.checkpoint.files()[view.info.file].clone();
        Ok(Matrix { blob, range: view.info.range.clone(), format, rows, cols })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        let view = self.tensor(name, &[length])?;
        let format = format_of(view.info)?;
        if format.row_bytes(length) != Some(view.bytes.len()) {
            return Err(tensor_error(
                name,
                format!("has {} bytes, not {length} {format:?}", view.bytes.len()),
            ));
        }
        let mut values = vec![0.0; length];
        dequantise_row(format, view.bytes, &mut values);
        Ok(values)
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<TensorView<'a>, EngineError> {
        let view = self.checkpoint.tensor(name).ok_or_else(|| tensor_error(name, "is missing".to_owned()))?;
        if view.info.shape != shape {
            let problem = format!("has shape {:?}, the configuration asks for {shape:?}", view.info.shape);
            return Err(tensor_error(name, problem));
        }
        self.used.insert(name.to_owned());
        Ok(view)
    }

    fn refuse_unused(&self, names: &TensorNames) -> Result<(), EngineError> {
        let harmless = |name: &str| names.harmless.iter().any(|end| name.ends_with(end));
        let mut unused = self.checkpoint.tensors().filter(|tensor| !self.used.contains(&tensor.name));
        match unused.find(|tensor| !harmless(&tensor.name)) {
            Some(tensor) => {
                Err(tensor_error(&tensor.name, "is not part of the model's architecture".to_owned()))
            }
            None => Ok(()),
        }
    }
}

fn tensor_error(name: &str, problem: String) -> EngineError {
    EngineError::Tensor { tensor: name.to_owned(), problem }
}

/// The format of `tensor`, if the kernels have it.
fn format_of(tensor: &TensorInfo) -> Result<Format, EngineError> {
    let found = Format::ALL.into_iter().find(|format| type_of(*format) == tensor.tensor_type);
    found.ok_or_else(|| EngineError::TensorType {
        tensor: tensor.name.clone(),
        tensor_type: tensor.tensor_type,
    })
}

fn type_of(format: Format) -> TensorType {
    match format {
        Format::F32 => TensorType::F32,
        Format::F16 => TensorType::F16,
        Format::BF16 => TensorType::BF16,
        Format::Q8_0 => TensorType::Q8_0,
        Format::Q4_0 => TensorType::Q4_0,
        Format::Q4_1 => TensorType::Q4_1,
    }
}

#[cfg(test)]
mod tests {
    use helios_kernels::Format;
    use helios_storage::NATIVE_TENSOR_TYPES;

    use super::type_of;

    #[test]
    fn the_types_that_count_as_native_are_those_of_the_kernels() {
        assert_eq!(Format::ALL.map(type_of), NATIVE_TENSOR_TYPES);
        for format in Format::ALL {
            let stored = type_of(format);
            let blocks = (stored.block_elements(), stored.block_bytes());
            assert_eq!(blocks, (format.block_elements(), format.block_bytes()));
        }
    }
}
