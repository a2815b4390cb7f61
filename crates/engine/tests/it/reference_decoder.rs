//! The decoder written down plainly in f64, one token after the other, for comparison.

use half::f16;
use helios_engine::RopeLayout;

use crate::tiny_model::{EPS, FFN, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, THETA, TinyModel, VOCAB};

/// The logits after each token: `[tokens][VOCAB]`. Keys and values are rounded to f16, as the engine stores them.
pub(crate) fn logits(model: &TinyModel, tokens: &[u32]) -> Vec<Vec<f64>> {
    let embedding = model.values("token_embd.weight", "model.embed_tokens.weight");
    let row =
        |token: u32| embedding[token as usize * HIDDEN..][..HIDDEN].iter().map(|x| f64::from(*x)).collect();
    let mut stream: Vec<Vec<f64>> = tokens.iter().map(|&token| row(token)).collect();
    for layer in 0..LAYERS {
        attend(model, layer, &mut stream);
        feed_forward(model, layer, &mut stream);
    }
    let output = match model.tied {
        true => embedding,
        false => model.values("output.weight", "lm_head.weight"),
    };
    let norm = model.values("output_norm.weight", "model.norm.weight");
    stream.iter().map(|x| product(output, VOCAB, &normed(x, norm))).collect()
}

/// The natural log-probabilities that belong to logits.
pub(crate) fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - log_sum).collect()
}

fn attend(model: &TinyModel, layer: usize, stream: &mut [Vec<f64>]) {
    let part = |part| model.layer_values(layer, part);
    let inputs: Vec<Vec<f64>> = stream.iter().map(|x| normed(x, part(0))).collect();
    let rounded = |x: Vec<f64>| x.into_iter().map(|x| f64::from(f16::from_f64(x))).collect::<Vec<f64>>();
    let project = |weights: &[f32], heads: usize| {
        inputs.iter().map(move |x| product(weights, heads * HEAD_DIM, x)).collect::<Vec<_>>()
    };
    let mut queries = project(part(1), HEADS);
    let mut keys = project(part(2), KV_HEADS);
    let values: Vec<Vec<f64>> = project(part(3), KV_HEADS).into_iter().map(rounded).collect();
    for (position, (query, key)) in queries.iter_mut().zip(&mut keys).enumerate() {
        query.chunks_mut(HEAD_DIM).for_each(|head| rotate(model.rope_layout, position, head));
        key.chunks_mut(HEAD_DIM).for_each(|head| rotate(model.rope_layout, position, head));
        *key = rounded(std::mem::take(key));
    }
    for (position, x) in stream.iter_mut().enumerate() {
        let mut attended = Vec::new();
        for head in 0..HEADS {
            let kv = head / (HEADS / KV_HEADS) * HEAD_DIM;
            let query = &queries[position][head * HEAD_DIM..][..HEAD_DIM];
            let score = |key: &Vec<f64>| dot(query, &key[kv..][..HEAD_DIM]) / (HEAD_DIM as f64).sqrt();
            let shares = log_softmax(&keys[..=position].iter().map(score).collect::<Vec<f64>>());
            for d in 0..HEAD_DIM {
                attended
                    .push(shares.iter().zip(&values).map(|(share, value)| share.exp() * value[kv + d]).sum());
            }
        }
        add(x, &product(part(4), HIDDEN, &attended));
    }
}

fn feed_forward(model: &TinyModel, layer: usize, stream: &mut [Vec<f64>]) {
    let part = |part| model.layer_values(layer, part);
    for x in stream {
        let input = normed(x, part(5));
        let (gate, up) = (product(part(6), FFN, &input), product(part(7), FFN, &input));
        let activated: Vec<f64> = gate.iter().zip(up).map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect();
        add(x, &product(part(8), HIDDEN, &activated));
    }
}

fn rotate(layout: RopeLayout, position: usize, head: &mut [f64]) {
    for i in 0..HEAD_DIM / 2 {
        let (a, b) = match layout {
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
            RopeLayout::HalfSplit => (i, i + HEAD_DIM / 2),
        };
        let angle = position as f64 * f64::from(THETA).powf(-2.0 * i as f64 / HEAD_DIM as f64);
        (head[a], head[b]) =
            (head[a] * angle.cos() - head[b] * angle.sin(), head[a] * angle.sin() + head[b] * angle.cos());
    }
}

fn normed(x: &[f64], weight: &[f32]) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(EPS)).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x * scale * f64::from(*weight)).collect()
}

fn product(weights: &[f32], rows: usize, x: &[f64]) -> Vec<f64> {
    let row =
        |row: usize| weights[row * x.len()..][..x.len()].iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
    (0..rows).map(row).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
