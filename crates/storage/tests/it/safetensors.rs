//! The safetensors header: what it reads, what it refuses by name, and that the reference crate agrees.

use std::collections::BTreeMap;

use helios_storage::{FormatError, FormatProblem, SafetensorsHeader, StorageError};
use helios_types::TensorType;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

/// A file of a header and zeros.
pub(crate) fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

/// A file of a header padded with spaces to eight bytes, as writers do, and zeros.
pub(crate) fn padded_file(header: &str, data_bytes: usize) -> Vec<u8> {
    let padding = header.len().next_multiple_of(8) - header.len();
    file(&[header, &" ".repeat(padding)].concat(), data_bytes)
}

/// A file that the reference crate writes.
pub(crate) fn reference_file(tensors: &BTreeMap<String, (Dtype, Vec<usize>)>) -> Vec<u8> {
    let bytes =
        |dtype: Dtype, shape: &[usize]| vec![3; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    let data: Vec<_> =
        tensors.iter().map(|(name, (dtype, shape))| (name, *dtype, shape, bytes(*dtype, shape))).collect();
    let views = data.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, (*shape).clone(), bytes).expect("a right tensor"))
    });
    safetensors::serialize(views, None).expect("a right file")
}

fn refusal(bytes: &[u8]) -> FormatError {
    match SafetensorsHeader::parse("bad.safetensors", bytes) {
        Err(StorageError::Format(error)) => error,
        other => panic!("expected a format error, got {other:?}"),
    }
}

/// Field and problem of a file of one tensor `a` with 16 bytes of data.
fn problem(dtype: &str, shape: &str, offsets: &str) -> FormatProblem {
    let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
    let error = refusal(&padded_file(&header, 16));
    assert!(error.field == "tensor `a`" || error.field == "header", "{error}");
    error.problem
}

#[test]
fn a_file_of_the_reference_crate_is_read() {
    let tensors = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), (Dtype::BF16, vec![4, 6])),
        ("norm".to_owned(), (Dtype::F32, vec![6])),
        ("scale".to_owned(), (Dtype::F16, vec![])),
        ("empty".to_owned(), (Dtype::F16, vec![0, 3])),
    ]);
    let bytes = reference_file(&tensors);
    let header = SafetensorsHeader::parse("model.safetensors", &bytes).expect("a right file");
    let find = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name).expect("there");
    let embedding = find("model.embed_tokens.weight");
    assert_eq!((embedding.tensor_type, &embedding.shape[..]), (TensorType::BF16, &[4, 6][..]));
    assert!(bytes[embedding.range.clone()].iter().all(|&byte| byte == 3));
    assert_eq!((find("scale").elements(), find("scale").range.len()), (1, 2));
    assert_eq!(find("empty").range.len(), 0, "zero dimensions are legal and empty");
    assert_eq!(find("norm").range.start % 4, 0);
}

#[test]
fn metadata_and_unknown_fields_are_ignored() {
    let header =
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":[{}]}}"#;
    assert_eq!(
        SafetensorsHeader::parse("m", &padded_file(header, 8)).expect("a right file").tensors.len(),
        1
    );
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    assert_eq!(refusal(b"1234").field, "header length");
    assert!(matches!(
        refusal(&u64::MAX.to_le_bytes()).problem,
        FormatProblem::OutOfRange { count: u64::MAX, .. }
    ));
    assert_eq!(
        refusal(&[100, 0, 0, 0, 0, 0, 0, 0]).problem,
        FormatProblem::Truncated { needed: 100, available: 0 }
    );
    assert_eq!(refusal(&[0; 16]).field, "header length");
}

#[test]
fn headers_that_are_not_an_object_are_refused() {
    let deep = format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000));
    for header in ["  ", " {}", "[]", "{}x", "{]", r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":null}"#, &deep] {
        let error = refusal(&file(header, 0));
        assert!(error.field == "header" && matches!(error.problem, FormatProblem::Json { .. }), "{error}");
    }
    let mut bytes = file(r#"{"a~":{}}"#, 0);
    bytes[11] = 0xff;
    assert_eq!(refusal(&bytes).field, "header", "bad UTF-8");
}

#[test]
fn wrong_fields_name_the_tensor() {
    let header = r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#;
    let message = refusal(&file(header, 4)).to_string();
    assert!(
        message.starts_with("bad.safetensors: header: tensor `a`: invalid value: integer `-1`"),
        "{message}"
    );
}

