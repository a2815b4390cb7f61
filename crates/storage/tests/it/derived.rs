//! Derived blobs: built once, verified, rebuilt, evicted.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use helios_storage::disk::Fault;
use helios_storage::tiers::{Keeper, TierDirectory, TierKind};
use helios_storage::{
    Blob, BlobInfo, BlobStore, DerivedBlobs, DerivedKey, SimulatedDisk, StorageError, Tiers,
};
use helios_types::Digest;

use crate::tiers::content;
use crate::tiers_faults::{CHILD_FOLDER, in_small_file_systems};

fn key(source: &[u8], version: u32) -> DerivedKey {
    let dir = tempfile::tempdir().expect("a folder");
    let source = BlobStore::open(dir.path()).expect("a store").put(source).expect("a blob").digest;
    DerivedKey { source, layout: "packed".to_owned(), version }
}

fn build(blobs: &DerivedBlobs, key: &DerivedKey, bytes: &[u8], builds: &AtomicUsize) -> Blob {
    let built: Result<Blob, StorageError> = blobs.get_or_build(key, |sink| {
        builds.fetch_add(1, Ordering::Relaxed);
        bytes.chunks(7).try_for_each(sink)
    });
    built.expect("built")
}

fn files(root: &std::path::Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("derived")).expect("a folder");
    let files = folders.flat_map(|folder| fs::read_dir(folder.expect("an entry").path()).expect("a folder"));
    files.map(|file| file.expect("an entry").path()).collect()
}

#[test]
fn a_derived_blob_is_built_once_however_many_ask_and_again_when_lost_or_corrupt() {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = DerivedBlobs::open(dir.path(), 1 << 20);
    let (key, builds) = (key(b"source", 1), AtomicUsize::new(0));
    let bytes = vec![5; 10_000];
    assert!(blobs.get(&key).expect("readable").is_none());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(*build(&blobs, &key, &bytes, &builds) == *bytes));
        }
    });
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    let next = DerivedBlobs::open(dir.path(), 1 << 20);
    assert!(*next.get(&key).expect("readable").expect("kept") == *bytes);
    assert!(next.get(&DerivedKey { version: 2, ..key.clone() }).expect("readable").is_none());

    let file = files(dir.path()).pop().expect("one file");
    let mut wrong = fs::read(&file).expect("bytes");
    wrong[77] ^= 1;
    fs::remove_file(&file).expect("removed");
    fs::write(&file, wrong).expect("written");
    assert!(next.get(&key).expect("readable").is_none(), "a flipped bit is found");
    assert!(*build(&next, &key, &bytes, &builds) == *bytes);
    fs::remove_file(files(dir.path()).pop().expect("one file")).expect("removed");
    assert!(*build(&next, &key, &bytes, &builds) == *bytes);
    assert_eq!(builds.load(Ordering::Relaxed), 3);
}

#[test]
fn a_build_that_fails_leaves_nothing_and_can_be_tried_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = DerivedBlobs::open(dir.path(), 1 << 20);
    let key = key(b"source", 1);
    let failed: Result<Blob, StorageError> = blobs.get_or_build(&key, |sink| {
        sink(b"half")?;
        Err(StorageError::InvalidKey { key: "x".to_owned() })
    });
    assert!(failed.is_err());
    assert!(files(dir.path()).is_empty());
    assert_eq!(&*build(&blobs, &key, b"whole", &AtomicUsize::new(0)), b"whole");
    let hostile = DerivedKey { layout: "../x".to_owned(), ..key };
    assert!(blobs.get(&hostile).is_err());
}

/// Gives up derived blobs, as a registry does.
#[derive(Debug)]
struct Owner(Arc<DerivedBlobs>);

impl Keeper for Owner {
    fn held(&self) -> HashSet<Digest> {
        HashSet::new()
    }

    fn can_fetch(&self, _digest: &Digest) -> bool {
        true
    }

    fn give_up_derived(&self, bytes: u64) -> u64 {
        self.0.give_up(bytes).expect("deleted")
    }
}

/// A way to store a blob.
type Way = fn(&Arc<Tiers>) -> Result<BlobInfo, StorageError>;

/// A store with a derived blob on a simulated disk.
fn owned(disk: &SimulatedDisk) -> (Arc<Tiers>, Arc<DerivedBlobs>) {
    let root = Path::new("/store");
    let tiers = Tiers::open_on(Arc::new(disk.clone()), root, Vec::new()).expect("opened");
    let derived = Arc::new(DerivedBlobs::open_on(Arc::new(disk.clone()), root, 1 << 20));
    build(&derived, &key(b"source", 1), &[1; 1000], &AtomicUsize::new(0));
    tiers.set_keeper(Arc::new(Owner(Arc::clone(&derived))));
    (tiers, derived)
}

