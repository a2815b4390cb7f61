//! Tiers on real directories: where blobs are written, how they come nearer, and what leaves.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::tiers::{Keeper, Mover, Residency, TierDirectory, TierKind, TierState};
use helios_storage::{BlobInfo, RecipePlan, ScrubStep, StorageError, TensorIndex, Tiers};
use helios_types::{Classify, Digest, ErrorCode};
use tempfile::TempDir;

use crate::blob_store::bytes;
use crate::recipe;

/// A folder for directories of tiers.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn tier(&self, kind: TierKind, budget_bytes: u64) -> TierDirectory {
        TierDirectory { kind, dir: self.path(kind.as_str()), budget_bytes: Some(budget_bytes) }
    }

    /// Memory, NVMe and SSD with these budgets; the SSD is the main directory.
    pub(crate) fn open(&self, [memory, nvme, ssd]: [u64; 3]) -> Arc<Tiers> {
        let directories = vec![
            self.tier(TierKind::Memory, memory),
            self.tier(TierKind::Nvme, nvme),
            self.tier(TierKind::Ssd, ssd),
        ];
        Tiers::open(&self.path("ssd"), directories).expect("opened")
    }

    /// Whether the file of a blob is in a directory.
    pub(crate) fn has(&self, tier: &str, info: &BlobInfo) -> bool {
        self.path(tier).join("blobs/sha256").join(info.digest.hex()).is_file()
    }
}

/// Bytes of the blobs in a directory, by its file system. One that leaves meanwhile counts as gone.
pub(crate) fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("blobs/sha256")).expect("a folder");
    let bytes = entries.map(|entry| match entry.expect("an entry").metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        metadata => metadata.expect("an entry").len(),
    });
    bytes.sum()
}

/// The blob number `number`, of `length` bytes.
pub(crate) fn content(number: u8, length: usize) -> Vec<u8> {
    let mut content = bytes(length);
    content[0] = number;
    content
}

pub(crate) fn read(tiers: &Tiers, info: &BlobInfo) {
    assert_eq!(tiers.get(info).expect("readable").len() as u64, info.size);
}

/// Holds one blob, as a leased worker does.
#[derive(Debug)]
struct Lease(Digest);

impl Keeper for Lease {
    fn held(&self) -> HashSet<Digest> {
        HashSet::from([self.0])
    }

    fn can_fetch(&self, _digest: &Digest) -> bool {
        false
    }

    fn give_up_derived(&self, _bytes: u64) -> u64 {
        0
    }
}

/// Says that everything can be had again.
#[derive(Debug)]
pub(crate) struct Fetchable;

impl Keeper for Fetchable {
    fn held(&self) -> HashSet<Digest> {
        HashSet::new()
    }

    fn can_fetch(&self, _digest: &Digest) -> bool {
        true
    }

    fn give_up_derived(&self, _bytes: u64) -> u64 {
        0
    }
}

const KIB: u64 = 1024;

#[test]
fn one_directory_without_a_budget_is_the_store_it_was() {
    let place = Place::new();
    let tiers = Tiers::open(&place.path("store"), Vec::new()).expect("opened");
    let info = tiers.put(&content(1, 5000)).expect("stored");
    read(&tiers, &info);
    drop(Mover::start(&tiers).expect("nothing to do"));
    let mut names: Vec<_> = fs::read_dir(place.path("store"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("tier")), "{names:?}");
    let report = &tiers.report()[0];
    assert_eq!((report.used_bytes, report.blobs, report.budget_bytes), (5000, 1, None));
}

#[test]
fn blobs_go_to_the_first_directory_with_room_and_never_to_memory() {
    let place = Place::new();
    let tiers = place.open([100 * KIB, 10 * KIB, 100 * KIB]);
    let first = tiers.put(&content(1, 8 << 10)).expect("stored");
    let second = tiers.put(&content(2, 8 << 10)).expect("stored");
    assert!(place.has("nvme", &first) && place.has("ssd", &second));
    assert_eq!(used(&place.path("memory")), 0);
    for info in [first, second] {
        assert!(tiers.contains(&info.digest) && tiers.path(&info.digest).is_some_and(|path| path.is_file()));
    }
    assert_eq!(tiers.list().expect("listed").len(), 2);
}

