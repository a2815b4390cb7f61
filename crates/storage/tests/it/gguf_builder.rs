//! Writes small GGUF files, right ones and wrong ones.

use helios_storage::{GgufArray, GgufValue};
use helios_types::TensorType;

/// A GGUF file to be.
pub(crate) struct GgufBuilder {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) metadata_count: Option<u64>,
    pub(crate) alignment: usize,
    metadata: Vec<u8>,
    keys: u64,
    tensors: Vec<RawTensor>,
    data: Vec<u8>,
}

/// A tensor's entry as it will stand in the file, dimensions innermost first.
pub(crate) struct RawTensor {
    pub(crate) name: Vec<u8>,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) type_number: u32,
    pub(crate) offset: u64,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            metadata_count: None,
            alignment: 32,
            metadata: Vec::new(),
            keys: 0,
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }
}

impl GgufBuilder {
    /// Adds a key with a value of the format's own types.
    pub(crate) fn value(self, key: &str, value: &GgufValue) -> Self {
        let (type_number, bytes) = encode(value);
        let bytes = [&type_number.to_le_bytes()[..], &bytes].concat();
        self.raw_value(key.as_bytes(), &bytes)
    }

    /// Adds a key with the bytes of a type number and a value.
    pub(crate) fn raw_value(mut self, key: &[u8], bytes: &[u8]) -> Self {
        self.metadata.extend(string(key));
        self.metadata.extend(bytes);
        self.keys += 1;
        self
    }

    /// Adds a tensor of `[rows, columns]` behind the others, with made-up data.
    pub(crate) fn tensor(mut self, name: &str, tensor_type: TensorType, shape: &[usize]) -> Self {
        let length = tensor_type.bytes_of(shape.iter().product()).expect("whole blocks");
        let offset = self.data.len() as u64;
        self.data.extend((0..length).map(|i| (i * 31 + self.tensors.len()) as u8));
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let dimensions = shape.iter().rev().map(|&size| size as u64).collect();
        self.raw_tensor(RawTensor {
            name: name.into(),
            dimensions,
            type_number: TypeNumber::of(tensor_type.as_str()).expect("a type of ggml").number,
            offset,
        })
    }

    /// Adds an entry as it is, without data.
    pub(crate) fn raw_tensor(mut self, tensor: RawTensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Adds bytes to the data section.
    pub(crate) fn data(mut self, length: usize) -> Self {
        self.data.resize(self.data.len() + length, 7);
        self
    }

    /// The file.
    pub(crate) fn build(self) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(self.magic);
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.metadata_count.unwrap_or(self.keys).to_le_bytes());
        file.extend(&self.metadata);
        for tensor in &self.tensors {
            file.extend(string(&tensor.name));
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            file.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
            file.extend(tensor.type_number.to_le_bytes());
            file.extend(tensor.offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(&self.data);
        file
    }
}

/// A small file with every kind of content.
pub(crate) fn sample() -> GgufBuilder {
    let tokens = ["<s>", "a", "ü", "", "🦀"];
    let scores = GgufArray::F32(vec![0.5, -1.0, 3.25]);
    GgufBuilder::default()
        .value("general.architecture", &GgufValue::String("llama".into()))
        .value("llama.block_count", &GgufValue::U32(30))
        .value("llama.rope.freq_base", &GgufValue::F32(10_000.0))
        .value("tokenizer.ggml.add_bos_token", &GgufValue::Bool(true))
        .value("tokenizer.ggml.scores", &GgufValue::Array(scores))
        .raw_value(b"tokenizer.ggml.tokens", &string_array(&tokens))
        .tensor("token_embd.weight", TensorType::Q8_0, &[4, 64])
        .tensor("blk.0.attn_q.weight", TensorType::Q4_1, &[2, 32])
        .tensor("output_norm.weight", TensorType::F32, &[3])
}

/// Type number, element type, count and elements of an array of strings.
pub(crate) fn string_array(strings: &[&str]) -> Vec<u8> {
    let mut bytes = [9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat();
    bytes.extend((strings.len() as u64).to_le_bytes());
    bytes.extend(strings.iter().flat_map(|text| string(text.as_bytes())));
    bytes
}

/// Type number, element type and count of an array; no elements.
pub(crate) fn array_header(element_type: u32, count: u64) -> Vec<u8> {
    [&9_u32.to_le_bytes()[..], &element_type.to_le_bytes(), &count.to_le_bytes()].concat()
}

/// A length and the text.
pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// The element types that GGUF has.
pub(crate) fn gguf_types() -> Vec<TensorType> {
    let known = |tensor_type: &TensorType| TypeNumber::of(tensor_type.as_str()).is_some();
    TensorType::ALL.iter().copied().filter(known).collect()
}

/// A type as the `gguf` package of ggml has it; made by `cargo xtask reference`.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct TypeNumber {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) elements: usize,
    pub(crate) bytes: usize,
}

impl TypeNumber {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let text = include_str!("../fixtures/element_types.json");
        let fixture: serde_json::Value = serde_json::from_str(text).expect("JSON");
        serde_json::from_value(fixture["types"].clone()).expect("types")
    }

    /// The one of that name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|known| known.name == name)
    }
}

fn encode(value: &GgufValue) -> (u32, Vec<u8>) {
    match value {
        GgufValue::U8(value) => (0, value.to_le_bytes().into()),
        GgufValue::I8(value) => (1, value.to_le_bytes().into()),
        GgufValue::U16(value) => (2, value.to_le_bytes().into()),
        GgufValue::I16(value) => (3, value.to_le_bytes().into()),
        GgufValue::U32(value) => (4, value.to_le_bytes().into()),
        GgufValue::I32(value) => (5, value.to_le_bytes().into()),
        GgufValue::F32(value) => (6, value.to_le_bytes().into()),
        GgufValue::Bool(value) => (7, vec![u8::from(*value)]),
        GgufValue::String(text) => (8, string(text.as_bytes())),
        GgufValue::Array(array) => (9, encode_array(array)),
        GgufValue::U64(value) => (10, value.to_le_bytes().into()),
        GgufValue::I64(value) => (11, value.to_le_bytes().into()),
        GgufValue::F64(value) => (12, value.to_le_bytes().into()),
    }
}

fn encode_array(array: &GgufArray) -> Vec<u8> {
    let (element_type, elements): (u32, Vec<u8>) = match array {
        GgufArray::U8(values) => (0, values.clone()),
        GgufArray::I8(values) => (1, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::U16(values) => (2, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::I16(values) => (3, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::U32(values) => (4, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::I32(values) => (5, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::F32(values) => (6, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::Bool(values) => (7, values.iter().map(|value| u8::from(*value)).collect()),
        GgufArray::String(strings) => (8, strings.iter().flat_map(|text| string(text.as_bytes())).collect()),
        GgufArray::U64(values) => (10, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::I64(values) => (11, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        GgufArray::F64(values) => (12, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    [&element_type.to_le_bytes()[..], &(array.len() as u64).to_le_bytes(), &elements].concat()
}
