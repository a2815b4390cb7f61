//! The store after a crash, a kill or a failing operation at every point of what it does.
//!
//! Each scenario runs once undisturbed, to count its operations on the disk, and then once for each of them and each
//! way to lose what was not synced. What was acknowledged must be there; what is there must be right.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use helios_storage::disk::{Fault, OpenMode, Unsynced};
use helios_storage::{
    BlobInfo, BlobStore, Disk, DurableFiles, LEAF_BYTES, RecipePlan, SimulatedDisk, StorageError, TensorIndex,
};
use helios_types::{Classify, Digest, ErrorCode};
use sha2::Digest as _;

use crate::blob_store::bytes;
use crate::recipe::{file, hashes, tensors};

const ROOT: &str = "/store";
const SOURCE: &str = "/source.gguf";
const TAG: &str = "/store/tag.json";
/// Two leaves and a bit: there is a tree, and writes are torn in many places.
const LARGE: usize = 2 * LEAF_BYTES as usize + 1000;
const SEEDS: u64 = 4;

/// What a scenario was promised, in the order of the promises.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(BlobInfo, &'static [u8])>,
    removed: Vec<Digest>,
    tag: Option<&'static [u8]>,
}

type Content = (BlobInfo, Vec<u8>);

/// All contents that scenarios write.
static CONTENTS: LazyLock<[Content; 4]> =
    LazyLock::new(|| [bytes(700), bytes(LARGE), bytes(LARGE + 1), Vec::new()].map(content));

/// A file, another that shares most of its tensors, and the blob of what only the second has.
static VARIANTS: LazyLock<[Content; 3]> = LazyLock::new(|| {
    let seeds: Vec<u64> = (0..40).collect();
    let changed: Vec<u64> = seeds.iter().map(|seed| if *seed < 3 { seed + 100 } else { *seed }).collect();
    let [base, variant] = [file(&tensors(&seeds), "a"), file(&tensors(&changed), "b")].map(content);
    assert!(variant.1.len() > LEAF_BYTES as usize, "there is a tree");
    let store = store(&SimulatedDisk::new(0)).expect("a store");
    for (_, bytes) in [&base, &variant] {
        store.put(bytes).expect("stored");
    }
    let own = store.replace_by_recipe(&variant.0, &plan_of(&base, &variant)).expect("a recipe").own;
    let bytes = store.get(&own).expect("its own blob").to_vec();
    [base, variant, (own, bytes)]
});

fn content(bytes: Vec<u8>) -> Content {
    let digest = Digest::from_bytes(sha2::Sha256::digest(&bytes).into());
    let blake3 = *blake3::hash(&bytes).as_bytes();
    (BlobInfo { digest, blake3, size: bytes.len() as u64 }, bytes)
}

fn plan_of(base: &Content, variant: &Content) -> RecipePlan {
    let mut index = TensorIndex::default();
    index.add(base.0.digest, &hashes(&base.1));
    RecipePlan::new(variant.0.size, &hashes(&variant.1), &index)
}

type Scenario = fn(&SimulatedDisk, &mut Acknowledged) -> Result<(), StorageError>;

const SCENARIOS: [(&str, Scenario); 10] = [
    ("open", |disk, _| store(disk).map(drop)),
    ("put", put),
    ("adopt", adopt),
    ("writer", write_in_pieces),
    ("resume", resume),
    ("import", import),
    ("remove", remove),
    ("quarantine", quarantine),
    ("recipe", make_recipe),
    ("write_atomic", write_tag),
];

fn store(disk: &SimulatedDisk) -> Result<BlobStore, StorageError> {
    BlobStore::open_on(Arc::new(disk.clone()), Path::new(ROOT))
}

fn files(disk: &SimulatedDisk) -> DurableFiles {
    DurableFiles::new(Arc::new(disk.clone()))
}

fn put(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let store = store(disk)?;
    for content in [small(), large(), b""] {
        done.blobs.push((store.put(content)?, content));
    }
    Ok(())
}

/// As a pull takes what is there already: nobody knows whether the name was ever synced.
fn adopt(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let store = store(disk)?;
    let info = CONTENTS[1].0;
    if !store.contains(&info.digest) {
        store.put(large())?;
    }
    done.blobs.push((info, large()));
    Ok(())
}

fn write_in_pieces(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let mut writer = store(disk)?.writer("download")?;
    writer.restart()?;
    large().chunks(200_000).try_for_each(|piece| writer.write(piece))?;
    done.blobs.push((writer.commit(Some(CONTENTS[1].0.digest))?, large()));
    Ok(())
}