#[test]
fn duplicate_names_are_refused() {
    let entry =
        |start: usize| format!(r#""a":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{}]}}"#, start + 4);
    let header = format!("{{{},{}}}", entry(0), entry(4));
    assert_eq!(
        refusal(&padded_file(&header, 8)).to_string(),
        "bad.safetensors: tensor `a`: appears more than once"
    );
}

#[test]
fn overlaps_and_gaps_are_refused() {
    let two = |second: (usize, usize), data_bytes| {
        let header = format!(
            r#"{{"a":{{"dtype":"F16","shape":[4],"data_offsets":[0,8]}},"b":{{"dtype":"F16","shape":[4],"data_offsets":[{},{}]}}}}"#,
            second.0, second.1
        );
        refusal(&padded_file(&header, data_bytes))
    };
    assert_eq!(two((6, 14), 14).to_string(), "bad.safetensors: tensor `b`: data overlaps that of `a`");
    let gap = two((10, 18), 18);
    assert!(gap.field == "tensor `b`" && matches!(gap.problem, FormatProblem::Gap { bytes: 2, .. }), "{gap}");
    let trailing = two((8, 16), 19);
    assert!(
        trailing.field == "end of file" && matches!(trailing.problem, FormatProblem::Gap { bytes: 3, .. })
    );
}

#[test]
fn wrong_shapes_types_and_ranges_are_refused() {
    assert!(matches!(
        problem("F32", "[3]", "[0,16]"),
        FormatProblem::SizeMismatch { declared: 16, needed: 12 }
    ));
    assert!(matches!(problem("F32", "[4]", "[16,0]"), FormatProblem::ReversedRange { start: 16, end: 0 }));
    assert!(matches!(problem("F32", "[4]", "[16,32]"), FormatProblem::OutOfFile { size: 16, .. }));
    let far = format!("[{},{}]", u64::MAX - 16, u64::MAX);
    assert!(matches!(problem("F32", "[4]", &far), FormatProblem::OutOfFile { .. }));
    assert!(matches!(
        problem("F32", "[4294967296,4294967296]", "[0,16]"),
        FormatProblem::SizeOverflow { .. }
    ));
    assert!(matches!(problem("F32", "[18446744073709551616]", "[0,16]"), FormatProblem::Json { .. }));
    assert!(matches!(problem("F32", "[1,1,1,1,1,1,1,1,4]", "[0,16]"), FormatProblem::Json { .. }));
    let message = refusal(&file(r#"{"p":{"dtype":"F7","shape":[2],"data_offsets":[0,16]}}"#, 16)).to_string();
    assert_eq!(message, "bad.safetensors: tensor `p`: this release does not know element type F7");
    assert!(matches!(problem("F4", "[3,5]", "[0,8]"), FormatProblem::PartialBlock { row: 15, block: 2 }));
}

#[test]
fn data_may_begin_at_any_byte() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
    let bytes = padded_file(header, 5);
    let read = SafetensorsHeader::parse("any", &bytes).expect("a right file");
    assert_eq!(read.tensors[1].range.start % 4, 1);
    assert!(agrees_with_reference(&bytes));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = reference_file(&BTreeMap::from([
        ("a".into(), (Dtype::F32, vec![3])),
        ("b".into(), (Dtype::BF16, vec![2, 2])),
    ]));
    assert!(SafetensorsHeader::parse("whole", &bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(SafetensorsHeader::parse("cut", &bytes[..length]).is_err(), "{length} bytes");
    }
}

/// Every element type of the reference crate.
const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

#[test]
fn every_type_of_the_reference_crate_has_its_name_and_size() {
    for dtype in DTYPES {
        let bytes = reference_file(&BTreeMap::from([("a".to_owned(), (dtype, vec![3, 8]))]));
        let header = SafetensorsHeader::parse("any", &bytes).expect("a right file");
        let read = &header.tensors[0];
        assert_eq!(read.tensor_type.as_str(), dtype.to_string().to_lowercase());
        assert_eq!(read.range.len(), 3 * dtype.bitsize());
    }
}

fn tensors() -> impl Strategy<Value = BTreeMap<String, (Dtype, Vec<usize>)>> {
    let dtype = proptest::sample::select(&DTYPES[..]);
    let shape = proptest::collection::vec(0_usize..4, 0..4);
    let whole_bytes = |(dtype, shape): &(Dtype, Vec<usize>)| {
        (shape.iter().product::<usize>() * dtype.bitsize()).is_multiple_of(8)
    };
    let tensor = (dtype, shape).prop_filter("whole bytes", whole_bytes);
    proptest::collection::btree_map("\\PC{0,8}", tensor, 0..6)
}

/// Whatever this crate accepts, the reference crate accepts, with the same tensors.
fn agrees_with_reference(bytes: &[u8]) -> bool {
    let Ok(ours) = SafetensorsHeader::parse("any", bytes) else { return true };
    let Ok(reference) = safetensors::SafeTensors::deserialize(bytes) else { return false };
    ours.tensors.len() == reference.len()
        && ours.tensors.iter().all(|tensor| {
            let view = reference.tensor(&tensor.name).expect("the same names");
            view.shape() == tensor.shape
                && view.data().as_ptr_range() == bytes[tensor.range.clone()].as_ptr_range()
        })
}

proptest! {
    #[test]
    fn what_the_reference_crate_writes_is_read(tensors in tensors()) {
        let bytes = reference_file(&tensors);
        let header = SafetensorsHeader::parse("any", &bytes).expect("a right file");
        let read: BTreeMap<_, _> = header.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let written: BTreeMap<_, _> = tensors.into_iter().map(|(name, (_, shape))| (name, shape)).collect();
        prop_assert_eq!(read, written);
        prop_assert!(agrees_with_reference(&bytes));
    }

    #[test]
    fn flipped_bits_never_panic_and_never_disagree_with_the_reference(
        tensors in tensors(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut bytes = reference_file(&tensors);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(agrees_with_reference(&bytes));
    }
}
