//! A second model that is different yet real: the test model with fewer layers.
//!
//! Written against the GGUF specification rather than with the crate's own parser, so that the two check each other.

const ALIGNMENT: usize = 32;

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> &'a str {
        let length = self.u64();
        std::str::from_utf8(self.take(length)).unwrap()
    }

    fn skip_value(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            10..=12 => self.at += 8,
            8 => {
                self.text();
            }
            9 => {
                let (element, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| self.skip_value(element));
            }
            _ => panic!("value type {kind}"),
        }
    }
}

/// A tensor's info as stored, and where its data lie.
struct Tensor<'a> {
    name: &'a str,
    /// Rank, dimensions and type.
    shape: &'a [u8],
    offset: usize,
    end: usize,
}

/// `gguf` with only its first `layers` layers.
pub(crate) fn first_layers(gguf: &[u8], layers: u32) -> Vec<u8> {
    let mut cursor = Cursor { bytes: gguf, at: 8 };
    let (tensor_count, pair_count) = (cursor.u64(), cursor.u64());
    let pairs_start = cursor.at;
    let mut block_count_at = None;
    for _ in 0..pair_count {
        let key = cursor.text();
        let kind = cursor.u32();
        if key == "llama.block_count" {
            block_count_at = Some(cursor.at - pairs_start);
        }
        cursor.skip_value(kind);
    }
    let mut pairs = gguf[pairs_start..cursor.at].to_vec();
    let at = block_count_at.expect("a llama model");
    pairs[at..at + 4].copy_from_slice(&layers.to_le_bytes());

    let mut tensors: Vec<Tensor<'_>> = (0..tensor_count).map(|_| tensor(&mut cursor)).collect();
    let data = &gguf[cursor.at.next_multiple_of(ALIGNMENT)..];
    let mut starts: Vec<usize> = tensors.iter().map(|tensor| tensor.offset).collect();
    starts.sort_unstable();
    for tensor in &mut tensors {
        tensor.end = starts.iter().copied().find(|start| *start > tensor.offset).unwrap_or(data.len());
    }
    tensors.retain(|tensor| {
        let layer =
            tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        layer.is_none_or(|layer| layer < layers)
    });
    write(&gguf[..8], pair_count, &pairs, &tensors, data)
}

fn tensor<'a>(cursor: &mut Cursor<'a>) -> Tensor<'a> {
    let name = cursor.text();
    let start = cursor.at;
    let rank = cursor.u32() as usize;
    cursor.take(rank * 8 + 4);
    let shape = &cursor.bytes[start..cursor.at];
    Tensor { name, shape, offset: cursor.u64(), end: 0 }
}

fn write(magic: &[u8], pair_count: usize, pairs: &[u8], tensors: &[Tensor<'_>], data: &[u8]) -> Vec<u8> {
    let number = |value: usize| (value as u64).to_le_bytes();
    let mut file = magic.to_vec();
    file.extend(number(tensors.len()));
    file.extend(number(pair_count));
    file.extend(pairs);
    let mut offset = 0;
    for tensor in tensors {
        file.extend(number(tensor.name.len()));
        file.extend(tensor.name.as_bytes());
        file.extend(tensor.shape);
        file.extend(number(offset));
        offset += (tensor.end - tensor.offset).next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&data[tensor.offset..tensor.end]);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file
}
