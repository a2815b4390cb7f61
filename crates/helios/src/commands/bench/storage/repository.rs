//! The model that is pulled and downloaded: written once a run, and the answers of a static server that has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::made;
use super::origin::{Content, Resource};
use super::scratch::Bench;

/// The repository's name.
pub(super) const NAME: &str = "bench/model";
/// What names its only version where Helios does not.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Layers of the model, and files of its weights.
const LAYERS: u64 = 8;
const SHARDS: usize = 4;

/// A folder with the model.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) folder: PathBuf,
    files: Vec<(String, u64)>,
}

impl Repository {
    /// Writes the model, unless another part of this run did.
    pub(super) fn make(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder.join("repository");
        if !folder.is_dir() {
            bench.step("writing a model")?;
            made::write(&folder, &made::tensors(bench.bytes, LAYERS), SHARDS)?;
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a file's name is no text")?;
            files.push((name, entry.metadata()?.len()));
        }
        files.sort_unstable();
        Ok(Self { folder, files })
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    /// Where [`resources`](Self::resources) has the files, and how long they are.
    pub(super) fn paths(&self) -> Vec<(String, u64)> {
        self.files.iter().map(|(name, size)| (path(COMMIT, name), *size)).collect()
    }

    /// What a static server answers, with a list of files that names their sizes alone, as for a repository without LFS.
    pub(super) fn resources(&self) -> BTreeMap<String, Resource> {
        let siblings: Vec<Value> =
            self.files.iter().map(|(name, size)| json!({"rfilename": name, "size": size})).collect();
        let listing = json!({"id": NAME, "sha": COMMIT, "siblings": siblings}).to_string();
        self.resources_of([(listing_path(), listing.into_bytes())], COMMIT, |name| format!("\"{name}\""))
    }

    /// What a static server answers with these documents about the files, and these entity tags.
    pub(super) fn resources_of(
        &self,
        documents: impl IntoIterator<Item = (String, Vec<u8>)>,
        commit: &str,
        tag: impl Fn(&str) -> String,
    ) -> BTreeMap<String, Resource> {
        let document = |(path, bytes)| {
            let headers = vec![("content-type", "application/json".to_owned())];
            (path, Resource { headers, content: Content::Bytes(bytes) })
        };
        let mut resources: BTreeMap<String, Resource> = documents.into_iter().map(document).collect();
        for (name, size) in &self.files {
            let headers = vec![
                ("x-repo-commit", commit.to_owned()),
                ("etag", tag(name)),
                ("x-linked-etag", tag(name)),
                ("x-linked-size", size.to_string()),
            ];
            let content = Content::File(self.folder.join(name), *size);
            resources.insert(path(commit, name), Resource { headers, content });
        }
        resources
    }
}

/// Where the hub's protocol has the list of files, with their digests.
pub(super) fn listing_path() -> String {
    format!("/api/models/{NAME}/revision/main")
}

/// Where it has the tree of a commit.
pub(super) fn tree_path(commit: &str) -> String {
    format!("/api/models/{NAME}/tree/{commit}")
}

fn path(commit: &str, name: &str) -> String {
    format!("/{NAME}/resolve/{commit}/{name}")
}

/// The commit, and the entity tag of each file, of a list of files that Helios gave.
pub(super) fn tags(listing: &[u8]) -> anyhow::Result<(String, BTreeMap<String, String>)> {
    let listing: Value = serde_json::from_slice(listing).context("the list of files is no JSON")?;
    let commit = listing["sha"].as_str().context("the list of files names no commit")?.to_owned();
    let siblings = listing["siblings"].as_array().context("the list of files has no files")?;
    let tag = |sibling: &Value| {
        let digest = sibling["lfs"]["sha256"].as_str()?;
        Some((sibling["rfilename"].as_str()?.to_owned(), format!("\"{digest}\"")))
    };
    let tags = siblings.iter().map(tag).collect::<Option<_>>().context("a file has no digest")?;
    Ok((commit, tags))
}
