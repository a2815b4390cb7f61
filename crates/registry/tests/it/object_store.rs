//! Object stores, against a real S3 server: moto from PyPI, whose program `HELIOS_TEST_MOTO` names.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use helios_model::Role;
use helios_registry::{FetchConfig, FleetConfig, ObjectOptions, Registry, RegistryConfig, RegistryError};
use helios_runtime::Clock;
use helios_types::{Classify, ErrorCode, ModelRef};

use crate::models::{self, Place};
use crate::origin::moment;
use crate::variants;

/// Looks for the server before it counts as not starting.
const LOOKS_MAX: usize = 3000;

/// An S3 server with a bucket `models`; it ends with its test.
struct Server {
    child: Child,
    endpoint: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server runs until now");
        self.child.wait().expect("the server ends");
    }
}

impl Server {
    async fn start() -> Self {
        helios_runtime::install_tls_provider();
        let program =
            env::var_os("HELIOS_TEST_MOTO").expect("HELIOS_TEST_MOTO is not set: run `cargo xtask test`");
        let free =
            TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &free.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto starts");
        let server = Self { child, endpoint: format!("http://127.0.0.1:{free}") };
        let mut looks = 0;
        while !server.put("models", Vec::new()).await {
            looks += 1;
            assert!(looks < LOOKS_MAX, "moto does not answer at {}", server.endpoint);
            moment().await;
        }
        server
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> bool {
        let request = reqwest::Client::new().put(format!("{}/{path}", self.endpoint)).body(bytes);
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    fn fetch(&self) -> FetchConfig {
        fetch_from(&self.endpoint)
    }
}

fn fetch_from(endpoint: &str) -> FetchConfig {
    let options = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "of another store"),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    FetchConfig { object_options: ObjectOptions::new(options), attempts_max: 2, ..FetchConfig::default() }
}

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

async fn weights(registry: &Arc<Registry>, model: &str) -> Vec<u8> {
    let resolved = registry.resolve(&name(model)).await.expect("known");
    registry.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights").to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_in_a_bucket_are_pulled_as_a_file_and_as_a_folder() {
    let server = Server::start().await;
    let (file, place) = (models::large_gguf(13 << 20), Place::new());
    assert!(server.put("models/some/large.gguf", file.clone()).await);
    models::hugging_face(&place.path("tiny"), 2);
    for entry in std::fs::read_dir(place.path("tiny")).expect("a folder") {
        let entry = entry.expect("an entry");
        let object = format!("models/tiny/{}", entry.file_name().display());
        assert!(server.put(&object, std::fs::read(entry.path()).expect("a file")).await);
    }
    let registry = place.open_in(FleetConfig::default(), server.fetch()).await;
    registry.pull("s3://models/some/large.gguf", None, &mut |_| {}).await.expect("pulled");
    assert!(weights(&registry, "large").await == file);
    let folder = registry.pull("s3://models/tiny", None, &mut |_| {}).await.expect("pulled");
    assert_eq!(folder.manifest.files(Role::Weights).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_registry_pushes_another_takes_from_the_bucket() {
    let server = Server::start().await;
    let fleet = FleetConfig { remote: Some("s3://models/shared".to_owned()), ..FleetConfig::default() };
    let (place, elsewhere) = (Place::new(), Place::new());
    let registry = place.open_in(fleet.clone(), server.fetch()).await;
    let file = models::large_gguf(21 << 20);
    let path = place.write("large.gguf", &file);
    registry.import(&path, Some(name("org/large:v1")), &mut |_| {}).await.expect("imported");
    let first = registry.push(&name("org/large:v1")).await.expect("pushed");
    assert_eq!((first.blobs_there, first.blobs_pushed > 1), (0, true));
    let second = registry.push(&name("org/large:v1")).await.expect("pushed again");
    assert_eq!((second.blobs_pushed, second.bytes_pushed), (0, 0));

    let reader = elsewhere.open_in(fleet, server.fetch()).await;
    assert!(weights(&reader, "org/large:v1").await == file);
    let digest = registry.resolve(&name("org/large:v1")).await.expect("known").digest;
    assert_eq!(reader.manifest(&digest).await.expect("kept").files.len(), first.blobs_pushed);
    let error = reader.resolve(&name("org/other:v1")).await.expect_err("never pushed");
    assert_eq!(error.code(), ErrorCode::ModelNotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variant_that_is_kept_as_a_recipe_goes_up_whole() {
    let server = Server::start().await;
    let (place, elsewhere) = (Place::new(), Place::new());
    let fleet = FleetConfig { remote: Some("s3://models/shared".to_owned()), ..FleetConfig::default() };
    let config = RegistryConfig { fleet: fleet.clone(), fetch: server.fetch(), ..variants::config(true) };
    let registry = Registry::open(&place.store(), config).await.expect("the store opens");
    for (folder, fills) in [("base", [1, 2, 3, 4]), ("tuned", [1, 2, 3, 9])] {
        variants::write_variant(&place, folder, &fills);
        variants::import(&registry, &place, folder).await;
    }
    let recipes = std::fs::read_dir(place.store().join("recipes")).expect("recipes").count();
    assert_eq!(recipes, 1, "the variant is kept as one");
    registry.push(&name("tuned")).await.expect("pushed");
    let reader = elsewhere.open_in(fleet, server.fetch()).await;
    let file = std::fs::read(place.path("tuned/model.safetensors")).expect("the source");
    assert!(weights(&reader, "tuned").await == file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_refuse_or_are_silent_are_clear_errors() {
    let server = Server::start().await;
    let place = Place::new();
    let registry = place.open_in(FleetConfig::default(), server.fetch()).await;
    for source in ["s3://models/missing.gguf", "s3://no-such-bucket/a.gguf"] {
        let error = registry.pull(source, None, &mut |_| {}).await.expect_err(source);
        assert!(error.to_string().contains("answered 404"), "{source}: {error}");
    }
    let error = registry.pull("s3://models/empty", None, &mut |_| {}).await.expect_err("an empty folder");
    assert!(error.to_string().contains("neither safetensors nor GGUF"), "{error}");
    let error = registry.push(&name("x")).await.expect_err("no remote store");
    assert!(error.to_string().contains("store.remote"), "{error}");

    let elsewhere = Place::new();
    let silent = elsewhere.open_in(FleetConfig::default(), fetch_from("http://127.0.0.1:9")).await;
    let error = silent.pull("s3://models/a.gguf", None, &mut |_| {}).await.expect_err("nobody there");
    assert!(
        matches!(&error, RegistryError::Shared(inner) if inner.to_string().contains("failed")),
        "{error}"
    );
    // One who takes connections and never answers.
    let elsewhere = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let fetch =
        FetchConfig { stall_timeout: Duration::from_millis(300), attempts_max: 1, ..fetch_from(&address) };
    let silent = elsewhere.open_in(FleetConfig::default(), fetch).await;
    let mut report = |_| {};
    let pull = silent.pull("s3://models/a.gguf", None, &mut report);
    let pulled = Clock.timeout(Duration::from_secs(60), pull).await.expect("given up");
    let error = pulled.expect_err("no answer").to_string();
    assert!(error.contains("failed"), "{error}");
}
