//! Layers and their order, without a process around them.

use super::{Config, Flags};
use crate::cli::{Cli, Command};
use clap::Parser;

fn load(file: Option<&str>, arguments: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helios.toml");
    if let Some(text) = file {
        #[allow(clippy::disallowed_methods)]
        std::fs::write(&path, text).unwrap();
    }
    let cli = Cli::try_parse_from([&["helios"], arguments].concat()).map_err(|error| error.to_string())?;
    let mut flags = Flags::global(&cli.global);
    if let Command::Serve(args) = &cli.command {
        flags = flags.serve(args)?;
    }
    let loaded = Config::load(file.map(|_| path.as_path()), &flags);
    loaded.map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = "[serve]\nmodels = [\"a:b\"]\n[worker]\nsequences_max = 7\n";
    let config = load(Some(file), &["serve", "--port", "0", "--sequences-max", "9"]).unwrap();
    assert_eq!(config.worker.sequences_max, 9);
    assert_eq!((config.serve.models, config.serve.listen.port()), (vec!["a:b".to_owned()], 0));
}

#[test]
fn mistakes_are_told_with_their_place_and_a_suggestion() {
    for (file, told) in [
        ("[wroker]\n", "did you mean `worker`"),
        ("[worker]\nthread = 3\n", "did you mean `threads`"),
        ("[worker]\nthreads = \"many\"\n", "worker.threads"),
        ("[serve]\nmodels = [\"../etc\"]\n", "../etc"),
        ("[serve]\nlisten = \"0.0.0.0:80\"\n", "0.0.0.0"),
        ("[store.prefetch]\nmodels_at_a_time = 0\n", "store.prefetch.enabled"),
        ("[store.prefetch]\ngb_per_hour = 1\n", "did you mean `mb_per_hour`"),
        ("[store]\ncommit_file_max = \"large\"\n", "store.commit_file_max"),
        ("[worker\n", "helios.toml"),
    ] {
        let error = load(Some(file), &["serve"]).expect_err(file);
        assert!(error.contains(told), "{file}: {error}");
    }
}

#[test]
fn sizes_on_the_command_line_have_units() {
    let config = load(None, &["serve", "--kv-memory", "512MiB"]).unwrap();
    assert_eq!(config.worker.kv_memory, Some(512 << 20));
    assert!(load(None, &["serve", "--kv-memory", "much"]).unwrap_err().contains("512MiB"));
}
