//! Products against a scalar reference written from the formats' definitions.

use half::{bf16, f16};
use helios_kernels::{
    Format, Isa, Projection, Team, WeightMatrix, dequantise_row, matmul, matmul_with, project,
};
use proptest::prelude::*;

use super::{bits, numbers};

/// Bytes that are valid weights of moderate size in `format`.
fn stored(format: Format, seed: u64, elements: usize) -> Vec<u8> {
    let values = numbers(seed, elements);
    let half = |value: f32| f16::from_f32(value).to_le_bytes();
    match format {
        Format::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Format::F16 => values.iter().flat_map(|v| half(*v)).collect(),
        Format::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => values
            .chunks(32)
            .flat_map(|block| {
                let scales = if format == Format::Q4_1 { 2 } else { 1 };
                let quants = format.block_bytes() - 2 * scales;
                let mut bytes: Vec<u8> = block[..scales].iter().flat_map(|v| half(v * 0.1)).collect();
                bytes.extend(block.iter().take(quants).map(|v| v.to_bits() as u8));
                bytes
            })
            .collect(),
    }
}

/// Element `i` of a stored row, from the text of the format.
fn element(format: Format, row: &[u8], i: usize) -> f32 {
    let half = |at: usize| f16::from_le_bytes([row[at], row[at + 1]]).to_f32();
    let start = i / format.block_elements() * format.block_bytes();
    let nibble = |at: usize| {
        let byte = row[start + at + i % 16];
        f32::from(if i % 32 < 16 { byte & 15 } else { byte >> 4 })
    };
    match format {
        Format::F32 => f32::from_le_bytes(std::array::from_fn(|b| row[start + b])),
        Format::F16 => half(start),
        Format::BF16 => bf16::from_le_bytes([row[start], row[start + 1]]).to_f32(),
        Format::Q8_0 => half(start) * f32::from(row[start + 2 + i % 32] as i8),
        Format::Q4_0 => half(start) * (nibble(2) - 8.0),
        Format::Q4_1 => {
            let scaled = half(start) * nibble(4);
            scaled + half(start + 2)
        }
    }
}

/// The dot product in the promised order.
fn dot(weights: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (i, (w, x)) in weights.iter().zip(x).enumerate() {
        lanes[i % 16] = w.mul_add(*x, lanes[i % 16]);
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

fn formats() -> impl Strategy<Value = (Format, usize)> {
    (prop::sample::select(Format::ALL.to_vec()), 1..5_usize, 0..32_usize).prop_map(|(format, blocks, odd)| {
        (format, if format.block_elements() == 1 { blocks * 32 - odd } else { blocks * 32 })
    })
}

fn every_way(tokens: usize, weights: WeightMatrix<'_>, x: &[f32], y: &[f32]) -> Vec<(String, Vec<f32>)> {
    let mut ways = Vec::new();
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads);
            for accumulate in [false, true] {
                let mut together = y.to_vec();
                matmul_with(isa, &team, weights, x, &mut together, accumulate);
                let mut apart = y.to_vec();
                for t in 0..tokens {
                    let x = &x[t * weights.cols()..][..weights.cols()];
                    let y = &mut apart[t * weights.rows()..][..weights.rows()];
                    matmul_with(isa, &team, weights, x, y, accumulate);
                }
                ways.push((format!("{isa:?} {threads} {accumulate} together"), together));
                ways.push((format!("{isa:?} {threads} {accumulate} apart"), apart));
            }
        }
    }
    ways
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_way_gives_the_bits_of_the_reference(
        (format, cols) in formats(), rows in 1..40_usize, tokens in 1..40_usize, seed: u64,
    ) {
        let data = stored(format, seed, rows * cols);
        // One byte before the matrix: rows of stored formats have no alignment.
        let shifted: Vec<u8> = std::iter::once(0).chain(data).collect();
        let weights = WeightMatrix::new(format, rows, cols, &shifted[1..]).unwrap();
        let (x, y) = (numbers(seed ^ 1, tokens * cols), numbers(seed ^ 2, tokens * rows));
        let mut expected = Vec::new();
        let decoded: Vec<Vec<f32>> =
            (0..rows).map(|r| (0..cols).map(|i| element(format, weights.row(r), i)).collect()).collect();
        for x in x.chunks(cols) {
            expected.extend(decoded.iter().map(|row| dot(row, x)));
        }
        let added: Vec<f32> = expected.iter().zip(&y).map(|(dot, y)| y + dot).collect();
        for (way, result) in every_way(tokens, weights, &x, &y) {
            let expected = if way.contains("true") { &added } else { &expected };
            prop_assert_eq!(bits(&result), bits(expected), "{}", way);
        }
        for (t, r) in (0..tokens).flat_map(|t| (0..rows).map(move |r| (t, r))) {
            let terms = || decoded[r].iter().zip(&x[t * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            prop_assert!((f64::from(expected[t * rows + r]) - exact).abs() <= 1e-6 * size + 1e-30);
        }
    }

    #[test]
    fn rows_decode_to_the_elements_of_their_format((format, cols) in formats(), seed: u64) {
        let row = stored(format, seed, cols);
        let mut out = vec![0.0; cols];
        dequantise_row(format, &row, &mut out);
        let expected: Vec<f32> = (0..cols).map(|i| element(format, &row, i)).collect();
        prop_assert_eq!(bits(&out), bits(&expected));
    }
}

#[test]
fn products_of_one_run_are_those_of_many() {
    let (cols, tokens, team) = (96, 7, Team::new(2));
    let x = numbers(1, tokens * cols);
    let shapes = [(Format::Q4_1, 37), (Format::Q8_0, 1), (Format::F16, 130)];
    let data: Vec<Vec<u8>> = shapes.iter().map(|(format, rows)| stored(*format, 9, rows * cols)).collect();
    let weights: Vec<WeightMatrix<'_>> = shapes
        .iter()
        .zip(&data)
        .map(|((format, rows), data)| WeightMatrix::new(*format, *rows, cols, data).unwrap())
        .collect();
    let mut results: Vec<Vec<f32>> = shapes.iter().map(|(_, rows)| vec![0.0; tokens * rows]).collect();
    let mut products: Vec<Projection<'_>> = weights
        .iter()
        .zip(&mut results)
        .map(|(weights, y)| Projection { weights: *weights, y, accumulate: false })
        .collect();
    project(&team, &x, &mut products);
    for (weights, result) in weights.iter().zip(&results) {
        let mut alone = vec![0.0; result.len()];
        matmul(&team, *weights, &x, &mut alone, false);
        assert_eq!(bits(result), bits(&alone));
    }
}

#[test]
#[should_panic(expected = "columns of a product's weights")]
fn products_of_different_widths_are_refused() {
    let data = [0; 128];
    let narrow = WeightMatrix::new(Format::F32, 4, 8, &data).unwrap();
    let wide = WeightMatrix::new(Format::F32, 2, 16, &data).unwrap();
    let (mut a, mut b) = ([0.0; 8], [0.0; 4]);
    let first = Projection { weights: narrow, y: &mut a, accumulate: false };
    let second = Projection { weights: wide, y: &mut b, accumulate: false };
    project(&Team::new(1), &[0.0; 16], &mut [first, second]);
}
