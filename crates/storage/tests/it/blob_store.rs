//! The store: what goes in comes out, and nothing else ever does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use helios_storage::{BlobInfo, BlobStore, StorageError};
use helios_types::{Classify, Digest, ErrorCode};
use proptest::prelude::*;
use tempfile::TempDir;

pub(crate) fn store() -> (TempDir, BlobStore) {
    let dir = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(dir.path()).expect("a store");
    (dir, store)
}

pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Names in a folder of the store.
pub(crate) fn names(dir: &TempDir, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.path().join(folder)).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

fn flip_byte(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("the blob");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("inside the blob");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("writable");
}

#[test]
fn digests_are_those_of_the_published_vectors() {
    let (_dir, store) = store();
    let info = store.put(b"abc").expect("stored");
    let expected = r#"{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","blake3":"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85","size":3}"#;
    assert_eq!(serde_json::to_string(&info).expect("JSON"), expected);
    assert_eq!(serde_json::from_str::<BlobInfo>(expected).expect("JSON"), info);
    assert!(serde_json::from_str::<BlobInfo>(&expected.replace("6437", "64")).is_err());
}

#[test]
fn blobs_are_stored_listed_and_removed() {
    let (dir, store) = store();
    let (small, empty) = (store.put(&bytes(1000)).expect("stored"), store.put(b"").expect("stored"));
    assert_eq!(&*store.get(&small).expect("there"), bytes(1000));
    assert!(store.get(&empty).expect("there").is_empty());
    let mut expected = vec![(small.digest, 1000), (empty.digest, 0)];
    expected.sort();
    fs::write(dir.path().join("blobs/sha256/README"), "not a blob").expect("written");
    assert_eq!(store.list().expect("listed"), expected);
    assert_eq!(store.remove(&small.digest).expect("removed"), 1000);
    assert_eq!(store.remove(&small.digest).expect("not there"), 0);
    assert!(!store.contains(&small.digest) && store.contains(&empty.digest));
    let error = store.get(&small).expect_err("gone");
    assert_eq!((error.code(), error.to_string().contains("hint: pull")), (ErrorCode::NotFound, true));
}

#[test]
fn chunks_written_together_are_the_blob_that_they_are_one_by_one() {
    let (_dir, store) = store();
    let content = bytes(1_000_003);
    let mut writer = store.writer("a").expect("a writer");
    writer.write(&content[..17]).expect("written");
    writer.write_chunks(&content[17..700_001].chunks(65_537).collect::<Vec<_>>()).expect("written");
    writer.write_chunks::<&[u8]>(&[]).expect("nothing to write");
    assert_eq!(writer.len(), 700_001);
    drop(writer);
    let mut writer = store.writer("a").expect("goes on");
    writer.write_chunks(&[&content[700_001..]]).expect("written");
    let info = writer.commit(None).expect("committed");
    assert_eq!(info, store.put(&content).expect("stored"));
    assert_eq!(&*store.get(&info).expect("right"), content);
}

#[test]
fn a_map_outlives_the_removal_of_its_blob() {
    let (_dir, store) = store();
    let info = store.put(&bytes(300_000)).expect("stored");
    let blob = store.get(&info).expect("there");
    store.remove(&info.digest).expect("removed");
    assert_eq!(&*blob, bytes(300_000));
}

#[test]
fn a_corrupted_blob_is_never_handed_out() {
    for (at, read_before) in [(0, false), (299_999, false), (150_000, true)] {
        let (dir, store) = store();
        let info = store.put(&bytes(300_000)).expect("stored");
        if read_before {
            store.get(&info).expect("right so far");
        }
        flip_byte(&store.path(&info.digest), at);
        let error = store.get(&info).expect_err("corrupt");
        assert_eq!(error.code(), ErrorCode::Corrupt);
        assert!(error.to_string().contains("hint: pull the model again"), "{error}");
        assert!(!store.contains(&info.digest));
        assert_eq!(names(&dir, "quarantine"), [info.digest.hex()]);
        assert_eq!(store.put(&bytes(300_000)).expect("stored again"), info);
        assert_eq!(&*store.get(&info).expect("right again"), bytes(300_000));
    }
}

#[test]
fn a_truncated_or_grown_blob_is_never_handed_out() {
    for length in [0, 999, 1001] {
        let (_dir, store) = store();
        let info = store.put(&bytes(1000)).expect("stored");
        fs::File::options()
            .write(true)
            .open(store.path(&info.digest))
            .and_then(|file| file.set_len(length))
            .expect("cut");
        assert!(matches!(store.get(&info), Err(StorageError::BlobCorrupt { .. })));
    }
}

#[test]
fn a_wrong_manifest_does_not_cost_the_blob() {
    let (dir, store) = store();
    let info = store.put(&bytes(1000)).expect("stored");
    store.get(&info).expect("right");
    for wrong in [BlobInfo { blake3: [1; 32], ..info }, BlobInfo { size: 999, ..info }] {
        let error = store.get(&wrong).expect_err("does not match");
        assert!(matches!(error, StorageError::BlobMismatch { .. }), "{error}");
    }
    assert!(names(&dir, "quarantine").is_empty());
    assert_eq!(&*store.get(&info).expect("still there"), bytes(1000));
}

