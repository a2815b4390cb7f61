//! What the machine and the store's folder can do, as `helios doctor` reports it. Every probe cleans up after itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helios_types::Digest;
use memmap2::{Advice, MmapMut};

use crate::io::{IoEngine, IoFile};
use crate::{StorageError, residency};

/// Bytes written and read back by [`FolderProbe::read_rate`]'s quick measurement.
const RATE_BYTES: u64 = 256 << 20;

/// Facts of the kernel that decide how files are read.
#[derive(Clone, Debug)]
pub struct SystemProbe {
    /// Name and release of the kernel.
    pub kernel: String,
    /// `kernel.io_uring_disabled`, where the kernel has that switch: 0 allows all, 1 the privileged, 2 nobody.
    pub io_uring_disabled: Option<u32>,
    /// Bytes this process may lock; `None` for no limit.
    pub memlock_bytes: Option<u64>,
    /// When anonymous memory comes in huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Memory nodes.
    pub numa_nodes: usize,
}

impl SystemProbe {
    /// Asks the kernel.
    pub fn new() -> Self {
        let name = rustix::system::uname();
        let words = [name.sysname(), name.release(), name.machine()];
        let words = words.map(|word| word.to_string_lossy().into_owned());
        let huge_pages = read_line("/sys/kernel/mm/transparent_hugepage/enabled");
        Self {
            kernel: words.join(" "),
            io_uring_disabled: read_line("/proc/sys/kernel/io_uring_disabled")
                .and_then(|text| text.parse().ok()),
            memlock_bytes: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            huge_pages: huge_pages.as_deref().and_then(chosen).map(str::to_owned),
            numa_nodes: count_nodes().max(1),
        }
    }
}

