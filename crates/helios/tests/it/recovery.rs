//! What breaks: kills, corrupt files, full disks. Nothing acknowledged is lost, nothing unverified is served.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Deployment, MODEL, helios, isolated, model_file, store_with_model, verb, verb_ok};

/// Serves one file with ranges; holds back after half of it until `open` is set.
fn origin(file: Vec<u8>, open: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/model.gguf", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, file, open) = (stream.unwrap(), file.clone(), open.clone());
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let Ok(read) = stream.read(&mut head) else { return };
                let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
                let start =
                    head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
                let from: usize = start.unwrap_or(0);
                let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
                let range = format!("content-range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
                let range = if start.is_some() { range } else { String::new() };
                let length = if head.starts_with("head") { file.len() } else { file.len() - from };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{range}etag: \"1\"\r\naccept-ranges: bytes\r\nconnection: close\r\n\r\n"
                );
                if head.starts_with("head") {
                    return;
                }
                for chunk in file[from..].chunks(1 << 16).enumerate() {
                    while !open.load(Ordering::Relaxed) && from + chunk.0 * (1 << 16) > file.len() / 2 {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    if stream.write_all(chunk.1).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_stopped() {
    let open = Arc::new(AtomicBool::new(false));
    let url = origin(std::fs::read(model_file()).unwrap(), open.clone());
    let store = tempfile::tempdir().unwrap();
    let mut pull = helios(store.path());
    let mut pull = pull.args(["pull", &url, "--as", MODEL]).stderr(Stdio::null()).spawn().unwrap();
    let partial = || -> u64 {
        let folder = std::fs::read_dir(store.path().join("partial"))
            .or_else(|_| std::fs::read_dir(store.path().join("blobs/partial")));
        folder
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .max()
            .unwrap_or(0)
    };
    crate::harness::wait_until("half of the file", || partial() > 40_000_000);
    pull.kill().unwrap();
    pull.wait().unwrap();
    let list = verb_ok(store.path(), &["list", "--json"]);
    assert!(!list.contains(MODEL), "half a model is no model: {list}");
    let kept = partial();
    assert!(kept > 40_000_000, "{kept} bytes kept");

    open.store(true, Ordering::Relaxed);
    verb_ok(store.path(), &["pull", &url, "--as", MODEL]);
    assert!(verb_ok(store.path(), &["list"]).contains(MODEL));
    assert_eq!(partial(), 0, "the partial file is gone");
}

#[test]
fn a_blob_with_a_flipped_bit_is_never_served() {
    let store = store_with_model();
    let blobs = store.path().join("blobs/sha256");
    let weights = std::fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut permissions = weights.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&weights, permissions).unwrap();
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[50_000_000] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let output = verb(store.path(), &["serve", "--port", "0", "--model", MODEL]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("corrupt") && text.contains("pull"), "{text}");
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_store_stays_whole() {
    let store = store_with_model();
    let before = verb_ok(store.path(), &["list", "--json"]);
    let mut copy = std::fs::read(model_file()).unwrap();
    copy.push(0);
    let other = store.path().join("other.gguf");
    std::fs::write(&other, copy).unwrap();
    // A limit on file size is what a full disk looks like to one process; the real thing needs a file system of its own.
    let script = format!(
        "trap '' XFSZ; ulimit -f 20000; exec {} --store {} pull file:{} --as second:copy",
        env!("CARGO_BIN_EXE_helios"),
        store.path().display(),
        other.display()
    );
    let output = isolated("bash", store.path()).args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("space") && text.contains("hint"), "{text}");
    assert_eq!(verb_ok(store.path(), &["list", "--json"]), before);
}

#[test]
fn removing_and_collecting_beside_a_running_server_fails_no_read() {
    let deployment = Deployment::one_process(&[MODEL], store_with_model());
    let question = "Name the days of the week.";
    let before = deployment.ask(MODEL, question, 32)["choices"][0]["message"]["content"].clone();
    let run = |args: &[&str]| {
        let output =
            helios(deployment.store.path()).env("HELIOS_HOST", &deployment.url).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let source = format!("file:{}", model_file().display());
    for _ in 0..3 {
        run(&["pull", &source, "--as", "churn:a"]);
        run(&["rm", "churn:a"]);
        run(&["gc"]);
        let after = deployment.ask(MODEL, question, 32)["choices"][0]["message"]["content"].clone();
        assert_eq!(before, after);
    }
}

#[test]
fn the_end_signal_finishes_streams() {
    let mut deployment = Deployment::one_process(&[MODEL], store_with_model());
    let body = crate::harness::chat_body(MODEL, "Count to twenty.", 64);
    let url = format!("{}/v1/chat/completions", deployment.url);
    let client = std::thread::spawn(move || crate::harness::stream(&url, &body));
    std::thread::sleep(std::time::Duration::from_millis(200));
    deployment.parts[0].signal("TERM");
    let events = client.join().unwrap();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let status = deployment.parts[0].child.wait().unwrap();
    assert!(status.success(), "{status}: {}", deployment.parts[0].log());
}
