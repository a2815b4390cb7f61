//! Model files to be: the header for given tensors, and the zero bytes between them. Tensor bytes are the writer's.

use crate::TensorInfo;

/// The bytes of a file around its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLayout {
    /// What the file begins with.
    pub header: Vec<u8>,
    /// Where tensors lie behind it, in order of position: index among those given, and their range. Bytes between
    /// header and tensors, and between tensors, are zero.
    pub tensors: Vec<(usize, std::ops::Range<usize>)>,
    /// Bytes of the whole file; those behind the last tensor are zero.
    pub size: usize,
}

/// What a writer knows of a tensor before it has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// The name it gets.
    pub name: String,
    /// How elements are stored.
    pub tensor_type: helios_types::TensorType,
    /// Row-major, outermost dimension first.
    pub shape: Vec<usize>,
}

impl From<&TensorInfo> for TensorPlan {
    fn from(info: &TensorInfo) -> Self {
        Self { name: info.name.clone(), tensor_type: info.tensor_type, shape: info.shape.clone() }
    }
}
