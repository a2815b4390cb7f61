//! `helios show`: one model, and what it was made from as far as that is in the store.

use std::collections::{BTreeMap, HashSet};

use helios_model::{Lineage, Manifest, MemoryProfile, ModelFacts, Relation, Role};
use helios_registry::{ModelSummary, RegistryError, Resolved, TagEntry};
use helios_types::{Classify, DEFAULT_TAG, Digest, ErrorCode, ModelRef, TensorType};
use serde::Serialize;
use serde_json::json;

use crate::cli::ShowArgs;
use crate::config::{Config, show_size};
use crate::store::Store;

/// Ancestors that are shown.
const ANCESTORS_MAX: usize = 64;

/// A model that another was made from.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Ancestor {
    /// Steps from the model that is shown.
    depth: usize,
    /// Its name, as the descendant's files say.
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<Relation>,
    /// Where it is in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<ModelRef>,
    /// Whether it was shown before: lineages of strangers may lead in circles.
    again: bool,
}

/// An ancestor that is still to be looked for.
struct Parent {
    ancestor: Ancestor,
    /// Its manifest, where that is known for certain.
    digest: Option<Digest>,
    /// What to look for if it is not here.
    instead: Vec<Parent>,
}

/// `helios show`.
pub(crate) async fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<()> {
    let store = Store::open(config).await?;
    let (resolved, history) = store.show(&args.model.parse()?).await?;
    let ancestors = ancestors(&store, &resolved).await?;
    if args.json {
        // As `helios fit` has them, which also says why files that are no model have none.
        let totals = store.profile(&resolved).await.ok().map(|profile| profile.totals());
        let shown = json!({
            "model": resolved.reference,
            "digest": resolved.digest,
            "serving_bytes": totals.as_ref().map(|totals| totals.serving_bytes),
            "accelerate_bytes": totals.and_then(|totals| totals.accelerate_bytes),
            "manifest": *resolved.manifest,
            "ancestors": ancestors,
            "history": history,
        });
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        print_model(&resolved, &ancestors, &history);
    }
    Ok(())
}

/// What the model was made from, and what that was made from, as far as the store has it. Each version is looked into
/// once.
async fn ancestors(store: &Store, resolved: &Resolved) -> Result<Vec<Ancestor>, RegistryError> {
    let mut waiting = parents(1, &resolved.manifest);
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    // Names are looked up in the list: to ask for one that is not here could fetch it from elsewhere.
    let models = store.list().await?;
    let mut seen = HashSet::from([resolved.digest]);
    let mut ancestors = Vec::new();
    while ancestors.len() < ANCESTORS_MAX
        && let Some(Parent { mut ancestor, digest, instead }) = waiting.pop()
    {
        match find(&models, &ancestor.model, digest) {
            None => waiting.extend(instead),
            Some(summary) => {
                ancestor.here = Some(summary.model.clone());
                ancestor.again = !seen.insert(summary.digest);
                if !ancestor.again {
                    waiting.extend(parents_of(store, &summary.model, ancestor.depth + 1).await?);
                }
            }
        }
        ancestors.push(ancestor);
    }
    Ok(ancestors)
}

/// The parents of a model of the list, which somebody may have removed since.
async fn parents_of(store: &Store, model: &ModelRef, depth: usize) -> Result<Vec<Parent>, RegistryError> {
    match store.show(model).await {
        Ok((resolved, _)) => Ok(parents(depth, &resolved.manifest)),
        Err(error) if error.code() == ErrorCode::ModelNotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a manifest says it was made from, the last first: the version that was converted, which has the same base
/// models, or these.
fn parents(depth: usize, manifest: &Manifest) -> Vec<Parent> {
    let Some(lineage) = &manifest.lineage else { return Vec::new() };
    let parent = |model: String, relation, digest| Parent {
        ancestor: Ancestor { depth, model, relation, here: None, again: false },
        digest,
        instead: Vec::new(),
    };
    let bases = lineage.base_models.iter().rev().map(|base| parent(base.model.clone(), base.relation, None));
    let bases: Vec<Parent> = bases.collect();
    match &lineage.converted {
        Some(converted) => {
            let version = parent(converted.model.to_string(), None, Some(converted.manifest));
            vec![Parent { instead: bases, ..version }]
        }
        None => bases,
    }
}

/// The version of the list that is meant: the one with the digest, or what the name means.
fn find<'a>(models: &'a [ModelSummary], name: &str, digest: Option<Digest>) -> Option<&'a ModelSummary> {
    if let Some(digest) = digest {
        return models.iter().find(|summary| summary.digest == digest);
    }
    let named = || models.iter().filter(|summary| summary.model.name() == name);
    let latest = named().find(|summary| summary.model.tag() == DEFAULT_TAG);
    latest.or_else(|| named().max_by_key(|summary| summary.changed_at))
}

