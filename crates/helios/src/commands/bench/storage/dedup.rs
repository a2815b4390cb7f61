//! What tensor-level deduplication saves on constructed variants of a model, and what it costs: once to find out, and at
//! each open and read of what is kept as a recipe.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use helios_model::{Manifest, Role};
use helios_registry::{Registry, RegistryConfig};
use helios_runtime::Clock;
use helios_storage::FileBytes;
use helios_types::ModelRef;
use tokio::runtime::Handle;

use super::super::table::Row;
use super::made::{self, Tensor};
use super::scratch::{Bench, remove};
use super::usage::{Load, timed};

/// Layers of the models, and files of their weights.
const LAYERS: u64 = 8;
const SHARDS: usize = 4;
/// Smallest model: below, files share too few bytes to become recipes.
const BYTES_MIN: u64 = 256 << 20;
/// Of `--size`: four models lie side by side, and each exists twice for a moment.
const SHARE: u64 = 5;

/// One way to come from a model to a variant of it.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    shards: usize,
    /// Whether training changed a tensor of that layer.
    changes: fn(layer: u64, name: &str) -> bool,
}

const VARIANTS: [Variant; 3] = [
    Variant {
        name: "fine-tune of every second MLP",
        shards: SHARDS,
        changes: |layer, name| layer % 2 == 1 && name.contains("mlp"),
    },
    Variant { name: "re-shard, 4 files to 3", shards: 3, changes: |_, _| false },
    Variant {
        name: "adapter merged into q and v",
        shards: SHARDS,
        changes: |_, name| name.contains("q_proj") || name.contains("v_proj"),
    },
];

/// The figures of one variant.
#[derive(Clone, Debug, Default)]
struct Figures {
    saved_percent: Vec<f64>,
    /// Seconds a GB of the variant: tensors hashed, recipe written and read back.
    seconds_per_gb: Vec<f64>,
    /// The first open in a process, which verifies.
    first_open: [Vec<f64>; 2],
    /// Opens after that, in milliseconds.
    open_ms: [Vec<f64>; 2],
    /// Reads of what is in memory, in GB/s.
    read: [Vec<f64>; 2],
}

/// The figures of all repeats, in the order of [`VARIANTS`]. Of pairs, the first is the recipe, the second the whole file.
#[derive(Debug, Default)]
pub(super) struct Samples([Figures; VARIANTS.len()]);

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Samples> {
    let base = made::tensors((bench.bytes / SHARE).max(BYTES_MIN), LAYERS);
    bench.step("dedup: writing models")?;
    let folder = bench.fresh_folder("dedup")?;
    made::write(&folder.join("base"), &base, SHARDS)?;
    for (index, variant) in VARIANTS.iter().enumerate() {
        made::write(&folder.join(index.to_string()), &changed(&base, variant), variant.shards)?;
    }
    let mut samples = Samples::default();
    for repeat in bench.repeats() {
        for (index, variant) in VARIANTS.iter().enumerate() {
            bench.step(format!("repeat {repeat}: dedup, {}", variant.name))?;
            let figures = &mut samples.0[index];
            one(&folder, &folder.join(index.to_string()), figures)
                .with_context(|| format!("deduplicating a {}", variant.name))?;
        }
    }
    remove(&folder)?;
    Ok(samples)
}

fn changed(base: &[Tensor], variant: &Variant) -> Vec<Tensor> {
    let change = |tensor: &Tensor| {
        let layer = tensor.name.split('.').nth(2).and_then(|layer| layer.parse().ok()).unwrap_or(0);
        let seed = if (variant.changes)(layer, &tensor.name) { tensor.seed + 1_000_000 } else { tensor.seed };
        Tensor { seed, ..tensor.clone() }
    };
    base.iter().map(change).collect()
}

