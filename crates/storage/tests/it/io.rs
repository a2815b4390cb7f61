//! The conformance suite of the I/O engine: every case runs on both backends.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use helios_storage::io::{
    Buffer, DIRECT_ALIGNMENT, IoBackend, IoChoice, IoEngine, IoFile, IoOptions, Region, block_on,
};
use proptest::prelude::*;

const BUFFERS: usize = 8;
const BUFFER_BYTES: usize = 64 * 1024;

/// An engine of each kind; where the system forbids io_uring, that is said and the threads stand alone.
fn engines() -> Vec<IoEngine> {
    let start = |choice| IoEngine::start(&IoOptions { choice, buffers: BUFFERS, buffer_bytes: BUFFER_BYTES });
    let threads = start(IoChoice::Threads).expect("threads are always to be had");
    match start(IoChoice::IoUring) {
        Ok(uring) => vec![threads, uring],
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            eprintln!("{error}");
            vec![threads]
        }
    }
}

/// A folder on a real disk: direct I/O needs one.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn file_of(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("file");
    let mut file = File::create(&path).expect("a file");
    file.write_all(bytes).and_then(|()| file.sync_all()).expect("written");
    path
}

fn both_ways(path: &Path) -> [Arc<IoFile>; 2] {
    let buffered = IoFile::buffered(File::open(path).expect("open"));
    let direct = IoFile::prefer_direct(buffered.file()).expect("open once more");
    [Arc::new(buffered), Arc::new(direct)]
}

fn read(engine: &IoEngine, file: &Arc<IoFile>, offset: u64, length: usize) -> std::io::Result<Buffer> {
    engine.read(file, offset, length, block_on(engine.buffer()).expect("a buffer")).wait()
}

fn assert_whole(engine: &IoEngine) {
    assert_eq!(engine.free_buffers(), BUFFERS, "{engine:?} lost a buffer");
}

