//! The entries of an archive into the store: each blob is checked against its name and its manifest before it counts.

use std::collections::HashSet;
use std::sync::Arc;

use helios_storage::{BlobInfo, BlobWriter, StorageError};
use helios_types::Digest;

use super::format::{
    EXPORT_AGAIN, Entry, INDEX_BYTES_MAX, LAYOUT_BYTES_MAX, NOT_OURS, Name, check_layout, invalid,
};
use super::promised::{Kind, Promised, check_digest, wrong_bytes};
use super::tar_stream::Visitor;
use crate::changes::wait;
use crate::pins::Intake;
use crate::progress::{Phase, Reporter};
use crate::{Registry, RegistryError};

/// How many blobs came in, and how many were there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) blobs_added: usize,
    pub(super) blobs_there: usize,
    pub(super) bytes_added: u64,
}

/// Takes the entries of one archive. Blocks.
pub(super) struct Unpacker {
    registry: Arc<Registry>,
    intake: Arc<Intake>,
    reporter: Reporter,
    has_layout: bool,
    promised: Option<Promised>,
    seen: HashSet<Digest>,
    work: Work,
    counts: Counts,
}

/// What happens to the bytes of the entry that comes just now.
enum Work {
    /// Thrown away: a folder, or a blob that is here.
    Skip,
    /// Kept in memory.
    Small(Name, Option<Kind>, Vec<u8>),
    /// Written.
    Blob(Box<Arriving>),
}

/// A blob on its way.
struct Arriving {
    writer: BlobWriter,
    info: BlobInfo,
    path: String,
    /// Bytes that came, those included that an earlier import had written.
    came: u64,
    /// Bytes that were here already.
    resumed: u64,
}

impl Unpacker {
    pub(super) fn new(registry: Arc<Registry>, intake: Arc<Intake>, reporter: Reporter) -> Self {
        Self {
            registry,
            intake,
            reporter,
            has_layout: false,
            promised: None,
            seen: HashSet::new(),
            work: Work::Skip,
            counts: Counts::default(),
        }
    }

    /// What was promised and has come.
    pub(super) fn finish(mut self) -> Result<(Promised, Counts), RegistryError> {
        let promised = self.promised.take();
        let promised = promised.ok_or_else(|| invalid(Name::Index, "it is missing", NOT_OURS))?;
        for bytes in promised.manifests_as_files() {
            self.intake.put(&bytes)?;
        }
        for (info, path) in promised.files() {
            if self.seen.insert(info.digest) && !self.is_here(info)? {
                let problem = format!("`{path}` is neither in the archive nor in the store");
                return Err(invalid(Name::Blob(info.digest), problem, EXPORT_AGAIN));
            }
        }
        Ok((promised, self.counts))
    }

    fn begin_blob(&mut self, entry: &Entry, digest: Digest) -> Result<Work, RegistryError> {
        let Some(promised) = &self.promised else {
            return Err(invalid(entry.name, "it comes before `index.json`", NOT_OURS));
        };
        let kind = promised.kind(entry, &digest)?;
        if !self.seen.insert(digest) {
            return Err(invalid(entry.name, "it is there twice", NOT_OURS));
        }
        let Some((info, path)) = promised.file(&digest).filter(|_| kind == Kind::File).cloned() else {
            return Ok(Work::Small(entry.name, Some(kind), Vec::new()));
        };
        if self.is_here(&info)? {
            self.counts.blobs_there += 1;
            return Ok(Work::Skip);
        }
        // The key that downloads of known digest have: what either left, the other goes on with.
        let mut writer = self.intake.blobs().writer(&digest.hex(), Some(info.size))?;
        if writer.len() > info.size {
            writer.restart()?;
        }
        let resumed = writer.len();
        Ok(Work::Blob(Box::new(Arriving { writer, info, path, came: 0, resumed })))
    }

    /// Whether the blob is in the store, then pinned, with the BLAKE3 root that the archive says.
    fn is_here(&self, info: &BlobInfo) -> Result<bool, RegistryError> {
        if !self.intake.adopt(info.digest) {
            return Ok(false);
        }
        if wait(self.registry.metadata().blob(&info.digest))? == Some(*info) {
            return Ok(true);
        }
        match self.intake.blobs().open_file(info) {
            Ok(_) => Ok(true),
            Err(StorageError::BlobCorrupt { .. } | StorageError::BlobMissing { .. }) => Ok(false),
            Err(StorageError::BlobMismatch { .. }) => Err(wrong_root(info)),
            Err(error) => Err(error.into()),
        }
    }

