//! Parsing a header, however hostile, allocates at most a small multiple of the file's size.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use helios_storage::{Gguf, SafetensorsHeader};

use crate::gguf_builder::{GgufBuilder, RawTensor, array_header, sample, string, string_array};
use crate::safetensors::{file, padded_file};

/// Counts what the current thread has allocated, and the most it ever had.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(grown: usize, shrunk: usize) {
    let now = NOW.get().saturating_add(grown).saturating_sub(shrunk);
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells of the thread, without a
// destructor and without allocations of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most that `work` had allocated at one time.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    let peak = PEAK.get() - before;
    drop(result);
    peak
}

/// Times the file's size that a header may take, and what errors and small files may take beyond.
const MULTIPLE: usize = 5;
const CONSTANT: usize = 4096;

fn check_gguf(what: &str, bytes: &[u8]) {
    let peak = peak(|| Gguf::parse("hostile.gguf", bytes));
    assert!(peak <= MULTIPLE * bytes.len() + CONSTANT, "{what}: {peak} bytes for a file of {}", bytes.len());
}

fn check_safetensors(what: &str, bytes: &[u8]) {
    let peak = peak(|| SafetensorsHeader::parse("hostile", bytes));
    assert!(peak <= MULTIPLE * bytes.len() + CONSTANT, "{what}: {peak} bytes for a file of {}", bytes.len());
}

#[test]
fn the_counter_counts() {
    assert!((1_000_000..1_010_000).contains(&peak(|| vec![1_u8; 1_000_000])));
}

#[test]
fn counts_without_contents_allocate_nothing() {
    for count in [1 << 20, 1 << 32, 1 << 60, u64::MAX] {
        for element_type in 0..13 {
            let builder = GgufBuilder::default().raw_value(b"a", &array_header(element_type, count));
            check_gguf("array", &builder.build());
        }
        let mut builder = sample();
        (builder.tensor_count, builder.metadata_count) = (Some(count & 0xffff), Some(count & 0xfff));
        check_gguf("counts", &builder.build());
        check_safetensors("length", &count.to_le_bytes());
    }
    let dimensions = vec![1 << 40, 1 << 20];
    let tensor = RawTensor { name: b"a".into(), dimensions, type_number: 0, offset: 0 };
    check_gguf("shape", &GgufBuilder::default().raw_tensor(tensor).build());
}

#[test]
fn long_headers_allocate_no_more_than_a_small_multiple() {
    check_gguf("sample", &sample().build());
    check_gguf("strings", &GgufBuilder::default().raw_value(b"a", &string_array(&[""; 100_000])).build());
    let long = "x".repeat(1_000_000);
    check_gguf("long key", &GgufBuilder::default().raw_value(long.as_bytes(), &[13, 0, 0, 0]).build());
    check_gguf(
        "long text",
        &GgufBuilder::default().raw_value(b"a", &[&[8, 0, 0, 0], &*string(long.as_bytes())].concat()).build(),
    );
    let mut builder = GgufBuilder::default();
    for i in 0..60_000_u64 {
        let name = i.to_string().into();
        builder = builder.raw_tensor(RawTensor { name, dimensions: vec![1], type_number: 0, offset: i * 32 });
    }
    check_gguf("tensors", &builder.data(60_000 * 32).build());
    let entries: Vec<_> =
        (0..60_000).map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let header = format!("{{{}}}", entries.join(","));
    check_safetensors("empty tensors", &padded_file(&header, 0));
    check_safetensors("long shape", &file(&format!(r#"{{"a":{{"shape":[{}]}}}}"#, "0,".repeat(500_000)), 0));
    check_safetensors(
        "long text",
        &file(&format!(r#"{{"__metadata__":{{"a":"{}"}}}}"#, "\\n".repeat(500_000)), 0),
    );
}

#[test]
fn many_keys_allocate_no_more_than_their_limit() {
    let mut builder = GgufBuilder::default();
    for i in 0..4096 {
        builder = builder.raw_value(format!("{i:x}").as_bytes(), &[7, 0, 0, 0, 1]);
    }
    // 4,096 keys are the most; a map of them takes about 100 bytes each.
    assert!(peak(|| Gguf::parse("keys.gguf", &builder.build()).expect("a right file")) < 1 << 20);
}
