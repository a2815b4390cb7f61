//! What of a file is in memory, and bringing it there.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::thread;

use memmap2::{Advice, Mmap};

use crate::Blob;

const PAGE_BYTES: usize = 4096;
/// Pages of a file that are looked at: a file is read front to back, so that a few tell.
const SAMPLES: usize = 16;
/// Bytes filled at a time: two of the largest readahead windows, so that one comes while the other is mapped. Measured
/// over 2 GiB in four files (GB/s; the disk alone 2.6-3.0): 8 MiB 1.9-2.6, 16 MiB 2.6-2.8, 64 MiB 2.2-2.7; explicit
/// readahead in front of the windows only added processor time (0.02 to 0.3 s/GB); several threads in one file defeat the
/// kernel's readahead (1.2-1.9). Memory counts for more than all of that: pages that a virtual machine's host has taken
/// back (free page reporting) come in at 1.2-1.7.
const WINDOW_BYTES: usize = 16 << 20;

/// Bytes of memory that this machine has.
pub(crate) fn memory_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram as u64 * u64::from(system.mem_unit)
}

/// Whether a file is in the page cache, as far as [`SAMPLES`] pages of it tell.
///
/// # Errors
/// The file cannot be mapped.
pub(crate) fn is_resident(file: &File) -> io::Result<bool> {
    // SAFETY: the map is only asked about, never read.
    let map = unsafe { Mmap::map(file)? };
    Ok(has_sampled_pages(&map))
}

fn has_sampled_pages(map: &Mmap) -> bool {
    let pages = map.len().div_ceil(PAGE_BYTES);
    let step = pages.div_ceil(SAMPLES).max(1);
    (0..pages).step_by(step).all(|page| {
        let mut resident = 0u8;
        let address = map.as_ptr().wrapping_add(page * PAGE_BYTES).cast_mut();
        // SAFETY: one page of the map is asked about, and one byte written. Where a page is larger, the call fails,
        // which counts as not there.
        let answer = unsafe { libc::mincore(address.cast(), PAGE_BYTES, &raw mut resident) };
        answer == 0 && resident & 1 == 1
    })
}

/// Fills the map of a blob that is not in memory, window by window.
pub(crate) fn populate(blob: &Blob) -> io::Result<()> {
    let Some(map) = blob.mapped() else { return Ok(()) };
    if has_sampled_pages(map) {
        return Ok(());
    }
    for start in (0..map.len()).step_by(WINDOW_BYTES) {
        if !fill(map, start)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Fills the map of a blob and hands its windows to `each` in order, the next coming in meanwhile; false, with nothing done,
/// where the system cannot fill maps.
pub(crate) fn for_each_filled(blob: &Blob, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
    let Some(map) = blob.mapped() else { return Ok(false) };
    if !fill(map, 0)? {
        return Ok(false);
    }
    for (number, window) in map.chunks(WINDOW_BYTES).enumerate() {
        thread::scope(|scope| {
            let next = scope.spawn(move || fill(map, (number + 1) * WINDOW_BYTES));
            each(window);
            next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
    }
    Ok(true)
}

/// Fills the window at `start`, if there is one; false where the system, before Linux 5.14, cannot: pages then come in as
/// they are touched.
fn fill(map: &Mmap, start: usize) -> io::Result<bool> {
    if start >= map.len() {
        return Ok(true);
    }
    match map.advise_range(Advice::PopulateRead, start, WINDOW_BYTES.min(map.len() - start)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::populate;
    use crate::Blob;

    #[test]
    fn a_file_that_was_cut_under_its_map_is_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("longer");
        let blob = Blob::map(&file).expect("a map");
        populate(&blob).expect("all there");
        file.set_len(4096).expect("cut");
        assert!(populate(&blob).is_err());
        let owned = Blob::from_vec(vec![1]);
        populate(&owned).expect("nothing to do");
    }
}
