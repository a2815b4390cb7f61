//! Several models at once, and workers that come and go.

use serde_json::json;

use crate::harness::{Deployment, MODEL, chat_body, model_file, store_with_model, verb_ok, wait_until};
use crate::small_model::first_layers;

const SMALL: &str = "smollm2:first-layers";

fn store_with_two_models() -> tempfile::TempDir {
    let store = store_with_model();
    let file = store.path().join("first-layers.gguf");
    std::fs::write(&file, first_layers(&std::fs::read(model_file()).unwrap(), 2)).unwrap();
    verb_ok(store.path(), &["pull", &format!("file:{}", file.display()), "--as", SMALL]);
    store
}

#[test]
fn two_models_are_served_at_once_and_routed_by_id() {
    let shapes = [
        Deployment::one_process(&[MODEL, SMALL], store_with_two_models()),
        Deployment::three_processes(&[MODEL, SMALL], store_with_two_models()),
    ];
    for deployment in shapes {
        wait_until("both models", || {
            deployment.post("/v1/chat/completions", &chat_body(SMALL, "hi", 1)).0 == 200
                && deployment.post("/v1/chat/completions", &chat_body(MODEL, "hi", 1)).0 == 200
        });
        let text = |model: &str| {
            let answer = deployment.ask(model, "What is the capital of France?", 24);
            assert_eq!(answer["model"], json!(model));
            answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert!(text(MODEL).contains("Paris"));
        assert!(!text(SMALL).contains("Paris"), "two layers know no capitals");
    }
}

#[test]
fn a_worker_that_dies_gets_no_more_requests_and_a_new_one_does() {
    let mut deployment = Deployment::three_processes(&[MODEL], store_with_model());
    let status =
        |deployment: &Deployment| deployment.post("/v1/chat/completions", &chat_body(MODEL, "hi", 1)).0;
    assert_eq!(status(&deployment), 200);
    deployment.parts[1].signal("KILL");
    wait_until("the worker's loss to be noticed", || deployment.get("/ready").0 == 503);
    assert_eq!(status(&deployment), 503);

    let registry = deployment.parts[0].url.clone();
    let mut command = crate::harness::helios(&deployment.store.path().join("worker-new"));
    command.args(["worker", "--registry", &registry, "--model", MODEL, "--listen", "127.0.0.1:0"]);
    deployment.parts.push(crate::harness::Server::start(command));
    wait_until("the new worker", || status(&deployment) == 200);
}

#[test]
fn an_outage_of_the_registry_freezes_the_list_of_workers() {
    let deployment = Deployment::three_processes(&[MODEL], store_with_model());
    deployment.parts[0].signal("KILL");
    // Longer than a lease: the list must not empty.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let answer = deployment.ask(MODEL, "What is the capital of France?", 16);
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("Paris"));
}

#[test]
fn internal_listeners_want_the_cluster_token() {
    let store = store_with_model();
    let mut command = crate::harness::helios(store.path());
    command.env("HELIOS_CLUSTER_TOKEN", "s3cret").args(["registry", "--listen", "127.0.0.1:0"]);
    let registry = crate::harness::Server::start(command);
    for path in ["/registry/v1/models", "/metrics"] {
        assert_eq!(crate::harness::get(&format!("{}{path}", registry.url)).0, 401, "{path}");
    }
}

#[test]
fn a_registry_alone_shows_what_it_counts() {
    let store = tempfile::tempdir().unwrap();
    let mut command = crate::harness::helios(store.path());
    command.args(["registry", "--listen", "127.0.0.1:0"]);
    let registry = crate::harness::Server::start(command);
    let file = store.path().join("tiny.gguf");
    std::fs::write(&file, crate::tiny_models::gguf(1.0)).unwrap();
    let pulled = json!({ "source": format!("file:{}", file.display()), "name": "tiny" });
    assert_eq!(crate::harness::post(&format!("{}/registry/v1/pull", registry.url), &pulled).0, 200);
    let uses = json!({ "uses": [{ "model": "tiny:latest", "count": 3 }] });
    assert_eq!(crate::harness::post(&format!("{}/registry/v1/uses", registry.url), &uses).0, 200);
    let (status, metrics) = crate::harness::get(&format!("{}/metrics", registry.url));
    let counted = r#"helios_registry_uses_total{found="near"} 3"#;
    assert!(status == 200 && metrics.lines().any(|line| line == counted), "{status}: {metrics}");
    assert!(metrics.contains("# HELP helios_registry_uses_total"), "{metrics}");
    assert_eq!(crate::harness::post(&format!("{}/metrics", registry.url), &json!({})).0, 404);
}
