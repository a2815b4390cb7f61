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

/// A history with one more entry; the oldest go over the bound.
pub(crate) fn appended(history: &[TagEntry], entry: TagEntry) -> Vec<TagEntry> {
    let kept = &history[history.len().saturating_sub(HISTORY_MAX - 1)..];
    kept.iter().cloned().chain([entry]).collect()
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

    use helios_types::ModelRef;

    use super::{path, reference_of};

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
