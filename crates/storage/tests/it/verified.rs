//! A blob that was verified since the system started is not read again, unless its file changed; nor is a large one that
//! was hashed as it was written.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use helios_storage::disk::{Fault, OpenMode, Unsynced};
use helios_storage::{BlobInfo, BlobStore, Disk, SimulatedDisk, StorageError};

use crate::blob_store::{bytes, names, store};
use crate::recipe::{deduplicated, file, tensors};

const SIZE: usize = 600_000;

fn open(disk: &SimulatedDisk) -> BlobStore {
    BlobStore::open_on(Arc::new(disk.clone()), Path::new("/store")).expect("a store")
}

/// Bytes that a process reads which opens the store and maps the blob.
fn bytes_read(disk: &SimulatedDisk, info: &BlobInfo) -> u64 {
    let before = disk.bytes_read();
    assert_eq!(&*open(disk).get(info).expect("there"), bytes(SIZE));
    disk.bytes_read() - before
}

/// A disk with a store with a blob that was never verified.
fn disk_with_blob() -> (SimulatedDisk, BlobInfo) {
    let disk = SimulatedDisk::new(3);
    let info = open(&disk).put(&bytes(SIZE)).expect("stored");
    (disk, info)
}

#[test]
fn a_second_process_reads_the_journal_and_not_the_blob() {
    let (disk, info) = disk_with_blob();
    assert!(bytes_read(&disk, &info) >= SIZE as u64, "the first one reads it all");
    disk.kill();
    assert_eq!(bytes_read(&disk, &info), 128, "the second one reads one record");
}

#[test]
fn a_blob_that_was_hashed_as_it_was_written_is_not_read_by_the_next_process() {
    let large = bytes(3 << 20);
    let written: [fn(&BlobStore, &[u8]) -> BlobInfo; 2] = [
        |store, bytes| store.put(bytes).expect("stored"),
        |store, bytes| {
            let mut writer = store.writer("large").expect("a writer");
            writer.write(bytes).expect("written");
            writer.commit(None).expect("committed")
        },
    ];
    for write in written {
        let disk = SimulatedDisk::new(4);
        let info = write(&open(&disk), &large);
        let before = disk.bytes_read();
        assert_eq!(&*open(&disk).get(&info).expect("there"), large);
        assert_eq!(disk.bytes_read() - before, 128, "one record");
        disk.lose_power(Unsynced::Kept);
        let before = disk.bytes_read();
        assert_eq!(&*open(&disk).get(&info).expect("there"), large);
        assert!(disk.bytes_read() - before >= large.len() as u64, "all of it after a power loss");
    }
}

#[test]
fn a_process_that_runs_learns_what_another_verified() {
    let (disk, info) = disk_with_blob();
    let (first, second) = (open(&disk), open(&disk));
    first.get(&info).expect("there");
    let before = disk.bytes_read();
    second.get(&info).expect("there");
    assert_eq!(second.read_range(&info, 5..10).expect("there"), &bytes(SIZE)[5..10]);
    assert_eq!(disk.bytes_read() - before, 128 + 5);
}

#[test]
fn after_a_power_loss_everything_is_verified_again_and_the_old_journal_goes() {
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Scattered] {
        let (disk, info) = disk_with_blob();
        bytes_read(&disk, &info);
        disk.lose_power(unsynced);
        assert!(bytes_read(&disk, &info) >= SIZE as u64);
        let journals = disk.list(Path::new("/store/verified")).expect("listed");
        assert_eq!(journals.len(), 1, "{journals:?}");
    }
}

#[test]
fn a_journal_that_is_torn_or_cannot_be_written_costs_a_reading_and_nothing_else() {
    // Its creation, and its first record.
    for (fault, operation) in [(Fault::Broken, 0), (Fault::Full, 0), (Fault::Broken, 1), (Fault::Full, 1)] {
        let (disk, info) = disk_with_blob();
        let store = open(&disk);
        disk.inject(disk.operations() + operation, fault);
        store.get(&info).expect("verified");
        assert!(bytes_read(&disk, &info) >= SIZE as u64);
        assert_eq!(bytes_read(&disk, &info), 128, "the next record takes the place of the torn one");
    }
}

