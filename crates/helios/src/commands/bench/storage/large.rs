//! A registry of 100,000 versions and a million blobs: how soon it starts, how long it takes to resolve a tag.
//!
//! The database is a real one, filled through the trait that the registry uses, and each manifest is a file as well. The
//! blobs themselves are not there: nothing that is measured looks at them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use helios_metadata::{Change, Metadata, SqlMetadata};
use helios_model::{FileEntry, MANIFEST_SCHEMA, Manifest, MemoryProfile, ModelFacts, Role, WeightFormat};
use helios_registry::{Registry, RegistryClient, RegistryConfig, TagEntry};
use helios_runtime::Clock;
use helios_storage::{BlobInfo, probe};
use helios_types::{ModelRef, TensorType};
use tokio::runtime::Handle;

use super::super::table::{Goal, Row};
use super::child;
use super::scratch::{Bench, remove};

const MODELS: u64 = 100_000;
const BLOBS_PER_MODEL: u64 = 10;
/// Versions of one commit.
const BATCH: u64 = 500;
/// Questions of one repeat.
const QUESTIONS: u64 = 10_000;
/// The same over HTTP.
const HTTP_QUESTIONS: u64 = 3_000;

/// The figures of all repeats.
#[derive(Debug, Default)]
pub(super) struct Samples {
    start: Vec<f64>,
    resolve_p50: Vec<f64>,
    resolve_p99: Vec<f64>,
    http_p50: Vec<f64>,
    http_p99: Vec<f64>,
    list: Vec<f64>,
    gc: Vec<f64>,
}

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Samples> {
    let store = bench.fresh_folder("large")?;
    let runtime = Handle::current();
    // Nobody has a lease whose renewal a collection would have to wait for.
    let config = || RegistryConfig { members_rebuild: Duration::ZERO, ..RegistryConfig::default() };
    let open = || runtime.block_on(Registry::open(&store, config()));
    drop(open()?);
    runtime.block_on(fill(bench, &store))?;
    let mut samples = Samples::default();
    for repeat in bench.repeats() {
        bench.step(format!("repeat {repeat}: resolving tags of 100,000"))?;
        let registry = open()?;
        let mut latencies = runtime.block_on(resolve(&registry, u64::from(repeat)))?;
        samples.resolve_p50.push(at_share(&mut latencies, 0.5));
        samples.resolve_p99.push(at_share(&mut latencies, 0.99));
        let began = Clock.now();
        runtime.block_on(registry.list())?;
        samples.list.push(began.elapsed().as_secs_f64());
        drop(registry);
        bench.step(format!("repeat {repeat}: starting with 100,000 versions"))?;
        let mut command = child::helios(bench, &store)?;
        let server = child::serve(bench, command.args(["registry", "--listen", "127.0.0.1:0"]))?;
        samples.start.push(server.started.as_secs_f64());
        let mut latencies = runtime.block_on(resolve_over_http(&server.address, u64::from(repeat)))?;
        samples.http_p50.push(at_share(&mut latencies, 0.5));
        samples.http_p99.push(at_share(&mut latencies, 0.99));
    }
    bench.step("collecting 100,000 versions")?;
    runtime.block_on(forget_tags(&store))?;
    let registry = open()?;
    let began = Clock.now();
    let report = runtime.block_on(registry.gc())?;
    samples.gc.push(began.elapsed().as_secs_f64());
    anyhow::ensure!(report.manifests_removed as u64 == MODELS, "gc removed {}", report.manifests_removed);
    drop(registry);
    remove(&store)?;
    Ok(samples)
}

fn reference(number: u64) -> anyhow::Result<ModelRef> {
    Ok(format!("org/model-{number}:v").parse()?)
}

/// A version that looks like a model of some files.
fn manifest(number: u64) -> Manifest {
    let file = |index: u64| {
        let blob = number * BLOBS_PER_MODEL + index;
        let digest = probe::sha256(&blob.to_le_bytes());
        let blob = BlobInfo { digest, blake3: *digest.as_bytes(), size: blob + 1 };
        FileEntry { role: Role::Original, path: format!("model-{index:05}-of-00010.safetensors"), blob }
    };
    Manifest {
        schema: MANIFEST_SCHEMA,
        files: (0..BLOBS_PER_MODEL).map(file).collect(),
        metadata: Some(ModelFacts {
            architecture: "llama".to_owned(),
            parameters: number,
            context_tokens: 4096,
            licence: None,
            source: format!("file:/model-{number}"),
            quantisation: TensorType::BF16,
            format: WeightFormat::Safetensors,
        }),
        profile: Some(MemoryProfile {
            weight_bytes: number,
            weight_bytes_by_type: BTreeMap::from([(TensorType::BF16, number)]),
            largest_layer_bytes: 1,
            kv_bytes_per_token: 1,
            details: None,
        }),
        lineage: None,
    }
}