/// One variant in a store of its own beside its base.
fn one(folder: &Path, variant: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let store = folder.join("store");
    remove(&store)?;
    let runtime = Handle::current();
    let open = || runtime.block_on(Registry::open(&store, RegistryConfig::default()));
    let registry = open()?;
    runtime.block_on(import(&registry, &folder.join("base"), "base"))?;
    let before = weights_on_disk(&store)?;
    let manifest = runtime.block_on(import(&registry, variant, "variant"))?;
    drop(registry);
    remove(&store.join("verified"))?;
    read_back(&open()?, &manifest, figures, 1)?;
    let registry = open()?;
    let began = Clock.now();
    let report = runtime.block_on(registry.deduplicate())?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(report.recipes_made > 0, "no file became a recipe");
    let bytes = weight_bytes(&manifest) as f64;
    let added = weights_on_disk(&store)?.saturating_sub(before) as f64;
    figures.saved_percent.push((1.0 - added / bytes) * 100.0);
    figures.seconds_per_gb.push(seconds / (bytes / 1e9));
    drop(registry);
    remove(&store.join("verified"))?;
    read_back(&open()?, &manifest, figures, 0)?;
    remove(&store)
}

async fn import(registry: &Arc<Registry>, folder: &Path, name: &str) -> anyhow::Result<Arc<Manifest>> {
    let name: ModelRef = name.parse()?;
    Ok(registry.import(folder, Some(name), &mut |_| {}).await?.manifest)
}

/// Bytes of blobs and recipes in a store; the small files of a model are a few thousand of them.
fn weights_on_disk(store: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for folder in ["blobs/sha256", "recipes"].map(|name| store.join(name)) {
        if folder.is_dir() {
            for entry in std::fs::read_dir(folder)? {
                bytes += entry?.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

fn weight_bytes(manifest: &Manifest) -> u64 {
    manifest.files(Role::Weights).map(|file| file.blob.size).sum()
}

/// Opens the weights twice in what counts as a new process, and reads them through their maps.
fn read_back(
    registry: &Arc<Registry>,
    manifest: &Manifest,
    figures: &mut Figures,
    which: usize,
) -> anyhow::Result<()> {
    let open = || -> anyhow::Result<(u64, Vec<FileBytes>)> {
        let open = async {
            let mut files = Vec::new();
            for file in manifest.files(Role::Weights) {
                files.push(registry.file(file).await?);
            }
            anyhow::Ok(files)
        };
        Ok((weight_bytes(manifest), Handle::current().block_on(open)?))
    };
    let (first, files) = timed(open)?;
    drop(files);
    figures.first_open[which].push(first.seconds / (first.bytes as f64 / 1e9));
    let (again, files) = timed(open)?;
    figures.open_ms[which].push(again.seconds * 1e3);
    // Once to have every page there, once to measure.
    sum(&files);
    let (read, _) = timed(|| Ok((weight_bytes(manifest), std::hint::black_box(sum(&files)))))?;
    figures.read[which].push(Load::rate(&read));
    Ok(())
}

/// Touches every byte.
fn sum(files: &[FileBytes]) -> u64 {
    let ranges = files.iter().flat_map(|file| file.pieces(0..file.len()));
    let words = |bytes: &[u8]| {
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
    };
    ranges.fold(0_u64, |sum, (blob, range)| sum.wrapping_add(words(&blob[range])))
}

/// The rows, measured or not.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    let whole = "whole file";
    let rows = |(variant, figures): (&Variant, &Figures)| {
        let row = |what: &str, unit, pair: &[Vec<f64>; 2]| {
            let [recipe, file] = pair;
            Row::reported(&format!("dedup, {}: {what}", variant.name), unit, recipe, Some((whole, file)))
        };
        let alone = |what: &str, unit, samples: &[f64]| {
            Row::reported(&format!("dedup, {}: {what}", variant.name), unit, samples, None)
        };
        [
            alone("bytes saved", "%", &figures.saved_percent),
            alone("made in", "s/GB", &figures.seconds_per_gb),
            row("first open", "s/GB", &figures.first_open),
            row("later opens", "ms", &figures.open_ms),
            row("read in memory", "GB/s", &figures.read),
        ]
    };
    VARIANTS.iter().zip(&samples.0).flat_map(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::{LAYERS, VARIANTS, changed, made};

    #[test]
    fn variants_change_what_they_say() {
        let base = made::tensors(1 << 20, LAYERS);
        let share = |index: usize| {
            let variant = changed(&base, &VARIANTS[index]);
            let differing = base.iter().zip(&variant).filter(|(a, b)| a.seed != b.seed);
            differing.count() as f64 / base.len() as f64
        };
        assert!((0.2..0.25).contains(&share(0)));
        assert_eq!(share(1), 0.0);
        assert!((0.2..0.4).contains(&share(2)));
    }
}
