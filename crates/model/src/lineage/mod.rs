//! Where a model comes from, as its files say: what it was made from and how, who quantised or converted it, where it is
//! published.
//!
//! All of it is what strangers wrote: texts are bounded and plain, nothing is followed, and a lineage that leads in a
//! circle is no error. Only [`Conversion`] was seen by Helios itself.

mod card;
mod gguf;

use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};

pub use card::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};

/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 300;
/// Models that one is made from; merges of today have under twenty.
const BASES_MAX: usize = 32;

/// Where a model comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The models that it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_models: Vec<BaseModel>,
    /// Who quantised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantised_by: Option<String>,
    /// Where its publisher says that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<String>,
    /// How Helios made it from another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converted: Option<Conversion>,
    /// SPDX-like name of the licence of files that are no model; that of a model is among its facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A model that another was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModel {
    /// Its name, as on the hub where it has one.
    pub model: String,
    /// What was done with it, where that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// Which version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What one model is to the model it was made from, in the hub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It was trained further.
    Finetune,
    /// It is an adapter for it.
    Adapter,
    /// It was quantised from it.
    Quantized,
    /// It was merged from it and others.
    Merge,
}

/// How Helios made a version from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversion {
    /// The program and its version.
    pub by: String,
    /// What the other version was called.
    pub model: ModelRef,
    /// Its manifest.
    pub manifest: Digest,
}

impl Relation {
    const ALL: [Self; 4] = [Self::Finetune, Self::Adapter, Self::Quantized, Self::Merge];

    /// The hub's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finetune => "finetune",
            Self::Adapter => "adapter",
            Self::Quantized => "quantized",
            Self::Merge => "merge",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|relation| relation.as_str() == word)
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Lineage {
    /// Itself, if it says anything.
    pub fn if_known(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// Fills up with what `other` knows besides.
    pub fn or(mut self, other: Self) -> Self {
        for base in other.base_models {
            match self.base_models.iter_mut().find(|known| known.model == base.model) {
                Some(known) => {
                    known.relation = known.relation.or(base.relation);
                    known.version = known.version.take().or(base.version);
                }
                None => self.add(base),
            }
        }
        self.quantised_by = self.quantised_by.or(other.quantised_by);
        self.published_at = self.published_at.or(other.published_at);
        self.converted = self.converted.or(other.converted);
        self.licence = self.licence.or(other.licence);
        self
    }

    /// Adds a base model; over the bound they go unnamed.
    fn add(&mut self, base: BaseModel) {
        if self.base_models.len() < BASES_MAX {
            self.base_models.push(base);
        }
    }
}

/// A text as it can be kept and shown: on one line, neither empty nor endless.
fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// The name that a model has on the hub, if a text is its address.
fn hub_name(address: &str) -> Option<&str> {
    let path = ["https://huggingface.co/", "http://huggingface.co/", "https://hf.co/"]
        .iter()
        .find_map(|prefix| address.strip_prefix(prefix))?;
    let path = path.trim_end_matches('/');
    (path.split('/').count() == 2 && !path.contains(['?', '#'])).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::{BASES_MAX, BaseModel, Lineage, Relation, hub_name, plain};

    fn base(model: &str, relation: Option<Relation>) -> BaseModel {
        BaseModel { model: model.to_owned(), relation, version: None }
    }

    #[test]
    fn what_two_files_say_becomes_one_lineage() {
        let card = Lineage { base_models: vec![base("org/a", None)], ..Lineage::default() };
        let header = Lineage {
            base_models: vec![base("org/a", Some(Relation::Finetune)), base("org/b", None)],
            quantised_by: Some("somebody".to_owned()),
            ..Lineage::default()
        };
        let both = card.or(header);
        assert_eq!(both.base_models, [base("org/a", Some(Relation::Finetune)), base("org/b", None)]);
        assert_eq!(both.quantised_by.as_deref(), Some("somebody"));
        assert_eq!(Lineage::default().if_known(), None);
        let many = (0..100).map(|number| base(&format!("org/{number}"), None)).collect();
        let many = Lineage::default().or(Lineage { base_models: many, ..Lineage::default() });
        assert_eq!(many.base_models.len(), BASES_MAX);
    }

    #[test]
    fn texts_of_strangers_are_short_and_plain() {
        assert_eq!(plain(" org/model ").as_deref(), Some("org/model"));
        for bad in ["", "  ", "a\u{1b}[31m", "a\nb", &"x".repeat(301)] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
        assert_eq!(hub_name("https://huggingface.co/org/model/"), Some("org/model"));
        for other in ["https://huggingface.co/org", "https://example.org/org/model", "org/model"] {
            assert_eq!(hub_name(other), None, "{other}");
        }
    }
}
