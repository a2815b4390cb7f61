//! Killed writers, full disks, and one owner for a folder.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use helios_storage::{BlobStore, DirLock, StorageError, remove_stale_temporaries, write_atomic};
use helios_types::{Classify, ErrorCode};
use tempfile::TempDir;

use crate::blob_store::{bytes, names, store};

/// Set in the second process of a test to the folder it shall work in.
const CHILD_FOLDER: &str = "HELIOS_STORAGE_TEST_CHILD";

/// Runs a test of this binary in another process until it prints `ready`, and kills it there.
fn kill_when_ready(test: &str, dir: &TempDir) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let is_ready = output.lines().any(|line| line.expect("UTF-8").ends_with("ready"));
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(is_ready, "{test} ended before it was ready");
}

/// Runs `work` in the process that is going to be killed.
fn until_killed(work: impl FnOnce(&Path)) {
    let Some(dir) = std::env::var_os(CHILD_FOLDER) else { return };
    work(dir.as_ref());
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "the second process of a_killed_writer_leaves_a_resumable_partial"]
fn second_process_writes_a_partial() {
    until_killed(|dir| {
        let store = BlobStore::open(dir).expect("a store");
        let mut writer = store.writer("killed").expect("a writer");
        writer.write(&bytes(10_000)).expect("written");
        std::mem::forget(writer);
        std::mem::forget(DirLock::acquire(dir).expect("free"));
        // Held by this process until it is killed, as a temporary of another kind.
        let second = store.writer("killed").expect("a temporary, the key is taken");
        std::mem::forget(second);
    });
}

#[test]
fn a_killed_writer_leaves_a_resumable_partial_and_no_temporary() {
    let dir = TempDir::new().expect("a folder");
    kill_when_ready("durability::second_process_writes_a_partial", &dir);
    assert_eq!(names(&dir, "partial").len(), 2);
    let store = BlobStore::open(dir.path()).expect("a store");
    assert_eq!(names(&dir, "partial"), ["killed"]);
    assert!(store.list().expect("listed").is_empty());
    let writer = store.writer("killed").expect("a writer");
    assert_eq!(writer.len(), 10_000);
    assert_eq!(writer.commit(None).expect("committed"), store.put(&bytes(10_000)).expect("stored"));
    DirLock::acquire(dir.path()).expect("the lock ended with its process");
}

#[test]
fn temporaries_in_use_are_not_removed() {
    let (dir, store) = store();
    let (_first, mut second) =
        (store.writer("k").expect("a writer"), store.writer("k").expect("a temporary"));
    second.write(b"abc").expect("written");
    fs::write(dir.path().join("partial/.tmp-0-0"), "stale").expect("written");
    assert_eq!(remove_stale_temporaries(&dir.path().join("partial")).expect("cleaned"), 1);
    assert_eq!(second.commit(None).expect("committed").size, 3);
}

/// Fills the disk of its folder, which has room for a few hundred kilobytes.
#[test]
#[ignore = "the second process of a_full_disk_is_a_clear_error_and_loses_nothing"]
fn second_process_fills_the_disk() {
    let Some(dir) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else { return };
    let store = BlobStore::open(&dir).expect("a store");
    let kept = store.put(&bytes(1000)).expect("stored");
    let mut writer = store.writer("large").expect("a writer");
    writer.write(&bytes(1000)).expect("written");
    let error = writer.write(&bytes(2_000_000)).expect_err("no space");
    assert_eq!(error.code(), ErrorCode::StorageFull);
    let (message, folder) = (error.to_string(), dir.join("partial").display().to_string());
    assert!(message.contains("hint: free space") && message.contains(&folder), "{message}");
    assert_eq!(writer.len(), 1000, "the position is unchanged");
    for error in [store.put(&bytes(2_000_000)).map(drop), write_atomic(&dir.join("tag"), &bytes(2_000_000))] {
        assert_eq!(error.expect_err("no space").code(), ErrorCode::StorageFull);
    }
    assert_eq!(writer.commit(None).expect("the part that fits"), kept);
    assert_eq!(&*store.get(&kept).expect("there"), bytes(1000));
    assert!(fs::read_dir(dir.join("partial")).expect("a folder").next().is_none(), "nothing is left behind");
    println!("ready");
}

/// Runs that second process behind a shell command that limits its disk.
fn fill_the_disk(shell: &[&str], limit: &str) {
    let dir = TempDir::new().expect("a folder");
    let script = format!(
        r#"{limit}; exec "$0" durability::second_process_fills_the_disk --exact --ignored --nocapture"#
    );
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-ec", &script])
        .arg(std::env::current_exe().expect("this binary"))
        .env(CHILD_FOLDER, dir.path())
        .output()
        .expect("a second process");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("ready"), "{limit}: {text}");
}

#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    // A limit on the size of files, which any user may set; ignored, its signal becomes an error of the write.
    fill_the_disk(&["sh"], "trap '' XFSZ; ulimit -f 1000");
    // A small file system, where the kernel lets this user mount one.
    if Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|output| output.status.success()) {
        fill_the_disk(
            &["unshare", "-rm", "sh"],
            &format!(r#"mount -t tmpfs -o size=600k none "${CHILD_FOLDER}""#),
        );
    }
}

#[test]
fn write_atomic_replaces_whole_files_and_leaves_nothing_behind() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("tag.json");
    std::thread::scope(|scope| {
        for content in [b'a', b'b'] {
            let path = &path;
            scope.spawn(move || (0..20).for_each(|_| write_atomic(path, &[content; 5000]).expect("written")));
        }
        for _ in 0..200 {
            let read = fs::read(&path).unwrap_or_default();
            assert!(read.is_empty() || read == [b'a'; 5000] || read == [b'b'; 5000]);
        }
    });
    assert_eq!(names(&dir, "."), ["tag.json"]);
    assert!(write_atomic(&dir.path().join("no/such/folder"), b"").is_err());
}

#[test]
fn a_folder_has_one_owner_who_is_named() {
    let dir = TempDir::new().expect("a folder");
    let lock = DirLock::acquire(dir.path()).expect("free");
    let error = DirLock::acquire(dir.path()).expect_err("taken");
    assert_eq!(error.code(), ErrorCode::Conflict);
    assert!(
        matches!(error, StorageError::Locked { holder_pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(lock);
    DirLock::acquire(dir.path()).expect("free again");
}
