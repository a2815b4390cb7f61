//! The GGUF parser: what it reads, and that it refuses everything else by name.

use std::collections::BTreeMap;

use helios_storage::{FormatError, FormatProblem, Gguf, GgufArray, GgufValue, StorageError, TensorPlan};
use helios_types::TensorType;
use proptest::prelude::*;

use crate::gguf_builder::{
    GgufBuilder, RawTensor, TypeNumber, array_header, gguf_types, sample, string, string_array,
};

/// The error that a file gives.
fn refusal(file: &[u8]) -> FormatError {
    match Gguf::parse("bad.gguf", file) {
        Err(StorageError::Format(error)) => error,
        other => panic!("expected a format error, got {other:?}"),
    }
}

/// The field and problem that a file gives.
fn problem(builder: GgufBuilder) -> (String, FormatProblem) {
    let error = refusal(&builder.build());
    assert_eq!(error.file, "bad.gguf");
    (error.field, error.problem)
}

fn f32_tensor(name: &str, dimensions: &[u64], offset: u64) -> RawTensor {
    RawTensor { name: name.into(), dimensions: dimensions.into(), type_number: 0, offset }
}

#[test]
fn a_file_gives_its_metadata_and_tensors() {
    let file = sample().build();
    let gguf = Gguf::parse("sample.gguf", &file).expect("a right file");
    assert_eq!(gguf.str("general.architecture").expect("there"), "llama");
    assert_eq!(gguf.u32("llama.block_count").expect("there"), 30);
    assert_eq!(gguf.f32("llama.rope.freq_base").expect("there"), 10_000.0);
    assert!(gguf.bool("tokenizer.ggml.add_bos_token").expect("there"));
    assert_eq!(gguf.f32s("tokenizer.ggml.scores").expect("there"), [0.5, -1.0, 3.25]);
    let tokens = gguf.strings("tokenizer.ggml.tokens").expect("there");
    assert_eq!(tokens.iter().collect::<Vec<_>>(), ["<s>", "a", "ü", "", "🦀"]);
    assert_eq!((tokens.get(4), tokens.get(5)), (Some("🦀"), None));
    let [embedding, query, norm] = &gguf.tensors[..] else { panic!("three tensors") };
    assert_eq!((embedding.name.as_str(), &embedding.shape[..]), ("token_embd.weight", &[4, 64][..]));
    assert_eq!((query.tensor_type, query.range.len()), (TensorType::Q4_1, 40));
    assert_eq!((norm.elements(), norm.range.start % 32, norm.range.end <= file.len()), (3, 0, true));
}

#[test]
fn getters_name_file_and_field() {
    let gguf = Gguf::parse("sample.gguf", &sample().build()).expect("a right file");
    let message = gguf.u32("llama.head_count").expect_err("missing").to_string();
    assert_eq!(message, "sample.gguf: llama.head_count: missing");
    let message = gguf.u32("general.architecture").expect_err("a string").to_string();
    let expected =
        "sample.gguf: general.architecture: expected an unsigned 32-bit integer, found string `llama`";
    assert_eq!(message, expected);
    assert_eq!(gguf.optional("llama.head_count", Gguf::u32).expect("optional"), None);
    assert_eq!(gguf.optional("llama.block_count", Gguf::u32).expect("optional"), Some(30));
    assert!(gguf.optional("general.architecture", Gguf::u32).is_err());
}

#[test]
fn version_2_reads_and_others_are_refused() {
    let mut builder = sample();
    builder.version = 2;
    assert!(Gguf::parse("v2.gguf", &builder.build()).is_ok());
    for version in [0, 1, 4, 3_u32.swap_bytes()] {
        let mut builder = sample();
        builder.version = version;
        assert_eq!(problem(builder), ("version".into(), FormatProblem::UnsupportedVersion { version }));
    }
    assert_eq!(refusal(b"GGML\x03\0\0\0").problem, FormatProblem::WrongMagic);
    assert_eq!(refusal(b"").problem, FormatProblem::Truncated { needed: 4, available: 0 });
}

#[test]
fn absurd_counts_are_refused() {
    for count in [4097, 1 << 40, u64::MAX] {
        let mut builder = sample();
        builder.metadata_count = Some(count);
        assert_eq!(
            problem(builder),
            ("metadata count".into(), FormatProblem::OutOfRange { count, min: 0, max: 4096 })
        );
        let mut builder = sample();
        builder.tensor_count = Some(1 << 20 | count);
        assert_eq!(problem(builder).0, "tensor count");
    }
    let mut builder = sample();
    builder.tensor_count = Some(60_000);
    assert!(matches!(problem(builder), (field, FormatProblem::Truncated { .. }) if field == "tensor count"));
}

