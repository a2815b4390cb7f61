//! The real binary, killed and failed at every system call with which it changes its store.
//!
//! `strace` injects SIGKILL, EIO or ENOSPC into the N-th call of a kind, for each N until the command ends unharmed.
//! After each the store is opened, everything in it is hashed, what was promised is looked for, the command is run
//! again, and a collection must leave nothing behind. Without `strace` the kills come at random moments.
//!
//! Both backends write by the same system calls, which `strace` sees; they differ in how they read. So faults are
//! injected with the thread pool, and the kills at random moments come with io_uring where the system allows it, with a
//! cold file among those that are read: by its map, which verifies it. The ring itself is tested in `storage`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use helios_registry::{Registry, RegistryConfig};
use helios_types::ModelRef;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{helios, verb, verb_ok};
use crate::machine::backend as backend_by_doctor;
use crate::tiny_models::{gguf, gguf_sharing, large_gguf};

/// What the store changes its files with.
const CALLS: [&str; 7] = [
    "pwrite64",
    "write",
    "ftruncate",
    "fsync,fdatasync",
    "rename,renameat,renameat2",
    "unlink,unlinkat",
    "mkdir,mkdirat",
];

/// What is injected.
const FAULTS: [&str; 3] = ["signal=SIGKILL", "error=EIO", "error=ENOSPC"];

/// Weights of 4 bytes that variants share: enough to be worth a recipe.
const SHARED_ELEMENTS: usize = 17 << 18;

/// Calls of one kind in one command, so that a test that goes wrong ends.
const CALLS_MAX: usize = 2_000;

/// A command that changes the store, and what the store must look like once it was acknowledged.
struct Change {
    args: Vec<String>,
    tags_after: Vec<&'static str>,
}

/// A store with `base:1` and `base:2`, of which the second may go, and a version that no tag has any more.
fn template() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for (index, tag) in ["base:1", "base:2", "old:1", "new:1"].into_iter().enumerate() {
        let file = dir.path().join(format!("{}.gguf", tag.replace(':', "-")));
        fs::write(&file, gguf(index as f32)).unwrap();
        if tag != "new:1" {
            verb_ok(&store, &["pull", &format!("file:{}", file.display()), "--as", tag]);
        }
    }
    verb_ok(&store, &["rm", "old:1"]);
    (dir, store)
}

fn changes(dir: &Path) -> Vec<Change> {
    let change = |args: &[&str], tags_after: &[&'static str]| Change {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        tags_after: tags_after.to_vec(),
    };
    let source = format!("file:{}", dir.join("new-1.gguf").display());
    vec![
        change(&["pull", &source, "--as", "new:1"], &["base:1", "base:2", "new:1"]),
        change(&["tag", "base:1", "other/name:x"], &["base:1", "base:2", "other/name:x"]),
        change(&["rm", "base:2"], &["base:1"]),
        change(&["gc"], &["base:1", "base:2"]),
    ]
}

/// A store with two files of the same tensors, and the change that makes a recipe of one: the only command that takes a
/// file's name away while a tag needs its bytes.
fn with_variants() -> (TempDir, PathBuf, Change) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for tag in ["base:1", "variant:1"] {
        let file = dir.path().join("m.gguf");
        fs::write(&file, gguf_sharing(tag, SHARED_ELEMENTS)).unwrap();
        verb_ok(&store, &["pull", &format!("file:{}", file.display()), "--as", tag]);
    }
    let copied = dir.path().join("deduplicated");
    copy(&store, &copied);
    let report = verb_ok(&copied, &["dedup", "--json"]);
    assert!(report.contains("\"recipes_made\":1"), "{report}");
    let change = Change { args: vec!["dedup".to_owned()], tags_after: vec!["base:1", "variant:1"] };
    (dir, store, change)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Tags of the store, each of which must lead to a whole model; every blob must be what its name says.
fn check(store: &Path) -> Vec<String> {
    for entry in fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = helios_types::Digest::from_bytes(Sha256::digest(fs::read(&path).unwrap()).into());
        assert_eq!(
            path.file_name().unwrap().to_str(),
            Some(digest.hex().as_str()),
            "a wrong blob is visible"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let registry = Registry::open(store, RegistryConfig::default()).await.expect("the store opens");
        let models = registry.list().await.unwrap();
        for model in &models {
            let resolved = registry.resolve(&model.model).await.expect("a tag leads to a manifest");
            for file in &resolved.manifest.files {
                registry.blob(file).await.expect("a manifest's files are all there");
            }
        }
        models
            .into_iter()
            .map(|model: helios_registry::ModelSummary| ModelRef::to_string(&model.model))
            .collect()
    })
}