#[test]
fn use_brings_a_blob_nearer_and_a_reader_then_maps_it_there() {
    let place = Place::new();
    let tiers = place.open([100 * KIB, 1, 100 * KIB]);
    let info = tiers.put(&content(1, 50_000)).expect("stored");
    read(&tiers, &info);
    tiers.settle();
    assert!(place.has("memory", &info) && place.has("ssd", &info));
    assert_eq!(
        tiers.path(&info.digest).expect("there"),
        place.path("memory/blobs/sha256").join(info.digest.hex())
    );
    // The copy below is not needed for reading now; the one in memory alone answers.
    fs::remove_file(place.path("ssd/blobs/sha256").join(info.digest.hex())).expect("removed");
    assert_eq!(&*tiers.get(&info).expect("from memory"), content(1, 50_000));
    assert_eq!(tiers.remove(&info.digest).expect("removed"), 50_000);
    assert!(matches!(tiers.get(&info), Err(StorageError::BlobMissing { .. })));
}

#[test]
fn the_background_thread_moves_and_remembers() {
    let place = Place::new();
    let tiers = place.open([64 << 20, 1, 1 << 30]);
    let mover = Mover::start(&tiers).expect("started");
    let info = tiers.put(&content(1, 2 << 20)).expect("stored");
    // Where memory was not measured to be faster than the disk, only a pin brings a blob there.
    tiers.set_pins(HashMap::from([(info.digest, Residency::Memory)]));
    let began = std::time::Instant::now();
    while !place.has("memory", &info) {
        assert!(began.elapsed().as_secs() < 60, "it does not come");
        std::thread::yield_now();
    }
    drop(mover);
    let measured = |tiers: &Tiers| tiers.report()[0].read_bytes_per_second;
    let before = measured(&tiers);
    assert!(before.is_some(), "the probe measured");
    drop(tiers);
    assert_eq!(measured(&place.open([64 << 20, 1, 1 << 30])), before);
}

#[test]
fn a_wrong_copy_costs_nothing_but_the_way_to_the_next() {
    let place = Place::new();
    let tiers = place.open([100 * KIB, 1, 100 * KIB]);
    let info = tiers.put(&content(1, 50_000)).expect("stored");
    read(&tiers, &info);
    tiers.settle();
    fs::write(place.path("memory/blobs/sha256").join(info.digest.hex()), content(9, 50_000))
        .expect("written");
    assert_eq!(&*tiers.get(&info).expect("from the disk"), content(1, 50_000));
    assert!(!place.has("memory", &info), "the wrong copy is in the quarantine");
    let report = &tiers.report()[0];
    assert_eq!((report.state, report.used_bytes), (TierState::Up, 0));
}

#[test]
fn at_the_bound_a_writer_is_told_and_nothing_leaves() {
    let place = Place::new();
    let tiers = place.open([KIB, 10 * KIB, 10 * KIB]);
    let kept = [1, 2].map(|number| tiers.put(&content(number, 8 << 10)).expect("stored"));
    let mut writer = tiers.writer("large", None).expect("a writer");
    writer.write(&content(3, 2 << 10)).expect("fits");
    for error in [
        tiers.put(&content(4, 8 << 10)).expect_err("no room"),
        writer.write(&content(3, 8 << 10)).expect_err("no room"),
        tiers.writer("known", Some(8 << 10)).expect_err("no room"),
    ] {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        let text = error.to_string();
        assert!(text.contains("nvme") && text.contains("hint: `helios rm`"), "{text}");
    }
    assert_eq!(writer.len(), 2 << 10);
    kept.iter().for_each(|info| read(&tiers, info));
    let committed = writer.commit(None).expect("committed");
    read(&tiers, &committed);
}