/// Polls once, as a task that is dropped soon after would.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn odd_ranges_read_what_the_file_holds_and_stop_at_its_end() {
    let dir = folder();
    let bytes = pattern(3 * BUFFER_BYTES + 1234);
    let path = file_of(dir.path(), &bytes);
    let end = bytes.len();
    for engine in engines() {
        for file in both_ways(&path) {
            for (offset, length) in [
                (0, 0),
                (0, 1),
                (0, BUFFER_BYTES),
                (1, 4096),
                (4095, 2),
                (4096, 4096),
                (12_345, 23_456),
                (end - 1, 1),
                (end - 1, 100),
                (end - 5000, 20_000),
                (end, 10),
                (end + 1_000_000, 10),
            ] {
                let got = read(&engine, &file, offset as u64, length).expect("a read");
                let expected = &bytes[offset.min(end)..(offset + length).min(end)];
                assert!(*got == *expected, "{engine:?} direct {} {offset}+{length}", file.is_direct());
            }
        }
        assert_whole(&engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_range_reads_what_the_file_holds(offset in 0usize..150_000, length in 0usize..(BUFFER_BYTES - 2 * DIRECT_ALIGNMENT)) {
        let dir = folder();
        let bytes = pattern(100_001);
        let path = file_of(dir.path(), &bytes);
        for engine in engines() {
            for file in both_ways(&path) {
                let got = read(&engine, &file, offset as u64, length).expect("a read");
                prop_assert!(*got == bytes[offset.min(bytes.len())..(offset + length).min(bytes.len())]);
            }
        }
    }
}

#[test]
fn writes_land_where_they_were_sent() {
    for engine in engines() {
        let dir = folder();
        let path = file_of(dir.path(), &[]);
        let open = || OpenOptions::new().read(true).write(true).open(&path).expect("open");
        let file = Arc::new(IoFile::buffered(open()));
        let bytes = pattern(5 * 10_007);
        // Last piece first, all of them in flight together.
        let pieces: Vec<_> = bytes.chunks(10_007).enumerate().rev().collect();
        let operations: Vec<_> = pieces
            .into_iter()
            .map(|(index, piece)| {
                let mut buffer = block_on(engine.buffer()).expect("a buffer");
                buffer.set_len(piece.len());
                buffer.copy_from_slice(piece);
                engine.write(&file, index as u64 * 10_007, buffer)
            })
            .collect();
        for operation in operations {
            assert_eq!(operation.wait().expect("a write").len(), 10_007);
        }
        assert!(std::fs::read(&path).expect("read") == bytes);
        assert_whole(&engine);
    }
}

#[test]
fn what_the_system_refuses_is_its_error_and_costs_no_buffer() {
    let dir = folder();
    let path = file_of(dir.path(), b"content");
    for engine in engines() {
        let read_only = Arc::new(IoFile::buffered(File::open(&path).expect("open")));
        let write = |file: &Arc<IoFile>| {
            let mut buffer = block_on(engine.buffer()).expect("a buffer");
            buffer.set_len(4096);
            engine.write(file, 0, buffer).wait()
        };
        assert_eq!(write(&read_only).expect_err("not open for writing").raw_os_error(), Some(libc_ebadf()));
        let full = OpenOptions::new().write(true).open("/dev/full").expect("open");
        let full = Arc::new(IoFile::buffered(full));
        assert_eq!(write(&full).expect_err("full").kind(), ErrorKind::StorageFull);
        let folder = Arc::new(IoFile::buffered(File::open(dir.path()).expect("open")));
        assert_eq!(read(&engine, &folder, 0, 10).expect_err("a folder").kind(), ErrorKind::IsADirectory);
        let socket: OwnedFd = std::os::unix::net::UnixStream::pair().expect("a socket").0.into();
        let socket = Arc::new(IoFile::buffered(File::from(socket)));
        assert!(read(&engine, &socket, 5, 10).is_err(), "a socket has no offsets");
        let file = &both_ways(&path)[0];
        let refused = read(&engine, file, 0, BUFFER_BYTES + 1).expect_err("too long");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert_whole(&engine);
    }
}

/// The number is Linux's on every architecture.
fn libc_ebadf() -> i32 {
    9
}

#[test]
fn many_in_flight_all_arrive_and_the_pool_is_the_bound() {
    let dir = folder();
    let bytes = pattern(100 * 5_000);
    let path = file_of(dir.path(), &bytes);
    for engine in engines() {
        let engine = Arc::new(engine);
        for file in both_ways(&path) {
            let readers: Vec<_> = (0..4)
                .map(|reader| {
                    let (engine, file, bytes) = (Arc::clone(&engine), Arc::clone(&file), bytes.clone());
                    std::thread::spawn(move || {
                        for index in (reader..100).step_by(4) {
                            let at = index * 5_000;
                            let got = read(&engine, &file, at as u64, 5_000).expect("a read");
                            assert!(*got == bytes[at..at + 5_000]);
                            assert!(engine.free_buffers() < BUFFERS);
                        }
                    })
                })
                .collect();
            readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
        }
        let held: Vec<_> = (0..BUFFERS).map(|_| block_on(engine.buffer()).expect("a buffer")).collect();
        let mut waiting = Box::pin(engine.buffer());
        assert!(poll_once(waiting.as_mut()).is_pending(), "more than the pool holds");
        drop(held);
        assert!(poll_once(waiting.as_mut()).is_ready());
        drop(waiting);
        assert_whole(&engine);
    }
}

#[test]
fn a_storm_of_cancellations_leaks_no_buffer_and_writes_into_none_that_was_given_away() {
    let dir = folder();
    let bytes = pattern(BUFFER_BYTES * 16);
    let path = file_of(dir.path(), &bytes);
    for engine in engines() {
        for file in both_ways(&path) {
            for round in 0..2_000_usize {
                // Abandoned reads, while someone else marks a buffer and finds it unchanged.
                for index in 0..round % BUFFERS {
                    let mut waiting = Box::pin(engine.buffer());
                    if let Poll::Ready(Ok(buffer)) = poll_once(waiting.as_mut()) {
                        let offset = (index * BUFFER_BYTES) as u64;
                        drop(engine.read(&file, offset, BUFFER_BYTES, buffer));
                    }
                }
                let mut mine = block_on(engine.buffer()).expect("a buffer");
                mine.set_len(BUFFER_BYTES);
                mine.fill(round as u8);
                if round % 64 == 0 {
                    std::thread::yield_now();
                }
                assert!(
                    mine.iter().all(|byte| *byte == round as u8),
                    "{engine:?} wrote into a buffer in use"
                );
            }
        }
        // Whatever is still in flight comes back: waiting for all of them proves it.
        let all: Vec<_> = (0..BUFFERS).map(|_| block_on(engine.buffer()).expect("a buffer")).collect();
        drop(all);
        assert_whole(&engine);
    }
}

#[test]
fn who_waits_for_a_buffer_and_goes_away_takes_none_along() {
    for engine in engines() {
        let held: Vec<_> = (0..BUFFERS).map(|_| block_on(engine.buffer()).expect("a buffer")).collect();
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(engine.buffer())).collect();
        waiting.iter_mut().for_each(|waiter| assert!(poll_once(waiter.as_mut()).is_pending()));
        let mut kept: Vec<_> = waiting.into_iter().step_by(7).collect();
        drop(held);
        // A buffer was granted to each that stayed; granted and never fetched, it comes back too.
        assert!(poll_once(kept[0].as_mut()).is_ready());
        drop(kept);
        assert_whole(&engine);
    }
}