/// As a download goes on after a kill: what is there is trusted until the digest says otherwise.
fn resume(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let content = large();
    let store = store(disk)?;
    let mut writer = store.writer("download")?;
    if writer.len() == 0 {
        writer.write(&content[..300_000])?;
        drop(writer);
        writer = store.writer("download")?;
    }
    let there = (writer.len() as usize).min(content.len());
    writer.write(&content[there..])?;
    match writer.commit(Some(CONTENTS[1].0.digest)) {
        Ok(info) => done.blobs.push((info, content)),
        // A power loss tore what was there; the download begins anew.
        Err(StorageError::DigestMismatch { .. }) => write_in_pieces(disk, done)?,
        Err(error) => return Err(error),
    }
    Ok(())
}

fn import(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    if disk.status(Path::new(SOURCE)).is_err() {
        files(disk).write_atomic(Path::new(SOURCE), large())?;
    }
    let info = store(disk)?.import_file(Path::new(SOURCE), &mut |_| {})?;
    done.blobs.push((info, large()));
    Ok(())
}

fn remove(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let store = store(disk)?;
    done.blobs.push((store.put(large())?, large()));
    let gone = store.put(&CONTENTS[2].1)?;
    store.writer("abandoned")?.write(&bytes(5000))?;
    store.remove(&gone.digest)?;
    store.remove_leftovers()?;
    done.removed.push(gone.digest);
    Ok(())
}

fn quarantine(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let store = store(disk)?;
    let info = store.put(large())?;
    disk.damage(&store.path(&info.digest), 5);
    match store.get(&info) {
        Err(StorageError::BlobCorrupt { .. }) => {}
        other => return other.map(drop),
    }
    done.blobs.push((store.put(large())?, large()));
    Ok(())
}

/// The only step that takes the name of a whole blob away which is still needed.
fn make_recipe(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let store = store(disk)?;
    let [base, variant, _] = &*VARIANTS;
    for (_, bytes) in [base, variant] {
        done.blobs.push((store.put(bytes)?, bytes));
    }
    store.replace_by_recipe(&variant.0, &plan_of(base, variant)).map(drop)
}

fn write_tag(disk: &SimulatedDisk, done: &mut Acknowledged) -> Result<(), StorageError> {
    let files = files(disk);
    files.create_dir(Path::new(ROOT))?;
    for tag in [&b"first"[..], b"second"] {
        files.write_atomic(Path::new(TAG), tag)?;
        done.tag = Some(tag);
    }
    Ok(())
}

fn contents() -> impl Iterator<Item = &'static Content> {
    CONTENTS.iter().chain(&*VARIANTS)
}

fn small() -> &'static [u8] {
    &CONTENTS[0].1
}

fn large() -> &'static [u8] {
    &CONTENTS[1].1
}

/// Everything that must hold after any crash: promises are kept, and no wrong byte can be seen.
fn check(disk: &SimulatedDisk, done: &Acknowledged) {
    let store = store(disk).expect("opens");
    for (info, content) in &done.blobs {
        assert_eq!(&*store.get(info).expect("an acknowledged blob is there"), *content);
    }
    for (digest, size) in store.list().expect("listed") {
        let (info, content) = contents().find(|(info, _)| info.digest == digest).expect("a blob we made");
        assert_eq!(size, info.size, "no partial blob is visible");
        let (from, to) = (size / 2, size.min(size / 2 + 1));
        let range = store.read_range(info, from..to).expect("what is visible is right");
        assert_eq!(range, content[from as usize..to as usize]);
        assert_eq!(&*store.get(info).expect("all of it"), *content);
    }
    if let Some(tag) = done.tag {
        let read = files(disk).read(Path::new(TAG), 100).expect("an acknowledged tag is there");
        assert!(read == tag || (tag == b"first" && read == b"second"), "{read:?}");
    }
    for folder in ["partial", "recipes"].map(|name| Path::new(ROOT).join(name)) {
        let temporaries = disk.list(&folder).unwrap_or_default();
        let stale = temporaries.iter().filter(|entry| entry.path.to_string_lossy().contains("/.tmp-"));
        assert_eq!(stale.count(), 0, "opening removes what cannot be resumed: {temporaries:?}");
    }
    store.remove_leftovers().expect("collected");
    for folder in ["partial", "quarantine"] {
        assert_eq!(disk.list(&Path::new(ROOT).join(folder)).expect("listed"), [], "gc leaves nothing");
    }
    let trees = disk.list(&Path::new(ROOT).join("trees")).expect("listed");
    for tree in trees {
        let hex = tree.path.file_name().expect("a name").to_string_lossy().into_owned();
        let digest: Digest = format!("sha256:{hex}").parse().expect("a digest");
        assert!(store.contains(&digest), "no tree without its blob");
    }
}

