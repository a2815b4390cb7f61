//! OCI distribution: pulls of models, pushes, uploads in pieces, and what is refused. `skopeo` and `oras` run in the
//! test command's full form.

use std::sync::Arc;

use helios_distribution::oci;
use helios_registry::Registry;
use helios_types::ModelRef;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::models::{self, Place};
use crate::serve;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

struct Served {
    registry: Arc<Registry>,
    url: String,
    client: Client,
    place: Place,
}

impl Served {
    async fn start() -> Self {
        let place = Place::new();
        let registry = place.open().await;
        let url = serve(oci::router(Arc::clone(&registry))).await;
        Self { registry, url, client: Client::new(), place }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.client.request(method, url)
    }

    async fn call(&self, method: &str, path: &str) -> Response {
        self.request(method, path).send().await.expect("an answer")
    }

    async fn upload(&self, name: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let request = self.request("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"));
        let response = request.body(bytes.to_vec()).send().await.expect("an answer");
        assert_eq!(response.status(), 201);
        json!({ "mediaType": "application/octet-stream", "digest": digest, "size": bytes.len() })
    }

    async fn push(&self, name: &str, reference: &str, manifest: &str) -> Response {
        let request = self.request("PUT", &format!("/v2/{name}/manifests/{reference}"));
        request
            .header("content-type", MANIFEST_TYPE)
            .body(manifest.to_owned())
            .send()
            .await
            .expect("an answer")
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn titled(mut descriptor: Value, title: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.title": title });
    descriptor
}

fn header(response: &Response, name: &str) -> String {
    response.headers()[name].to_str().expect("text").to_owned()
}

async fn refused(response: Response, status: u16, code: &str) {
    let actual = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    assert_eq!((actual, &body["errors"][0]["code"]), (status, &json!(code)), "{body}");
}

#[tokio::test]
async fn a_model_is_an_artifact_that_is_always_the_same() {
    let served = Served::start().await;
    let file = served.place.write("tiny.gguf", &models::gguf(1.0));
    let name: ModelRef = "Org/Tiny:v1".parse().expect("a name");
    let resolved = served.registry.import(&file, Some(name), &mut |_| {}).await.expect("imported");
    let response = served.call("GET", "/v2/org/tiny/manifests/v1").await;
    assert_eq!(header(&response, "content-type"), MANIFEST_TYPE);
    let told = header(&response, "docker-content-digest");
    let bytes = response.bytes().await.expect("bytes");
    assert_eq!(digest(&bytes), told);
    let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(manifest["config"]["digest"], resolved.digest.to_string());
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1, "what is derived is no layer");
    assert_eq!(layers[0]["annotations"]["org.opencontainers.image.title"], "tiny.gguf");
    for descriptor in [&manifest["config"], &layers[0]] {
        let path = format!("/v2/org/tiny/blobs/{}", descriptor["digest"].as_str().expect("a digest"));
        let blob = served.call("GET", &path).await.bytes().await.expect("bytes");
        assert_eq!(
            (digest(&blob), blob.len()),
            (
                descriptor["digest"].as_str().expect("a digest").to_owned(),
                descriptor["size"].as_u64().expect("a size") as usize
            )
        );
    }
    let by_digest = served.call("GET", &format!("/v2/org/tiny/manifests/{told}")).await;
    assert_eq!(by_digest.bytes().await.expect("bytes"), bytes);
    let head = served.call("HEAD", "/v2/org/tiny/manifests/latest").await;
    assert_eq!(header(&head, "content-length"), bytes.len().to_string(), "`latest` is what came last");
    let tags: Value = served.call("GET", "/v2/org/tiny/tags/list").await.json().await.expect("JSON");
    assert_eq!(tags["tags"], json!(["v1"]));
}

#[tokio::test]
async fn what_is_pushed_becomes_a_model_and_comes_back_byte_for_byte() {
    let served = Served::start().await;
    let config = served.upload("made", b"{}").await;
    let layer = titled(served.upload("made", &models::gguf(2.0)).await, "m.gguf");
    // Spaces that no serializer writes: the bytes have to be kept.
    let manifest = format!("{{ \"schemaVersion\":2,  \"config\":{config}, \"layers\":[{layer}] }}");
    let response = served.push("made", "v1", &manifest).await;
    assert_eq!(
        (response.status().as_u16(), header(&response, "docker-content-digest")),
        (201, digest(manifest.as_bytes()))
    );
    for reference in ["v1", &digest(manifest.as_bytes())] {
        let pulled = served.call("GET", &format!("/v2/made/manifests/{reference}")).await;
        assert_eq!(header(&pulled, "content-type"), MANIFEST_TYPE);
        assert_eq!(pulled.text().await.expect("text"), manifest);
    }
    let resolved = served.registry.resolve(&"made:v1".parse().expect("a name")).await.expect("resolved");
    assert_eq!(resolved.manifest.facts().expect("a model").architecture, "llama");
    let by_digest = served.push("made", &digest(manifest.as_bytes()), &manifest).await;
    assert_eq!(by_digest.status(), 201);
    assert_eq!(served.call("DELETE", "/v2/made/manifests/v1").await.status(), 202);
    refused(served.call("GET", "/v2/made/manifests/v1").await, 404, "MANIFEST_UNKNOWN").await;
}

