//! Exports and imports that were interrupted, and files that are not what was left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_registry::{ArchiveSource, Registry, RegistryError, SaveReport};
use helios_storage::DurableFiles;

use super::import;
use super::made::{archive_of, name, pieces, two_models};
use crate::models::{self, Place};

async fn save(registry: &Arc<Registry>, names: &[&str], file: &Path) -> Result<SaveReport, RegistryError> {
    let names: Vec<_> = names.iter().map(|text| name(text)).collect();
    let source = ArchiveSource::Here(registry.archive(&names).await.expect("an archive"));
    source.save(file, &mut |_| {}).await
}

fn partial_of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", file.display()))
}

#[tokio::test]
async fn an_export_goes_on_behind_what_was_written_and_verified() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let whole = archive_of(&registry, &["a", "org/b:v2"]).await;
    let (file, partial) = (place.path("m.tar"), partial_of(&place.path("m.tar")));
    let report = save(&registry, &["a", "org/b:v2"], &file).await.expect("saved");
    assert_eq!((report.resumed, report.size), (0, whole.len() as u64));
    assert_eq!(report.models.len(), 2);
    assert!(fs::read(&file).expect("the file") == whole && !partial.exists());

    // Whatever a kill leaves: the file is whole in the end, and in the middle of a blob nothing is written twice.
    for end in
        [0, 1, 511, 512, 1_500, 4_096, whole.len() / 2, whole.len() - 1_024, whole.len() - 1, whole.len()]
    {
        fs::remove_file(&file).expect("removed");
        fs::write(&partial, &whole[..end]).expect("a rest");
        let report = save(&registry, &["a", "org/b:v2"], &file).await.expect("saved");
        assert!(fs::read(&file).expect("the file") == whole && !partial.exists(), "{end}");
        assert!(report.resumed <= end as u64);
        if end >= whole.len() / 2 {
            assert!(report.resumed >= whole.len() as u64 / 2, "{end}: {report:?}");
        }
    }
}

#[tokio::test]
async fn an_export_believes_nothing_that_it_finds() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let whole = archive_of(&registry, &["a", "org/b:v2"]).await;
    let (file, partial) = (place.path("m.tar"), partial_of(&place.path("m.tar")));
    let half = whole.len() * 2 / 3;
    // In the filling behind the first entry, in a header, in the index, in files.
    for wrong in [520, 600, 1_130, 1_600, 3_000, half / 2, half - 1] {
        let mut rest = whole[..half].to_vec();
        rest[wrong] ^= 1;
        fs::write(&partial, rest).expect("a rest");
        save(&registry, &["a", "org/b:v2"], &file).await.expect("saved");
        assert!(fs::read(&file).expect("the file") == whole, "a bit at {wrong} was wrong");
    }
    let longer = [whole.as_slice(), b"and more"].concat();
    for rest in [longer.as_slice(), b"something else", &[0; 5_000]] {
        fs::write(&partial, rest).expect("a rest");
        save(&registry, &["a", "org/b:v2"], &file).await.expect("saved");
        assert!(fs::read(&file).expect("the file") == whole);
    }
    // The rest of another archive is none of this one.
    fs::write(&partial, &whole[..half]).expect("a rest");
    let report = save(&registry, &["a"], &file).await.expect("saved");
    assert_eq!(report.resumed, 0);
    assert!(fs::read(&file).expect("the file") == archive_of(&registry, &["a"]).await);
}

#[tokio::test]
async fn two_exports_to_one_file_do_not_write_it_at_once() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let file = place.path("m.tar");
    let held = DurableFiles::default().grow(&partial_of(&file), &file).expect("opened").expect("free");
    let error = save(&registry, &["a"], &file).await.expect_err("it is taken").to_string();
    assert!(error.contains("another process is writing") && error.contains("hint: "), "{error}");
    drop(held);
    save(&registry, &["a"], &file).await.expect("saved");
    let error =
        save(&registry, &["a"], &place.path("missing/m.tar")).await.expect_err("no folder").to_string();
    assert!(error.contains("missing/m.tar.partial"), "{error}");
}