/// Runs `test` and says where the scenario was when it failed.
fn at(disk: &SimulatedDisk, what: &str, test: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    if let Err(panic) = result {
        eprintln!("{what}; the operations were\n{}", disk.log().join("\n"));
        std::panic::resume_unwind(panic);
    }
}

/// Operations of the whole scenario on an undisturbed disk.
fn operations(scenario: Scenario) -> u64 {
    let disk = SimulatedDisk::new(0);
    let mut done = Acknowledged::default();
    scenario(&disk, &mut done).expect("nothing disturbs it");
    let operations = disk.operations();
    check(&disk, &done);
    operations
}

#[test]
fn no_crash_at_any_operation_loses_what_was_acknowledged() {
    for (name, scenario) in SCENARIOS {
        for operation in 0..operations(scenario) {
            for seed in 0..SEEDS {
                let unsynced = match seed {
                    0 => Unsynced::Lost,
                    1 => Unsynced::Kept,
                    _ => Unsynced::Scattered,
                };
                let disk = SimulatedDisk::new(seed);
                disk.inject(operation, Fault::Crash);
                let mut done = Acknowledged::default();
                // Where it is the tree that could not be written, the blob is acknowledged.
                let _ = scenario(&disk, &mut done);
                disk.lose_power(unsynced);
                at(&disk, &format!("{name}, crash at {operation}, seed {seed}"), || check(&disk, &done));
            }
        }
    }
}

/// A killed process leaves everything in the page cache, synced or not; the next one relies on it, succeeds, and then
/// the power goes.
#[test]
fn what_is_built_on_a_killed_process_survives_a_power_loss() {
    for (name, scenario) in SCENARIOS {
        for operation in 0..operations(scenario) {
            for seed in 0..SEEDS {
                let disk = SimulatedDisk::new(seed);
                disk.inject(operation, Fault::Crash);
                let _ = scenario(&disk, &mut Acknowledged::default());
                disk.kill();
                let mut done = Acknowledged::default();
                at(&disk, &format!("{name}, kill at {operation}, seed {seed}"), || {
                    scenario(&disk, &mut done).expect("the second run succeeds");
                    disk.lose_power(if seed == 0 { Unsynced::Lost } else { Unsynced::Scattered });
                    check(&disk, &done);
                });
            }
        }
    }
}

#[test]
fn every_operation_that_fails_is_a_clear_error_and_a_retry_works() {
    for (name, scenario) in SCENARIOS {
        for operation in 0..operations(scenario) {
            for (fault, code) in [(Fault::Broken, ErrorCode::Internal), (Fault::Full, ErrorCode::StorageFull)]
            {
                let disk = SimulatedDisk::new(operation);
                disk.inject(operation, fault);
                let mut done = Acknowledged::default();
                at(&disk, &format!("{name}, {fault:?} at {operation}"), || {
                    // An operation that does not matter may fail: a tree, or the removal of a temporary file.
                    if let Err(error) = scenario(&disk, &mut done) {
                        let message = error.to_string();
                        assert_eq!(error.code(), code, "{message}");
                        assert!(message.contains("`/"), "the error names the file: {message}");
                        scenario(&disk, &mut done).expect("the retry works");
                    }
                    disk.lose_power(Unsynced::Scattered);
                    check(&disk, &done);
                });
            }
        }
    }
}

/// The checks above can fail: a store that forgot an fsync is found out by them.
#[test]
fn a_blob_that_was_renamed_without_fsync_is_found_out() {
    let careless = |disk: &SimulatedDisk| {
        let opened = store(disk).expect("a store");
        let staged = Path::new("/store/partial/k");
        let file = disk.open(staged, OpenMode::CreateNew).expect("created");
        file.write_all_at(small(), 0).expect("written");
        let path = opened.path(&CONTENTS[0].0.digest);
        disk.rename(staged, &path).expect("renamed");
        disk.sync_dir(path.parent().expect("a folder")).expect("synced");
    };
    let found = (0..32).any(|seed| {
        let disk = SimulatedDisk::new(seed);
        careless(&disk);
        disk.lose_power(Unsynced::Scattered);
        let checked = std::panic::AssertUnwindSafe(|| check(&disk, &Acknowledged::default()));
        std::panic::catch_unwind(checked).is_err()
    });
    assert!(found, "a torn blob under its digest went unnoticed");
}
