//! Reading whole blobs at the disk's rate: verification that runs beside the disk, maps that are filled before use, and
//! copies in memory that was faulted in long before.
//!
//! Which way for which case was measured (`docs/benchmarks.md`): past the page cache through the pool where a file is
//! cold, with plain reads where it is in memory already; maps are filled in windows, which is also what turns a failing
//! disk into an error where touching the map would be a signal.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::disk::DiskFile;
use crate::hashing::CHUNK_BYTES;
use crate::io::{Buffer, IoEngine, IoFile, Operation, Region, block_on};
use crate::{Blob, BlobInfo, BlobStore, StorageError, hashing, residency};

/// Below this a file is not worth an engine: 8 MiB.
const AHEAD_BYTES_MIN: u64 = 8 << 20;
/// Reads of one file in flight: 16 of 1 MiB keep the disk busy and leave half of the shared pool to others.
const READS_AHEAD: usize = 16;
/// Threads that fill or load the files of one checkpoint: two already overlap one's hashing with the other's reading.
const THREADS_MAX: usize = 4;

/// Hands the beginning of a cold file to `each` in order, reading ahead past the page cache, and says how many bytes that
/// were: all of them, or none for a file that is small or in memory, or where there is no engine; or what came before the
/// engine broke.
///
/// # Errors
/// What the disk says.
pub(crate) fn for_each_chunk_ahead(file: &File, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size < AHEAD_BYTES_MIN || residency::is_resident(file)? {
        return Ok(0);
    }
    let Ok(engine) = IoEngine::shared() else { return Ok(0) };
    let direct = IoFile::prefer_direct(file)?;
    if !direct.is_direct() {
        return Ok(0);
    }
    let mut done = 0;
    let read = read_ahead(engine, &Arc::new(direct), size, &mut |chunk| {
        each(chunk);
        done += chunk.len() as u64;
    });
    match read {
        Err(_) if engine.has_stopped() => Ok(done),
        read => read.map(|()| done),
    }
}

/// Hands a cold file to `each` in order by filling its map, which leaves it in memory for who maps it next: its bytes come
/// from the disk once. False, with nothing done, for a file that is small, in memory or larger than half of it.
///
/// # Errors
/// What the disk says.
pub(crate) fn for_each_chunk_mapped(file: &dyn DiskFile, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    let Some(system) = file.system_file() else { return Ok(false) };
    let size = system.metadata()?.len();
    let is_worth_it = (AHEAD_BYTES_MIN..=residency::memory_bytes() / 2).contains(&size);
    if !is_worth_it || residency::is_resident(system)? {
        return Ok(false);
    }
    residency::for_each_filled(&file.map()?, &mut |window| window.chunks(CHUNK_BYTES).for_each(&mut each))
}

/// Reads the first `size` bytes in order, [`READS_AHEAD`] at a time. Waits for a buffer only while it holds none, so
/// that readers who share a pool cannot wait for each other.
pub(crate) fn read_ahead(
    engine: &IoEngine,
    file: &Arc<IoFile>,
    size: u64,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut flying: VecDeque<Operation> = VecDeque::with_capacity(READS_AHEAD);
    let mut offset = 0;
    loop {
        while offset < size && flying.len() < READS_AHEAD {
            let buffer =
                if flying.is_empty() { Some(block_on(engine.buffer())?) } else { engine.try_buffer() };
            let Some(buffer) = buffer else { break };
            let length = buffer.capacity().min((size - offset) as usize);
            flying.push_back(engine.read(file, offset, length, buffer));
            offset += length as u64;
        }
        let Some(oldest) = flying.pop_front() else { return Ok(()) };
        each(&oldest.wait()?);
    }
}

