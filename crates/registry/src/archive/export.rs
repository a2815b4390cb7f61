//! An archive of models of the store: laid out at once, its bytes made when they are read.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryFutureExt, stream};
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

use super::format::{END_BYTES, LAYOUT, MODELS_MAX, Name, header, padding, write_index};
use super::{ArchivedModel, ByteStream};
use crate::artifact::Artifact;
use crate::registry::{digest_of, invalid_request};
use crate::{Registry, RegistryError, Resolved};

/// Models of the store as one file. While it is there, garbage collection leaves them alone.
#[derive(Debug)]
pub struct Archive {
    registry: Arc<Registry>,
    /// What keeps the versions.
    _models: Vec<Resolved>,
    /// Each with the byte that it begins at.
    segments: Vec<(u64, Segment)>,
    size: u64,
    tag: String,
}

#[derive(Clone, Debug)]
enum Segment {
    Bytes(Bytes),
    File(BlobInfo),
}

impl Segment {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(info) => info.size,
        }
    }
}

impl Registry {
    /// Lays out an archive of models, each with the tag that is meant. The order of the names does not count.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::InvalidRequest`] for none or more than 1,000.
    pub async fn archive(self: &Arc<Self>, models: &[ModelRef]) -> Result<Arc<Archive>, RegistryError> {
        if models.is_empty() || models.len() > MODELS_MAX {
            let problem = format!("{} models, an archive has 1 to {MODELS_MAX}", models.len());
            return Err(invalid_request(problem));
        }
        let mut resolved = Vec::new();
        for model in models {
            resolved.push(self.resolve(model).await?);
        }
        resolved.sort_by(|a, b| a.reference.cmp(&b.reference));
        resolved.dedup_by(|a, b| a.reference == b.reference);
        let mut indexed = Vec::new();
        for model in &resolved {
            let artifact = Artifact::of(self, &model.digest, &model.manifest).await?;
            let model = ArchivedModel { model: model.reference.clone(), digest: model.digest };
            indexed.push((model, artifact));
        }
        Ok(Arc::new(Archive::lay_out(Arc::clone(self), resolved, &indexed)))
    }
}

impl Archive {
    fn lay_out(
        registry: Arc<Registry>,
        models: Vec<Resolved>,
        indexed: &[(ArchivedModel, Artifact)],
    ) -> Self {
        let index = write_index(indexed);
        let tag = digest_of(&index).hex();
        let mut layout = Layout::default();
        layout.bytes(Name::Layout, Bytes::from_static(LAYOUT));
        layout.bytes(Name::Index, index.into());
        for model in &models {
            layout.blob(model.digest, || Segment::Bytes(model.manifest.to_bytes().into()));
        }
        for (_, artifact) in indexed {
            layout.blob(artifact.digest, || Segment::Bytes(artifact.bytes.clone()));
        }
        for file in models.iter().flat_map(|model| &model.manifest.files) {
            layout.blob(file.blob.digest, || Segment::File(file.blob));
        }
        layout.push(Segment::Bytes(Bytes::from_static(&[0; END_BYTES as usize])));
        Self { registry, _models: models, segments: layout.segments, size: layout.size, tag }
    }

    /// Its bytes, all in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Names its contents: archives with the same tag have the same bytes.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// `range` of its bytes, which must lie within the size. Each file is verified before its first byte comes.
    pub fn read(self: &Arc<Self>, range: Range<u64>) -> ByteStream {
        let first = self.segments.partition_point(|(start, segment)| start + segment.size() <= range.start);
        let archive = Arc::clone(self);
        let parts = (first..self.segments.len())
            .take_while({
                let (archive, end) = (Arc::clone(self), range.end);
                move |at| archive.segments[*at].0 < end
            })
            .map(move |at| {
                let (start, segment) = &archive.segments[at];
                let part = range.start.saturating_sub(*start)..segment.size().min(range.end - start);
                part_of(Arc::clone(&archive), segment.clone(), part)
            });
        stream::iter(parts).flatten().boxed()
    }
}

/// Some bytes of a segment.
fn part_of(archive: Arc<Archive>, segment: Segment, part: Range<u64>) -> ByteStream {
    match segment {
        Segment::Bytes(bytes) => {
            let bytes = bytes.slice(part.start as usize..part.end as usize);
            stream::once(async move { Ok(bytes) }).boxed()
        }
        Segment::File(info) => {
            async move { archive.registry.content(info).read(part).await }.try_flatten_stream().boxed()
        }
    }
}

/// What comes where.
#[derive(Default)]
struct Layout {
    segments: Vec<(u64, Segment)>,
    size: u64,
    there: HashSet<Digest>,
}

impl Layout {
    fn push(&mut self, segment: Segment) {
        let start = self.size;
        self.size += segment.size();
        if self.size > start {
            self.segments.push((start, segment));
        }
    }

    fn entry(&mut self, name: Name, contents: Segment) {
        let size = contents.size();
        self.push(Segment::Bytes(Bytes::copy_from_slice(header(&name, size).as_bytes())));
        self.push(contents);
        self.push(Segment::Bytes(Bytes::from(vec![0; padding(size) as usize])));
    }

    fn bytes(&mut self, name: Name, bytes: Bytes) {
        self.entry(name, Segment::Bytes(bytes));
    }

    /// A blob, unless it is there.
    fn blob(&mut self, digest: Digest, contents: impl FnOnce() -> Segment) {
        if self.there.insert(digest) {
            self.entry(Name::Blob(digest), contents());
        }
    }
}