/// Holds the store to its promises after `output`, and the command to its purpose on the second try.
fn survives(store: &Path, change: &Change, output: &Output, what: &str) {
    let tags = check(store);
    assert!(tags.contains(&"base:1".to_owned()), "{what}: an acknowledged model is gone: {tags:?}");
    if output.status.success() {
        assert_eq!(tags, change.tags_after, "{what}: it said that it was done");
    } else if output.status.code() == Some(1) {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_clear = text.contains("error: ")
            && text.contains("`/")
            && ["os error 5", "disk I/O error", "hint: free space"].iter().any(|cause| text.contains(cause));
        assert!(is_clear, "{what}: an error names what failed, and why: {text}");
    }
    let args: Vec<&str> = change.args.iter().map(String::as_str).collect();
    let again = verb(store, &args);
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    // A removal that took effect before its process died has nothing left to remove.
    assert!(again.status.success() || (args[0] == "rm" && text.contains("base:2")), "{what}, again: {text}");
    assert_eq!(check(store), change.tags_after, "{what}, again");
    verb_ok(store, &["gc"]);
    for folder in ["partial", "quarantine"] {
        assert_eq!(
            fs::read_dir(store.join(folder)).unwrap().count(),
            0,
            "{what}: gc leaves nothing in {folder}"
        );
    }
    assert_eq!(check(store), change.tags_after, "{what}, after gc");
}

/// `strace` in the environment of a command, which it is yet to be given.
fn strace(plain: &Command) -> Command {
    let mut strace = Command::new("strace");
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace.args(["-f", "-qq"]);
    strace
}

/// Runs the command under `strace`; whether the fault was injected, and what came of it.
fn inject(store: &Path, change: &Change, call: &str, fault: &str, number: usize) -> (bool, Output) {
    let log = store.with_extension("strace");
    let mut plain = helios(store);
    if !call.starts_with("io_uring") {
        plain.env("HELIOS_STORE__IO", "threads");
    }
    let mut strace = strace(&plain);
    strace.arg("-o").arg(&log);
    strace.arg(format!("-einject={call}:{fault}:when={number}")).arg(format!("-etrace={call}"));
    strace.arg(plain.get_program()).args(plain.get_args()).args(&change.args);
    let output = strace.stdin(Stdio::null()).output().expect("strace starts: apt-get install strace");
    let log = fs::read_to_string(&log).unwrap();
    (log.contains("(INJECTED") || log.contains("killed by SIGKILL"), output)
}

/// Every `stride`-th call of every kind with every fault; the number of faults that were injected.
fn inject_everywhere(stride: usize) -> usize {
    let (dir, store) = template();
    let injected =
        changes(dir.path()).iter().map(|change| inject_into(&store, change, stride)).sum::<usize>();
    let (_variants, store, change) = with_variants();
    injected + inject_into(&store, &change, stride)
}

fn inject_into(template: &Path, change: &Change, stride: usize) -> usize {
    let store = template.with_extension("copy");
    let mut injected = 0;
    for fault in FAULTS {
        for call in CALLS {
            // What goes to a terminal or wakes a thread is not the store's; killed there it is as good as anywhere.
            if call == "write" && !fault.starts_with("signal") {
                continue;
            }
            for number in (1..CALLS_MAX).step_by(stride) {
                copy(template, &store);
                let (was_injected, output) = inject(&store, change, call, fault, number);
                let what = format!("{} with {fault} at {call} {number}", change.args[0]);
                if was_injected {
                    survives(&store, change, &output, &what);
                } else {
                    assert!(output.status.success(), "{what}: {output:?}");
                }
                fs::remove_dir_all(&store).unwrap();
                if !was_injected {
                    break;
                }
                injected += 1;
            }
        }
    }
    injected
}

/// Bytes of a blob that is verified while its map is filled, if it is cold.
const COLD_BYTES: usize = 9 << 20;

/// The backend that kills are to meet: the ring where the system allows it.
fn backend(store: &Path) -> &'static str {
    let doctor = helios(store).env("HELIOS_STORE__IO", "io_uring").arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    if text.lines().any(|line| line.contains("I/O backend") && line.contains("io_uring (")) {
        "io_uring"
    } else {
        "threads"
    }
}

/// The store and changes of above with a large model in it, and one more change, which reads that model.
fn with_a_large_model() -> (TempDir, PathBuf, Vec<Change>) {
    let (dir, store) = template();
    let file = dir.path().join("large.gguf");
    fs::write(&file, large_gguf(COLD_BYTES)).unwrap();
    verb_ok(&store, &["pull", &format!("file:{}", file.display()), "--as", "large:1"]);
    let mut changes = changes(dir.path());
    // It reads what it hashes, and writes down the hashes.
    changes.push(Change { args: vec!["dedup".to_owned()], tags_after: vec!["base:1", "base:2"] });
    for change in &mut changes {
        change.tags_after.push("large:1");
        change.tags_after.sort_unstable();
    }
    (dir, store, changes)
}