#[test]
fn absurd_array_and_string_lengths_are_refused() {
    for element_type in [0, 5, 7, 8, 12] {
        for count in [1 << 20, 1 << 61, u64::MAX] {
            let builder = GgufBuilder::default().raw_value(b"a", &array_header(element_type, count));
            let (field, problem) = problem(builder);
            let is_refused =
                matches!(problem, FormatProblem::Truncated { .. } | FormatProblem::OutOfRange { .. });
            assert!(field == "a" && is_refused, "{element_type} {count}: {problem:?}");
        }
    }
    let builder =
        GgufBuilder::default().raw_value(b"a", &[8, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    assert!(matches!(problem(builder).1, FormatProblem::Truncated { needed: u64::MAX, .. }));
}

#[test]
fn nested_arrays_are_refused() {
    let nested = [array_header(9, 1), array_header(9, 1)[4..].to_vec()].concat();
    assert_eq!(
        problem(GgufBuilder::default().raw_value(b"deep", &nested)),
        ("deep".into(), FormatProblem::NestedArray)
    );
}

#[test]
fn unknown_value_types_and_truth_values_are_refused() {
    let value_type = 13_u32;
    let builder = GgufBuilder::default().raw_value(b"a", &value_type.to_le_bytes());
    assert_eq!(problem(builder).1, FormatProblem::UnknownValueType { value_type });
    let builder = GgufBuilder::default().raw_value(b"a", &[7, 0, 0, 0, 2]);
    assert_eq!(problem(builder).1, FormatProblem::InvalidBool { value: 2 });
}

#[test]
fn bad_utf8_is_refused_in_keys_values_and_names() {
    let builder = GgufBuilder::default().raw_value(b"a\xff", &[0, 0, 0, 0, 1]);
    assert_eq!(problem(builder), ("metadata key 0".into(), FormatProblem::InvalidUtf8 { at: 1 }));
    let text = [&8_u32.to_le_bytes()[..], &string(b"\x80")].concat();
    assert_eq!(
        problem(GgufBuilder::default().raw_value(b"k", &text)).1,
        FormatProblem::InvalidUtf8 { at: 0 }
    );
    let split = [array_header(8, 2), string(&"ü".as_bytes()[..1]), string(&"ü".as_bytes()[1..])].concat();
    assert_eq!(
        problem(GgufBuilder::default().raw_value(b"k", &split)).1,
        FormatProblem::InvalidUtf8 { at: 0 }
    );
    let mut tensor = f32_tensor("", &[1], 0);
    tensor.name = vec![0xc3];
    let builder = GgufBuilder::default().raw_tensor(tensor).data(32);
    assert_eq!(problem(builder).0, "name of tensor 0");
}

#[test]
fn duplicate_names_are_refused() {
    let builder = sample().value("llama.block_count", &GgufValue::U32(1));
    assert_eq!(problem(builder), ("llama.block_count".into(), FormatProblem::Duplicate));
    let builder = sample().tensor("output_norm.weight", TensorType::F32, &[3]);
    assert_eq!(problem(builder), ("tensor `output_norm.weight`".into(), FormatProblem::Duplicate));
}

#[test]
fn overlapping_tensors_are_refused() {
    let builder =
        GgufBuilder::default().raw_tensor(f32_tensor("b", &[8], 32)).raw_tensor(f32_tensor("a", &[16], 0));
    let expected = ("tensor `b`".to_owned(), FormatProblem::Overlap { other: "a".into() });
    assert_eq!(problem(builder.data(64)), expected);
}

#[test]
fn offsets_that_overflow_or_leave_the_file_are_refused() {
    for offset in [64, 1 << 40, u64::MAX - 31] {
        let builder = GgufBuilder::default().raw_tensor(f32_tensor("a", &[8], offset)).data(64);
        let (field, problem) = problem(builder);
        assert!(field == "tensor `a`" && matches!(problem, FormatProblem::OutOfFile { .. }), "{problem:?}");
    }
}

#[test]
fn misaligned_offsets_are_refused() {
    let builder = GgufBuilder::default().raw_tensor(f32_tensor("a", &[1], 4)).data(64);
    assert_eq!(problem(builder).1, FormatProblem::Misaligned { offset: 4, alignment: 32 });
}

#[test]
fn wrong_shapes_are_refused() {
    let shape_problem = |dimensions: &[u64]| {
        problem(GgufBuilder::default().raw_tensor(f32_tensor("a", dimensions, 0)).data(64)).1
    };
    assert!(matches!(shape_problem(&[]), FormatProblem::OutOfRange { count: 0, .. }));
    assert!(matches!(shape_problem(&[1; 5]), FormatProblem::OutOfRange { count: 5, .. }));
    assert!(
        matches!(shape_problem(&[1, 0]), FormatProblem::OutOfRange { count: 0, min: 1, .. }),
        "zero dimension"
    );
    assert!(matches!(shape_problem(&[u64::MAX]), FormatProblem::OutOfRange { .. }));
    assert!(matches!(shape_problem(&[1 << 32, 1 << 32]), FormatProblem::SizeOverflow { .. }));
    assert!(matches!(shape_problem(&[1 << 62, 1]), FormatProblem::SizeOverflow { .. }));
    let partial = RawTensor { name: b"q".into(), dimensions: vec![48, 2], type_number: 8, offset: 0 };
    let (_, problem) = problem(GgufBuilder::default().raw_tensor(partial).data(256));
    assert_eq!(problem, FormatProblem::PartialBlock { row: 48, block: 32 });
}

#[test]
fn unknown_tensor_types_are_named_with_the_tensor() {
    for type_number in [4, 9, 15, 42, u32::MAX] {
        let tensor = RawTensor { name: b"blk.0".into(), dimensions: vec![256], type_number, offset: 0 };
        let error = refusal(&GgufBuilder::default().raw_tensor(tensor).data(512).build());
        let problem = format!("this release does not know element type number {type_number}");
        assert_eq!(error.to_string(), format!("bad.gguf: tensor `blk.0`: {problem}"));
    }
}

/// Formats that only computation has; no file does.
const INTERMEDIATE: [&str; 2] = ["q8_1", "q8_k"];

#[test]
fn every_type_of_ggml_has_its_number_name_and_size() {
    for TypeNumber { number, name, elements, bytes } in TypeNumber::all() {
        let row = 3 * elements as u64;
        let tensor =
            RawTensor { name: b"a".into(), dimensions: vec![row, 5], type_number: number, offset: 0 };
        let file = GgufBuilder::default().raw_tensor(tensor).data(15 * bytes).build();
        match Gguf::parse("any.gguf", &file) {
            Ok(gguf) => {
                let read = &gguf.tensors[0];
                assert_eq!((read.tensor_type.as_str(), read.range.len()), (name.as_str(), 15 * bytes));
            }
            Err(error) => assert!(INTERMEDIATE.contains(&name.as_str()), "{name}: {error}"),
        }
    }
    let layout = |tensor_type| {
        let plan = TensorPlan { name: "a".to_owned(), tensor_type, shape: vec![256] };
        Gguf::layout("new.gguf", &BTreeMap::new(), &[plan])
    };
    for &tensor_type in TensorType::ALL {
        assert_eq!(layout(tensor_type).is_ok(), TypeNumber::of(tensor_type.as_str()).is_some());
    }
    let error = layout(TensorType::F8E4M3).expect_err("no float of eight bits").to_string();
    assert_eq!(error, "new.gguf: tensor `a`: GGUF has no element type f8_e4m3");
}

#[test]
fn huge_zero_and_odd_alignments_are_refused() {
    for alignment in [0, 1, 48, 1 << 17, 1 << 31, u32::MAX] {
        let builder = sample().value("general.alignment", &GgufValue::U32(alignment));
        let (field, problem) = problem(builder);
        assert!(field == "general.alignment" && matches!(problem, FormatProblem::InvalidAlignment { .. }));
    }
    let builder = sample().value("general.alignment", &GgufValue::String("32".into()));
    assert!(matches!(problem(builder).1, FormatProblem::WrongType { .. }));
    let mut builder = GgufBuilder::default().value("general.alignment", &GgufValue::U32(64));
    builder.alignment = 64;
    let file = builder.tensor("a", TensorType::F32, &[1]).tensor("b", TensorType::F32, &[1]).build();
    assert_eq!(Gguf::parse("wide.gguf", &file).expect("a right file").tensors[1].range.start % 64, 0);
}

#[test]
fn hostile_names_are_short_and_printable_in_errors() {
    let name = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let error = refusal(&GgufBuilder::default().raw_tensor(f32_tensor(&name, &[0], 0)).build()).to_string();
    assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = sample().build();
    let end =
        Gguf::parse("whole.gguf", &file).expect("a right file").tensors.iter().map(|t| t.range.end).max();
    for length in 0..end.expect("tensors") {
        assert!(Gguf::parse("cut.gguf", &file[..length]).is_err(), "{length} bytes");
    }
}

fn scalar() -> impl Strategy<Value = GgufValue> {
    prop_oneof![
        any::<u8>().prop_map(GgufValue::U8),
        any::<i8>().prop_map(GgufValue::I8),
        any::<u16>().prop_map(GgufValue::U16),
        any::<i16>().prop_map(GgufValue::I16),
        any::<u32>().prop_map(GgufValue::U32),
        any::<i32>().prop_map(GgufValue::I32),
        any::<u64>().prop_map(GgufValue::U64),
        any::<i64>().prop_map(GgufValue::I64),
        proptest::num::f32::NORMAL.prop_map(GgufValue::F32),
        proptest::num::f64::NORMAL.prop_map(GgufValue::F64),
        any::<bool>().prop_map(GgufValue::Bool),
        ".{0,12}".prop_map(GgufValue::String),
    ]
}

fn array() -> impl Strategy<Value = GgufArray> {
    fn several<T: std::fmt::Debug>(element: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
        proptest::collection::vec(element, 0..9)
    }
    prop_oneof![
        several(any::<u8>()).prop_map(GgufArray::U8),
        several(any::<i8>()).prop_map(GgufArray::I8),
        several(any::<u16>()).prop_map(GgufArray::U16),
        several(any::<i16>()).prop_map(GgufArray::I16),
        several(any::<u32>()).prop_map(GgufArray::U32),
        several(any::<i32>()).prop_map(GgufArray::I32),
        several(any::<u64>()).prop_map(GgufArray::U64),
        several(any::<i64>()).prop_map(GgufArray::I64),
        several(proptest::num::f32::NORMAL).prop_map(GgufArray::F32),
        several(proptest::num::f64::NORMAL).prop_map(GgufArray::F64),
        several(any::<bool>()).prop_map(GgufArray::Bool),
    ]
}

fn value() -> impl Strategy<Value = GgufValue> {
    prop_oneof![2 => scalar(), 1 => array().prop_map(GgufValue::Array)]
}

fn tensor_shape() -> impl Strategy<Value = (TensorType, Vec<usize>)> {
    let outer = proptest::collection::vec(1_usize..4, 0..4);
    (proptest::sample::select(gguf_types()), outer, 1_usize..4).prop_map(
        |(tensor_type, mut shape, blocks)| {
            shape.push(blocks * tensor_type.block_elements());
            (tensor_type, shape)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        metadata in proptest::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
        tensors in proptest::collection::btree_map("\\PC{1,12}", tensor_shape(), 0..8),
        strings in proptest::collection::vec(".{0,5}", 0..9),
    ) {
        let mut builder = GgufBuilder::default();
        for (key, value) in &metadata {
            builder = builder.value(key, value);
        }
        let texts: Vec<&str> = strings.iter().map(String::as_str).collect();
        builder = builder.raw_value(b"STRINGS", &string_array(&texts));
        for (name, (tensor_type, shape)) in &tensors {
            builder = builder.tensor(name, *tensor_type, shape);
        }
        let mut gguf = Gguf::parse("any.gguf", &builder.build()).expect("a right file");
        prop_assert_eq!(gguf.strings("STRINGS").expect("there").iter().collect::<Vec<_>>(), texts);
        gguf.metadata.remove("STRINGS");
        prop_assert_eq!(gguf.metadata, metadata);
        let read: BTreeMap<_, _> = gguf.tensors.into_iter().map(|t| (t.name, (t.tensor_type, t.shape))).collect();
        prop_assert_eq!(read, tensors);
    }

    #[test]
    fn flipped_bits_never_panic(flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..8), 1..9)) {
        let mut file = sample().build();
        for (at, bit) in flips {
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
        }
        if let Ok(gguf) = Gguf::parse("flipped.gguf", &file) {
            prop_assert!(gguf.tensors.iter().all(|tensor| tensor.range.end <= file.len()));
        }
    }
}
