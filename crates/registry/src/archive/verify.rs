//! An archive that is being written, read along: every blob is what its name says, and an archive that somebody began
//! is one that can be gone on with.

use helios_types::Digest;
use sha2::{Digest as _, Sha256};

use super::ArchivedModel;
use super::format::{Entry, INDEX_BYTES_MAX, LAYOUT, NOT_OURS, Name, header, invalid, read_index};
use super::promised::wrong_bytes;
use super::tar_stream::{TarStream, Visitor};
use crate::RegistryError;
use crate::registry::digest_of;

/// Reads along.
#[derive(Debug, Default)]
pub(super) struct Verifier {
    tar: TarStream,
    blobs: Blobs,
}

#[derive(Debug, Default)]
struct Blobs {
    index: Vec<u8>,
    hashed: Sha256,
    entry: Option<Entry>,
}

impl Verifier {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.tar.push(bytes, &mut self.blobs)
    }

    /// Where the next byte belongs.
    pub(super) fn position(&self) -> u64 {
        self.tar.position()
    }

    /// The byte before which all is right.
    pub(super) fn certain(&self) -> u64 {
        self.tar.certain()
    }

    /// Whether who begins at the position goes on rightly: not within a header or the end.
    pub(super) fn can_go_on(&self) -> bool {
        self.tar.is_in_entry() || self.tar.position() == self.tar.certain()
    }

    /// The tag of the archive ([`super::Archive::tag`]), once its index has come.
    pub(super) fn tag(&self) -> Option<String> {
        (!self.blobs.index.is_empty()).then(|| digest_of(&self.blobs.index).hex())
    }

    /// The models, of an archive that has to be whole.
    pub(super) fn finish(&self) -> Result<Vec<ArchivedModel>, RegistryError> {
        self.tar.finish()?;
        Ok(read_index(&self.blobs.index)?.into_iter().map(|model| model.model).collect())
    }
}

impl Visitor for Blobs {
    fn begin(&mut self, entry: &Entry, block: &[u8]) -> Result<(), RegistryError> {
        if header(&entry.name, entry.size).as_bytes() != block {
            return Err(invalid(entry.name, "its header is not the one that belongs there", NOT_OURS));
        }
        if entry.name == Name::Layout && entry.size != LAYOUT.len() as u64 {
            return Err(invalid(entry.name, "it is not what belongs there", NOT_OURS));
        }
        if entry.name == Name::Index && (entry.size > INDEX_BYTES_MAX || !self.index.is_empty()) {
            return Err(invalid(entry.name, "it is too long, or there twice", NOT_OURS));
        }
        (self.hashed, self.entry) = (Sha256::new(), Some(*entry));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        match self.entry.map(|entry| entry.name) {
            Some(Name::Index) => self.index.extend_from_slice(bytes),
            Some(Name::Layout | Name::Blob(_)) => self.hashed.update(bytes),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), RegistryError> {
        let actual = Digest::from_bytes(std::mem::take(&mut self.hashed).finalize().into());
        match self.entry.map(|entry| entry.name) {
            Some(Name::Blob(digest)) if actual != digest => Err(wrong_bytes(&digest, &actual)),
            Some(Name::Layout) if actual != digest_of(LAYOUT) => {
                Err(invalid(Name::Layout, "it is not what belongs there", NOT_OURS))
            }
            _ => Ok(()),
        }
    }
}
