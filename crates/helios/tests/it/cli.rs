//! The command line: verbs of the store, configuration, completions.

use serde_json::Value;

use crate::harness::{Deployment, MODEL, helios, store_with_model, verb, verb_ok};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn verbs_work_on_the_store_and_through_a_running_server() {
    let store = store_with_model();
    let list: Value = serde_json::from_str(&verb_ok(store.path(), &["list", "--json"])).unwrap();
    assert_eq!(list["models"][0]["model"], MODEL, "{list}");
    let show: Value = serde_json::from_str(&verb_ok(store.path(), &["show", MODEL, "--json"])).unwrap();
    let metadata = &show["manifest"]["metadata"];
    assert_eq!(
        (metadata["architecture"].as_str(), metadata["context_tokens"].as_u64()),
        (Some("llama"), Some(8192)),
        "{show}"
    );
    verb_ok(store.path(), &["tag", MODEL, "chat:mine"]);

    let deployment = Deployment::one_process(&["chat:mine"], store);
    let through = |args: &[&str]| {
        let output =
            helios(deployment.store.path()).env("HELIOS_HOST", &deployment.url).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    through(&["tag", MODEL, "other:name"]);
    assert!(through(&["list"]).contains("other:name"));
    through(&["rm", "other:name"]);
    through(&["rm", MODEL]);
    through(&["gc"]);
    assert!(!through(&["list"]).contains(MODEL));
    assert!(through(&["ps"]).contains("chat:mine"));
    let answer = deployment.ask("chat:mine", "Say hi.", 8);
    assert!(!answer["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
}

#[test]
fn a_locked_store_says_who_holds_it() {
    let deployment = Deployment::one_process(&[MODEL], store_with_model());
    let output = verb(deployment.store.path(), &["list"]);
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains(&deployment.parts[0].child.id().to_string()), "{text}");
    assert!(text.contains("HELIOS_HOST"), "{text}");
}

#[test]
fn run_answers_a_question_with_nothing_else_started() {
    let store = store_with_model();
    let args = ["run", MODEL, "What is the capital of France?", "--temperature", "0", "--max-tokens", "32"];
    let answer = verb_ok(store.path(), &args);
    assert!(answer.contains("Paris"), "{answer}");
}

#[test]
fn configuration_is_layered_explained_and_strict() {
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("helios.toml");
    std::fs::write(&file, "[serve]\nlisten = \"127.0.0.1:1234\"\n[worker]\nsequences_max = 3\n").unwrap();
    let run = |args: &[&str]| {
        let mut command = helios(store.path());
        command.env("HELIOS_WORKER__SEQUENCES_MAX", "5").env("HELIOS_PROXY__API_KEY", "secret");
        command.arg("--config").arg(&file).args(args).output().unwrap()
    };
    let explained: Value = serde_json::from_slice(&run(&["config", "explain", "--json"]).stdout).unwrap();
    let setting = |key: &str| {
        let settings = explained["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone()
    };
    assert_eq!(setting("serve.listen")["value"], "127.0.0.1:1234");
    assert!(setting("serve.listen")["origin"].as_str().unwrap().starts_with("file "));
    assert_eq!(
        (
            setting("worker.sequences_max")["value"].as_u64(),
            setting("worker.sequences_max")["origin"].as_str()
        ),
        (Some(5), Some("environment"))
    );
    assert_eq!(setting("store.dir")["origin"], "flag");
    assert_eq!(setting("proxy.api_key")["value"], "(hidden)");

    std::fs::write(&file, "[worker]\nsequence_max = 3\n").unwrap();
    let output = run(&["config", "check"]);
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("did you mean `sequences_max`"), "{text}");
    let schema: Value = serde_json::from_str(&verb_ok(store.path(), &["config", "schema"])).unwrap();
    assert!(schema["properties"]["worker"].is_object(), "{schema}");
}

#[test]
fn completions_exist_for_the_common_shells() {
    let store = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(verb_ok(store.path(), &["completions", shell]).contains("helios"), "{shell}");
    }
}

#[test]
fn refusals_name_the_cause_and_the_next_step() {
    let store = tempfile::tempdir().unwrap();
    for (args, cause, step) in [
        (vec!["pull", "smollm2:135m-instrukt"], "smollm2:135m-instrukt", "did you mean"),
        (vec!["pull", "ftp://x"], "ftp", "hf:"),
        (vec!["show", "nothing"], "nothing", "pull"),
        (vec!["serve", "--listen", "0.0.0.0:0"], "0.0.0.0", "api"),
        (vec!["registry", "--listen", "0.0.0.0:0"], "0.0.0.0", "token"),
    ] {
        let output = verb(store.path(), &args);
        let text = stderr(&output);
        assert!(!output.status.success(), "{args:?}");
        assert!(text.contains(cause) && text.to_lowercase().contains(step), "{args:?}: {text}");
    }
}

#[test]
fn help_teaches_every_command() {
    let store = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 30] = [
        &[],
        &["serve"],
        &["run"],
        &["pull"],
        &["push"],
        &["list"],
        &["show"],
        &["fit"],
        &["ps"],
        &["history"],
        &["rollback"],
        &["rm"],
        &["tag"],
        &["convert"],
        &["dedup"],
        &["gc"],
        &["warm"],
        &["config"],
        &["config", "explain"],
        &["bench"],
        &["bench", "engine"],
        &["bench", "prefetch"],
        &["bench", "storage"],
        &["doctor"],
        &["registry"],
        &["registry", "rebuild"],
        &["registry", "backup"],
        &["worker"],
        &["proxy"],
        &["completions"],
    ];
    let help = |command: &&[&str]| verb_ok(store.path(), &[command, &["--help"][..]].concat());
    insta::assert_snapshot!(commands.iter().map(help).collect::<Vec<_>>().join("\n----\n"));
}

#[test]
fn a_store_may_be_named_relative_to_the_working_folder() {
    let dir = tempfile::tempdir().unwrap();
    let output = helios(std::path::Path::new("store")).arg("list").current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dir.path().join("store/blobs/sha256").is_dir());
}