#[test]
fn an_engine_that_goes_away_ends_what_is_in_flight() {
    let dir = folder();
    let path = file_of(dir.path(), &pattern(BUFFER_BYTES * BUFFERS));
    for _ in 0..20 {
        for engine in engines() {
            let file = &both_ways(&path)[1];
            let operations: Vec<_> = (0..BUFFERS)
                .map(|index| {
                    let buffer = block_on(engine.buffer()).expect("a buffer");
                    engine.read(file, (index * BUFFER_BYTES) as u64, BUFFER_BYTES, buffer)
                })
                .collect();
            drop(engine);
            for operation in operations {
                match operation.wait() {
                    Ok(buffer) => assert_eq!(buffer.len(), BUFFER_BYTES),
                    Err(error) => assert!(error.to_string().contains("stopped"), "{error}"),
                }
            }
        }
    }
}

#[test]
fn neighbouring_buffers_join_to_one_region_and_others_do_not() {
    let dir = folder();
    let bytes = pattern(BUFFER_BYTES * 3 + 77);
    let path = file_of(dir.path(), &bytes);
    for engine in engines() {
        let file = &both_ways(&path)[1];
        let load = || -> Vec<Buffer> {
            let run = engine.run(bytes.len()).expect("four neighbours are free");
            let read =
                |(index, buffer)| engine.read(file, (index * BUFFER_BYTES) as u64, BUFFER_BYTES, buffer);
            let operations: Vec<_> = run.into_iter().enumerate().map(read).collect();
            operations.into_iter().map(|operation| operation.wait().expect("a read")).collect()
        };
        let region = Region::join(load()).expect("neighbours");
        assert!(*region == *bytes);
        assert!(engine.run(BUFFER_BYTES * (BUFFERS - 3)).is_none(), "no such run is free");
        let mut out_of_order = load();
        out_of_order.swap(0, 1);
        assert!(Region::join(out_of_order).is_none());
        assert!(Region::join(Vec::new()).is_none());
        drop(region);
        assert_whole(&engine);
    }
}

#[test]
fn the_choice_is_obeyed_and_reported() {
    for engine in engines() {
        let report = engine.report();
        assert_eq!(report.reason, "asked for");
        assert!(report.backend == IoBackend::IoUring || !report.registered);
    }
    let automatic = IoEngine::start(&IoOptions { buffers: 2, ..IoOptions::default() }).expect("an engine");
    assert!(!automatic.report().reason.is_empty());
    assert_eq!("io_uring".parse(), Ok(IoChoice::IoUring));
    assert!("posix".parse::<IoChoice>().is_err_and(|error| error.contains("`posix`")));
    let none = IoOptions { buffers: 0, ..IoOptions::default() };
    assert_eq!(IoEngine::start(&none).expect_err("no buffers").kind(), ErrorKind::InvalidInput);
}