/// Copies a store; its large blob is not in memory, and was never verified.
fn copy_cold(from: &Path, to: &Path) {
    copy(from, to);
    for entry in fs::read_dir(to.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        if path.metadata().unwrap().len() >= COLD_BYTES as u64 {
            let mut dd = Command::new("dd");
            dd.arg(format!("of={}", path.display()));
            dd.args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
            assert!(dd.status().unwrap().success());
        }
    }
}

/// Kills each command in turn at a moment of its own.
fn kill_at_moments(moments: u32) {
    let (dir, template, changes) = with_a_large_model();
    let store = dir.path().join("copy");
    let backend = backend(&template);
    println!("{moments} kills while {backend} reads");
    for moment in 0..moments {
        let change = &changes[moment as usize % changes.len()];
        copy_cold(&template, &store);
        let mut child = helios(&store);
        child.env("HELIOS_STORE__IO", backend).args(&change.args);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // A walk over the first 100 ms that meets no rhythm: the fraction of a multiple of the golden ratio.
        let wait =
            Duration::from_micros((f64::from(moment) * 0.618_034).fract().mul_add(100_000.0, 500.0) as u64);
        let start = Instant::now();
        while start.elapsed() < wait && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        survives(&store, change, &output, &format!("{} killed after {wait:?}", change.args[0]));
        fs::remove_dir_all(&store).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    kill_at_moments(8);
}

#[test]
#[ignore = "needs strace: `cargo xtask test --full`"]
fn faults_at_some_system_calls_lose_nothing_acknowledged() {
    let injected = inject_everywhere(9);
    assert!(injected > 30, "only {injected} faults reached the store");
}

#[test]
#[ignore = "needs strace: `cargo xtask test --full`"]
fn faults_at_some_rings_make_threads_read() {
    let store = tempfile::tempdir().unwrap();
    let doctor = |setting: &str| {
        let mut plain = helios(store.path());
        let mut strace = strace(plain.env("HELIOS_STORE__IO", setting));
        strace.args(["-o/dev/null", "-einject=io_uring_setup:error=EPERM", "-etrace=io_uring_setup"]);
        backend_by_doctor(strace.arg(plain.get_program()).args(plain.get_args()))
    };
    let auto = doctor("auto");
    assert!(auto.contains("threads (no io_uring: ") && auto.contains("\"warn\""), "{auto}");
    let asked = doctor("io_uring");
    assert!(asked.contains("\"bad\"") && asked.contains("store.io"), "{asked}");
}

#[test]
#[ignore = "the long form: `cargo xtask test --long crashes`"]
fn faults_at_every_system_call_and_kills_at_200_moments_lose_nothing_acknowledged() {
    let injected = inject_everywhere(1);
    println!("{injected} faults were injected, and 200 kills follow");
    kill_at_moments(200);
    assert!(injected > 300, "only {injected} faults reached the store");
}

#[test]
fn a_full_file_system_is_a_clear_error_and_room_makes_it_whole() {
    let may_mount = Command::new("unshare").args(["-rm", "true"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "this user may not mount a file system of its own; a limit on file sizes is tried in `recovery`"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, fill) in [("a", 1.0), ("b", 2.0)] {
        fs::write(dir.path().join(format!("{name}.gguf")), gguf(fill)).unwrap();
    }
    fs::create_dir(dir.path().join("small")).unwrap();
    let script = r#"
        cd "$0"; mount -t tmpfs -o size=2m none small; store=$PWD/small/store
        helios() { "$HELIOS" --store "$store" "$@"; }
        helios pull "file:$PWD/a.gguf" --as a:1
        before=$(helios list --json)
        dd if=/dev/zero of=small/filler bs=4k 2>/dev/null || true
        truncate -s -64k small/filler
        if helios pull "file:$PWD/b.gguf" --as b:1 2> error; then echo "there was room"; exit 1; fi
        grep -q "no space left" error && grep -q "hint: free space" error || { cat error; exit 1; }
        test "$(helios list --json)" = "$before"
        rm small/filler
        helios pull "file:$PWD/b.gguf" --as b:1
        helios gc
        test -z "$(ls small/store/partial)"
        helios list | grep -q b:1 && helios list | grep -q a:1 && echo whole
    "#;
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "bash", "-euc", script]).arg(dir.path());
    shell.env("HELIOS", env!("CARGO_BIN_EXE_helios")).env("HELIOS_HOST", "127.0.0.1:1");
    let output = shell.env("XDG_CONFIG_HOME", dir.path()).output().unwrap();
    let is_whole = output.status.success() && output.stdout.ends_with(b"whole\n");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(is_whole, "{text}");
}
