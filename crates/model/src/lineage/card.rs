//! What the Hugging Face form says of a model: the card's front matter (`README.md`), and `adapter_config.json`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{BaseModel, Lineage, Relation, plain};

/// The model card.
pub const CARD_FILE: &str = "README.md";
/// What makes a folder an adapter.
pub const ADAPTER_FILE: &str = "adapter_config.json";

/// Bytes of a card that are read; benchmark results make some long.
pub const CARD_BYTES_MAX: u64 = 4 << 20;

/// A model card, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Card {
    #[serde(default)]
    license: Option<Texts>,
    #[serde(default)]
    license_name: Option<Texts>,
    #[serde(default)]
    base_model: Option<Texts>,
    #[serde(default)]
    base_model_relation: Option<Texts>,
}

/// One text or several; authors write what they like.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
    #[allow(dead_code, reason = "swallows what is neither")]
    Other(IgnoredAny),
}

impl Texts {
    fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
            Self::Other(_) => &[],
        }
    }

    fn first(&self) -> Option<String> {
        self.all().first().and_then(|text| plain(text))
    }
}

impl Card {
    /// Reads the front matter of a card: YAML between two lines of `---`. A card without, or with a broken one, says
    /// nothing: no model fails by what its card is like.
    pub fn of_readme(bytes: &[u8]) -> Self {
        let front = std::str::from_utf8(bytes).ok().and_then(front_matter);
        let Some(front) = front else { return Self::default() };
        serde_saphyr::from_str(front).unwrap_or_else(|error| {
            tracing::info!(%error, "the front matter of a model card cannot be read and is ignored");
            Self::default()
        })
    }

    /// The licence; `other` is what authors write who name it elsewhere.
    pub fn licence(&self) -> Option<String> {
        let text = |texts: &Option<Texts>| texts.as_ref().and_then(Texts::first);
        match text(&self.license) {
            Some(other) if other == "other" => text(&self.license_name).or(Some(other)),
            licence => licence,
        }
    }

    /// The base models.
    pub fn lineage(&self) -> Lineage {
        let relation = self.base_model_relation.as_ref().and_then(Texts::first);
        let relation = relation.and_then(|word| Relation::parse(&word));
        let mut lineage = Lineage::default();
        let names = self.base_model.iter().flat_map(|names| names.all());
        for model in names.filter_map(|name| plain(name)) {
            lineage.add(BaseModel { model, relation, version: None });
        }
        lineage
    }
}

/// What `adapter_config.json` says.
pub fn adapter(bytes: &[u8]) -> Lineage {
    #[derive(Deserialize)]
    struct Adapter {
        base_model_name_or_path: Option<String>,
        revision: Option<String>,
    }
    let mut lineage = Lineage::default();
    let Ok(adapter) = serde_json::from_slice::<Adapter>(bytes) else { return lineage };
    // A path says something about the author's machine and nothing to anybody else.
    let is_path = |name: &String| name.starts_with(['/', '.', '~']) || name.contains('\\');
    let model = adapter.base_model_name_or_path.and_then(|name| plain(&name)).filter(|name| !is_path(name));
    if let Some(model) = model {
        let version = adapter.revision.and_then(|revision| plain(&revision));
        lineage.add(BaseModel { model, relation: Some(Relation::Adapter), version });
    }
    lineage
}

fn front_matter(text: &str) -> Option<&str> {
    let text = text.trim_start_matches('\u{feff}');
    let rest = text.strip_prefix("---")?.trim_start_matches([' ', '\t', '\r']).strip_prefix('\n')?;
    let end = rest.starts_with("---").then_some(0).or_else(|| rest.find("\n---"))?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::{Card, adapter};
    use crate::lineage::Relation;

    fn bases(card: &Card) -> Vec<(String, Option<Relation>)> {
        card.lineage().base_models.into_iter().map(|base| (base.model, base.relation)).collect()
    }

    #[test]
    fn cards_say_what_their_authors_wrote() {
        let card = Card::of_readme(
            b"---\nlicense: apache-2.0\nbase_model: org/base\nbase_model_relation: quantized\ntags:\n- x\n---\n# A model",
        );
        assert_eq!(card.licence().as_deref(), Some("apache-2.0"));
        assert_eq!(bases(&card), [("org/base".to_owned(), Some(Relation::Quantized))]);
        let card = Card::of_readme(
            b"\xef\xbb\xbf---\r\nlicense: other\r\nlicense_name: llama3\r\nbase_model:\r\n  - a/b\r\n  - 'c/d'\r\nmodel-index:\r\n  - {name: x}\r\n---\r\n",
        );
        assert_eq!(card.licence().as_deref(), Some("llama3"));
        assert_eq!(bases(&card), [("a/b".to_owned(), None), ("c/d".to_owned(), None)]);
        let from_hub: Card =
            serde_json::from_str(r#"{"license":["mit","x"],"base_model":{"odd":1},"language":["en"]}"#)
                .expect("JSON");
        assert_eq!((from_hub.licence().as_deref(), bases(&from_hub).len()), (Some("mit"), 0));
    }

    #[test]
    fn cards_that_are_none_or_hostile_say_nothing() {
        let bomb = format!(
            "---\na: &a [x,x,x,x,x,x,x,x,x]\n{}base_model: *i\n---\n",
            ('b'..='i').zip('a'..).fold(String::new(), |text, (name, before)| {
                let before = format!("*{before}");
                format!("{text}{name}: &{name} [{}]\n", vec![before; 9].join(","))
            })
        );
        for odd in [
            "",
            "# A card",
            "---",
            "---\n",
            "---\nnever: closed",
            "---\n: : :\n\t- [\n---\n",
            "---\n---\n",
            &bomb,
        ] {
            let card = Card::of_readme(odd.as_bytes());
            assert!(card.licence().is_none() && bases(&card).is_empty(), "{odd:?}");
        }
        assert!(bases(&Card::of_readme(b"---\nbase_model: \"a\\e[31mb\"\n---\n")).is_empty());
    }

    #[test]
    fn adapters_name_their_base_and_not_somebodys_folder() {
        let lineage =
            adapter(br#"{"peft_type":"LORA","base_model_name_or_path":"org/base","revision":"v1"}"#);
        let base = &lineage.base_models[0];
        assert_eq!((base.model.as_str(), base.relation), ("org/base", Some(Relation::Adapter)));
        assert_eq!(base.version.as_deref(), Some("v1"));
        for none in
            [r#"{"base_model_name_or_path":"/models/base"}"#, r#"{"base_model_name_or_path":7}"#, "[]"]
        {
            assert!(adapter(none.as_bytes()).base_models.is_empty(), "{none}");
        }
    }
}
