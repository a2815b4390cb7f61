//! The simulated disk is as treacherous as it says: a test that relies on it can fail.

use std::collections::BTreeSet;
use std::path::Path;

use helios_storage::disk::{Fault, OpenMode, Unsynced};
use helios_storage::{DirLock, Disk, SimulatedDisk};

use crate::blob_store::bytes;

const SEEDS: u64 = 64;

/// A disk with `/d/old`, holding `old`, all durable.
fn disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.create_dir(Path::new("/d")).expect("created");
    disk.sync_dir(Path::new("/")).expect("synced");
    write(&disk, "/d/old", b"old");
    disk.open(Path::new("/d/old"), OpenMode::Read).and_then(|file| file.sync()).expect("synced");
    disk.sync_dir(Path::new("/d")).expect("synced");
    disk
}

fn write(disk: &SimulatedDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), OpenMode::OpenOrCreate).expect("opened");
    file.write_all_at(bytes, 0).expect("written");
}

fn read(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
    Some(file.map().expect("mapped").to_vec())
}

/// The states that `change` can leave of a file after a power loss.
fn outcomes(path: &str, change: impl Fn(&SimulatedDisk)) -> BTreeSet<Option<Vec<u8>>> {
    let after = |seed| {
        let disk = disk(seed);
        change(&disk);
        disk.lose_power(Unsynced::Scattered);
        read(&disk, path)
    };
    (0..SEEDS).map(after).collect()
}

#[test]
fn an_unsynced_rename_can_be_lost_or_kept() {
    let rename = |disk: &SimulatedDisk| disk.rename("/d/old".as_ref(), "/d/new".as_ref()).expect("renamed");
    let old = Some(b"old".to_vec());
    assert_eq!(outcomes("/d/new", rename), BTreeSet::from([None, old.clone()]));
    let synced = |disk: &SimulatedDisk| {
        rename(disk);
        disk.sync_dir("/d".as_ref()).expect("synced");
    };
    assert_eq!(outcomes("/d/new", synced), BTreeSet::from([old]));
    assert_eq!(outcomes("/d/old", synced), BTreeSet::from([None]));
}

#[test]
fn an_unsynced_write_can_be_lost_torn_or_kept() {
    let content = bytes(2000);
    let written = |disk: &SimulatedDisk| write(disk, "/d/old", &content);
    let outcomes_unsynced = outcomes("/d/old", written);
    assert!(outcomes_unsynced.contains(&Some(b"old".to_vec())));
    assert!(outcomes_unsynced.contains(&Some(content.clone())));
    assert!(outcomes_unsynced.len() > 10, "{} ways to be torn", outcomes_unsynced.len() - 2);
    let synced = |disk: &SimulatedDisk| {
        written(disk);
        disk.open("/d/old".as_ref(), OpenMode::Read).and_then(|file| file.sync()).expect("synced");
    };
    assert_eq!(outcomes("/d/old", synced), BTreeSet::from([Some(content)]));
}

#[test]
fn a_synced_file_in_an_unsynced_folder_can_lose_its_name() {
    let created = |disk: &SimulatedDisk| {
        disk.create_dir("/d/e".as_ref()).expect("created");
        write(disk, "/d/e/f", b"new");
        disk.open("/d/e/f".as_ref(), OpenMode::Read).and_then(|file| file.sync()).expect("synced");
        disk.sync_dir("/d/e".as_ref()).expect("synced");
    };
    assert_eq!(outcomes("/d/e/f", created), BTreeSet::from([None, Some(b"new".to_vec())]));
}

#[test]
fn data_whose_sync_failed_can_be_read_and_is_lost() {
    let forgotten = |disk: &SimulatedDisk| {
        write(disk, "/d/old", &bytes(5000));
        let file = disk.open("/d/old".as_ref(), OpenMode::OpenOrCreate).expect("opened");
        disk.inject(disk.operations(), Fault::Broken);
        assert_eq!(file.sync().expect_err("injected").raw_os_error(), Some(5));
        file.sync().expect("the second sync knows nothing of it");
        assert_eq!(read(disk, "/d/old"), Some(bytes(5000)));
    };
    assert!(outcomes("/d/old", forgotten).len() > 10);
}

#[test]
fn after_the_crash_nothing_works_until_the_restart() {
    let disk = disk(1);
    let file = disk.open("/d/old".as_ref(), OpenMode::OpenOrCreate).expect("opened");
    assert!(file.try_lock().expect("asked"));
    disk.inject(disk.operations(), Fault::Crash);
    file.write_all_at(b"x", 0).expect_err("crashed");
    disk.status("/d/old".as_ref()).expect_err("crashed");
    disk.kill();
    file.sync().expect_err("opened by a dead process");
    let again = disk.open("/d/old".as_ref(), OpenMode::Read).expect("opened");
    assert!(again.try_lock().expect("the lock died with its process"));
}

#[test]
fn locks_exclude_each_other_and_end_when_dropped() {
    let disk = disk(1);
    let lock = DirLock::acquire_on(&disk, "/d".as_ref()).expect("free");
    DirLock::acquire_on(&disk, "/d".as_ref()).expect_err("taken");
    drop(lock);
    DirLock::acquire_on(&disk, "/d".as_ref()).expect("free again");
}

#[test]
fn a_full_disk_says_so_and_a_seed_decides_everything() {
    let run = |seed| {
        let disk = disk(seed);
        disk.inject(disk.operations() + 1, Fault::Full);
        let file = disk.open("/d/new".as_ref(), OpenMode::CreateNew).expect("created");
        let error = file.write_all_at(&bytes(3000), 0).expect_err("full");
        assert_eq!(error.raw_os_error(), Some(28));
        disk.lose_power(Unsynced::Scattered);
        (read(&disk, "/d/new"), disk.log())
    };
    assert_eq!(run(7), run(7));
    assert!((0..SEEDS).map(|seed| run(seed).0).collect::<BTreeSet<_>>().len() > 2);
}