#[test]
fn a_file_that_changed_is_verified_again_by_every_process() {
    let changes: [fn(&Path, &[u8]); 2] = [
        |path, wrong| fs::write(path, wrong).expect("overwritten"),
        |path, wrong| {
            let other = path.with_extension("other");
            fs::write(&other, wrong).expect("written");
            fs::rename(&other, path).expect("replaced");
        },
    ];
    for change in changes {
        let (dir, store) = store();
        let info = store.put(&bytes(SIZE)).expect("stored");
        store.get(&info).expect("right");
        assert_eq!(names(&dir, "verified").len(), 1, "the boot's journal");
        let mut wrong = bytes(SIZE);
        wrong[SIZE / 2] ^= 1;
        change(&store.path(&info.digest), &wrong);
        let second = BlobStore::open(dir.path()).expect("a store");
        assert!(matches!(second.get(&info), Err(StorageError::BlobCorrupt { .. })));
        assert!(matches!(store.get(&info), Err(StorageError::BlobMissing { .. })));
    }
}

/// The files that [`with_recipe`] puts into a store: the second becomes a recipe of the first.
fn base_and_variant() -> (Vec<u8>, Vec<u8>) {
    (file(&tensors(&[1, 2, 3]), "base"), file(&tensors(&[1, 2, 9]), "variant"))
}

fn with_recipe(store: &BlobStore) -> (BlobInfo, BlobInfo) {
    let (base, variant) = base_and_variant();
    let (base, variant, is_recipe) = deduplicated(store, &base, &variant);
    assert!(is_recipe);
    (base, variant)
}

/// Whether a process that opens the store and the recipe reads its parts, and not its own file and one record alone.
fn reads_parts(disk: &SimulatedDisk, info: &BlobInfo) -> bool {
    let recipe = format!("/store/recipes/{}.json", info.digest.hex());
    let recipe_bytes = disk.status(Path::new(&recipe)).expect("a recipe").size;
    let before = disk.bytes_read();
    assert!(*open(disk).open_file(info).expect("there").to_blob() == *base_and_variant().1);
    let read = disk.bytes_read() - before - recipe_bytes;
    assert!(read >= info.size || read.is_multiple_of(128), "neither records nor all parts: {read}");
    read >= info.size
}

#[test]
fn a_recipe_is_read_once_since_the_system_started_whichever_process_opens_it() {
    let disk = SimulatedDisk::new(3);
    let (_, info) = with_recipe(&open(&disk));
    disk.kill();
    assert!(!reads_parts(&disk, &info), "it was read back when it was made");
    disk.lose_power(Unsynced::Kept);
    assert!(reads_parts(&disk, &info), "the first one since the system started");
    disk.kill();
    assert!(!reads_parts(&disk, &info));
}

#[test]
fn a_recipe_is_read_again_when_its_file_or_one_of_its_parts_was_written() {
    let disk = SimulatedDisk::new(3);
    let store = open(&disk);
    let (base, info) = with_recipe(&store);
    let own = store.recipe(&info.digest).expect("readable").expect("a recipe").own;
    let recipe = Path::new("/store/recipes").join(format!("{}.json", info.digest.hex()));
    for path in [recipe, store.path(&base.digest), store.path(&own.digest)] {
        let file = disk.open(&path, OpenMode::OpenOrCreate).expect("there");
        let mut byte = [0];
        file.read_at(&mut byte, 0).expect("read");
        file.write_all_at(&byte, 0).expect("written");
        assert!(reads_parts(&disk, &info), "{}", path.display());
        assert!(!reads_parts(&disk, &info), "{}", path.display());
    }
}

#[test]
fn a_part_that_changed_is_found_by_every_process() {
    let (dir, store) = store();
    let (base, info) = with_recipe(&store);
    store.open_file(&info).expect("right");
    let path = store.path(&base.digest);
    let mut wrong = base_and_variant().0;
    let at = wrong.len() - 8192 - 100;
    wrong[at] ^= 1;
    fs::write(&path, wrong).expect("overwritten");
    let second = BlobStore::open(dir.path()).expect("a store");
    assert!(matches!(second.open_file(&info), Err(StorageError::RecipeBroken { .. })));
    assert!(!path.exists(), "it is in the quarantine");
    assert!(matches!(store.open_file(&info), Err(StorageError::RecipeBroken { .. })));
}