/// Brings mapped files, given with their names, into memory, several at a time and in windows; nothing to do for those
/// that are there. O(bytes) where cold. Files that memory cannot hold together are left to come in as they are touched.
///
/// # Errors
/// [`StorageError::Io`]: the disk failed, or a file was cut; what would be a signal when a byte is touched.
pub fn populate(files: &[(&str, &Blob)]) -> Result<(), StorageError> {
    let bytes: u64 = files.iter().map(|(_, blob)| blob.len() as u64).sum();
    if bytes > residency::memory_bytes() {
        return Ok(());
    }
    let fill = |(name, blob): &(&str, &Blob)| {
        residency::populate(blob).map_err(|error| StorageError::io("read", Path::new(name), error))
    };
    in_parallel(files, THREADS_MAX, fill).map(drop)
}

impl BlobStore {
    /// Reads a blob into the memory of `engine`, verified as it comes; `None` if no run of its buffers is free for it.
    /// For engines with a pool of the size of models: their memory is faulted in and registered once, so that the disk
    /// alone decides how long a load takes. O(size), also for a blob that was verified before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn load(&self, info: &BlobInfo, engine: &IoEngine) -> Result<Option<Blob>, StorageError> {
        let Some(run) = engine.run(info.size as usize) else {
            return if info.size == 0 { self.get(info).map(Some) } else { Ok(None) };
        };
        let path = self.path(&info.digest);
        let file = self.open_blob(&info.digest)?;
        let Some(file) = file.system_file() else { return Ok(None) };
        let region = read_region(engine, file, info, run);
        match region.map_err(|error| StorageError::io("read", &path, error))? {
            Some(region) => Ok(Some(Blob::from_region(region))),
            // Not what it should be: reading it once more the slow way finds out whom to blame.
            None => {
                self.verified().revoke(info);
                self.get(info).map(Some)
            }
        }
    }

    /// Loads several blobs at the same time, each as [`load`](Self::load).
    ///
    /// # Errors
    /// The first that failed.
    pub fn load_all(&self, infos: &[BlobInfo], engine: &IoEngine) -> Result<Vec<Option<Blob>>, StorageError> {
        // More threads that hash than cores keep the engine's own thread waiting: four on two cores loaded at 0.83 of the
        // disk's rate, two at 0.98.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        in_parallel(infos, THREADS_MAX.min(cores), |info| self.load(info, engine))
    }
}

/// Fills neighbouring buffers with a file, hashing each as soon as it and all before it are there; `None` if the file is
/// not `info`.
fn read_region(
    engine: &IoEngine,
    file: &File,
    info: &BlobInfo,
    run: Vec<Buffer>,
) -> io::Result<Option<Region>> {
    if file.metadata()?.len() != info.size {
        return Ok(None);
    }
    let file = Arc::new(IoFile::prefer_direct(file)?);
    let mut hasher = blake3::Hasher::new();
    let mut free = run.into_iter();
    let mut flying = VecDeque::with_capacity(READS_AHEAD);
    let mut filled = Vec::with_capacity(free.len());
    let mut offset = 0;
    loop {
        while flying.len() < READS_AHEAD
            && let Some(buffer) = free.next()
        {
            let length = buffer.capacity().min((info.size - offset) as usize);
            flying.push_back(engine.read(&file, offset, length, buffer));
            offset += length as u64;
        }
        let Some(oldest) = flying.pop_front() else { break };
        let buffer = oldest.wait()?;
        hashing::blake3_of_memory(&mut hasher, &buffer);
        filled.push(buffer);
    }
    let verified = hasher.count() == info.size && hasher.finalize() == info.blake3;
    Ok(if verified { Region::join(filled) } else { None })
}

/// Runs `work` on each item, on at most so many threads; outcomes in the items' order, or the first error.
fn in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let share = items.len().div_ceil(threads).max(1);
    let work = &work;
    let outcomes = thread::scope(|scope| {
        let start = |items: &'_ [T]| -> Vec<Result<R, E>> { items.iter().map(work).collect() };
        let threads: Vec<_> = items.chunks(share).map(|items| scope.spawn(move || start(items))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<Result<R, E>>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    outcomes.into_iter().collect()
}