#[test]
fn blobs_in_use_leased_or_pinned_stay_and_others_make_room() {
    let place = Place::new();
    let tiers = place.open([30_000, 1, 1 << 20]);
    let [open, leased, pinned, other] =
        [1, 2, 3, 4].map(|number| tiers.put(&content(number, 10_000)).expect("stored"));
    tiers.set_pins(HashMap::from([(pinned.digest, Residency::Memory)]));
    tiers.settle();
    assert!(place.has("memory", &pinned), "a pin needs no use");
    let held = tiers.get(&open).expect("open");
    read(&tiers, &leased);
    tiers.set_keeper(Arc::new(Lease(leased.digest)));
    tiers.settle();
    (0..50).for_each(|_| read(&tiers, &other));
    tiers.settle();
    assert!(!place.has("memory", &other), "nothing may leave for it");
    drop(held);
    read(&tiers, &other);
    tiers.settle();
    assert!(place.has("memory", &other) && !place.has("memory", &open));
    assert!(place.has("memory", &leased) && place.has("memory", &pinned));
    tiers.set_pins(HashMap::new());
    tiers.set_keeper(Arc::new(Fetchable));
    let report = &tiers.report()[0];
    assert_eq!((report.used_bytes, report.pinned_blobs), (30_000, 0));
}

#[test]
fn a_smaller_budget_moves_only_copies_to_another_disk() {
    let place = Place::new();
    let tiers = place.open([1, 100 * KIB, 100 * KIB]);
    let infos = [1, 2, 3].map(|number| tiers.put(&content(number, 10_000)).expect("stored"));
    assert_eq!(used(&place.path("nvme")), 30_000);
    drop(tiers);
    let tiers = place.open([1, 15_000, 100 * KIB]);
    tiers.look_after();
    assert_eq!((used(&place.path("nvme")), used(&place.path("ssd"))), (10_000, 20_000));
    infos.iter().for_each(|info| read(&tiers, info));
}

#[test]
fn budgets_hold_while_many_write_and_read() {
    let place = Place::new();
    let budgets = [40_000, 60_000, 10 << 20];
    let tiers = place.open(budgets);
    let mover = Mover::start(&tiers).expect("started");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (tiers, place) = (&tiers, &place);
            scope.spawn(move || {
                for round in 0..12_u8 {
                    let number = writer * 50 + round;
                    let content = content(number, 1000 + 500 * usize::from(round));
                    let mut blob = tiers.writer(&format!("key-{number}"), None).expect("a writer");
                    content.chunks(700).for_each(|chunk| blob.write(chunk).expect("written"));
                    let info = blob.commit(None).expect("committed");
                    (0..3).for_each(|_| read(tiers, &info));
                    assert!(used(&place.path("memory")) <= 40_000 && used(&place.path("nvme")) <= 60_000);
                }
            });
        }
    });
    drop(mover);
    for (report, budget) in tiers.report().iter().zip(budgets) {
        assert!(report.used_bytes <= budget);
        assert_eq!(report.used_bytes, used(&report.dir), "{}", report.dir.display());
    }
}

#[test]
fn the_last_copy_goes_only_if_it_can_be_had_again_and_comes_back() {
    let place = Place::new();
    let tiers = place.open([1, 1, 20_000]);
    let infos = [1, 2].map(|number| tiers.put(&content(number, 8000)).expect("stored"));
    assert!(matches!(tiers.put(&content(3, 8000)), Err(StorageError::NoRoom { .. })));
    infos.iter().for_each(|info| read(&tiers, info));
    tiers.set_keeper(Arc::new(Fetchable));
    let third = tiers.put(&content(3, 8000)).expect("one of the others goes");
    assert!(used(&place.path("ssd")) <= 20_000 && tiers.contains(&third.digest));
    let gone: Vec<_> = infos.iter().filter(|info| !tiers.contains(&info.digest)).collect();
    assert_eq!(gone.len(), 1);
    assert!(matches!(tiers.get(gone[0]), Err(StorageError::BlobMissing { .. })));
}

#[test]
fn a_range_comes_from_whichever_copy_is_right() {
    let place = Place::new();
    let tiers = place.open([1 << 20, 1, 1 << 20]);
    let info = tiers.put(&content(1, 600_000)).expect("stored");
    read(&tiers, &info);
    tiers.settle();
    let in_memory = place.path("memory/blobs/sha256").join(info.digest.hex());
    let mut wrong = content(1, 600_000);
    wrong[400_000] ^= 1;
    fs::write(in_memory, wrong).expect("written");
    let range = tiers.read_range(&info, 399_000..401_000).expect("from the disk");
    assert_eq!(range, content(1, 600_000)[399_000..401_000]);
    assert!(!place.has("memory", &info), "the wrong copy is in the quarantine");
    assert_eq!(tiers.tree(&info).expect("there").root(), info.blake3);
}

