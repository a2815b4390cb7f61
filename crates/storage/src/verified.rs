//! Which blobs were read in full and found right since the system started, so that each is hashed once.
//!
//! A file counts as the one that was read while its [`FileStatus`] is the same; the status-change time in it cannot be
//! set back by a program. A recipe counts as read while the states of its own file and of all its parts' files are the
//! same, for which [`joined`] stands. The memory is shared by all processes of one store: a journal in it, named after the
//! boot, which ends with it, because a power loss may change what lies on the disk. Nothing depends on the journal: it is
//! never fsynced, may be torn or lost, and is begun anew when it is full. Who can write it can write the blobs, too.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helios_types::Digest;

use crate::disk::{Disk, FileStatus, OpenMode};
use crate::{BlobInfo, StorageError, durable, hashing};

/// Bytes of a record: digest, root, size, device, inode, two times, checksum.
const RECORD_BYTES: usize = 128;
/// Bytes of a record that its checksum covers.
const BODY_BYTES: usize = 120;
/// Bytes of a journal: half a million verified blobs.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// The verified blobs; at most one entry per blob of the store.
#[derive(Debug)]
pub(crate) struct VerifiedFiles {
    known: Mutex<Known>,
    /// None where the system does not say which boot this is; then the memory is this process's own.
    journal: Option<Journal>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Digest, (FileStatus, BlobInfo)>,
    /// Bytes of the journal that are in `entries`.
    read: u64,
}