impl Default for SystemProbe {
    fn default() -> Self {
        Self::new()
    }
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The word in brackets, as in `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word)
}

fn count_nodes() -> usize {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else { return 0 };
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|rest| rest.parse::<u32>().is_ok());
    entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count()
}

/// Facts of the folder of a store.
#[derive(Clone, Debug)]
pub struct FolderProbe {
    /// The nearest folder that exists: the store's own, or where it would be made.
    pub folder: PathBuf,
    /// The file system's name, or its magic number in hex.
    pub file_system: String,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes of the file system.
    pub total_bytes: u64,
    /// Whether copies share their extents.
    pub reflink: bool,
    /// Whether files can be read past the page cache.
    pub direct: bool,
}

impl FolderProbe {
    /// Looks at the file system, and tries what it can do with two files of a page in a temporary folder.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]: the folder cannot be written.
    pub fn new(store: &Path) -> Result<Self, StorageError> {
        let folder = store.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let failed = |action| move |error: io::Error| StorageError::io(action, folder, error);
        let magic = rustix::fs::statfs(folder).map_err(|error| failed("inspect")(error.into()))?.f_type;
        let space = rustix::fs::statvfs(folder).map_err(|error| failed("inspect")(error.into()))?;
        let scratch = Scratch::new(folder).map_err(failed("write to"))?;
        let (first, second) = (scratch.file("first", 4096), scratch.file("second", 0));
        let (first, second) = (first.map_err(failed("write to"))?, second.map_err(failed("write to"))?);
        Ok(Self {
            folder: folder.to_owned(),
            file_system: file_system_name(magic as u64),
            free_bytes: space.f_bavail * space.f_frsize,
            total_bytes: space.f_blocks * space.f_frsize,
            reflink: rustix::fs::ioctl_ficlone(&second, &first).is_ok(),
            direct: IoFile::prefer_direct(&first).is_ok_and(|file| file.is_direct()),
        })
    }

    /// Bytes a second of one sequential read past the page cache: writes 256 MiB, which it deletes again. `now` is a
    /// clock that only goes forward.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub fn read_rate(&self, engine: &IoEngine, now: &dyn Fn() -> Duration) -> Result<f64, StorageError> {
        let failed = |error| StorageError::io("measure", &self.folder, error);
        let scratch = Scratch::new(&self.folder).map_err(failed)?;
        let file = scratch.file("rate", RATE_BYTES).map_err(failed)?;
        drop_from_cache(&file).map_err(failed)?;
        let began = now();
        let bytes = read_sequentially(engine, &file).map_err(failed)?;
        Ok(bytes as f64 / (now() - began).as_secs_f64())
    }
}

/// Reads a whole file past the page cache, doing nothing with the bytes: the raw limit that loads are compared with.
/// Returns the bytes read.
///
/// # Errors
/// What the disk says.
pub fn read_sequentially(engine: &IoEngine, file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let file = Arc::new(IoFile::prefer_direct(file)?);
    let mut bytes = 0;
    crate::load::read_ahead(engine, &file, size, &mut |chunk| bytes += chunk.len() as u64)?;
    Ok(bytes)
}

/// Takes a file out of the page cache, so that it is cold for whoever reads it next. Returns whether it is.
///
/// # Errors
/// What the system says.
pub fn drop_from_cache(file: &File) -> io::Result<bool> {
    file.sync_all()?;
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    residency::is_resident(file).map(|resident| !resident)
}

/// Touches somewhat more memory than `bytes` in huge pages and gives it back, so that the page cache gets memory that is
/// there, as on a machine of its own: the host of a virtual machine takes free memory back (free page reporting), and
/// having it returned takes longer than the disk.
///
/// # Errors
/// What the system says.
pub fn fault_in(bytes: u64) -> io::Result<()> {
    let mut memory = MmapMut::map_anon((bytes + bytes / 8) as usize)?;
    let huge = memory.advise(Advice::HugePage);
    if let Err(error) = huge {
        tracing::debug!(%error, "memory is faulted in by small pages");
    }
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    Ok(())
}

/// A temporary folder that goes away with its files.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!(".helios-probe-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    /// A durable file of `bytes` that do not compress.
    fn file(&self, name: &str, bytes: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).open(self.0.join(name))?;
        write_noise(&mut file, bytes, bytes)?;
        file.sync_all()?;
        Ok(file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a temporary folder");
        }
    }
}

/// The SHA-256 of `bytes`, as fast as one core computes it here: O(bytes).
pub fn sha256(bytes: &[u8]) -> Digest {
    crate::hashing::sha256(bytes)
}

/// Writes `bytes` that no compressor shrinks: the output of BLAKE3 in counter mode under `seed`.
///
/// # Errors
/// What the disk says.
pub fn write_noise(writer: &mut dyn Write, bytes: u64, seed: u64) -> io::Result<()> {
    let mut noise = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let length = chunk.len().min(left as usize);
        noise.fill(&mut chunk[..length]);
        writer.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Names from `linux/magic.h`, those a model store may lie on.
fn file_system_name(magic: u64) -> String {
    let known = [
        (0xEF53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683E, "btrfs"),
        (0x2FC1_2FC1, "zfs"),
        (0x0102_1994, "tmpfs"),
        (0x794C_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
        (0xF2F5_2010, "f2fs"),
        (0xFF53_4D42, "cifs"),
        (0x0102_1997, "9p"),
    ];
    let name = known.iter().find(|(number, _)| *number == magic & 0xFFFF_FFFF);
    name.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{IoChoice, IoOptions};

    #[test]
    fn the_folder_is_probed_and_left_as_it_was() {
        let place = tempfile::tempdir().expect("a folder");
        let probe = FolderProbe::new(&place.path().join("not/there/yet")).expect("a probe");
        assert_eq!(probe.folder, place.path());
        assert!(probe.total_bytes >= probe.free_bytes && probe.free_bytes > 0);
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
        assert!(SystemProbe::new().kernel.starts_with("Linux "));
    }

    #[test]
    fn noise_reads_back_in_full_and_leaves_the_cache() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        write_noise(&mut file, 3_000_000, 7).expect("written");
        drop_from_cache(&file).expect("dropped");
        let options = IoOptions { choice: IoChoice::Threads, buffers: 3, buffer_bytes: 1 << 16 };
        let engine = IoEngine::start(&options).expect("an engine");
        assert_eq!(read_sequentially(&engine, &file).expect("read"), 3_000_000);
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
    }
}