    fn end_small(&mut self, name: Name, kind: Option<Kind>, bytes: &[u8]) -> Result<(), RegistryError> {
        match (name, kind, &mut self.promised) {
            (Name::Layout, ..) => {
                check_layout(bytes)?;
                self.has_layout = true;
            }
            (Name::Index, ..) => self.promised = Some(Promised::by_index(bytes)?),
            (Name::Blob(digest), Some(Kind::Manifest), Some(promised)) => {
                promised.add_manifest(digest, bytes)?;
            }
            (Name::Blob(digest), _, Some(promised)) => {
                check_digest(&digest, bytes)?;
                if promised.file(&digest).is_some() {
                    self.put(bytes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Stores a small file that the archive has for another reason, too.
    fn put(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let info = self.intake.put(bytes)?;
        let promised = self.promised.as_ref().and_then(|promised| promised.file(&info.digest));
        match promised {
            Some((expected, _)) if *expected != info => Err(wrong_root(expected)),
            _ => Ok(()),
        }
    }

    fn end_blob(&mut self, arriving: Arriving) -> Result<(), RegistryError> {
        let Arriving { writer, info, resumed, .. } = arriving;
        let added = match self.intake.commit(writer, Some(info.digest)) {
            Err(StorageError::DigestMismatch { actual, .. }) if resumed > 0 => {
                let problem = format!(
                    "with the {resumed} bytes that an earlier attempt left its digest is {actual}; they are deleted"
                );
                return Err(invalid(Name::Blob(info.digest), problem, "import it once more"));
            }
            Err(StorageError::DigestMismatch { actual, .. }) => {
                return Err(wrong_bytes(&info.digest, &actual));
            }
            added => added?,
        };
        if added != info {
            return Err(wrong_root(&info));
        }
        self.counts.blobs_added += 1;
        self.counts.bytes_added += info.size - resumed;
        Ok(())
    }
}

fn wrong_root(info: &BlobInfo) -> RegistryError {
    let problem = "its bytes are right, but the manifest says another size or BLAKE3 root";
    invalid(Name::Blob(info.digest), problem, NOT_OURS)
}

impl Visitor for Unpacker {
    fn begin(&mut self, entry: &Entry, _header: &[u8]) -> Result<(), RegistryError> {
        let bounded = |bytes_max: u64| match entry.size > bytes_max {
            true => Err(invalid(entry.name, format!("{} bytes are more than it has", entry.size), NOT_OURS)),
            false => Ok(Work::Small(entry.name, None, Vec::new())),
        };
        let place = entry.name;
        self.work = match place {
            Name::Folder => Work::Skip,
            Name::Layout if self.has_layout => return Err(invalid(place, "it is there twice", NOT_OURS)),
            Name::Layout => bounded(LAYOUT_BYTES_MAX)?,
            _ if !self.has_layout => return Err(invalid(place, "it comes before `oci-layout`", NOT_OURS)),
            Name::Index if self.promised.is_some() => {
                return Err(invalid(place, "it is there twice", NOT_OURS));
            }
            Name::Index => bounded(INDEX_BYTES_MAX)?,
            Name::Blob(digest) => self.begin_blob(entry, digest)?,
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        match &mut self.work {
            Work::Skip => {}
            Work::Small(_, _, kept) => kept.extend_from_slice(bytes),
            Work::Blob(arriving) => {
                let known = arriving.resumed.saturating_sub(arriving.came).min(bytes.len() as u64);
                arriving.writer.write(&bytes[known as usize..])?;
                arriving.came += bytes.len() as u64;
                let (path, total) = (&arriving.path, arriving.info.size);
                self.reporter.file(Phase::Unpacking, path, arriving.came, Some(total));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), RegistryError> {
        match std::mem::replace(&mut self.work, Work::Skip) {
            Work::Skip => Ok(()),
            Work::Small(name, kind, bytes) => self.end_small(name, kind, &bytes),
            Work::Blob(arriving) => self.end_blob(*arriving),
        }
    }
}