fn print_model(resolved: &Resolved, ancestors: &[Ancestor], history: &[TagEntry]) {
    let Resolved { reference, digest, manifest } = resolved;
    println!("{reference}\n  manifest      {digest}");
    match (&manifest.metadata, &manifest.profile) {
        (Some(facts), Some(profile)) => {
            print_facts(facts, profile);
            println!(
                "  native        {}",
                if manifest.is_native() { "yes" } else { "no: for other engines" }
            );
        }
        _ => println!("  these files are kept, but are no model that Helios can serve"),
    }
    println!("  licence       {}", manifest.licence().unwrap_or("not stated"));
    for (what, role) in [("tokenizer", Role::Tokenizer), ("template", Role::ChatTemplate)] {
        if let Some(file) = manifest.file(role) {
            println!("  {what:<13} {}", file.blob.digest);
        }
    }
    manifest.lineage.iter().for_each(print_lineage);
    ancestors.iter().for_each(print_ancestor);
    println!("  files");
    for file in &manifest.files {
        println!("    {:<16} {:>10}  {}", file.role.as_str(), show_size(file.blob.size), file.path);
    }
    println!("  history, newest first");
    for entry in history.iter().rev() {
        println!("    {} from {}", entry.digest, entry.source);
    }
}

fn print_facts(facts: &ModelFacts, profile: &MemoryProfile) {
    let told = |number: u64, shown: String| if number > 0 { shown } else { "not stated".to_owned() };
    let parameters = told(facts.parameters, format!("{:.1} M parameters", facts.parameters as f64 / 1e6));
    println!("  architecture  {}, {parameters}", facts.architecture);
    println!("  context       {}", told(facts.context_tokens, format!("{} tokens", facts.context_tokens)));
    println!("  weights       {}, {}", facts.quantisation, show_size(profile.weight_bytes));
    println!("  by type       {}", by_type(&profile.weight_bytes_by_type));
    let kv_bytes = profile.kv_bytes_per_token;
    println!("  KV cache      {}", told(kv_bytes, format!("{} a token", show_size(kv_bytes))));
    println!("  source        {}", facts.source);
}

fn by_type(bytes: &BTreeMap<TensorType, u64>) -> String {
    let shown = |(tensor_type, bytes): (&TensorType, &u64)| format!("{tensor_type} {}", show_size(*bytes));
    bytes.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn print_lineage(lineage: &Lineage) {
    if let Some(by) = &lineage.quantised_by {
        println!("  quantised by  {by}");
    }
    if let Some(at) = &lineage.published_at {
        println!("  published at  {at}");
    }
    if let Some(converted) = &lineage.converted {
        println!("  converted by  {}, from {}", converted.by, converted.manifest);
    }
}

fn print_ancestor(ancestor: &Ancestor) {
    let indent = "  ".repeat(ancestor.depth.min(8) - 1);
    let relation = ancestor.relation.map(|relation| format!(" ({relation})")).unwrap_or_default();
    let here = match (&ancestor.here, ancestor.again) {
        (Some(here), false) => format!(", here as {here}"),
        (Some(here), true) => format!(", here as {here}, shown above: the lineage leads back to it"),
        (None, _) => String::new(),
    };
    println!("  made from     {indent}{}{relation}{here}", ancestor.model);
}