impl VerifiedFiles {
    /// The memory of the store whose folder for it is `dir`. Journals of earlier boots are deleted.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, StorageError> {
        let journal = disk.boot_id().map(|boot| Journal { disk: Arc::clone(disk), path: dir.join(boot) });
        for path in durable::files_in(&**disk, dir)? {
            if journal.as_ref().is_none_or(|journal| journal.path != path)
                && let Err(error) = disk.remove_file(&path)
            {
                tracing::debug!(path = %path.display(), %error, "a journal of an earlier boot stays");
            }
        }
        Ok(Self { known: Mutex::default(), journal })
    }

    /// Whether the file, or the recipe with its parts, in this state was found to be `info`, by whichever process.
    pub(crate) fn covers(&self, status: FileStatus, info: &BlobInfo) -> bool {
        let mut known = self.known();
        let is_known = |known: &Known| known.entries.get(&info.digest) == Some(&(status, *info));
        if is_known(&known) {
            return true;
        }
        if let Some(journal) = &self.journal {
            journal.read_news(&mut known);
        }
        is_known(&known)
    }

    pub(crate) fn insert(&self, status: FileStatus, info: &BlobInfo) {
        self.known().entries.insert(info.digest, (status, *info));
        if let Some(journal) = &self.journal
            && let Err(error) = journal.append(&Record { status, info: *info }.to_bytes())
        {
            tracing::debug!(%error, "a verified blob is not in the journal and will be verified again");
        }
    }

    /// Forgets a blob whose file is gone: another one would have another state.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.known().entries.remove(digest);
    }

    /// Takes back that a blob is right whose bytes turned out wrong in an unchanged state: bits that rotted on the disk.
    /// The journal's records of it are read first, so that they bring it back neither here nor, for the record behind
    /// them, in a process that learns of it later.
    pub(crate) fn revoke(&self, info: &BlobInfo) {
        let mut known = self.known();
        if let Some(journal) = &self.journal {
            journal.read_news(&mut known);
            if let Err(error) =
                journal.append(&Record { status: FileStatus::default(), info: *info }.to_bytes())
            {
                tracing::debug!(%error, "other processes are not told that a blob has to be verified again");
            }
        }
        known.entries.remove(&info.digest);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of this boot. Its records only ever follow each other, until it is full.
#[derive(Debug)]
struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Journal {
    /// Takes in what was appended since the last time, by whomever. O(news).
    fn read_news(&self, known: &mut Known) {
        let Ok(file) = self.disk.open(&self.path, OpenMode::Read) else { return };
        let size = file.status().map_or(0, |status| status.size.min(JOURNAL_BYTES_MAX));
        if size < known.read {
            known.read = 0;
        }
        let records = (size - known.read) as usize / RECORD_BYTES;
        let mut bytes = vec![0; records * RECORD_BYTES];
        if hashing::read_exact_at(&*file, &mut bytes, known.read).is_err() {
            return;
        }
        known.read += bytes.len() as u64;
        let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
        for record in records.iter().filter_map(Record::from_bytes) {
            known.entries.insert(record.info.digest, (record.status, record.info));
        }
    }

    /// Appends a record, unless somebody else is appending: then this one is lost, which costs one reading of a blob.
    fn append(&self, record: &[u8; RECORD_BYTES]) -> std::io::Result<()> {
        let file = self.disk.open(&self.path, OpenMode::OpenOrCreate)?;
        if !file.try_lock()? {
            return Ok(());
        }
        let mut end = file.status()?.size / RECORD_BYTES as u64 * RECORD_BYTES as u64;
        if end >= JOURNAL_BYTES_MAX {
            file.set_len(0)?;
            end = 0;
        }
        file.write_all_at(record, end)
    }
}

/// A file in one state, and what it was found to be.
struct Record {
    status: FileStatus,
    info: BlobInfo,
}

impl Record {
    fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let Self { status, info } = self;
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        bytes.extend_from_slice(info.digest.as_bytes());
        bytes.extend_from_slice(&info.blake3);
        for number in [info.size, status.device, status.inode] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [status.modified, status.changed] {
            bytes.extend_from_slice(&seconds.to_le_bytes());
            bytes.extend_from_slice(&nanoseconds.to_le_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        bytes.try_into().expect("invariant: the fields fill a record")
    }

    /// None for what is no whole record.
    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        if checksum(&bytes[..BODY_BYTES]) != bytes[BODY_BYTES..] {
            return None;
        }
        let (hashes, numbers) = bytes[..BODY_BYTES].split_at(64);
        let (numbers, _) = numbers.as_chunks::<8>();
        let unsigned = |index: usize| u64::from_le_bytes(numbers[index]);
        let time =
            |index: usize| (i64::from_le_bytes(numbers[index]), i64::from_le_bytes(numbers[index + 1]));
        let size = unsigned(0);
        let info = BlobInfo {
            digest: Digest::from_bytes(hashes[..32].try_into().ok()?),
            blake3: hashes[32..].try_into().ok()?,
            size,
        };
        let (device, inode) = (unsigned(1), unsigned(2));
        let status = FileStatus { is_dir: false, size, device, inode, modified: time(3), changed: time(5) };
        Some(Self { status, info })
    }
}

/// What stands in a record for the states of several files, `size` bytes together: another if one of them is another, and
/// the state of no file. Its numbers are a hash of theirs.
pub(crate) fn joined(size: u64, states: &[FileStatus]) -> FileStatus {
    let mut hasher = blake3::Hasher::new();
    for FileStatus { is_dir, size, device, inode, modified, changed } in states {
        hasher.update(&[u8::from(*is_dir)]);
        for number in [size, device, inode] {
            hasher.update(&number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [modified, changed] {
            hasher.update(&seconds.to_le_bytes()).update(&nanoseconds.to_le_bytes());
        }
    }
    let mut numbers = [[0; 8]; 6];
    hasher.finalize_xof().fill(numbers.as_flattened_mut());
    let [device, inode] = [numbers[0], numbers[1]].map(u64::from_le_bytes);
    let [a, b, c, d] = [numbers[2], numbers[3], numbers[4], numbers[5]].map(i64::from_le_bytes);
    FileStatus { is_dir: false, size, device, inode, modified: (a, b), changed: (c, d) }
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    let (chunks, _) = hash.as_bytes().as_chunks::<8>();
    chunks[0]
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use helios_types::Digest;

    use super::{RECORD_BYTES, Record, VerifiedFiles, joined};
    use crate::{BlobInfo, Disk, FileStatus, SimulatedDisk};

    #[test]
    fn a_record_reads_back_and_no_flipped_bit_does() {
        let info = BlobInfo { digest: Digest::from_bytes([1; 32]), blake3: [2; 32], size: 3 };
        let (modified, changed) = ((6, 7), (-8, 9));
        let status = FileStatus { is_dir: false, size: 3, device: 4, inode: 5, modified, changed };
        let bytes = Record { status, info }.to_bytes();
        let again = Record::from_bytes(&bytes).expect("its own bytes");
        assert_eq!((again.status, again.info), (status, info));
        for bit in 0..RECORD_BYTES * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::from_bytes(&wrong).is_none(), "bit {bit}");
        }
        assert!(Record::from_bytes(&[0; RECORD_BYTES]).is_none());
    }

    #[test]
    fn what_was_revoked_does_not_come_back_from_the_journal() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
        let dir = Path::new("/journals");
        disk.create_dir(dir).expect("a folder");
        let open = || VerifiedFiles::open(&disk, dir).expect("opened");
        let info = BlobInfo { digest: Digest::from_bytes([1; 32]), blake3: [2; 32], size: 3 };
        let status = FileStatus { size: 3, inode: 5, ..FileStatus::default() };
        let (first, second) = (open(), open());
        first.insert(status, &info);
        assert!(first.covers(status, &info));
        first.revoke(&info);
        assert!(!first.covers(status, &info), "its own record is no news");
        assert!(!second.covers(status, &info), "nor for a process that reads both");
        first.insert(status, &info);
        assert!(first.covers(status, &info) && open().covers(status, &info), "found right again");
    }

    #[test]
    fn joined_states_differ_if_one_does_and_fit_a_record() {
        let state = |number: u64| {
            let time = (number as i64, -7);
            FileStatus { is_dir: false, size: 3, device: 4, inode: number, modified: time, changed: (5, 6) }
        };
        let (two, info) = (
            [state(1), state(2)],
            BlobInfo { digest: Digest::from_bytes([1; 32]), blake3: [2; 32], size: 9 },
        );
        let status = joined(9, &two);
        assert_eq!(
            Record::from_bytes(&Record { status, info }.to_bytes()).expect("its own bytes").status,
            status
        );
        let mut later = two;
        later[1].changed.1 += 1;
        for others in [&later[..], &two[..1], &[two[1], two[0]], &[state(1), state(2), state(2)]] {
            assert_ne!(joined(9, others), status, "{others:?}");
        }
    }
}
