//! What a fuzz target does with its input. The tests of `helios-storage` include this file to replay the kept corpus.

use helios_storage::{Blob, Checkpoint, ShardIndex};

/// Opens the input as a GGUF file; what is accepted must hold together.
pub(crate) fn gguf(input: &[u8]) {
    let Ok((checkpoint, gguf)) = Checkpoint::from_gguf("input.gguf", Blob::from_vec(input.to_vec())) else {
        return;
    };
    assert_eq!(checkpoint.tensors().len(), gguf.tensors.len());
    check_tensors(&checkpoint);
    for key in gguf.metadata.keys() {
        let strings = gguf.strings(key).map(|strings| strings.iter().map(str::len).sum::<usize>());
        assert!(strings.unwrap_or(0) <= input.len());
    }
}

/// Opens the input as a safetensors file, and as the index of one.
pub(crate) fn safetensors(input: &[u8]) {
    let files = vec![("input.safetensors".to_owned(), Blob::from_vec(input.to_vec()))];
    if let Ok(checkpoint) = Checkpoint::from_safetensors(files, None) {
        check_tensors(&checkpoint);
    }
    if let Ok(index) = ShardIndex::parse("input.index.json", input) {
        assert!(index.files().iter().all(|file| !file.contains('/') && !file.starts_with('.')));
    }
}

/// Every tensor has the bytes that its shape and type need, and no two share any.
fn check_tensors(checkpoint: &Checkpoint) {
    let mut ranges = Vec::new();
    for info in checkpoint.tensors() {
        let view = checkpoint.tensor(&info.name).expect("a listed tensor is found");
        assert_eq!(Some(view.bytes.len()), info.tensor_type.bytes_of(info.elements()));
        ranges.push(info.range.clone());
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
}
