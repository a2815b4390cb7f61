//! Archives that are wrong: each is refused with an error that says which entry and what to do, and leaves no model.

use serde_json::{Value, json};
use tar::EntryType;

use super::import;
use super::made::{Entries, archive_of, blob_path, entries, header, tar_of, two_models};
use crate::models::{self, Place};

/// An archive of one model, taken apart.
async fn taken_apart() -> Entries {
    let place = Place::new();
    entries(&archive_of(&two_models(&place).await, &["a"]).await)
}

/// Imports what must be refused; the error's text.
async fn refused(archive: &[u8]) -> String {
    let place = Place::new();
    let registry = place.open().await;
    let error = import(&registry, archive).await.expect_err("it is wrong").to_string();
    assert!(error.contains("\nhint: "), "{error}");
    assert!(registry.list().await.expect("a list").is_empty(), "{error}");
    registry.gc().await.expect("collected");
    let blobs = std::fs::read_dir(place.store().join("blobs/sha256")).expect("blobs").count();
    assert_eq!(blobs, 0, "what came of it is garbage: {error}");
    error
}

fn weights_at(entries: &Entries) -> usize {
    entries.iter().position(|(_, bytes)| bytes.starts_with(b"GGUF")).expect("weights")
}

/// The manifest of Helios, changed; the rest follows it.
fn with_manifest(entries: &mut Entries, change: impl FnOnce(&mut Value)) {
    let index: Value = serde_json::from_slice(&entries[1].1).expect("an index");
    let named = &index["manifests"][0]["annotations"]["vnd.helios.manifest.digest"];
    let path = format!("blobs/{}", named.as_str().expect("a digest").replace(':', "/"));
    let at = entries.iter().position(|(name, _)| *name == path).expect("the manifest");
    let mut manifest: Value = serde_json::from_slice(&entries[at].1).expect("a manifest");
    change(&mut manifest);
    // Of the same field order as the bytes it was read from.
    let typed: Result<helios_model::Manifest, _> = serde_json::from_value(manifest.clone());
    let bytes = typed.map_or_else(|_| manifest.to_string().into_bytes(), |typed| typed.to_bytes());
    entries[at] = (blob_path(&bytes), bytes.clone());
    let text = String::from_utf8(entries[1].1.clone()).expect("UTF-8");
    let old = named.as_str().expect("a digest");
    entries[1].1 = text.replace(old, &format!("sha256:{}", models::sha256(&bytes))).into_bytes();
}

#[tokio::test]
async fn a_truncated_archive_is_refused_wherever_it_ends() {
    let whole = tar_of(&taken_apart().await);
    for end in [0, 100, 512, 600, 5_000, whole.len() / 2, whole.len() - 1_024, whole.len() - 1] {
        let error = refused(&whole[..end]).await;
        assert!(error.contains(&format!("{end} bytes")) || error.contains(&format!("byte {end}")), "{error}");
    }
    let error = refused(&whole[..whole.len() / 2]).await;
    assert!(error.contains("blobs/sha256/") && error.contains("cut short"), "{error}");
}

#[tokio::test]
async fn a_blob_with_other_bytes_than_its_name_is_refused() {
    let mut entries = taken_apart().await;
    let at = weights_at(&entries);
    let middle = entries[at].1.len() / 2;
    entries[at].1[middle] ^= 1;
    let error = refused(&tar_of(&entries)).await;
    assert!(error.contains(&entries[at].0) && error.contains("its bytes have digest sha256:"), "{error}");
}

#[tokio::test]
async fn names_that_lead_out_of_the_archive_are_refused() {
    for path in ["../blobs/x", "/etc/passwd", "blobs/sha256/../../../x", "blobs/sha256/.."] {
        let mut entries = taken_apart().await;
        entries.insert(2, (path.to_owned(), b"x".to_vec()));
        let error = refused(&tar_of(&entries)).await;
        assert!(error.contains(path) && error.contains("leads out of the archive"), "{error}");
    }
}

#[tokio::test]
async fn entries_that_no_archive_has_are_refused() {
    let hex = models::sha256(b"x");
    let upper = format!("blobs/sha256/{}", hex.to_uppercase());
    for path in ["readme.txt", "blobs/sha512/x", "blobs/sha256/123", upper.as_str(), "a\\b"] {
        let mut entries = taken_apart().await;
        entries.push((path.to_owned(), b"x".to_vec()));
        let error = refused(&tar_of(&entries)).await;
        assert!(error.contains("an archive has no such entry"), "{path}: {error}");
    }
    let mut entries = taken_apart().await;
    entries.push((blob_path(b"stranger"), b"stranger".to_vec()));
    let error = refused(&tar_of(&entries)).await;
    assert!(error.contains("no manifest of the archive names it"), "{error}");
}

