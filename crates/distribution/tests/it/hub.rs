//! The hub's protocol: its answers as its client reads them, and what it refuses. The client itself runs in
//! `tests/clients`.

use std::sync::Arc;

use helios_distribution::hub;
use helios_registry::Registry;
use helios_runtime::Clock;
use helios_types::ModelRef;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::models::{self, Place};
use crate::serve;

struct Served {
    registry: Arc<Registry>,
    url: String,
    client: Client,
    _place: Place,
}

impl Served {
    async fn start() -> Self {
        Self::bounded(hub::Limits::default().commit_file_bytes).await
    }

    async fn bounded(commit_file_bytes: u64) -> Self {
        let place = Place::new();
        let registry = place.open().await;
        let url = serve(hub::router(Arc::clone(&registry), hub::Limits { commit_file_bytes })).await;
        Self { registry, url, client: Client::new(), _place: place }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    async fn commit(&self, lines: &[Value]) -> Response {
        self.commit_to("org/made", "main", lines).await
    }

    async fn commit_to(&self, repository: &str, revision: &str, lines: &[Value]) -> Response {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let request = self.post(&format!("/api/models/{repository}/commit/{revision}")).body(body);
        request.header("content-type", "application/x-ndjson").send().await.expect("an answer")
    }

    async fn files(&self, revision: &str) -> Vec<String> {
        let info = json_of(self.get(&format!("/api/models/org/made/revision/{revision}"))).await;
        let siblings = info["siblings"].as_array().expect("siblings");
        siblings.iter().map(|file| file["rfilename"].as_str().expect("a name").to_owned()).collect()
    }
}

async fn json_of(request: RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

async fn refused(response: Response, status: u16, word: &str) {
    let actual = response.status().as_u16();
    let message = response.text().await.expect("text");
    assert_eq!(actual, status, "{message}");
    assert!(message.contains(word), "{message} lacks {word}");
}

fn file(path: &str, content: &str) -> Value {
    json!({ "key": "file", "value": { "content": content, "path": path, "encoding": "base64" } })
}

fn header() -> Value {
    json!({ "key": "header", "value": { "summary": "s", "description": "" } })
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_file_is_answered_with_ranges_tags_and_its_commit() {
    let served = Served::start().await;
    let commit: Value =
        served.commit(&[header(), file("sub/a.txt", "aGVsbG8=")]).await.json().await.expect("JSON");
    let path = "/org/made/resolve/main/sub/a.txt";
    let head = served.client.head(format!("{}{path}", served.url)).send().await.expect("an answer");
    let (tag, headers) = (format!("\"{}\"", hex(b"hello")), head.headers());
    for (name, value) in
        [("etag", &*tag), ("x-linked-etag", &tag), ("content-length", "5"), ("x-linked-size", "5")]
    {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(headers["x-repo-commit"], commit["commitOid"].as_str().expect("a commit"));
    let text = async |request: RequestBuilder| {
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    assert_eq!(text(served.get(path)).await, (200, "hello".to_owned()));
    assert_eq!(text(served.get(path).header("range", "bytes=1-2")).await, (206, "el".to_owned()));
    assert_eq!(text(served.get(path).header("range", "bytes=9-")).await.0, 416);
    assert_eq!(text(served.get(path).header("if-none-match", &tag)).await, (304, String::new()));
    let by_commit =
        format!("/org/made/resolve/{}/sub/a.txt", commit["commitOid"].as_str().expect("a commit"));
    assert_eq!(text(served.get(&by_commit)).await.0, 200);
}

#[tokio::test]
async fn a_commit_keeps_what_it_does_not_name() {
    let served = Served::start().await;
    served.commit(&[header(), file("a", "YQ=="), file("dir/b", "Yg==")]).await;
    served.commit(&[header(), file("c", "Yw==")]).await;
    assert_eq!(served.files("main").await, ["a", "c", "dir/b"]);
    let delete = |key: &str, path: &str| json!({ "key": key, "value": { "path": path } });
    served.commit(&[header(), delete("deletedFolder", "dir/"), delete("deletedFile", "a")]).await;
    assert_eq!(served.files("main").await, ["c"]);
    let copy = json!({ "key": "lfsFile", "value": { "path": "d", "algo": "sha256", "oid": hex(b"c") } });
    served.commit(&[header(), copy]).await;
    assert_eq!(served.files("main").await, ["c", "d"]);
    refused(served.commit(&[header(), delete("deletedFile", "nothing")]).await, 404, "doesn't exist").await;
    refused(served.commit(&[header(), delete("deletedFolder", "nothing/")]).await, 404, "doesn't exist")
        .await;
    let late = json!({ "key": "header", "value": { "summary": "s", "parentCommit": "0".repeat(40) } });
    refused(served.commit(&[late, file("e", "ZQ==")]).await, 412, "read it again").await;
    served.commit_to("org/made", "v1", &[header(), file("other", "")]).await;
    assert_eq!(served.files("v1").await, ["other"]);
    assert_eq!(served.files("main").await, ["c", "d"]);
}

#[tokio::test]
async fn without_latest_main_is_what_was_pushed_last_even_where_that_changed_nothing() {
    let served = Served::start().await;
    for (revision, path) in [("a", "one"), ("b", "two"), ("a", "one")] {
        served.commit_to("org/made", revision, &[header(), file(path, "")]).await;
        assert_eq!(served.files("main").await, [path]);
        let pushed_at = Clock.unix_ms();
        while Clock.unix_ms() == pushed_at {
            tokio::task::yield_now().await;
        }
    }
    let history = served.registry.history(&"org/made:a".parse().expect("a name")).await.expect("a history");
    assert_eq!(history.len(), 1);
}

#[tokio::test]
async fn a_pushed_model_can_be_served_and_the_same_files_are_the_same_version() {
    use base64::Engine;
    let served = Served::start().await;
    let gguf = base64::engine::general_purpose::STANDARD.encode(models::gguf(1.0));
    for name in ["org/made", "org/again"] {
        let response = served.commit_to(name, "main", &[file("m.gguf", &gguf), file("README.md", "")]).await;
        assert_eq!(response.status(), 200);
    }
    let resolve = async |name: &str| {
        let name: ModelRef = name.parse().expect("a name");
        served.registry.resolve(&name).await.expect("resolved")
    };
    let (made, again) = (resolve("org/made").await, resolve("org/again").await);
    assert_eq!(made.digest, again.digest);
    assert_eq!(made.manifest.facts().expect("a model").architecture, "llama");
    assert_eq!(served.files("main").await, ["README.md", "m.gguf"], "what is derived is not shown");
    served.commit_to("org/card", "main", &[file("README.md", "IyBIaQ==")]).await;
    assert!(resolve("org/card").await.manifest.facts().is_err(), "kept, and no model");
}

#[tokio::test]
async fn names_that_leave_the_folder_or_lead_to_routes_are_refused() {
    let served = Served::start().await;
    for path in ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", ""] {
        refused(served.commit(&[header(), file(path, "YQ==")]).await, 400, "no safe name").await;
    }
    refused(served.commit(&[header(), file("helios/config.json", "")]).await, 400, "choose another folder")
        .await;
    for (repository, revision) in [("v1/models", "main"), ("api/x", "main"), ("..%2fx/y", "main")] {
        let response = served.commit_to(repository, revision, &[header(), file("a", "")]).await;
        assert_eq!(response.status(), 404, "{repository}");
    }
    for revision in ["..", "a%2Fb", "-x", "a:b", "%00"] {
        let status = served.commit_to("org/made", revision, &[header(), file("a", "")]).await.status();
        assert!(status == 400 || status == 404, "{revision}: {status}");
    }
    for name in ["admin", "health/x", "../x", "V2/x", "org/refs", "org/resolve", "a/b/c"] {
        let body = json!({ "name": name, "organization": null, "type": "model" });
        let response = served.post("/api/repos/create").json(&body).send().await.expect("an answer");
        assert_eq!(response.status(), 400, "{name}");
    }
    assert!(served.registry.list().await.expect("a list").is_empty(), "nothing was made");
}

#[tokio::test]
async fn nothing_is_written_to_what_looks_like_a_commit() {
    let served = Served::start().await;
    let made: Value = served.commit(&[header(), file("a", "YQ==")]).await.json().await.expect("JSON");
    let commit = made["commitOid"].as_str().expect("a commit");
    for revision in [commit, &"0".repeat(40), &"a".repeat(64)] {
        let response = served.commit_to("org/made", revision, &[header(), file("b", "Yg==")]).await;
        refused(response, 400, "hint: name a tag or `main`").await;
        let branch = served.post(&format!("/api/models/org/made/branch/{revision}")).json(&json!({}));
        refused(branch.send().await.expect("an answer"), 400, "looks like a commit").await;
        let tag = served.post("/api/models/org/made/tag/main").json(&json!({ "tag": revision }));
        refused(tag.send().await.expect("an answer"), 400, "looks like a commit").await;
    }
    assert_eq!(served.registry.list().await.expect("a list").len(), 1);
}

#[tokio::test]
async fn what_was_not_sent_or_is_something_else_is_refused() {
    let served = Served::start().await;
    let lfs = |oid: &str| json!({ "key": "lfsFile", "value": { "path": "a", "algo": "sha256", "oid": oid } });
    refused(served.commit(&[lfs(&"0".repeat(64))]).await, 400, "was not sent").await;
    refused(served.commit(&[lfs("../../etc/passwd")]).await, 400, "not a SHA-256").await;
    refused(served.commit(&[file("a", "not base64!")]).await, 400, "base64").await;
    refused(served.commit(&[json!({ "key": "surprise", "value": {} })]).await, 400, "surprise").await;
    let put = |oid: &str, body: &str| {
        served.client.put(format!("{}/api/models/org/made/lfs/{oid}", served.url)).body(body.to_owned())
    };
    let wrong = put(&hex(b"right"), "wrong").send().await.expect("an answer");
    refused(wrong, 400, "not sha256:").await;
    assert_eq!(put("0123", "x").send().await.expect("an answer").status(), 404);
    assert_eq!(put(&hex(b"right"), "right").send().await.expect("an answer").status(), 200);
    assert_eq!(served.commit(&[lfs(&hex(b"right"))]).await.status(), 200);
}

#[tokio::test]
async fn long_lines_many_files_and_compressed_bodies_are_refused() {
    let served = Served::start().await;
    let long = json!({ "key": "header", "value": { "summary": "x".repeat(1 << 20) } });
    refused(served.commit(&[long]).await, 400, "a line of the commit").await;
    let delete: Vec<Value> =
        (0..16_385).map(|_| json!({ "key": "deletedFile", "value": { "path": "x" } })).collect();
    refused(served.commit(&delete).await, 400, "at most 16384 operations").await;
    let files: Vec<Value> = (0..5000).map(|i| json!({ "path": i.to_string(), "size": 1 })).collect();
    let many = served.post("/api/models/org/made/preupload/main").json(&json!({ "files": files }));
    refused(many.send().await.expect("an answer"), 400, "more than 4096").await;
    let gzip =
        served.post("/api/models/org/made/commit/main").header("content-encoding", "gzip").body("bomb");
    refused(gzip.send().await.expect("an answer"), 415, "content-encoding").await;
}

#[tokio::test]
async fn files_travel_inside_the_commit_up_to_the_bound_and_by_lfs_above_it() {
    let served = Served::bounded(5).await;
    let asked = json!({ "files": [{ "path": "small", "size": 5 }, { "path": "large", "size": 6 }] });
    let answer = served.post("/api/models/org/made/preupload/main").json(&asked);
    let modes = json_of(answer).await["files"].clone();
    let told =
        json!([[modes[0]["path"], modes[0]["uploadMode"]], [modes[1]["path"], modes[1]["uploadMode"]]]);
    assert_eq!(told, json!([["small", "regular"], ["large", "lfs"]]));
    assert_eq!(served.commit(&[file("small", "aGVsbG8=")]).await.status(), 200);
    refused(served.commit(&[file("large", "aGVsbG8h")]).await, 413, "more than 5 bytes").await;
}

#[tokio::test]
async fn errors_carry_the_codes_that_the_client_knows() {
    let served = Served::start().await;
    served.commit(&[header(), file("a", "YQ==")]).await;
    for (path, code) in [
        ("/api/models/org/nothing", "RepoNotFound"),
        ("/api/models/org/made/revision/nothing", "RevisionNotFound"),
        ("/org/made/resolve/main/nothing", "EntryNotFound"),
        ("/org/made/resolve/nothing/a", "RevisionNotFound"),
        ("/api/models/org/made/tree/main/nothing", "EntryNotFound"),
    ] {
        let response = served.get(path).send().await.expect("an answer");
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["x-error-code"], code, "{path}");
        assert!(response.headers().contains_key("x-error-message"));
    }
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let served = Served::start().await;
    let files: Vec<Value> = (0..25).map(|i| file(&format!("dir/{i:02}"), "YQ==")).collect();
    served.commit(&files).await;
    let mut next = Some(format!("{}/api/models/org/made/tree/main?recursive=True&limit=10", served.url));
    let mut paths = Vec::new();
    while let Some(url) = next {
        let response = served.client.get(url).send().await.expect("an answer");
        let link = response.headers().get("link").map(|link| link.to_str().expect("a link").to_owned());
        next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned()));
        let page: Vec<Value> = response.json().await.expect("JSON");
        assert!(page.len() <= 10);
        paths.extend(page.iter().map(|entry| entry["path"].as_str().expect("a path").to_owned()));
    }
    assert_eq!(paths.len(), 26, "25 files and their folder");
    assert!(paths.is_sorted());
}
