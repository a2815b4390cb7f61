//! Every metric of the registry, by name, in one place.

use metrics::{counter, describe_counter};

const FETCHED_BYTES: &str = "helios_registry_fetched_bytes_total";

/// Tells the recorder what each metric means.
pub fn describe_metrics() {
    describe_counter!(FETCHED_BYTES, "Bytes of models that came from elsewhere, by kind of source.");
}

/// Counts bytes that came from a kind of source.
pub(crate) fn fetched(source: &'static str, bytes: usize) {
    counter!(FETCHED_BYTES, "source" => source).increment(bytes as u64);
}