#[tokio::test]
async fn links_devices_and_extended_headers_are_refused() {
    let whole = tar_of(&taken_apart().await);
    for kind in
        [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::XHeader, EntryType::GNULongName]
    {
        let strange = header("index.json", 0, kind);
        let archive = [strange.as_bytes().as_slice(), &whole].concat();
        let error = refused(&archive).await;
        assert!(error.contains("index.json") && error.contains("no plain file but"), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_nowhere_is_refused_and_one_whose_blobs_are_here_is_not() {
    let mut entries = taken_apart().await;
    let weights = entries.remove(weights_at(&entries));
    let archive = tar_of(&entries);
    let error = refused(&archive).await;
    assert!(
        error.contains(&weights.0) && error.contains("`m.gguf` is neither in the archive nor"),
        "{error}"
    );
    let place = Place::new();
    let registry = two_models(&place).await;
    registry.remove(&super::name("a")).await.expect("removed");
    let report = import(&registry, &archive).await.expect("the weights are here");
    assert_eq!(report.blobs_added, 0);
}

#[tokio::test]
async fn sizes_that_lie_are_refused() {
    let mut entries = taken_apart().await;
    let at = weights_at(&entries);
    let size = entries[at].1.len();
    entries[at].1.pop();
    let error = refused(&tar_of(&entries)).await;
    let told = format!("its header says {} bytes, the manifest {size}", size - 1);
    assert!(error.contains(&entries[at].0) && error.contains(&told), "{error}");

    let mut entries = taken_apart().await;
    with_manifest(&mut entries, |manifest| manifest["files"][0]["size"] = json!(size + 1));
    let error = refused(&tar_of(&entries)).await;
    assert!(error.contains(&format!("the manifest {}", size + 1)), "{error}");

    let mut entries = taken_apart().await;
    with_manifest(&mut entries, |manifest| {
        manifest["files"][0]["size"] = json!(u64::MAX);
        manifest["files"][1]["size"] = json!(u64::MAX);
    });
    let error = refused(&tar_of(&entries)).await;
    assert!(error.contains("more bytes than can be counted"), "{error}");
}

#[tokio::test]
async fn a_blake3_root_that_lies_is_refused() {
    let mut entries = taken_apart().await;
    with_manifest(&mut entries, |manifest| manifest["files"][0]["blake3"] = json!("0".repeat(64)));
    let archive = tar_of(&entries);
    let error = refused(&archive).await;
    assert!(error.contains("BLAKE3 root") && error.contains(&entries[weights_at(&entries)].0), "{error}");
    // The same where the blob is here already, with the right root.
    let place = Place::new();
    let registry = two_models(&place).await;
    let error = import(&registry, &archive).await.expect_err("a lie").to_string();
    assert!(error.contains("BLAKE3 root"), "{error}");
}

#[tokio::test]
async fn compressed_archives_are_refused_with_the_command_that_unpacks_them() {
    let whole = tar_of(&taken_apart().await);
    let place = Place::new();
    let file = place.write("m.tar", &whole);
    let gzipped = std::process::Command::new("gzip").arg("--stdout").arg(&file).output().expect("gzip runs");
    let error = refused(&gzipped.stdout).await;
    assert!(error.contains("compressed with gzip") && error.contains("gunzip --stdout FILE"), "{error}");
    for (magic, kind) in [(&b"\x28\xb5\x2f\xfd"[..], "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2")] {
        let error = refused(magic).await;
        assert!(error.contains(&format!("compressed with {kind}")), "{error}");
    }
}

#[tokio::test]
async fn absurd_sizes_in_headers_are_refused_before_a_byte_of_them_is_kept() {
    let entries = taken_apart().await;
    let weights = entries[weights_at(&entries)].0.clone();
    for (path, after) in [("oci-layout", 0), ("index.json", 1), (weights.as_str(), entries.len() - 1)] {
        for size in [u64::MAX, i64::MAX as u64, 1 << 50] {
            let mut archive = tar_of(&entries[..after]);
            archive.truncate(archive.len() - 1_024);
            archive.extend(header(path, size, EntryType::Regular).as_bytes());
            archive.resize(archive.len() + 4_096, b'x');
            let error = refused(&archive).await;
            assert!(error.contains(path), "{error}");
            assert!(!error.contains("file ends"), "it was refused by its header: {error}");
        }
    }
    // A size that is no number, and a header whose checksum is of other bytes.
    let whole = tar_of(&entries);
    let mut garbled = whole.clone();
    garbled[124..136].copy_from_slice(b"99999999999\0");
    assert!(refused(&garbled).await.contains("the header at byte 0"));
    assert!(refused(&[b'x'; 2_048]).await.contains("no tar file"));
}

#[tokio::test]
async fn the_order_of_entries_is_the_one_that_lets_them_be_checked() {
    let whole = taken_apart().await;
    let last = whole.len() - 1;
    let cases: [(usize, usize, &str); 4] = [
        (0, 1, "comes before `oci-layout`"),
        (1, 2, "comes before `index.json`"),
        (2, last, "the manifest of a model"),
        (2, 3, "the manifest of a model"),
    ];
    for (a, b, told) in cases {
        let mut entries = whole.clone();
        entries.swap(a, b);
        let error = refused(&tar_of(&entries)).await;
        assert!(error.contains(told), "{a} and {b}: {error}");
    }
    for twice in [0, 1, 2, 3, last] {
        let mut entries = whole.clone();
        entries.insert(twice, whole[twice].clone());
        let error = refused(&tar_of(&entries)).await;
        assert!(error.contains("there twice") || error.contains("manifest"), "{twice}: {error}");
    }
    let mut behind = tar_of(&whole);
    behind.extend(tar_of(&whole));
    assert!(refused(&behind).await.contains("something follows behind it"));
}

#[tokio::test]
async fn indexes_that_are_none_or_name_what_no_model_may_have_are_refused() {
    let whole = taken_apart().await;
    let index: Value = serde_json::from_slice(&whole[1].1).expect("an index");
    type Change<'a> = &'a dyn Fn(&mut Value);
    let with = |change: Change<'_>| {
        let (mut entries, mut index) = (whole.clone(), index.clone());
        change(&mut index);
        entries[1].1 = index.to_string().into_bytes();
        tar_of(&entries)
    };
    let name = |name: &'static str| {
        move |index: &mut Value| {
            index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        }
    };
    let cases: [(Change<'_>, &str); 8] = [
        (&name("../x"), "is not a model name"),
        (&name("api/x:v1"), "reserved"),
        (&|index| index["manifests"] = json!([]), "0 models"),
        (&|index| index["manifests"] = json!(vec![index["manifests"][0].clone(); 1_001]), "1001 models"),
        (&|index| index["manifests"] = json!(vec![index["manifests"][0].clone(); 2]), "is there twice"),
        (&|index| index["manifests"][0]["annotations"] = json!({}), "has no annotation"),
        (&|index| index["manifests"][0]["digest"] = json!("md5:1"), "md5:1"),
        (&|index| index["schemaVersion"] = json!(1), "schema version 1"),
    ];
    for (change, told) in cases {
        let error = refused(&with(change)).await;
        assert!(error.contains(told), "{told}: {error}");
    }
    let mut entries = whole.clone();
    entries[1].1 = b"{".to_vec();
    assert!(refused(&tar_of(&entries)).await.contains("`index.json`"));
    entries[0].1 = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
    assert!(refused(&tar_of(&entries)).await.contains("`oci-layout`: version \"2.0.0\""));
    // An image of somebody else: a layout without manifests of Helios.
    let mut entries = whole;
    with_manifest(&mut entries, |manifest| *manifest = json!({ "schemaVersion": 2, "layers": [] }));
    assert!(refused(&tar_of(&entries)).await.contains("this manifest is no good"));
}

#[tokio::test]
async fn a_manifest_that_says_more_than_this_release_knows_is_refused() {
    let mut entries = taken_apart().await;
    let index: Value = serde_json::from_slice(&entries[1].1).expect("an index");
    let old = index["manifests"][0]["annotations"]["vnd.helios.manifest.digest"].as_str().expect("a digest");
    let path = format!("blobs/{}", old.replace(':', "/"));
    let at = entries.iter().position(|(name, _)| *name == path).expect("the manifest");
    let text = String::from_utf8(entries[at].1.clone()).expect("UTF-8");
    let bytes = text.replacen('{', "{\"from_the_future\":1,", 1).into_bytes();
    entries[at] = (blob_path(&bytes), bytes.clone());
    let text = String::from_utf8(entries[1].1.clone()).expect("UTF-8");
    entries[1].1 = text.replace(old, &format!("sha256:{}", models::sha256(&bytes))).into_bytes();
    let error = refused(&tar_of(&entries)).await;
    assert!(error.contains("things that this release does not know"), "{error}");
}
