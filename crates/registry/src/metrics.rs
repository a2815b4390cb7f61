//! Every metric of the registry, by name, in one place.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::transfer::SourceKind;

const FETCHED_BYTES: &str = "helios_registry_fetched_bytes_total";

const PEERS_DROPPED: &str = "helios_registry_peers_dropped_total";
const SCRUBBED_BYTES: &str = "helios_registry_scrubbed_bytes_total";
const DAMAGED_BLOBS: &str = "helios_registry_damaged_blobs_total";
const USES: &str = "helios_registry_uses_total";
const HIT_RATE: &str = "helios_registry_hit_rate";
const PREFETCH_ISSUED: &str = "helios_registry_prefetch_issued_total";
const PREFETCH_USED: &str = "helios_registry_prefetch_used_total";
const PREFETCH_WASTED: &str = "helios_registry_prefetch_wasted_total";
const PREFETCH_FAILED: &str = "helios_registry_prefetch_failed_total";
const PREFETCH_BYTES: &str = "helios_registry_prefetch_bytes_total";
const PREFETCH_ALLOWANCE: &str = "helios_registry_prefetch_allowance_bytes";

/// Tells the recorder what each metric means.
pub fn describe_metrics() {
    helios_storage::tiers::describe_tier_metrics();
    describe_counter!(FETCHED_BYTES, "Bytes of models that came from elsewhere, by kind of source.");
    describe_counter!(PEERS_DROPPED, "Times that a peer lied or failed and was left alone for a while.");
    describe_counter!(SCRUBBED_BYTES, "Bytes of blobs that the scrubber read again.");
    describe_counter!(DAMAGED_BLOBS, "Damaged blobs that the scrubber found: repaired or lost.");
    describe_counter!(
        USES,
        "Times that a model was asked for, by whether it was near: here, or at a worker."
    );
    describe_gauge!(HIT_RATE, "Share of those times, since the history began, that found it near.");
    describe_counter!(PREFETCH_ISSUED, "Models that were to be fetched ahead, by why: pinned or predicted.");
    describe_counter!(PREFETCH_USED, "Models fetched ahead as predicted and then asked for.");
    describe_counter!(PREFETCH_WASTED, "Models fetched ahead as predicted that left before anybody asked.");
    describe_counter!(PREFETCH_FAILED, "Models that could not be fetched ahead.");
    describe_counter!(PREFETCH_BYTES, "Bytes fetched ahead.");
    describe_gauge!(PREFETCH_ALLOWANCE, "Bytes that may be fetched ahead now.");
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

/// Counts uses of a model; `hit_rate` is what they have come to.
pub(crate) fn used(count: u64, is_near: bool, hit_rate: f64) {
    counter!(USES, "found" => if is_near { "near" } else { "absent" }).increment(count);
    gauge!(HIT_RATE).set(hit_rate);
}

/// Counts a model that is to be fetched ahead.
pub(crate) fn prefetch_issued(is_pinned: bool) {
    counter!(PREFETCH_ISSUED, "why" => if is_pinned { "pinned" } else { "predicted" }).increment(1);
}

/// Counts the end of that.
pub(crate) fn prefetched(bytes: u64, has_failed: bool) {
    counter!(PREFETCH_BYTES).increment(bytes);
    counter!(PREFETCH_FAILED).increment(u64::from(has_failed));
}

/// Counts a model that was fetched ahead and asked for.
pub(crate) fn prefetch_used() {
    counter!(PREFETCH_USED).increment(1);
}

/// Counts a model that was fetched ahead in vain.
pub(crate) fn prefetch_wasted() {
    counter!(PREFETCH_WASTED).increment(1);
}

/// Says what may be fetched ahead.
pub(crate) fn prefetch_allowance(bytes: u64) {
    gauge!(PREFETCH_ALLOWANCE).set(bytes as f64);
}
