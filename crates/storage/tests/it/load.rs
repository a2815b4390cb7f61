//! Whole blobs at the disk's rate: verified through the engine, loaded into its memory, populated as a map.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;

use helios_storage::io::{IoChoice, IoEngine, IoOptions};
use helios_storage::probe::{drop_from_cache, write_noise};
use helios_storage::{BlobInfo, BlobStore, StorageError, populate};

const BUFFER_BYTES: usize = 256 * 1024;
/// Large enough for the engine, and not a whole number of buffers or blocks.
const BYTES: u64 = (9 << 20) + 777;

fn place() -> tempfile::TempDir {
    // On a disk: what lies in memory is never cold.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut noise = Vec::new();
    write_noise(&mut noise, bytes, seed).expect("written");
    noise
}

fn engine(buffers: usize) -> IoEngine {
    let options = IoOptions { choice: IoChoice::Auto, buffers, buffer_bytes: BUFFER_BYTES };
    IoEngine::start(&options).expect("an engine")
}

fn make_cold(store: &BlobStore, info: &BlobInfo) {
    let file = OpenOptions::new().read(true).open(store.path(&info.digest)).expect("a blob");
    drop_from_cache(&file).expect("dropped");
}

fn flip(store: &BlobStore, info: &BlobInfo, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(store.path(&info.digest)).expect("a blob");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    drop_from_cache(&file).expect("dropped");
}

#[test]
fn a_cold_blob_is_verified_mapped_and_populated() {
    let place = place();
    let bytes = noise(BYTES, 1);
    let info = BlobStore::open(place.path()).and_then(|store| store.put(&bytes)).expect("a blob");
    // A store without a journal has verified nothing yet.
    std::fs::remove_dir_all(place.path().join("verified")).expect("forgotten");
    let store = BlobStore::open(place.path()).expect("a store");
    make_cold(&store, &info);
    let blob = store.get(&info).expect("verified");
    populate(&[("blob", &blob)]).expect("in memory");
    assert!(*blob == *bytes);
    flip(&store, &info, BYTES - 1);
    let again = BlobStore::open(place.path()).expect("a store");
    assert!(matches!(again.get(&info), Err(StorageError::BlobCorrupt { .. })));
}

#[test]
fn blobs_load_verified_into_the_memory_of_an_engine_and_give_it_back() {
    let place = place();
    let store = BlobStore::open(place.path()).expect("a store");
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| noise(2_000_000 + seed * 4096, seed)).collect();
    let infos: Vec<BlobInfo> = contents.iter().map(|bytes| store.put(bytes).expect("a blob")).collect();
    infos.iter().for_each(|info| make_cold(&store, info));
    let engine = engine(24);
    let loaded = store.load_all(&infos, &engine).expect("loaded");
    for (blob, bytes) in loaded.iter().zip(&contents) {
        assert!(blob.as_ref().is_some_and(|blob| **blob == **bytes));
    }
    assert!(engine.free_buffers() < 24);
    assert!(store.load(&infos[0], &engine).expect("no error").is_none(), "the memory is full");
    drop(loaded);
    assert_eq!(engine.free_buffers(), 24);
    let empty = store.put(&[]).expect("a blob");
    assert_eq!(store.load(&empty, &engine).expect("loaded").expect("nothing needs no room").len(), 0);
}

#[test]
fn a_corrupt_blob_is_not_loaded_although_it_was_verified_before() {
    for at in [0, BYTES / 2, BYTES - 1] {
        let place = place();
        let store = BlobStore::open(place.path()).expect("a store");
        let info = store.put(&noise(BYTES, 3)).expect("a blob");
        let engine = engine(40);
        drop(store.load(&info, &engine).expect("loaded"));
        flip(&store, &info, at);
        assert!(matches!(store.load(&info, &engine), Err(StorageError::BlobCorrupt { .. })));
        assert!(matches!(store.load(&info, &engine), Err(StorageError::BlobMissing { .. })));
        assert_eq!(engine.free_buffers(), 40);
    }
}

#[test]
fn a_blob_that_grew_or_shrank_is_not_loaded() {
    for grow in [true, false] {
        let place = place();
        let store = BlobStore::open(place.path()).expect("a store");
        let info = store.put(&noise(1_000_000, 4)).expect("a blob");
        let mut file = OpenOptions::new().append(true).open(store.path(&info.digest)).expect("a blob");
        match grow {
            true => file.write_all(b"x").expect("longer"),
            false => file.set_len(999_999).expect("shorter"),
        }
        assert!(matches!(store.load(&info, &engine(8)), Err(StorageError::BlobCorrupt { .. })));
    }
}
