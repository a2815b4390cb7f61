//! The model store: manifests and tags over content-addressed blobs, the sources that models come from, the leases of
//! workers, and all of that over HTTP.
//!
//! - [`Registry`] is a store on this machine, [`RegistryClient`] one elsewhere, [`ModelStore`] either.
//! - No byte is handed out that was not verified against its digest.
//! - An acknowledged change of a manifest or tag is on disk.

#![forbid(unsafe_code)]

mod ahead;
mod archive;
mod artifact;
mod blocking;
pub mod catalogue;
mod changes;
mod client;
mod config;
mod content;
mod convert;
mod dedup;
mod demand;
mod elsewhere;
mod error;
mod fetch;
mod files;
mod gc;
mod ground;
mod host_lease;
pub mod http;
mod import;
mod incoming;
mod loaded;
mod members;
mod metrics;
mod model_store;
mod names;
mod object;
mod pace;
mod pins;
mod profiles;
mod progress;
pub mod protocol;
mod pull;
mod push;
mod query;
mod rebuild;
mod records;
mod registry;
mod rollback;
mod scrub;
mod secret;
mod shelf;
mod small_files;
mod source;
mod suggest;
mod swarm;
mod tags;
mod transfer;
mod upstream;
mod via;
mod warm;

pub use ahead::{PrefetchConfig, PrefetchReport};
pub use archive::{
    Archive, ArchiveImport, ArchiveReport, ArchiveSource, ArchivedModel, ByteStream, ImportEvent, Opened,
    SaveReport,
};
pub use catalogue::{CATALOGUE, CatalogueModel};
pub use client::{RegistryClient, RemoteModel};
pub use config::{FetchConfig, FleetConfig, MetadataConfig, ObjectOptions, RegistryConfig, WallClock};
pub use content::Content;
pub use dedup::DedupReport;
pub use demand::{ModelUse, USES_MAX, recorded_trace};
pub use error::RegistryError;
pub use gc::GcReport;
pub use helios_metadata::{ModelSummary, TagEntry};
pub use host_lease::HostLease;
pub use members::{LEASE_TTL_MAX, LeasedModel, Members, MembersSnapshot, WorkerLease, WorkerRole};
pub use metrics::describe_metrics;
pub use model_store::{ModelStore, RemoteStore};
pub use progress::{Phase, Progress};
pub use pull::{Pull, PullEvent};
pub use rebuild::RebuildProgress;
pub use records::RECORDS_MAX;
pub use registry::{Registry, Resolved};
pub use rollback::RollbackTarget;
pub use scrub::{FromSource, Repair, ScrubConfig, ScrubReport};
pub use secret::Secret;
pub use source::Source;
pub use swarm::SharedCache;
pub use upstream::PushReport;
pub use warm::{Forecast, WARM_MAX, WarmLevel, WarmPlace, WarmReason, WarmRecord};
