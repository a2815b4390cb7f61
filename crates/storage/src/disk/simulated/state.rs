//! One operation of the simulated disk after the other: its number, its fate, its effect.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::Fault;
use super::files::{Change, Dice, Files, Inode, Naming};
use crate::disk::{FileStatus, OpenMode};

pub(super) struct State {
    pub(super) files: Files,
    pub(super) dice: Dice,
    pub(super) operations: u64,
    pub(super) faults: HashMap<u64, Fault>,
    crashed: bool,
    /// Which start of the machine this is; files opened before belong to a dead process.
    pub(super) boot: u64,
    /// Starts of the system, as [`boot_id`](crate::Disk::boot_id) counts them.
    pub(super) power_losses: u64,
    pub(super) bytes_read: u64,
    pub(super) handle_next: u64,
    /// The handle that has the lock, by inode.
    pub(super) locks: HashMap<u64, u64>,
    pub(super) log: Vec<String>,
}

/// What becomes of an operation.
pub(super) enum Fate {
    Succeeds,
    /// It fails with this error, having done part of its work or none.
    Fails(io::Error),
    /// It was begun, by the dice done or not, and nobody gets an answer.
    Crashes,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            files: Files::default(),
            dice: Dice(seed),
            operations: 0,
            faults: HashMap::new(),
            crashed: false,
            boot: 0,
            power_losses: 0,
            bytes_read: 0,
            handle_next: 0,
            locks: HashMap::new(),
            log: Vec::new(),
        }
    }

    /// An error while the machine is down.
    pub(super) fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(crashed()) } else { Ok(()) }
    }

    pub(super) fn restart(&mut self) {
        self.crashed = false;
        self.faults.clear();
        self.locks.clear();
        self.boot += 1;
    }

    /// Numbers an operation and says what becomes of it.
    pub(super) fn begin(&mut self, action: &str, path: &Path) -> io::Result<Fate> {
        if self.crashed {
            return Err(crashed());
        }
        let number = self.operations;
        self.operations += 1;
        let fault = self.faults.remove(&number);
        self.log.push(format!("{number}: {action} {}{}", path.display(), shown(fault)));
        Ok(match fault {
            None => Fate::Succeeds,
            Some(Fault::Broken) => Fate::Fails(rustix::io::Errno::IO.into()),
            Some(Fault::Full) => Fate::Fails(rustix::io::Errno::NOSPC.into()),
            Some(Fault::Crash) => {
                self.crashed = true;
                Fate::Crashes
            }
        })
    }

    /// Runs an operation that happens wholly or not at all.
    pub(super) fn atomic<T>(
        &mut self,
        action: &str,
        path: &Path,
        work: impl FnOnce(&mut Self) -> T,
    ) -> io::Result<T> {
        match self.begin(action, path)? {
            Fate::Succeeds => Ok(work(self)),
            Fate::Fails(error) => Err(error),
            Fate::Crashes => {
                if self.dice.below(2) == 1 {
                    work(self);
                }
                Err(crashed())
            }
        }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        let now = self.operations;
        let inode = self.files.inodes.entry(number).or_default();
        inode.changed_at = now;
        inode
    }

    /// As [`inode`](Self::inode), where the contents change, too.
    fn contents(&mut self, number: u64) -> &mut Inode {
        let inode = self.inode(number);
        inode.modified_at = inode.changed_at;
        inode
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (inode, is_dir) =
            self.files.at(from).map(|(number, inode)| (number, inode.is_dir)).ok_or_else(not_found)?;
        if is_dir || self.files.is_dir(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !self.files.is_dir(parent(to)) {
            return Err(not_found());
        }
        self.atomic("rename", to, |state| {
            state.inode(inode);
            state.files.rename_names(Naming::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        })
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<u64> {
        match (self.files.at(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some((_, inode)), _) if inode.is_dir => Err(io::ErrorKind::IsADirectory.into()),
            (Some((number, _)), _) => Ok(number),
            (None, OpenMode::Read) => Err(not_found()),
            (None, _) if !self.files.is_dir(parent(path)) => Err(not_found()),
            (None, _) => self.atomic("create", path, |state| {
                let number = state.files.create(path, false);
                state.contents(number);
                number
            }),
        }
    }

    pub(super) fn change(
        &mut self,
        action: &str,
        path: &Path,
        number: u64,
        change: Change,
    ) -> io::Result<()> {
        let fate = self.begin(action, path)?;
        let mut dice = self.dice.clone();
        let inode = self.contents(number);
        let result = match fate {
            Fate::Succeeds => {
                inode.change(change);
                Ok(())
            }
            Fate::Fails(error) => {
                inode.change_torn(&change, &mut dice);
                Err(error)
            }
            Fate::Crashes => {
                inode.change_torn(&change, &mut dice);
                Err(crashed())
            }
        };
        self.dice = dice;
        result
    }

    pub(super) fn sync(&mut self, path: &Path, number: u64) -> io::Result<()> {
        let fate = self.begin("sync", path)?;
        let State { files, dice, .. } = self;
        let inode = files.inodes.entry(number).or_default();
        match fate {
            Fate::Succeeds => {
                inode.sync();
                Ok(())
            }
            Fate::Fails(error) => {
                inode.fail_to_sync(dice);
                Err(error)
            }
            Fate::Crashes => Err(crashed()),
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        match self.begin("sync folder", dir)? {
            Fate::Succeeds => {
                self.files.sync_dir(dir);
                Ok(())
            }
            Fate::Fails(error) => Err(error),
            Fate::Crashes => Err(crashed()),
        }
    }
}

pub(super) fn status_of(number: u64, inode: &Inode) -> FileStatus {
    let at = |operation: u64| (operation as i64, 0);
    let (modified, changed) = (at(inode.modified_at), at(inode.changed_at));
    let size = inode.contents.len() as u64;
    FileStatus { is_dir: inode.is_dir, size, device: 0, inode: number, modified, changed }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

pub(super) fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

pub(super) fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

fn shown(fault: Option<Fault>) -> String {
    fault.map_or_else(String::new, |fault| format!(" -> {fault:?}"))
}
