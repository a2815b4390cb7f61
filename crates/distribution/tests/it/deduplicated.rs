//! Files that are kept as recipes, served like any other.

use std::fs;
use std::sync::Arc;

use helios_distribution::{hub, oci};
use helios_model::Role;
use reqwest::{Client, Response};

use crate::models::Place;
use crate::serve;
use crate::variants::{import, open, write_variant};

async fn get(url: &str, range: Option<&str>) -> Response {
    let request = Client::new().get(url);
    let request = range.into_iter().fold(request, |request, range| request.header("range", range));
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_recipe_is_served_as_the_file_that_it_stands_for() {
    let place = Place::new();
    let registry = open(&place, false).await;
    write_variant(&place, "base", &[1, 2, 3, 4]);
    write_variant(&place, "tuned", &[1, 2, 3, 9]);
    import(&registry, &place, "base").await;
    let tuned = import(&registry, &place, "tuned").await;
    let weights = tuned.manifest.required(Role::Weights).expect("weights").blob.digest;
    assert_eq!(registry.deduplicate().await.expect("deduplicated").recipes_made, 1);
    let kept_whole = place.store().join("blobs/sha256").join(weights.hex());
    assert!(!kept_whole.exists(), "a recipe and nothing else");

    let file = fs::read(place.path("tuned/model.safetensors")).expect("the source");
    let hub = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
    let oci = serve(oci::router(Arc::clone(&registry))).await;
    for url in [
        format!("{hub}/helios/tuned/resolve/main/model.safetensors"),
        format!("{oci}/v2/tuned/blobs/{weights}"),
    ] {
        let whole = get(&url, None).await;
        assert_eq!(whole.headers()["etag"], format!("\"{}\"", weights.hex()), "{url}");
        assert!(*whole.bytes().await.expect("bytes") == *file, "{url}");
        // From the header, over tensors of the other file, into its own.
        for range in [0..100, 50..file.len() - 1, file.len() - 20_000..file.len() - 100] {
            let part = get(&url, Some(&format!("bytes={}-{}", range.start, range.end - 1))).await;
            assert_eq!(part.status(), 206, "{url} {range:?}");
            assert!(*part.bytes().await.expect("bytes") == file[range.clone()], "{url} {range:?}");
        }
    }
}
