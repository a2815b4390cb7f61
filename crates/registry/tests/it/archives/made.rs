//! Archives, whole and in pieces, and taken apart to be put together wrongly.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_registry::{ByteStream, Registry};
use helios_types::ModelRef;

use crate::models::{self, Place};

pub(crate) fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

/// A store with `a:latest` and `org/b:v2`, which share all files but the weights.
pub(crate) async fn two_models(place: &Place) -> Arc<Registry> {
    let registry = place.open().await;
    for (model, fill) in [("a", 1.0), ("org/b:v2", 2.0)] {
        let file = place.write("m.gguf", &models::gguf(fill));
        registry.import(&file, Some(name(model)), &mut |_| {}).await.expect(model);
    }
    registry
}

/// The bytes of an archive.
pub(crate) async fn archive_of(registry: &Arc<Registry>, names: &[&str]) -> Vec<u8> {
    let names: Vec<ModelRef> = names.iter().map(|text| name(text)).collect();
    let archive = registry.archive(&names).await.expect("an archive");
    let mut bytes = Vec::new();
    let mut stream = archive.read(0..archive.size());
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.expect("bytes"));
    }
    assert_eq!(bytes.len() as u64, archive.size());
    bytes
}

/// The bytes as they come from somewhere.
pub(crate) fn pieces(bytes: &[u8], piece: usize) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

pub(crate) type Entries = Vec<(String, Vec<u8>)>;

/// The entries of an archive, as the `tar` library sees them.
pub(crate) fn entries(archive: &[u8]) -> Entries {
    let mut tar = tar::Archive::new(archive);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("bytes");
        (path, bytes)
    };
    tar.entries().expect("a tar").map(entry).collect()
}

/// A header of any name, size and kind.
pub(crate) fn header(path: &str, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// A tar of these entries.
pub(crate) fn tar_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, bytes) in entries {
        tar.extend(header(path, bytes.len() as u64, tar::EntryType::Regular).as_bytes());
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The path of a blob with these bytes.
pub(crate) fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", models::sha256(bytes))
}
