//! The versions of one name, as protocols with revisions see them: tags, `main`, and commits, which are the first 40 hex
//! digits of a manifest's digest.

use helios_registry::{Registry, RegistryError, TagEntry};
use helios_types::{DEFAULT_TAG, Digest, ModelRef};

/// Hex digits of a commit.
pub(crate) const COMMIT_DIGITS: usize = 40;

/// The revision that means [`Versions::main`].
const MAIN: &str = "main";

/// The tags of one name with their histories; there is at least one.
#[derive(Debug)]
pub(crate) struct Versions(Vec<(ModelRef, Vec<TagEntry>)>);

impl Versions {
    /// The tags of `name`; `None` if it has none.
    pub(crate) async fn of(registry: &Registry, name: &str) -> Result<Option<Self>, RegistryError> {
        let tags = registry.tags_of(name).await?;
        Ok((!tags.is_empty()).then_some(Self(tags)))
    }

    /// Where each tag points.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&str, &TagEntry)> {
        self.0.iter().filter_map(|(reference, history)| Some((reference.tag(), history.last()?)))
    }

    /// Where each name points, the one with the tag `latest` first.
    pub(crate) fn current(&self) -> impl Iterator<Item = (&ModelRef, &TagEntry)> {
        let named = || self.0.iter().filter_map(|(reference, history)| Some((reference, history.last()?)));
        let is_latest = |(reference, _): &(&ModelRef, &TagEntry)| reference.tag() == DEFAULT_TAG;
        named().filter(is_latest).chain(named().filter(move |one| !is_latest(one)))
    }

    /// What `main` means: the tag `latest` if there is one, else what was last pulled or pushed.
    pub(crate) fn main(&self) -> Option<&TagEntry> {
        let latest = self.tags().find(|(tag, _)| *tag == DEFAULT_TAG).map(|(_, entry)| entry);
        latest.or_else(|| self.tags().map(|(_, entry)| entry).max_by_key(|entry| entry.at))
    }

    /// What a revision means: `main`, a commit of any tag's history, or a tag. A tag looks like a commit where a model was
    /// pulled from another hub at a commit of that hub.
    pub(crate) fn find(&self, revision: &str) -> Option<&TagEntry> {
        if revision == MAIN {
            return self.main();
        }
        let tag = || self.tags().find(|(tag, _)| *tag == revision).map(|(_, entry)| entry);
        self.commit(revision).or_else(tag)
    }

    fn commit(&self, revision: &str) -> Option<&TagEntry> {
        let mut entries = self.0.iter().flat_map(|(_, history)| history);
        entries.find(|entry| is_commit(revision) && entry.digest.hex().starts_with(revision))
    }

    /// Every version that a tag points to or pointed to.
    pub(crate) fn all(&self) -> impl Iterator<Item = &TagEntry> {
        self.0.iter().flat_map(|(_, history)| history.iter().rev())
    }

    /// The names with their tags.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        self.0.iter().map(|(reference, _)| reference)
    }
}

/// Whether a revision looks like a commit, short or long.
pub(crate) fn is_commit(revision: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    matches!(revision.len(), COMMIT_DIGITS | 64) && revision.bytes().all(is_hex)
}

/// The tag that is written for a revision.
pub(crate) fn tag_of(revision: &str) -> &str {
    if revision == MAIN { DEFAULT_TAG } else { revision }
}

/// The commit of a version.
pub(crate) fn commit_of(digest: &Digest) -> String {
    digest.hex()[..COMMIT_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use helios_registry::TagEntry;
    use helios_types::Digest;

    use super::{Versions, commit_of};

    fn entry(seed: u8, at: u64) -> TagEntry {
        TagEntry { digest: Digest::from_bytes([seed; 32]), at, source: String::new() }
    }

    fn versions(tags: &[(&str, &[TagEntry])]) -> Versions {
        let named = |(tag, history): &(&str, &[TagEntry])| {
            (format!("m:{tag}").parse().expect("a name"), history.to_vec())
        };
        Versions(tags.iter().map(named).collect())
    }

    #[test]
    fn main_is_latest_or_what_came_last() {
        let versions_without = versions(&[("a", &[entry(1, 5)]), ("b", &[entry(2, 9), entry(3, 7)])]);
        assert_eq!(versions_without.find("main"), Some(&entry(3, 7)));
        let with = versions(&[("a", &[entry(1, 5)]), ("latest", &[entry(2, 1)])]);
        assert_eq!(with.find("main"), Some(&entry(2, 1)));
        let current: Vec<String> = with.current().map(|(reference, _)| reference.to_string()).collect();
        assert_eq!(current, ["m:latest", "m:a"]);
    }

    #[test]
    fn a_tag_that_looks_like_a_commit_is_found_behind_the_commits() {
        let (theirs, ours) = ("0123456789".repeat(4), commit_of(&entry(1, 1).digest));
        let versions = versions(&[(&theirs, &[entry(1, 1)]), (&ours, &[entry(2, 2)])]);
        assert_eq!(versions.find(&theirs), Some(&entry(1, 1)));
        assert_eq!(versions.find(&ours), Some(&entry(1, 1)));
    }

    #[test]
    fn commits_of_every_history_are_revisions() {
        let versions = versions(&[("b", &[entry(2, 3), entry(3, 7)])]);
        assert_eq!(versions.find("b"), Some(&entry(3, 7)));
        let old = entry(2, 3).digest;
        assert_eq!(versions.find(&commit_of(&old)), Some(&entry(2, 3)));
        assert_eq!(versions.find(&old.hex()), Some(&entry(2, 3)));
        for none in ["c", "", &"0".repeat(40), &old.hex()[..39], "refs/pr/1"] {
            assert_eq!(versions.find(none), None, "{none}");
        }
    }
}