#[tokio::test]
async fn an_upload_in_pieces_goes_on_where_it_stopped() {
    let served = Served::start().await;
    let begun = served.call("POST", "/v2/a/b/blobs/uploads/").await;
    assert_eq!(begun.status(), 202);
    let place = header(&begun, "location");
    let piece = async |range: &str, body: &'static str| {
        let request = served.request("PATCH", &place).header("content-range", range).body(body);
        request.send().await.expect("an answer")
    };
    let first = piece("0-4", "hello").await;
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-4".to_owned()));
    let gap = piece("9-13", "world").await;
    assert_eq!((gap.status().as_u16(), header(&gap, "range")), (416, "0-4".to_owned()));
    assert_eq!(header(&served.call("GET", &place).await, "range"), "0-4");
    assert_eq!(piece("5-10", " world").await.status(), 202);
    let wrong = served.request("PUT", &format!("{place}?digest=sha256:nonsense")).send().await;
    refused(wrong.expect("an answer"), 400, "DIGEST_INVALID").await;
    let digest = digest(b"hello world");
    let ended = served.call("PUT", &format!("{place}?digest={digest}")).await;
    assert_eq!((ended.status().as_u16(), header(&ended, "docker-content-digest")), (201, digest.clone()));
    let blob = served.call("GET", &format!("/v2/a/b/blobs/{digest}")).await;
    assert_eq!(blob.text().await.expect("text"), "hello world");
    refused(served.call("GET", &place).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    let mounted = served.call("POST", &format!("/v2/other/blobs/uploads/?mount={digest}&from=a/b")).await;
    assert_eq!(mounted.status(), 201, "one that is here needs no bytes");
}

#[tokio::test]
async fn uploads_have_a_bound_and_lies_are_refused() {
    let served = Served::start().await;
    for _ in 0..64 {
        assert_eq!(served.call("POST", "/v2/a/blobs/uploads/").await.status(), 202);
    }
    refused(served.call("POST", "/v2/a/blobs/uploads/").await, 429, "TOOMANYREQUESTS").await;
    let lie =
        served.request("POST", &format!("/v2/a/blobs/uploads/?digest={}", digest(b"truth"))).body("lie");
    refused(lie.send().await.expect("an answer"), 400, "DIGEST_INVALID").await;
    let gzip = served.request("POST", "/v2/a/blobs/uploads/").header("content-encoding", "gzip").body("bomb");
    refused(gzip.send().await.expect("an answer"), 415, "UNSUPPORTED").await;
}

#[tokio::test]
async fn manifests_that_name_what_is_not_here_or_leave_the_folder_are_refused() {
    let served = Served::start().await;
    let config = served.upload("a", b"{}").await;
    let layer = served.upload("a", b"layer").await;
    let with = |layers: Value| json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    for title in ["../x", "/etc/passwd", "a/../b", "helios/config.json"] {
        let pushed = served.push("a", "v1", &with(json!([titled(layer.clone(), title)]))).await;
        refused(pushed, 400, "MANIFEST_INVALID").await;
    }
    let twice = with(json!([titled(layer.clone(), "x"), titled(layer.clone(), "x")]));
    refused(served.push("a", "v1", &twice).await, 400, "MANIFEST_INVALID").await;
    let mut longer = layer.clone();
    longer["size"] = json!(6);
    refused(served.push("a", "v1", &with(json!([longer]))).await, 400, "MANIFEST_INVALID").await;
    let gone = json!({ "mediaType": "x", "digest": digest(b"gone"), "size": 4 });
    refused(served.push("a", "v1", &with(json!([gone]))).await, 404, "MANIFEST_BLOB_UNKNOWN").await;
    let none = json!({ "mediaType": "x", "digest": "sha256:../../x", "size": 4 });
    refused(served.push("a", "v1", &with(json!([none]))).await, 400, "DIGEST_INVALID").await;
    refused(served.push("a", "v1", r#"{"manifests": []}"#).await, 400, "UNSUPPORTED").await;
    refused(served.push("a", "v1", "{").await, 400, "MANIFEST_INVALID").await;
    refused(served.push("a", "-x", &with(json!([]))).await, 400, "TAG_INVALID").await;
    refused(served.push("a", &digest(b"other"), &with(json!([]))).await, 400, "DIGEST_INVALID").await;
    refused(served.push("api/x", "v1", &with(json!([]))).await, 404, "UNSUPPORTED").await;
    let long = format!("{}{}", " ".repeat(4 << 20), with(json!([])));
    refused(served.push("a", "v1", &long).await, 413, "SIZE_INVALID").await;
    assert!(served.registry.list().await.expect("a list").is_empty(), "nothing was made");
}

#[tokio::test]
async fn lists_come_in_pages_and_nothing_refers_to_anything() {
    let served = Served::start().await;
    let config = served.upload("a", b"{}").await;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string();
    for name in ["a", "b", "c"] {
        assert_eq!(served.push(name, "v1", &manifest).await.status(), 201);
    }
    let response = served.call("GET", "/v2/_catalog?n=2").await;
    assert_eq!(header(&response, "link"), "</v2/_catalog?n=2&last=b>; rel=\"next\"");
    let page: Value = response.json().await.expect("JSON");
    assert_eq!(page["repositories"], json!(["a", "b"]));
    let rest: Value = served.call("GET", "/v2/_catalog?n=2&last=b").await.json().await.expect("JSON");
    assert_eq!(rest["repositories"], json!(["c"]));
    let path = format!("/v2/a/referrers/{}", digest(manifest.as_bytes()));
    let referrers: Value = served.call("GET", &path).await.json().await.expect("JSON");
    assert_eq!(referrers["manifests"], json!([]));
    refused(served.call("GET", "/v2/nothing/tags/list").await, 404, "NAME_UNKNOWN").await;
}
