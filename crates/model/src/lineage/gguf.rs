//! What the header of a GGUF file says: `general.base_model.N.*`, `general.quantized_by`, `general.source.*`.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, "General metadata". A key of another type than the
//! specification has says nothing.

use helios_storage::{Gguf, GgufValue};

use super::{BASES_MAX, BaseModel, Lineage, Relation, hub_name, plain};

impl Lineage {
    /// What a header says.
    pub(crate) fn of_gguf(gguf: &Gguf) -> Self {
        let mut lineage = Self {
            quantised_by: text(gguf, "general.quantized_by"),
            published_at: first(gguf, &["general.repo_url", "general.url"]),
            ..Self::default()
        };
        for number in 0..BASES_MAX {
            let Some(base) = base(gguf, number) else { break };
            lineage.add(base);
        }
        lineage.or(source(gguf))
    }
}

/// The model that the file was made from without training.
fn source(gguf: &Gguf) -> Lineage {
    let is_quantised = gguf.metadata.contains_key("general.quantized_by");
    let address = first(gguf, &["general.source.repo_url", "general.source.url"]);
    let model = text(gguf, "general.source.huggingface.repository")
        .or_else(|| address.as_deref().and_then(hub_name).map(str::to_owned));
    let mut lineage = Lineage::default();
    match model.filter(|_| is_quantised) {
        Some(model) => lineage.add(BaseModel { model, relation: Some(Relation::Quantized), version: None }),
        None => lineage.published_at = address,
    }
    lineage
}

fn base(gguf: &Gguf, number: usize) -> Option<BaseModel> {
    let field = |field: &str| text(gguf, &format!("general.base_model.{number}.{field}"));
    let address = field("repo_url").or_else(|| field("url"));
    let named = || {
        let name = field("name")?;
        Some(match field("organization") {
            Some(organisation) => format!("{organisation}/{name}"),
            None => name,
        })
    };
    let model = address.as_deref().and_then(hub_name).map(str::to_owned).or_else(named)?;
    Some(BaseModel { model, relation: None, version: field("version") })
}

fn first(gguf: &Gguf, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| text(gguf, key))
}

fn text(gguf: &Gguf, key: &str) -> Option<String> {
    match gguf.metadata.get(key)? {
        GgufValue::String(text) => plain(text),
        _ => None,
    }
}
