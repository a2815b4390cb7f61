//! How fast the kernels are on this machine: prefill-shaped and decode-shaped products and attention, each on one
//! thread and on all, with each instruction set.
//!
//! `cargo run --profile ci -p helios-kernels --example throughput [threads]`

#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use helios_kernels::{
    AttentionShape, BLOCK_TOKENS, Format, Isa, KvPool, Span, Team, WeightMatrix, attention_with, matmul_with,
};

const REPEATS: usize = 9;

fn main() {
    let threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    for isa in Isa::available().into_iter().filter(|isa| isa.name() != "portable") {
        println!("{}: {:.1} GFLOP/s in the first-level cache, one thread", isa.name(), in_cache(isa));
        for threads in [1, threads] {
            let team = Team::new(threads);
            println!("{} on {threads}:", isa.name());
            for format in [Format::Q4_1, Format::Q8_0] {
                products(isa, &team, format);
            }
            attentions(isa, &team);
        }
    }
}

/// GFLOP/s of one thread on matrices that stay in the first-level cache.
fn in_cache(isa: Isa) -> f64 {
    let (rows, cols, tokens) = (32, 256, 60);
    let weights = vec![1; rows * cols * 4];
    let weights = WeightMatrix::new(Format::F32, rows, cols, &weights).expect("the shape is the data's");
    let (x, mut y) = (vec![1.0; tokens * cols], vec![0.0; tokens * rows]);
    let team = Team::new(1);
    let seconds = shortest(|| (0..50).for_each(|_| matmul_with(isa, &team, weights, &x, &mut y, false)));
    50.0 * 2.0 * (rows * cols * tokens) as f64 / seconds / 1e9
}

fn products(isa: Isa, team: &Team, format: Format) {
    for (rows, cols) in [(576, 576), (576, 1536)] {
        let bytes = rows * format.row_bytes(cols).expect("columns are whole blocks");
        let data: Vec<u8> = (0..bytes).map(|i| (i * 31 % 61) as u8).collect();
        let weights = WeightMatrix::new(format, rows, cols, &data).expect("the shape is the data's");
        print!("  {format:?} {rows} x {cols}:");
        for tokens in [1, 2, 8, 512] {
            let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 17) as f32).collect();
            let mut y = vec![0.0; tokens * rows];
            let seconds = shortest(|| matmul_with(isa, team, weights, &x, &mut y, false));
            let flops = 2.0 * (rows * cols * tokens) as f64;
            if tokens == 1 {
                print!(" 1: {:.1} us {:.1} GB/s", seconds * 1e6, bytes as f64 / seconds / 1e9);
            } else {
                print!(" · {tokens}: {:.1} us {:.0} GFLOP/s", seconds * 1e6, flops / seconds / 1e9);
            }
        }
        println!();
    }
}

fn attentions(isa: Isa, team: &Team) {
    let (kv_heads, head_dim, heads) = (3, 64, 9);
    let shape = AttentionShape { heads, scale: 0.125 };
    for (tokens, context) in [(1, 512), (1, 4096), (512, 512)] {
        let pool = KvPool::new(1, context / BLOCK_TOKENS, kv_heads, head_dim);
        let blocks: Vec<u32> = (0..pool.blocks() as u32).collect();
        let spans = [Span { blocks: &blocks, start: context - tokens, tokens }];
        let queries = vec![0.5; tokens * heads * head_dim];
        let mut out = vec![0.0; queries.len()];
        let seconds = shortest(|| attention_with(isa, team, &pool, 0, shape, &spans, &queries, &mut out));
        println!("  attention of {tokens} to {context}: {:.1} us", seconds * 1e6);
    }
}

/// The shortest time of `body` in seconds: what the machine does when nothing else runs on it.
fn shortest(mut body: impl FnMut()) -> f64 {
    let times = (0..REPEATS).map(|_| {
        let begin = Instant::now();
        body();
        begin.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}