/// Fills the database through its trait, and writes each manifest's file.
async fn fill(bench: &Bench, store: &Path) -> anyhow::Result<()> {
    let store_id = std::fs::read_to_string(store.join("id")).context("the store has no id")?;
    let database = SqlMetadata::sqlite(&store.join("metadata.db")).await?;
    for first in (0..MODELS).step_by(BATCH as usize) {
        bench.step("filling a registry with 100,000 versions, 1,000,000 blobs")?;
        bench.done(first, MODELS);
        let (mut manifests, mut tags) = (Vec::new(), Vec::new());
        for number in first..first + BATCH {
            let manifest = manifest(number);
            let bytes = manifest.to_bytes();
            let digest = probe::sha256(&bytes);
            write_unsynced(&store.join("manifests").join(format!("{}.json", digest.hex())), &bytes)?;
            let (manifest, store) = (Arc::new(manifest), store_id.clone());
            manifests.push(Change::PutManifest { digest, manifest, store });
            let entry = TagEntry { digest, at: 1_000 + number, source: format!("file:/model-{number}") };
            tags.push(Change::SetTag { reference: reference(number)?, history: vec![entry], from: None });
        }
        database.commit(&[manifests, tags].concat()).await?;
    }
    database.close().await;
    Ok(())
}

/// As durable as a file of a bench has to be.
fn write_unsynced(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    std::io::Write::write_all(
        &mut file.with_context(|| format!("cannot create `{}`", path.display()))?,
        bytes,
    )?;
    Ok(())
}

/// Takes every tag out of the database, so that every version is garbage.
async fn forget_tags(store: &Path) -> anyhow::Result<()> {
    let database = SqlMetadata::sqlite(&store.join("metadata.db")).await?;
    for first in (0..MODELS).step_by(BATCH as usize) {
        let forget = (first..first + BATCH).map(|number| Ok(Change::RemoveTag(reference(number)?)));
        database.commit(&forget.collect::<anyhow::Result<Vec<_>>>()?).await?;
    }
    database.close().await;
    Ok(())
}

/// Numbers that come in no order and lie all over: a multiplicative walk (Knuth's constant).
fn numbers(seed: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |step| (seed * 1_000_003 + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) % MODELS)
}

/// Milliseconds of each question.
async fn resolve(registry: &Arc<Registry>, seed: u64) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::new();
    for number in numbers(seed, QUESTIONS) {
        let reference = reference(number)?;
        let began = Clock.now();
        registry.resolve(&reference).await?;
        latencies.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(latencies)
}

async fn resolve_over_http(address: &str, seed: u64) -> anyhow::Result<Vec<f64>> {
    let client = RegistryClient::new(&format!("http://{address}"), None)?;
    let mut latencies = Vec::new();
    for number in numbers(seed, HTTP_QUESTIONS) {
        let reference = reference(number)?;
        let began = Clock.now();
        client.resolve(&reference).await?;
        latencies.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(latencies)
}

fn at_share(latencies: &mut [f64], share: f64) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies[((latencies.len() as f64 * share) as usize).min(latencies.len() - 1)]
}

/// The rows, measured or not.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    let Samples { start, resolve_p50, resolve_p99, http_p50, http_p99, list, gc } = samples;
    let row = |what, unit, samples: &[f64]| Row::reported(what, unit, samples, None);
    let within_ms = Goal::AtMost(1.0);
    vec![
        row("registry: resolve a tag, p99", "ms", resolve_p99).with_goal(within_ms),
        row("registry: resolve a tag over HTTP, p99", "ms", http_p99).with_goal(within_ms),
        row("registry: start with 100,000 manifests, 1,000,000 blobs", "s", start)
            .with_goal(Goal::AtMost(1.0)),
        row("registry: resolve a tag, median", "ms", resolve_p50),
        row("registry: resolve a tag over HTTP, median", "ms", http_p50),
        row("registry: list 100,000 models", "s", list),
        row("registry: collect 100,000 versions", "s", gc),
    ]
}

#[cfg(test)]
mod tests {
    use helios_types::Digest;

    use super::{MODELS, at_share, manifest, numbers};

    #[test]
    fn versions_differ_and_questions_lie_all_over() {
        let digests: Vec<Digest> = (0..3).map(|number| manifest(number).files[0].blob.digest).collect();
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
        let asked: Vec<u64> = numbers(1, 1000).collect();
        assert!(asked.iter().all(|number| *number < MODELS));
        assert!(asked.iter().any(|number| *number < MODELS / 10));
        assert!(asked.iter().any(|number| *number > MODELS / 10 * 9));
        assert_eq!(at_share(&mut [3.0, 1.0, 2.0, 4.0], 0.5), 3.0);
    }
}