/// An archive that breaks off after `end` bytes.
async fn import_until(registry: &Arc<Registry>, archive: &[u8], end: usize) -> String {
    let lost = RegistryError::Internal { problem: "the line went dead".to_owned() };
    let bytes = pieces(&archive[..end], 1_000).chain(stream::iter([Err(lost)])).boxed();
    registry.import_archive(bytes, &mut |_| {}).await.expect_err("it broke off").to_string()
}

#[tokio::test]
async fn an_import_goes_on_with_whole_and_half_blobs() {
    let (from, to) = (Place::new(), Place::new());
    let registry = two_models(&from).await;
    let archive = archive_of(&registry, &["a", "org/b:v2"]).await;
    let there = to.open().await;
    let weights = models::gguf(1.0).len() as u64;
    let begin = archive.windows(4).position(|bytes| bytes == b"GGUF").expect("the first weights");
    let error = import_until(&there, &archive, begin + 10_000).await;
    assert!(error.contains("the line went dead"), "{error}");
    assert!(there.list().await.expect("a list").is_empty());
    let partial = |place: &Place| {
        let files = fs::read_dir(place.store().join("partial")).expect("a folder");
        files.map(|file| file.expect("a file").metadata().expect("a file").len()).sum::<u64>()
    };
    assert!((9_000..=10_000).contains(&partial(&to)), "half a blob is kept: {}", partial(&to));
    let half = partial(&to);
    // Further, so that the first weights are whole.
    import_until(&there, &archive, begin + weights as usize + 1_000).await;
    let report = import(&there, &archive).await.expect("imported");
    assert!(report.blobs_there >= 1 && report.bytes_added < archive.len() as u64 - weights, "{report:?}");
    assert!(half > 0 && partial(&to) == 0);
    for model in ["a", "org/b:v2"] {
        let digest = there.resolve(&name(model)).await.expect(model).digest;
        assert_eq!(digest, registry.resolve(&name(model)).await.expect(model).digest);
    }
}

#[tokio::test]
async fn half_a_blob_that_is_wrong_is_found_out_and_deleted() {
    let (from, to) = (Place::new(), Place::new());
    let archive = archive_of(&two_models(&from).await, &["a"]).await;
    let there = to.open().await;
    let begin = archive.windows(4).position(|bytes| bytes == b"GGUF").expect("the weights");
    import_until(&there, &archive, begin + 10_000).await;
    let files = fs::read_dir(to.store().join("partial")).expect("a folder");
    let half = files.map(|file| file.expect("a file").path()).next().expect("half a blob");
    let mut bytes = fs::read(&half).expect("bytes");
    bytes[100] ^= 1;
    fs::write(&half, bytes).expect("written");
    let error = import(&there, &archive).await.expect_err("wrong").to_string();
    assert!(
        error.contains("that an earlier attempt left") && error.contains("import it once more"),
        "{error}"
    );
    import(&there, &archive).await.expect("the second time it is right");
}

#[tokio::test]
async fn an_import_that_is_dropped_ends_and_the_next_one_goes_on() {
    let (from, to) = (Place::new(), Place::new());
    let archive = archive_of(&two_models(&from).await, &["a"]).await;
    let there = to.open().await;
    let begin = archive.windows(4).position(|bytes| bytes == b"GGUF").expect("the weights");
    let first = Bytes::copy_from_slice(&archive[..begin + 10_000]);
    let silent = stream::iter([Ok(first)]).chain(stream::pending()).boxed();
    let mut import_silent = there.start_import(silent);
    // Its first progress says that bytes of the weights have come; then nothing comes any more.
    import_silent.next().await.expect("progress");
    drop(import_silent);
    import(&there, &archive).await.expect("imported");
}
