//! A llama of one layer with made-up weights, as a GGUF file.

const HIDDEN: u64 = 64;
const FFN: u64 = 96;
const HEADS: u32 = 4;
const KV_WIDTH: u64 = 32;
const ALIGNMENT: usize = 32;

/// Entries of the vocabulary.
pub(crate) const VOCABULARY: u32 = 96;

/// Tokens of an answer that takes hours: no test sees the end of it.
pub(crate) const ENDLESS: u32 = 400_000;

/// Longest sequence.
const CONTEXT_TOKENS: u32 = 1 << 20;

/// The bytes of the file; another `seed` is another model.
pub(crate) fn tiny_gguf(seed: u64) -> Vec<u8> {
    let tensors = tensors(seed);
    let metadata = metadata();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    file.extend(metadata.concat());
    let mut offset = 0_u64;
    for (name, shape, data) in &tensors {
        file.extend(string(name));
        file.extend((shape.len() as u32).to_le_bytes());
        file.extend(shape.iter().rev().flat_map(|size| size.to_le_bytes()));
        file.extend(0_u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += data.len() as u64;
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    for (_, _, data) in tensors {
        file.extend(data);
    }
    file
}

fn metadata() -> Vec<Vec<u8>> {
    let number =
        |key: &str, value: u32| [&string(key)[..], &4_u32.to_le_bytes(), &value.to_le_bytes()].concat();
    let float =
        |key: &str, value: f32| [&string(key)[..], &6_u32.to_le_bytes(), &value.to_le_bytes()].concat();
    let text = |key: &str, value: &str| [&string(key)[..], &8_u32.to_le_bytes(), &string(value)].concat();
    vec![
        text("general.architecture", "llama"),
        number("llama.block_count", 1),
        number("llama.embedding_length", HIDDEN as u32),
        number("llama.feed_forward_length", FFN as u32),
        number("llama.attention.head_count", HEADS),
        number("llama.attention.head_count_kv", HEADS / 2),
        number("llama.context_length", CONTEXT_TOKENS),
        float("llama.attention.layer_norm_rms_epsilon", 1e-5),
    ]
}

/// Name, shape (outermost first) and data; sizes are multiples of the alignment.
fn tensors(seed: u64) -> Vec<(&'static str, Vec<u64>, Vec<u8>)> {
    let shapes: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[VOCABULARY as u64, HIDDEN]),
        ("output_norm.weight", &[HIDDEN]),
        ("blk.0.attn_norm.weight", &[HIDDEN]),
        ("blk.0.attn_q.weight", &[HIDDEN, HIDDEN]),
        ("blk.0.attn_k.weight", &[KV_WIDTH, HIDDEN]),
        ("blk.0.attn_v.weight", &[KV_WIDTH, HIDDEN]),
        ("blk.0.attn_output.weight", &[HIDDEN, HIDDEN]),
        ("blk.0.ffn_norm.weight", &[HIDDEN]),
        ("blk.0.ffn_gate.weight", &[FFN, HIDDEN]),
        ("blk.0.ffn_up.weight", &[FFN, HIDDEN]),
        ("blk.0.ffn_down.weight", &[HIDDEN, FFN]),
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = |elements: u64| -> Vec<u8> {
        (0..elements).flat_map(|_| (0.4 * uniform(&mut state)).to_le_bytes()).collect()
    };
    shapes.map(|(name, shape)| (name, shape.to_vec(), data(shape.iter().product()))).into()
}

/// A number from -1 to 1, by xorshift.
fn uniform(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
