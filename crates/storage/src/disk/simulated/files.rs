//! The model behind the simulated disk: what programs see, what is on the platter, and what lies between.
//!
//! Contents and names each have a durable state and a list of changes since. A sync applies its list; a power loss
//! keeps, tears or loses each change on the list for itself. A rename is one change: it is there or not (journalling
//! file systems give that). Syncing a file does not make its name durable; syncing a folder makes durable every change
//! of a name in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Bytes that a disk writes in one piece; a write may be torn at their borders.
const SECTOR_BYTES: usize = 512;

/// What a power loss does to changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Every one is lost.
    Lost,
    /// Every one is kept: as if only the process had been killed.
    Kept,
    /// Each is kept, lost or, if it is a write, torn, as the disk's seed has it.
    Scattered,
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// A change of a file's contents.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::SetLen(size) => contents.resize(*size, 0),
            Self::Write { bytes, .. } if bytes.is_empty() => {}
            Self::Write { offset, bytes } => {
                contents.resize(contents.len().max(offset + bytes.len()), 0);
                contents[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Applies what a crash leaves of the change.
    fn apply_torn(&self, contents: &mut Vec<u8>, dice: &mut Dice) {
        match self {
            Self::Write { offset, bytes } if !bytes.is_empty() && dice.coin() => {
                let cut = bytes[..dice.below(bytes.len())].to_vec();
                Self::Write { offset: *offset, bytes: cut }.apply(contents);
            }
            Self::Write { offset, bytes } => {
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if dice.coin() {
                        let offset = offset + index * SECTOR_BYTES;
                        Self::Write { offset, bytes: sector.to_vec() }.apply(contents);
                    }
                }
            }
            Self::SetLen(_) => self.apply(contents),
        }
    }
}

/// A file or, if `is_dir`, a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) is_dir: bool,
    pub(super) contents: Vec<u8>,
    /// The operation that last changed the contents.
    pub(super) modified_at: u64,
    /// The operation that last changed contents or name.
    pub(super) changed_at: u64,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl Inode {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.contents);
        self.pending.push(change);
    }

    /// Changes some of what `change` says: a write that failed or was cut off.
    pub(super) fn change_torn(&mut self, change: &Change, dice: &mut Dice) {
        if let Change::Write { offset, bytes } = change {
            let cut = bytes[..dice.below(bytes.len() + 1)].to_vec();
            self.change(Change::Write { offset: *offset, bytes: cut });
        }
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that fails: what reached the disk did, the rest is forgotten, and the cache still shows all of it.
    pub(super) fn fail_to_sync(&mut self, dice: &mut Dice) {
        for change in self.pending.drain(..) {
            if dice.coin() {
                change.apply_torn(&mut self.durable, dice);
            }
        }
    }

    fn lose_power(&mut self, unsynced: Unsynced, dice: &mut Dice) {
        for change in self.pending.drain(..) {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Kept => change.apply(&mut self.durable),
                Unsynced::Scattered => match dice.below(3) {
                    0 => {}
                    1 => change.apply(&mut self.durable),
                    _ => change.apply_torn(&mut self.durable, dice),
                },
            }
        }
        self.contents.clone_from(&self.durable);
    }
}

/// A change of names.
#[derive(Clone, Debug)]
pub(super) enum Naming {
    Add { path: PathBuf, inode: u64 },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Add { path, inode } => drop(names.insert(path.clone(), *inode)),
            Self::Remove { path } => drop(names.remove(path)),
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let is_child = |path: &Path| path.parent() == Some(dir);
        match self {
            Self::Add { path, .. } | Self::Remove { path } => is_child(path),
            Self::Rename { from, to, .. } => is_child(from) || is_child(to),
        }
    }
}

/// All files and folders.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<Naming>,
    inode_next: u64,
}

impl Default for Files {
    fn default() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), 0)]);
        let inode = Inode { is_dir: true, ..Inode::default() };
        Self {
            inodes: HashMap::from([(0, inode)]),
            names: root.clone(),
            durable_names: root,
            pending_names: Vec::new(),
            inode_next: 1,
        }
    }
}

impl Files {
    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.at(path).is_some_and(|(_, inode)| inode.is_dir)
    }

    pub(super) fn at(&self, path: &Path) -> Option<(u64, &Inode)> {
        let number = *self.names.get(path)?;
        self.inodes.get(&number).map(|inode| (number, inode))
    }

    pub(super) fn rename_names(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
    }

    pub(super) fn create(&mut self, path: &Path, is_dir: bool) -> u64 {
        let inode = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(inode, Inode { is_dir, ..Inode::default() });
        self.rename_names(Naming::Add { path: path.to_owned(), inode });
        inode
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (synced, rest) = self.pending_names.drain(..).partition::<Vec<_>, _>(|naming| naming.is_in(dir));
        self.pending_names = rest;
        for naming in synced {
            naming.apply(&mut self.durable_names);
        }
    }

    /// What is there when the power is back. A name in a folder that was lost is lost with it.
    pub(super) fn lose_power(&mut self, unsynced: Unsynced, dice: &mut Dice) {
        for naming in self.pending_names.drain(..) {
            let kept = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                Unsynced::Scattered => dice.coin(),
            };
            if kept {
                naming.apply(&mut self.durable_names);
            }
        }
        let durable = self.durable_names.clone();
        self.durable_names.retain(|path, _| path.ancestors().all(|above| durable.contains_key(above)));
        self.names.clone_from(&self.durable_names);
        let mut numbers: Vec<u64> = self.inodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = self.inodes.get_mut(&number) {
                inode.lose_power(unsynced, dice);
            }
        }
    }
}
