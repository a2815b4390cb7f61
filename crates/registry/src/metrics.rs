//! Every metric of the registry, by name, in one place.

use metrics::{counter, describe_counter};

use crate::transfer::SourceKind;

const FETCHED_BYTES: &str = "helios_registry_fetched_bytes_total";

const PEERS_DROPPED: &str = "helios_registry_peers_dropped_total";
const SCRUBBED_BYTES: &str = "helios_registry_scrubbed_bytes_total";
const DAMAGED_BLOBS: &str = "helios_registry_damaged_blobs_total";

/// Tells the recorder what each metric means.
pub fn describe_metrics() {
    helios_storage::tiers::describe_tier_metrics();
    describe_counter!(FETCHED_BYTES, "Bytes of models that came from elsewhere, by kind of source.");
    describe_counter!(PEERS_DROPPED, "Times that a peer lied or failed and was left alone for a while.");
    describe_counter!(SCRUBBED_BYTES, "Bytes of blobs that the scrubber read again.");
    describe_counter!(DAMAGED_BLOBS, "Damaged blobs that the scrubber found: repaired or lost.");
}

/// Counts bytes that came from a kind of source.
pub(crate) fn fetched(source: SourceKind, bytes: usize) {
    if let Some(source) = source.label() {
        counter!(FETCHED_BYTES, "source" => source).increment(bytes as u64);
    }
}

/// Counts a peer that is left alone.
pub(crate) fn peer_dropped() {
    counter!(PEERS_DROPPED).increment(1);
}

/// Counts bytes that the scrubber read.
pub(crate) fn scrubbed(bytes: u64) {
    counter!(SCRUBBED_BYTES).increment(bytes);
}

/// Counts a damaged blob, by what became of it.
pub(crate) fn damaged(outcome: &'static str) {
    counter!(DAMAGED_BLOBS, "outcome" => outcome).increment(1);
}
