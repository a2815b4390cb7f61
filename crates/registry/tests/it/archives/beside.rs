//! Archives beside everything else: garbage collection, and other processes over HTTP.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use helios_registry::{ArchiveSource, RegistryClient, http};
use helios_types::{Classify, ErrorCode};
use tokio::sync::mpsc;

use super::import;
use super::made::{archive_of, name, pieces, tar_of, two_models};
use crate::models::Place;
use crate::over_http::serve;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_takes_nothing_of_an_import_that_runs() {
    let (from, to) = (Place::new(), Place::new());
    let archive = archive_of(&two_models(&from).await, &["a", "org/b:v2"]).await;
    let there = to.open().await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let bytes = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (Ok(piece), receiver))
    });
    let collections = async {
        for piece in archive.chunks(2_000) {
            sender.send(Bytes::copy_from_slice(piece)).await.expect("it runs");
            there.gc().await.expect("collected");
        }
        drop(sender);
    };
    let mut ignored = |_| {};
    let (report, ()) = tokio::join!(there.import_archive(bytes.boxed(), &mut ignored), collections);
    let report = report.expect("imported");
    assert_eq!((report.models.len(), report.blobs_there), (2, 0));
    for model in ["a", "org/b:v2"] {
        for file in &there.resolve(&name(model)).await.expect(model).manifest.files {
            there.blob(file).await.expect(&file.path);
        }
    }
}

#[tokio::test]
async fn a_collection_takes_nothing_of_an_export_that_runs() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let expected = archive_of(&registry, &["a", "org/b:v2"]).await;
    let archive = registry.archive(&[name("a"), name("org/b:v2")]).await.expect("an archive");
    let mut stream = archive.read(0..archive.size());
    drop(archive);
    let mut bytes = stream.next().await.expect("a piece").expect("bytes").to_vec();
    for model in ["a", "org/b:v2"] {
        registry.remove(&name(model)).await.expect("removed");
    }
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0);
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.expect("bytes"));
    }
    assert!(bytes == expected);
    drop(stream);
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 2);
}

#[tokio::test]
async fn archives_go_out_and_in_over_http_and_go_on_where_they_stopped() {
    let (from, to) = (Place::new(), Place::new());
    let registry = two_models(&from).await;
    let url = serve(http::router(Arc::clone(&registry))).await;
    let client = RegistryClient::new(&url, None).expect("a client");
    let source = ArchiveSource::Elsewhere(client, vec![name("a"), name("org/b:v2")]);
    let whole = archive_of(&registry, &["a", "org/b:v2"]).await;
    let file = from.path("m.tar");
    let half = whole.len() * 2 / 3;
    std::fs::write(from.path("m.tar.partial"), &whole[..half]).expect("a rest");
    let report = source.save(&file, &mut |_| {}).await.expect("saved");
    assert!(std::fs::read(&file).expect("the file") == whole);
    assert_eq!(report.resumed, half as u64, "only the rest came over the wire");
    // The tag moves: what was written before is of no use, and that is found out.
    registry.tag(&name("org/b:v2"), &name("a")).await.expect("tagged");
    std::fs::write(from.path("m.tar.partial"), &whole[..half]).expect("a rest");
    let report = source.save(&file, &mut |_| {}).await.expect("saved");
    assert_eq!(report.resumed, 0);
    assert!(std::fs::read(&file).expect("the file") == archive_of(&registry, &["a", "org/b:v2"]).await);

    let there = to.open().await;
    let url = serve(http::router(Arc::clone(&there))).await;
    let client = RegistryClient::new(&url, None).expect("a client");
    let mut reports = 0;
    let report =
        client.import_archive(pieces(&whole, 10_000), &mut |_| reports += 1).await.expect("imported");
    assert_eq!((report.models.len(), report.blobs_there), (2, 0));
    assert!(reports > 0);
    assert_eq!(there.list().await.expect("a list").len(), 2);
    assert_eq!(import(&there, &whole).await.expect("again").blobs_added, 0);
}

#[tokio::test]
async fn what_is_wrong_with_an_archive_is_said_over_http_too() {
    let place = Place::new();
    let registry = place.open().await;
    let url = serve(http::router(Arc::clone(&registry))).await;
    let client = RegistryClient::new(&url, None).expect("a client");
    // Wrong in its first bytes, and far more behind them than any buffer holds.
    let wrong = vec![b'x'; 64 << 20];
    let error = client.import_archive(pieces(&wrong, 1 << 20), &mut |_| {}).await.expect_err("no archive");
    assert!(error.to_string().contains("no tar file") && error.to_string().contains("hint: "), "{error}");
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    let error = client.import_archive(pieces(&tar_of(&[]), 512), &mut |_| {}).await.expect_err("empty");
    assert!(error.to_string().contains("`index.json`: it is missing"), "{error}");
    // A stream that fails here is told as what it was.
    let lost = helios_registry::RegistryError::Internal { problem: "the disk went dead".to_owned() };
    let bytes = futures::stream::iter([Err(lost)]).boxed();
    let error = client.import_archive(bytes, &mut |_| {}).await.expect_err("it broke off");
    assert!(error.to_string().contains("the disk went dead"), "{error}");
    let source = ArchiveSource::Elsewhere(client, vec![name("none")]);
    let error = source.save(&place.path("m.tar"), &mut |_| {}).await.expect_err("no such model");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);

    let posted = reqwest::Client::new().post(format!("{url}/registry/v1/import"));
    for kind in ["text/plain", "application/json"] {
        let request = posted.try_clone().expect("a request").header("content-type", kind).body("x");
        assert_eq!(request.send().await.expect("an answer").status(), 415);
    }
}
