//! Objects on their way up: whole, or in no more parts than every store takes.

use bytes::Bytes;
use helios_storage::FileBytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};

/// Bytes of one part, as far as that gives few enough; what has no more goes up whole.
const PART_BYTES_MIN: usize = 8 << 20;
/// What parts are a multiple of.
const PART_BYTES_STEP: usize = 1 << 20;
/// Parts of one object, in S3 and Google Cloud Storage; Azure takes five times as many.
const PARTS_MAX: usize = 10_000;
/// Bytes of parts on their way at a time, unless one part has more.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Puts an object there. One that fails leaves no parts behind, as far as the store can still be asked.
pub(super) async fn put(store: &dyn ObjectStore, path: &Path, file: &FileBytes) -> Result<(), Error> {
    let part = part_bytes(file.len());
    if file.len() <= part {
        let payload: PutPayload = slices(file, 0, part).collect();
        return store.put(path, payload).await.map(drop);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await?, part);
    if let Err(error) = put_parts(&mut upload, file, part).await {
        if let Err(left) = upload.abort().await {
            tracing::warn!(%path, error = %left, "parts of an upload that failed stay in the store");
        }
        return Err(error);
    }
    upload.finish().await.map(drop)
}

async fn put_parts(upload: &mut WriteMultipart, file: &FileBytes, part: usize) -> Result<(), Error> {
    let parts_in_flight = (IN_FLIGHT_BYTES_MAX / part).max(1);
    for start in (0..file.len()).step_by(part) {
        upload.wait_for_capacity(parts_in_flight).await?;
        slices(file, start, part).for_each(|slice| upload.put(slice));
    }
    Ok(())
}

/// Bytes of a file from `start` on, not copied: a part has one slice for each range of a blob that it lies in.
fn slices(file: &FileBytes, start: usize, bytes: usize) -> impl Iterator<Item = Bytes> {
    let range = start..file.len().min(start + bytes);
    file.pieces(range).map(|(blob, range)| Bytes::from_owner(blob.clone()).slice(range))
}

/// Bytes of each part of an object but the last.
fn part_bytes(object: usize) -> usize {
    object.div_ceil(PARTS_MAX).next_multiple_of(PART_BYTES_STEP).max(PART_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::{PARTS_MAX, part_bytes};

    #[test]
    fn no_object_has_more_parts_than_a_store_takes() {
        const MIB: usize = 1 << 20;
        for (object, part) in [
            (0, 8 * MIB),
            (80_000 * MIB, 8 * MIB),
            (80_000 * MIB + 1, 9 * MIB),
            (140_000 * MIB, 14 * MIB),
            (5 << 40, 525 * MIB),
        ] {
            assert_eq!(part_bytes(object), part, "{object} bytes");
            assert!(object.div_ceil(part) <= PARTS_MAX, "{object} bytes");
        }
    }
}
