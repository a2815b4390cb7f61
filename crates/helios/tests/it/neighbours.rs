//! Workers beside their registry map its files; of those on hosts of their own, what one has fetched the others take
//! from it.
//!
//! The other hosts are mount namespaces in which the registry's folder is another one, so that nothing can be mapped in place.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{MODEL, Server, helios, model_file, store_with_model};

const WORKERS: usize = 3;

/// Passes connections on to `target`; returns its own address and counts what comes from there.
fn relay(target: &str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (target, counter) = (target.trim_start_matches("http://").to_owned(), Arc::<AtomicU64>::default());
    let counted = Arc::clone(&counter);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&target).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass_on(from, to, None));
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || pass_on(server, client, Some(&counted)));
        }
    });
    (address, counter)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, counter: Option<&AtomicU64>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        if let Some(counter) = counter {
            counter.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// `helios worker` with a store of its own.
fn worker(own: &Path, registry: &str) -> Command {
    let mut worker = helios(own);
    worker.args(["worker", "--registry", registry, "--model", MODEL, "--listen", "127.0.0.1:0"]);
    worker.args(["--kv-memory", "64MiB"]);
    worker
}

/// The same where the registry's folder cannot be seen.
fn worker_elsewhere(hidden: &Path, own: &Path, registry: &str) -> Command {
    let worker = worker(own, registry);
    let mut elsewhere = Command::new("unshare");
    let hide = r#"mount -t tmpfs none "$0" && exec "$@""#;
    elsewhere.args(["-rm", "bash", "-c", hide]).arg(hidden).arg(worker.get_program()).args(worker.get_args());
    for (name, value) in worker.get_envs() {
        match value {
            Some(value) => elsewhere.env(name, value),
            None => elsewhere.env_remove(name),
        };
    }
    elsewhere
}

/// A registry with the model, and what it sends.
fn counted_registry() -> (tempfile::TempDir, Server, String, Arc<AtomicU64>) {
    let store = store_with_model();
    let mut command = helios(store.path());
    command.args(["registry", "--listen", "127.0.0.1:0"]);
    let registry = Server::start(command);
    let (address, egress) = relay(&registry.url);
    (store, registry, address, egress)
}

/// Whether the worker with that folder has a copy of the weights.
fn has_copy(own: &Path) -> bool {
    let size = model_file().metadata().unwrap().len();
    let cached = std::fs::read_dir(own.join("cache/blobs/sha256"));
    cached.is_ok_and(|blobs| {
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).any(|bytes| bytes == size)
    })
}

#[test]
fn a_worker_beside_its_registry_maps_the_files_in_place() {
    let (_store, _registry, address, egress) = counted_registry();
    let own = tempfile::tempdir().unwrap();
    let worker = Server::start(worker(own.path(), &address));
    assert!(!has_copy(own.path()), "it copied what it could have mapped: {}", worker.log());
    let (egress, size) = (egress.load(Ordering::Relaxed), model_file().metadata().unwrap().len());
    assert!(egress < size / 10, "{egress} bytes left the registry for a model of {size} on its own host");
}

#[test]
fn workers_on_other_hosts_take_each_byte_from_their_registry_once() {
    if !Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!(
            "this user may not hide a folder from a process; `workers` of the registry's tests does without"
        );
        return;
    }
    let (store, _registry, address, egress) = counted_registry();
    let hosts = tempfile::tempdir().unwrap();
    let workers: Vec<Server> = std::thread::scope(|scope| {
        let start = |number: usize| {
            let (own, address) = (hosts.path().join(number.to_string()), &address);
            let command = worker_elsewhere(store.path(), &own, address);
            scope.spawn(move || Server::start(command))
        };
        let starting: Vec<_> = (0..WORKERS).map(start).collect();
        starting.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let size = model_file().metadata().unwrap().len();
    for (number, worker) in workers.iter().enumerate() {
        let has_it = has_copy(&hosts.path().join(number.to_string()));
        assert!(has_it, "worker {number} mapped the registry's own file: {}", worker.log());
    }
    let egress = egress.load(Ordering::Relaxed);
    println!("{egress} bytes left the registry for {WORKERS} workers and a model of {size}");
    assert!(egress * 10 <= size * 11, "{egress} bytes left the registry for a model of {size}");
}
