//! Tag histories as files: `tags/NAME/@TAG.json`, a list of what the tag pointed to, oldest first.
//!
//! The `@`, which no name has, keeps the tags of `a` apart from the folder of `a/b`.

use std::path::{Path, PathBuf};

use helios_metadata::TagEntry;
use helios_storage::DurableFiles;
use helios_types::ModelRef;

use crate::RegistryError;

/// Entries of one history; the oldest go when there are more.
const HISTORY_MAX: usize = 100;

/// The file of a tag.
pub(crate) fn path(tags: &Path, reference: &ModelRef) -> PathBuf {
    tags.join(reference.name()).join(format!("@{}.json", reference.tag()))
}

/// The tag that a file is of, if its path is one of a tag.
pub(crate) fn reference_of(tags: &Path, path: &Path) -> Option<ModelRef> {
    let name = path.parent()?.strip_prefix(tags).ok()?.to_str()?;
    let tag = path.file_name()?.to_str()?.strip_prefix('@')?.strip_suffix(".json")?;
    format!("{name}:{tag}").parse().ok()
}

/// A history that ends in `entry`: with one more entry, of which the oldest go over the bound, or where it points there
/// already with the later time, so that times tell which tag of a name was pulled or pushed last.
pub(crate) fn pointed(history: &[TagEntry], entry: &TagEntry) -> Vec<TagEntry> {
    let (kept, newest) = match history.split_last() {
        Some((last, before)) if last.digest == entry.digest => {
            (before, TagEntry { at: last.at.max(entry.at), ..last.clone() })
        }
        _ => (&history[history.len().saturating_sub(HISTORY_MAX - 1)..], entry.clone()),
    };
    kept.iter().cloned().chain([newest]).collect()
}

/// A history with what another of the same tag has beside it, both in their order, and between them by time.
pub(crate) fn merged(history: &[TagEntry], other: &[TagEntry]) -> Vec<TagEntry> {
    let mut missing = other.iter().filter(|entry| !history.contains(entry)).peekable();
    if missing.peek().is_none() {
        return history.to_vec();
    }
    let mut merged = Vec::new();
    for entry in history {
        while let Some(earlier) = missing.next_if(|missing| missing.at < entry.at) {
            merged = pointed(&merged, earlier);
        }
        merged = pointed(&merged, entry);
    }
    missing.fold(merged, |merged, entry| pointed(&merged, entry))
}

/// Writes a history, durably.
pub(crate) fn write(
    files: &DurableFiles,
    tags: &Path,
    reference: &ModelRef,
    history: &[TagEntry],
) -> Result<(), RegistryError> {
    let bytes = serde_json::to_vec(history).expect("invariant: a history has only string keys");
    let path = path(tags, reference);
    files.create_dir(path.parent().unwrap_or(tags))?;
    Ok(files.write_atomic(&path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use helios_types::{Digest, ModelRef};

    use super::{HISTORY_MAX, merged, path, pointed, reference_of};
    use crate::TagEntry;

    fn entry(seed: u8, at: u64) -> TagEntry {
        TagEntry { digest: Digest::from_bytes([seed; 32]), at, source: format!("from {at}") }
    }

    #[test]
    fn pointing_where_a_tag_points_already_moves_only_the_time() {
        let history = pointed(&pointed(&[], &entry(1, 5)), &entry(2, 7));
        assert_eq!(history, [entry(1, 5), entry(2, 7)]);
        let again = pointed(&history, &entry(2, 9));
        assert_eq!(again, [entry(1, 5), TagEntry { at: 9, ..entry(2, 7) }]);
        assert_eq!(pointed(&again, &entry(2, 8)), again, "time does not go back");
        assert_eq!(pointed(&again, &entry(1, 11)).len(), 3);
        let long = (0..200).fold(Vec::new(), |history, at| pointed(&history, &entry(at as u8, at)));
        assert_eq!((long.len(), long.last()), (HISTORY_MAX, Some(&entry(199, 199))));
    }

    #[test]
    fn histories_that_parted_become_one_without_a_loss() {
        let (base, here, there) = (entry(1, 5), entry(2, 7), entry(3, 9));
        let [one, two] = [[base.clone(), here.clone()], [base.clone(), there.clone()]];
        let both = [base.clone(), here.clone(), there.clone()];
        assert_eq!(merged(&one, &two), both);
        assert_eq!(merged(&two, &one), both);
        assert_eq!(merged(&both, &one), both, "what is known already changes nothing");
        assert_eq!(merged(&[], &one), one);
        // Clocks of two machines differ: what was acknowledged last stays last.
        let skewed = [entry(1, 10), entry(2, 8)];
        assert_eq!(merged(&skewed, &skewed[..1]), skewed);
        let refreshed = [TagEntry { at: 8, ..base.clone() }];
        assert_eq!(merged(&refreshed, &[base]), refreshed, "an entry is there once");
    }

    #[test]
    fn tags_of_nested_names_do_not_collide() {
        let tags = Path::new("/store/tags");
        for name in ["a:latest", "a/b:latest", "a/b/c:v1.0"] {
            let reference: ModelRef = name.parse().expect(name);
            assert_eq!(reference_of(tags, &path(tags, &reference)), Some(reference));
        }
        assert_eq!(reference_of(tags, Path::new("/store/tags/a/.tmp-1-2")), None);
    }
}
