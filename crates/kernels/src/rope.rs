//! Rotary position embedding: pairs of a head's elements turn by an angle that grows with the position.
//!
//! Su and others, "RoFormer", 2021. Weights in GGUF files of the Llama family expect interleaved pairs, those of the
//! Hugging Face hub half-split ones.

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Elements `2i` and `2i + 1`.
    Interleaved,
    /// Elements `i` and `i + n / 2`, of `n` rotated ones.
    HalfSplit,
}

/// Cosines and sines for all positions and pairs.
pub struct RopeTable {
    pairs: usize,
    /// `[position, pair]` of (cosine, sine).
    turns: Vec<(f32, f32)>,
}

impl RopeTable {
    /// The table for `head_dim` elements at positions `0..positions`: pair `i` turns by
    /// `position * theta^(-2i / head_dim)`.
    ///
    /// Computed in f64 and rounded once. Takes `4 * head_dim * positions` bytes.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let exponent = |pair: usize| -((2 * pair) as f64) / head_dim as f64;
        let frequencies: Vec<f64> = (0..head_dim / 2).map(|pair| theta.powf(exponent(pair))).collect();
        Self::from_frequencies(&frequencies, positions)
    }

    /// The table for given frequencies, one a pair: for models that stretch them.
    ///
    /// Heads may be wider than twice the number of frequencies; what is beyond is not turned.
    pub fn from_frequencies(frequencies: &[f64], positions: usize) -> Self {
        let turn = |position: usize, frequency: f64| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            (cos as f32, sin as f32)
        };
        let turns =
            (0..positions).flat_map(|position| frequencies.iter().map(move |f| turn(position, *f))).collect();
        Self { pairs: frequencies.len(), turns }
    }

    /// Turns every head of one token's queries or keys, `heads: [heads, head_dim]`.
    ///
    /// # Panics
    /// If `position` is not in the table, or heads are narrower than what is turned.
    pub fn apply(&self, style: RopeStyle, position: usize, heads: &mut [f32], head_dim: usize) {
        let turns = &self.turns[position * self.pairs..][..self.pairs];
        for head in heads.chunks_exact_mut(head_dim) {
            let turned = &mut head[..2 * self.pairs];
            match style {
                RopeStyle::Interleaved => turn_interleaved(turned, turns),
                RopeStyle::HalfSplit => turn_half_split(turned, turns),
            }
        }
    }
}

fn turn_interleaved(head: &mut [f32], turns: &[(f32, f32)]) {
    for ([a, b], turn) in head.as_chunks_mut().0.iter_mut().zip(turns) {
        (*a, *b) = rotate(*a, *b, *turn);
    }
}

fn turn_half_split(head: &mut [f32], turns: &[(f32, f32)]) {
    let (first, second) = head.split_at_mut(turns.len());
    for ((a, b), turn) in first.iter_mut().zip(second).zip(turns) {
        (*a, *b) = rotate(*a, *b, *turn);
    }
}

/// Every product and sum is rounded: no fused operations, so that all processors agree.
#[inline]
fn rotate(a: f32, b: f32, (cos, sin): (f32, f32)) -> (f32, f32) {
    (a * cos - b * sin, a * sin + b * cos)
}

#[cfg(test)]
mod tests {
    use super::{RopeStyle, RopeTable};

    const HEAD_DIM: usize = 8;

    fn heads() -> Vec<f32> {
        (0..2 * HEAD_DIM).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    fn pair(style: RopeStyle, i: usize) -> (usize, usize) {
        match style {
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
            RopeStyle::HalfSplit => (i, i + HEAD_DIM / 2),
        }
    }

    #[test]
    fn pairs_turn_by_the_angle_of_their_position() {
        let table = RopeTable::new(HEAD_DIM, 10_000.0, 4_096);
        for (style, position) in [(RopeStyle::Interleaved, 4_095), (RopeStyle::HalfSplit, 17)] {
            let before = heads();
            let mut after = before.clone();
            table.apply(style, position, &mut after, HEAD_DIM);
            for (head, i) in (0..2).flat_map(|head| (0..HEAD_DIM / 2).map(move |i| (head * HEAD_DIM, i))) {
                let (sin, cos) = (position as f64 * 10_000_f64.powf(-(i as f64) / 4.0)).sin_cos();
                let (x, y) = pair(style, i);
                let (a, b) = (f64::from(before[head + x]), f64::from(before[head + y]));
                assert!((f64::from(after[head + x]) - (a * cos - b * sin)).abs() < 1e-6);
                assert!((f64::from(after[head + y]) - (a * sin + b * cos)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn position_zero_and_elements_beyond_the_frequencies_stay() {
        let table = RopeTable::from_frequencies(&[1.0, 0.5], 2);
        for style in [RopeStyle::Interleaved, RopeStyle::HalfSplit] {
            let mut turned = heads();
            table.apply(style, 0, &mut turned, HEAD_DIM);
            assert_eq!(turned, heads());
            table.apply(style, 1, &mut turned, HEAD_DIM);
            assert_eq!(turned[4..8], heads()[4..8]);
            assert_ne!(turned[..4], heads()[..4]);
        }
    }
}
