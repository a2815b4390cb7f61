//! Which tensor becomes which: names of one scheme against names of the other.

use std::collections::{BTreeMap, BTreeSet};

use helios_storage::{NameScheme, TensorNames, TensorPlan, TensorView};
use helios_types::TensorType;

use super::Origin;
use super::elements::{self, Change, Output};
use crate::ModelError;

/// A tensor with its name in the other form.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) plan: TensorPlan,
    view: TensorView<'a>,
    change: Change,
}

impl Planned<'_> {
    pub(super) fn write(&self, output: &mut Output<'_>) -> Result<(), ModelError> {
        elements::write(&self.view, self.change, output)
    }

    /// The type that it had, where it is widened.
    pub(super) fn widened_from(&self) -> Option<TensorType> {
        (self.change == Change::Widen).then_some(self.view.info.tensor_type)
    }
}

/// What the names of both schemes are taken for.
struct Renaming<'a, 'n> {
    origin: &'a Origin,
    from: &'static TensorNames,
    to: &'static TensorNames,
    target: NameScheme,
    /// Vectors that were widened once, by their name in the origin.
    narrow: &'n BTreeMap<String, TensorType>,
    used: BTreeSet<String>,
    planned: Vec<Planned<'a>>,
}

/// Plans every tensor of `origin` for the scheme `target`. A tensor that has no counterpart is refused, unless it says
/// nothing that the rest does not say.
pub(super) fn plan<'a>(
    origin: &'a Origin,
    target: NameScheme,
    narrow: &BTreeMap<String, TensorType>,
) -> Result<Vec<Planned<'a>>, ModelError> {
    let (from, to) = (TensorNames::of(origin.config.names), TensorNames::of(target));
    let mut renaming =
        Renaming { origin, from, to, target, narrow, used: BTreeSet::new(), planned: Vec::new() };
    renaming.add(from.embedding.to_owned(), to.embedding.to_owned(), Change::None)?;
    for layer in 0..origin.config.layers {
        renaming.add_layer(layer)?;
    }
    renaming.add(from.output_norm.to_owned(), to.output_norm.to_owned(), Change::None)?;
    if !origin.config.tied_embeddings {
        renaming.add(from.output.to_owned(), to.output.to_owned(), Change::None)?;
    }
    renaming.refuse_unused()?;
    Ok(renaming.planned)
}

impl<'a> Renaming<'a, '_> {
    fn add_layer(&mut self, layer: usize) -> Result<(), ModelError> {
        let (from, to) = (self.from, self.to);
        let (heads, kv_heads) = (self.origin.config.heads, self.origin.config.kv_heads);
        for (from_suffix, to_suffix, change) in [
            (from.attention_norm, to.attention_norm, Change::None),
            (from.query, to.query, self.rotated(heads)),
            (from.key, to.key, self.rotated(kv_heads)),
            (from.value, to.value, Change::None),
            (from.attention_output, to.attention_output, Change::None),
            (from.ffn_norm, to.ffn_norm, Change::None),
            (from.gate, to.gate, Change::None),
            (from.up, to.up, Change::None),
            (from.down, to.down, Change::None),
        ] {
            self.add(from.in_layer(layer, from_suffix), to.in_layer(layer, to_suffix), change)?;
        }
        Ok(())
    }

    /// The order of rows that rotate together differs between the forms.
    fn rotated(&self, heads: usize) -> Change {
        match self.target {
            NameScheme::Gguf => Change::Interleave(heads),
            NameScheme::HuggingFace => Change::Split(heads),
        }
    }

    fn add(&mut self, from: String, to: String, change: Change) -> Result<(), ModelError> {
        let view = self.origin.checkpoint.tensor(&from);
        let view = view.ok_or_else(|| self.missing(&from))?;
        let tensor_type = view.info.tensor_type;
        if self.target == NameScheme::HuggingFace && tensor_type.block_elements() > 1 {
            let problem =
                format!("tensor `{from}` is {tensor_type}, which safetensors has no element type for");
            let hint = "nothing is quantised anew or unpacked: convert the original checkpoint, or keep the GGUF file";
            return Err(self.origin.refused(problem, hint));
        }
        let change = match (change, self.target) {
            (Change::None, _) if view.info.shape.len() == 1 => self.vector_change(&from, &view)?,
            (change @ (Change::Interleave(heads) | Change::Split(heads)), _) => {
                self.check_heads(&view, heads)?;
                change
            }
            (change, _) => change,
        };
        let tensor_type = match change {
            Change::Widen => TensorType::F32,
            Change::Narrow(narrow) => narrow,
            _ => tensor_type,
        };
        let plan = TensorPlan { name: to, tensor_type, shape: view.info.shape.clone() };
        self.planned.push(Planned { plan, view, change });
        self.used.insert(from);
        Ok(())
    }

    fn vector_change(&self, name: &str, view: &TensorView<'_>) -> Result<Change, ModelError> {
        let tensor_type = view.info.tensor_type;
        match (self.target, self.narrow.get(name)) {
            (NameScheme::Gguf, _) if matches!(tensor_type, TensorType::F16 | TensorType::BF16) => {
                if elements::widens_exactly(view) {
                    return Ok(Change::Widen);
                }
                let problem = format!("tensor `{name}` holds NaNs that F32 cannot carry");
                Err(self.origin.refused(problem, "the checkpoint is damaged; fetch it again"))
            }
            (NameScheme::HuggingFace, Some(&narrow))
                if tensor_type == TensorType::F32 && elements::narrows_exactly(view.bytes, narrow) =>
            {
                Ok(Change::Narrow(narrow))
            }
            _ => Ok(Change::None),
        }
    }

    fn check_heads(&self, view: &TensorView<'_>, heads: usize) -> Result<(), ModelError> {
        let rows = heads * self.origin.config.head_dim;
        if view.info.shape.len() == 2 && view.info.shape[0] == rows {
            return Ok(());
        }
        let problem = format!("tensor `{}` has shape {:?}, not {rows} rows", view.info.name, view.info.shape);
        Err(self.origin.refused(problem, "the checkpoint does not fit its configuration"))
    }

    fn missing(&self, name: &str) -> ModelError {
        self.origin
            .refused(format!("tensor `{name}` is missing"), "the checkpoint does not fit its configuration")
    }

    fn refuse_unused(&self) -> Result<(), ModelError> {
        let checkpoint = &self.origin.checkpoint;
        for info in checkpoint.tensors().filter(|info| !self.used.contains(&info.name)) {
            let harmless = self.from.harmless.iter().any(|end| info.name.ends_with(end));
            let bytes = |name: &str| checkpoint.tensor(name).map(|tensor| tensor.bytes);
            let second_copy =
                info.name != self.from.output || bytes(&info.name) == bytes(self.from.embedding);
            if harmless && second_copy {
                tracing::warn!(tensor = info.name, "left out: it follows from the rest of the model");
                continue;
            }
            let problem = format!("tensor `{}` has no counterpart in the other form", info.name);
            return Err(self
                .origin
                .refused(problem, "only plain models of the llama family can be converted"));
        }
        Ok(())
    }
}
