//! What all parts of the bench share: the folder that is deleted in the end, the settings, the progress that people see,
//! and the flag that an interrupt raises.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// A temporary folder on the disk to be measured; deleted when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn folder_in(parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join(format!(".helios-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| {
            format!("cannot create `{}`\nhint: choose a folder with --dir", folder.display())
        })?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot delete `{}`: {error}", self.0.display());
        }
    }
}

/// Raised by an interrupt; whoever measures looks at it between steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// The bench was interrupted.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.is_raised() { bail!("interrupted") } else { Ok(()) }
    }
}

/// One run of the bench.
#[derive(Debug)]
pub(super) struct Bench {
    /// Where all files of the run are.
    pub(super) folder: PathBuf,
    /// Bytes of the checkpoint.
    pub(super) bytes: u64,
    pub(super) repeats: u32,
    pub(super) stop: Stop,
    progress: ProgressBar,
}

impl Bench {
    pub(super) fn new(folder: PathBuf, bytes: u64, repeats: u32, stop: Stop) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{spinner} {msg:<60} {pos}/{len} [{elapsed}]")?;
        let progress = ProgressBar::new(u64::from(repeats)).with_style(style);
        progress.enable_steady_tick(Duration::from_millis(200));
        Ok(Self { folder, bytes, repeats, stop, progress })
    }

    /// Says what comes next, unless the bench was interrupted.
    ///
    /// # Errors
    /// It was.
    pub(super) fn step(&self, what: impl Into<String>) -> anyhow::Result<()> {
        self.stop.check()?;
        self.progress.set_message(what.into());
        Ok(())
    }

    /// The repeats, each shown.
    pub(super) fn repeats(&self) -> impl Iterator<Item = u32> {
        self.progress.set_length(u64::from(self.repeats));
        self.progress.set_position(0);
        (1..=self.repeats).inspect(|repeat| self.progress.set_position(u64::from(*repeat)))
    }

    /// Shows how much of something long is done.
    pub(super) fn done(&self, done: u64, total: u64) {
        self.progress.set_length(total);
        self.progress.set_position(done);
    }

    /// A line for people, on standard error.
    pub(super) fn say(&self, line: &str) {
        self.progress.suspend(|| eprintln!("{line}"));
    }

    /// A folder in that of the run, made empty.
    pub(super) fn fresh_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        remove(&folder)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        Ok(folder)
    }

    pub(super) fn finish(&self) {
        self.progress.finish_and_clear();
    }
}

/// Deletes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}