#[test]
fn what_is_derived_goes_first_when_the_disk_is_full() {
    let piecewise = |tiers: &Arc<Tiers>| -> Result<BlobInfo, StorageError> {
        let mut writer = tiers.writer("key", None)?;
        writer.write(b"more")?;
        writer.commit(None)
    };
    let whole = |tiers: &Arc<Tiers>| tiers.put(b"more");
    for store in [piecewise as Way, whole] {
        let disk = SimulatedDisk::new(1);
        let (tiers, derived) = owned(&disk);
        let begun = disk.operations();
        store(&tiers).expect("stored");
        assert!(derived.get(&key(b"source", 1)).expect("readable").is_some(), "there was room");
        let writes = (begun..disk.operations()).find(|number| disk.log()[*number as usize].contains("write"));
        let written = writes.expect("it writes");

        let full = SimulatedDisk::new(1);
        let (tiers, derived) = owned(&full);
        full.inject(written, Fault::Full);
        let info = store(&tiers).expect("stored all the same");
        assert_eq!(&*tiers.get(&info).expect("readable"), b"more");
        assert!(derived.get(&key(b"source", 1)).expect("readable").is_none(), "it went");
    }
}

/// Works in a folder whose `nvme` is a file system of two megabytes.
#[test]
#[ignore = "the second process of what_is_derived_goes_before_a_blob_where_the_file_system_is_the_bound"]
fn second_process_fills_a_file_system() {
    let Some(dir) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else { return };
    let root = dir.join("nvme");
    let main = TierDirectory { kind: TierKind::Nvme, dir: root.clone(), budget_bytes: Some(1 << 30) };
    let tiers = Tiers::open(&root, vec![main]).expect("opened");
    let derived = Arc::new(DerivedBlobs::open(&root, 1 << 20));
    tiers.set_keeper(Arc::new(Owner(Arc::clone(&derived))));
    let blob = tiers.put(&content(1, 600_000)).expect("stored");
    let whole = |tiers: &Arc<Tiers>| tiers.put(&content(2, 900_000));
    let piecewise = |tiers: &Arc<Tiers>| {
        let mut writer = tiers.writer("key", None)?;
        // What a writer that begins again threw away is not on the disk.
        writer.write(&content(3, 500_000))?;
        writer.restart()?;
        content(3, 900_000).chunks(100_000).try_for_each(|piece| writer.write(piece))?;
        writer.commit(None)
    };
    for store in [whole as Way, piecewise] {
        build(&derived, &key(b"source", 1), &[1; 800_000], &AtomicUsize::new(0));
        let new = store(&tiers).expect("stored");
        assert!(derived.get(&key(b"source", 1)).expect("readable").is_none(), "it went");
        assert!(tiers.contains(&blob.digest), "the blob, which could be had again, stays");
        tiers.remove(&new.digest).expect("removed");
    }
    println!("ready");
}

#[test]
fn what_is_derived_goes_before_a_blob_where_the_file_system_is_the_bound() {
    in_small_file_systems("2m", "derived::second_process_fills_a_file_system");
}

#[test]
fn what_is_being_built_is_never_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = DerivedBlobs::open(dir.path(), 1 << 20);
    let built: Result<Blob, StorageError> = blobs.get_or_build(&key(b"source", 1), |sink| {
        sink(b"half")?;
        assert_eq!(blobs.give_up(u64::MAX)?, 0);
        sink(b"done")
    });
    assert_eq!(&*built.expect("built"), b"halfdone");
    assert!(blobs.get(&key(b"source", 1)).expect("readable").is_some(), "and kept");
}

#[test]
fn the_budget_holds_and_what_has_no_source_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = DerivedBlobs::open(dir.path(), 2_500);
    let builds = AtomicUsize::new(0);
    let keys = [key(b"a", 1), key(b"b", 1), key(b"c", 1)];
    build(&blobs, &keys[0], &[1; 1000], &builds);
    build(&blobs, &keys[1], &[2; 1000], &builds);
    blobs.get(&keys[0]).expect("readable").expect("there");
    let mapped = blobs.get(&keys[1]).expect("readable").expect("there");
    blobs.get(&keys[0]).expect("readable").expect("there");
    build(&blobs, &keys[2], &[3; 1000], &builds);
    assert!(blobs.get(&keys[1]).expect("readable").is_none(), "the one unused longest went");
    assert!(mapped.iter().all(|byte| *byte == 2), "who has it mapped keeps it");
    assert!(blobs.get(&keys[0]).expect("readable").is_some());
    assert_eq!(build(&blobs, &keys[1], &[4; 9000], &builds).len(), 9000, "over the budget: built, not kept");
    assert!(blobs.get(&keys[1]).expect("readable").is_none());

    let live = HashSet::from([keys[0].source]);
    assert_eq!(blobs.collect(&live).expect("collected"), 1000);
    assert!(blobs.get(&keys[0]).expect("readable").is_some());
    assert!(blobs.get(&keys[2]).expect("readable").is_none());
}