/// Reads every copy again; those that were wrong.
fn scrub(tiers: &Tiers, info: &BlobInfo) -> usize {
    let copies = tiers.scrub(info).expect("copies");
    let is_wrong = |mut copy| loop {
        match tiers.scrub_step(&mut copy, 1 << 16) {
            Ok(ScrubStep::Read(_)) => {}
            Ok(ScrubStep::Right(_)) => break false,
            Err(StorageError::BlobCorrupt { .. }) => break true,
            Err(error) => panic!("{error}"),
        }
    };
    copies.into_iter().map(is_wrong).filter(|is_wrong| *is_wrong).count()
}

#[test]
fn a_damaged_copy_is_repaired_from_the_one_in_memory() {
    let place = Place::new();
    let tiers = place.open([1 << 20, 1, 1 << 20]);
    let info = tiers.put(&content(1, 300_000)).expect("stored");
    read(&tiers, &info);
    tiers.settle();
    assert_eq!(scrub(&tiers, &info), 0);
    fs::write(place.path("ssd/blobs/sha256").join(info.digest.hex()), content(9, 300_000)).expect("written");
    assert_eq!(scrub(&tiers, &info), 1);
    assert!(place.has("memory", &info) && !place.has("ssd", &info));
    assert!(tiers.heal(&info), "the copy in memory is right");
    assert_eq!(scrub(&tiers, &info), 0);
    assert!(place.has("memory", &info) && place.has("ssd", &info));
    fs::remove_file(place.path("memory/blobs/sha256").join(info.digest.hex())).expect("removed");
    read(&tiers, &info);
}

#[test]
fn what_a_recipe_is_made_of_stays_and_is_read_again() {
    let place = Place::new();
    let (base, variant) =
        (recipe::file(&recipe::tensors(&[1, 2, 3]), ""), recipe::file(&recipe::tensors(&[1, 2, 9]), ""));
    let size = base.len() as u64;
    let open = || {
        let tiers =
            Tiers::open(&place.path("nvme"), vec![place.tier(TierKind::Nvme, 3 * size)]).expect("opened");
        tiers.set_keeper(Arc::new(Fetchable));
        tiers
    };
    let tiers = open();
    let [base_info, info] = [&base, &variant].map(|file| tiers.put(file).expect("stored"));
    let mut index = TensorIndex::default();
    index.add(base_info.digest, &recipe::hashes(&base));
    let plan = RecipePlan::new(size, &recipe::hashes(&variant), &index);
    tiers.replace_by_recipe(&info, &plan).expect("a recipe");
    assert!(!tiers.has_whole(&info.digest) && tiers.contains(&info.digest));
    assert_eq!(tiers.report()[0].used_bytes, used(&place.path("nvme")));
    for tiers in [tiers, open()] {
        (0..4).for_each(|number| drop(tiers.put(&content(number, size as usize))));
        assert!(used(&place.path("nvme")) <= 3 * size);
        assert_eq!(&*tiers.get(&info).expect("put together"), variant);
        assert_eq!(scrub(&tiers, &info), 0);
    }
    let own = open().recipe(&info.digest).expect("readable").expect("there").own;
    let path = place.path("nvme/blobs/sha256").join(own.digest.hex());
    fs::write(&path, vec![7; own.size as usize]).expect("damaged");
    let tiers = open();
    let [mut copy] = <[_; 1]>::try_from(tiers.scrub(&info).expect("one")).expect("one copy");
    let found = std::iter::repeat_with(|| tiers.scrub_step(&mut copy, 1 << 20)).find(|step| step.is_err());
    assert!(matches!(found, Some(Err(StorageError::RecipeBroken { .. }))), "{found:?}");
    assert!(!path.exists() && !tiers.heal(&info));
}