#[test]
fn a_partial_blob_is_invisible_until_it_is_committed() {
    let (_dir, store) = store();
    let (content, mut writer) = (bytes(5000), store.writer("download").expect("a writer"));
    writer.write(&content[..2500]).expect("written");
    assert_eq!(store.list().expect("listed"), []);
    writer.write(&content[2500..]).expect("written");
    assert_eq!(store.list().expect("listed"), []);
    let info = writer.commit(None).expect("committed");
    assert_eq!(info, store.put(&content).expect("stored"));
    assert_eq!(&*store.get(&info).expect("there"), content);
}

#[test]
fn a_dropped_writer_is_resumed_by_key() {
    let (dir, store) = store();
    let content = bytes(700_000);
    store.writer("k-1").expect("a writer").write(&content[..600_000]).expect("written");
    let reopened = BlobStore::open(dir.path()).expect("a store");
    assert_eq!(reopened.writer("k-2").expect("a writer").len(), 0);
    let mut writer = reopened.writer("k-1").expect("a writer");
    assert_eq!(writer.len(), 600_000);
    writer.write(&content[600_000..]).expect("written");
    let info = writer.commit(None).expect("committed");
    assert_eq!(&*reopened.get(&info).expect("there"), content);
    assert_eq!(reopened.writer("k-1").expect("a writer").len(), 0);
}

#[test]
fn a_restarted_writer_forgets_what_it_had() {
    let (_dir, store) = store();
    store.writer("k").expect("a writer").write(&bytes(9000)).expect("written");
    let mut writer = store.writer("k").expect("a writer");
    writer.restart().expect("restarted");
    assert_eq!(writer.len(), 0);
    writer.write(b"abc").expect("written");
    assert_eq!(writer.commit(None).expect("committed"), store.put(b"abc").expect("stored"));
}

#[test]
fn a_commit_of_other_bytes_fails_and_discards_them() {
    let (dir, store) = store();
    let mut writer = store.writer("k").expect("a writer");
    writer.write(b"abd").expect("written");
    let expected = Digest::from_bytes([9; 32]);
    let error = writer.commit(Some(expected)).expect_err("wrong bytes");
    assert_eq!(error.code(), ErrorCode::Corrupt);
    assert!(error.to_string().contains(&expected.to_string()), "{error}");
    assert!(store.list().expect("listed").is_empty() && names(&dir, "partial").is_empty());
    let writer = store.writer("k").expect("a writer");
    assert_eq!(writer.len(), 0);
    writer.discard();
    assert!(names(&dir, "partial").is_empty());
}

#[test]
fn keys_that_could_leave_the_folder_are_refused() {
    let (_dir, store) = store();
    for key in ["", ".", "..", "../k", "a/b", "/k", ".tmp-1", "a b", "ä", &"k".repeat(201)] {
        let error = store.writer(key).expect_err("refused");
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{key}");
    }
}

#[test]
fn an_imported_file_is_copied_hashed_and_reported() {
    let (dir, store) = store();
    let source = dir.path().join("source");
    fs::write(&source, bytes(1_000_000)).expect("written");
    let mut reports = Vec::new();
    let info = store.import_file(&source, &mut |done| reports.push(done)).expect("imported");
    fs::remove_file(&source).expect("removed");
    assert_eq!(&*store.get(&info).expect("there"), bytes(1_000_000));
    assert!(reports.is_sorted() && reports.last() == Some(&1_000_000), "{reports:?}");
    let error = store.import_file(&source, &mut |_| {}).expect_err("no such file");
    assert!(error.to_string().contains("source"), "{error}");
    assert!(names(&dir, "partial").is_empty());
}

#[test]
fn many_writers_of_one_blob_all_succeed() {
    let (dir, store) = store();
    let content = bytes(400_000);
    let source = dir.path().join("source");
    fs::write(&source, &content).expect("written");
    let infos: Vec<BlobInfo> = std::thread::scope(|scope| {
        let import = || store.import_file(&source, &mut |_| {}).expect("imported");
        let download = || {
            let mut writer = store.writer("one-key").expect("a writer");
            writer.restart().expect("restarted");
            content.chunks(1000).for_each(|chunk| writer.write(chunk).expect("written"));
            writer.commit(None).expect("committed")
        };
        let read = |info| assert_eq!(&*store.get(&info).expect("there"), content);
        let writers: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn(move || {
                    let info = if i % 2 == 0 { import() } else { download() };
                    read(info);
                    info
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    assert!(infos.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(names(&dir, "blobs/sha256").len(), 1);
    assert!(names(&dir, "partial").is_empty());
}

#[test]
fn leftovers_are_removed_unless_in_use() {
    let (_dir, store) = store();
    let mut in_use = store.writer("in-use").expect("a writer");
    in_use.write(b"abc").expect("written");
    store.writer("abandoned").expect("a writer").write(&bytes(77)).expect("written");
    assert_eq!(store.remove_leftovers().expect("removed"), 77);
    assert_eq!(in_use.commit(None).expect("committed").size, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_sequence_of_pieces_and_interruptions_gives_the_same_blob(
        content in proptest::collection::vec(any::<u8>(), 0..3000),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
    ) {
        let (_dir, store) = store();
        let expected = store.put(&content).expect("stored");
        for cut in cuts {
            let mut writer = store.writer("k").expect("a writer");
            let (from, to) = (writer.len() as usize, cut.index(content.len() + 1));
            if from < to {
                writer.write(&content[from..to]).expect("written");
            }
        }
        let mut writer = store.writer("k").expect("a writer");
        let from = writer.len() as usize;
        writer.write(&content[from..]).expect("written");
        prop_assert_eq!(writer.commit(Some(expected.digest)).expect("the same bytes"), expected);
    }
}
