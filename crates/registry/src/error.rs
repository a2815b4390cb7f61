//! What can go wrong between a model's name and its bytes, and whom to blame for it.

use std::sync::Arc;
use std::time::Duration;

use helios_metadata::MetadataError;
use helios_model::ModelError;
use helios_storage::StorageError;
use helios_types::{Classify, Digest, ErrorCode, ModelRefError};

/// A failed operation of the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Files of the store, or model files that break their format.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A worker's cache has no room for a blob, and all that is in it is in use.
    #[error(
        "no room for {bytes} bytes in the cache: {cache}\nhint: raise `--cache-budget` (`store.cache_budget`), or stop workers that share the cache"
    )]
    CacheFull {
        /// Size of the blob.
        bytes: u64,
        /// The folder, and what it holds.
        cache: String,
    },
    /// The files are no model that Helios can use, or their manifest is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The database of manifests and tags.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Another process holds the store.
    #[error(
        "the store `{store}` is held by {}\nhint: ask the running server instead (set HELIOS_HOST to its address), or stop it",
        holder_pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    StoreInUse {
        /// The store's folder.
        store: String,
        /// The holder, where it could be read.
        holder_pid: Option<u32>,
    },
    /// No model of that name is in the store.
    #[error("no model `{model}`{}\nhint: {hint}", suggestion.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?")))]
    ModelNotFound {
        /// The name asked for.
        model: String,
        /// The known name that is nearest to it.
        suggestion: Option<String>,
        /// What to do.
        hint: String,
    },
    /// A tag's history has no version that is meant.
    #[error(
        "the history of `{model}` has no such version among its {versions}\nhint: `helios history {model}` shows them; name one by its digest, or by how many steps it is back"
    )]
    NoSuchVersion {
        /// The tag.
        model: String,
        /// Entries of its history.
        versions: usize,
    },
    /// The store has no such manifest or blob.
    #[error("no {kind} {digest} in the store")]
    UnknownDigest {
        /// `manifest` or `blob`.
        kind: &'static str,
        /// The digest asked for.
        digest: Digest,
    },
    /// A text is not a model name.
    #[error(transparent)]
    InvalidReference(#[from] ModelRefError),
    /// A name begins like a route of the server.
    #[error(
        "no model can be named `{name}`: `{part}` is reserved as the {place} part\nhint: choose another {place} part"
    )]
    ReservedName {
        /// The name.
        name: String,
        /// The part of it that is reserved.
        part: &'static str,
        /// Which part that is.
        place: &'static str,
    },
    /// A text is not a source, or names something that cannot be one.
    #[error(
        "`{spec}` is not a model source: {problem}\nhint: sources are pypi:PACKAGE==VERSION#PATH, hf:ORG/REPO[@REVISION][#FILE.gguf], file:PATH, https://HOST/FILE.gguf, s3://BUCKET/PATH (gs://, az://) and convert:NAME#FORMAT"
    )]
    InvalidSource {
        /// The text, shortened to 200 characters.
        spec: String,
        /// Why it is none.
        problem: String,
    },
    /// A manifest or tag file of the store, or one received, cannot be used.
    #[error("{subject} is corrupt: {problem}")]
    InvalidManifest {
        /// The file or digest.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive of models, or one entry of it, is not what it should be.
    #[error("the archive cannot be used: {entry}: {problem}\nhint: {hint}")]
    InvalidArchive {
        /// The entry, or where in the file it should be.
        entry: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// An origin answered with an error status.
    #[error("{url} answered {status}\nhint: {hint}")]
    OriginStatus {
        /// The address, without credentials or query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What to do.
        hint: &'static str,
        /// When the origin wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An origin could not be reached, broke off or stalled.
    #[error(
        "fetching {url} failed: {problem}\nhint: check the network, or name a mirror; the next pull goes on where this one stopped"
    )]
    OriginUnreachable {
        /// The address, without credentials or query.
        url: String,
        /// What happened.
        problem: String,
    },
    /// An origin sent something else than it should have.
    #[error(
        "{url} sent something wrong: {problem}\nhint: nothing of it is used; check the address, or take the model from another source"
    )]
    OriginLied {
        /// The address, without credentials or query.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Python's pip is missing or failed.
    #[error("{problem}\nhint: {hint}")]
    Pip {
        /// What happened.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Every source of a catalogue model failed.
    #[error("no source of `{model}` worked: {problems}")]
    EverySourceFailed {
        /// The model.
        model: String,
        /// Each source with its error.
        problems: String,
        /// The error of the last one.
        #[source]
        last: Box<RegistryError>,
    },
    /// A request to the registry is malformed.
    #[error("{problem}")]
    InvalidRequest {
        /// What is wrong with it.
        problem: String,
        /// What it counts as.
        code: ErrorCode,
    },
    /// A registry elsewhere answered with an error.
    #[error("{message}{}", hint.as_ref().map_or_else(String::new, |hint| format!("\nhint: {hint}")))]
    Remote {
        /// Its code.
        code: ErrorCode,
        /// Its message.
        message: String,
        /// What it says to do.
        hint: Option<String>,
    },
    /// A registry elsewhere did not answer, or with something that is no answer.
    #[error(
        "the registry at {url} did not answer: {problem}\nhint: check its address, and that `helios registry` or `helios serve` runs there"
    )]
    RegistryUnreachable {
        /// Its address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// Something is not here, and who might have it did not answer.
    #[error(
        "{what} is not here, and {}\nhint: what is in the store keeps working; this needs the registry above to answer",
        source.message_and_hint().0
    )]
    UpstreamSilent {
        /// What was asked for.
        what: String,
        /// Why it could not be had.
        #[source]
        source: Box<RegistryError>,
    },
    /// Registries are each other's parents.
    #[error(
        "the parents of the registries form a circle: a question came back after {hops} of them\nhint: one of them must have no store.parent"
    )]
    ParentCycle {
        /// Registries that the question passed.
        hops: usize,
    },
    /// Versions are made from each other, and the weights of none of them are here.
    #[error(
        "what is missing here comes from `{spec}`, which is made from it in turn\nhint: pull or import one of the two again from where its files came first"
    )]
    ConversionCycle {
        /// The source of the version that is needed twice.
        spec: String,
    },
    /// The error of a pull that several asked for.
    #[error(transparent)]
    Shared(#[from] Arc<RegistryError>),
    /// A background step of the registry itself ended early.
    #[error("internal: {problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

impl RegistryError {
    /// The message without its hint, and the hint: how wire formats carry them.
    pub fn message_and_hint(&self) -> (String, Option<String>) {
        let text = self.to_string();
        match text.split_once("\nhint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        }
    }

    pub(crate) fn invalid_source(spec: &str, problem: impl Into<String>) -> Self {
        Self::InvalidSource { spec: spec.chars().take(200).collect(), problem: problem.into() }
    }

    pub(crate) fn invalid_model(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        ModelError::invalid(subject, problem).into()
    }

    /// Whether a download that failed so may go on where it stopped.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::OriginUnreachable { .. } | Self::RegistryUnreachable { .. } => true,
            Self::Remote { code, .. } => matches!(code, ErrorCode::Overloaded | ErrorCode::Unavailable),
            Self::OriginStatus { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

impl Classify for RegistryError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(error) => error.code(),
            Self::CacheFull { .. } => ErrorCode::StorageFull,
            Self::Model(error) => error.code(),
            Self::Metadata(error) => error.code(),
            Self::StoreInUse { .. } => ErrorCode::Conflict,
            Self::ModelNotFound { .. } => ErrorCode::ModelNotFound,
            Self::UnknownDigest { .. } | Self::NoSuchVersion { .. } => ErrorCode::NotFound,
            Self::InvalidReference(_)
            | Self::ReservedName { .. }
            | Self::InvalidSource { .. }
            | Self::InvalidArchive { .. } => ErrorCode::InvalidRequest,
            Self::InvalidManifest { .. } => ErrorCode::Corrupt,
            Self::OriginStatus { .. } | Self::OriginUnreachable { .. } | Self::OriginLied { .. } => {
                ErrorCode::Upstream
            }
            Self::Pip { .. } => ErrorCode::Upstream,
            Self::EverySourceFailed { last, .. } => last.code(),
            Self::InvalidRequest { code, .. } | Self::Remote { code, .. } => *code,
            Self::RegistryUnreachable { .. } | Self::UpstreamSilent { .. } => ErrorCode::Unavailable,
            Self::ParentCycle { .. } | Self::ConversionCycle { .. } => ErrorCode::Conflict,
            Self::Shared(error) => error.code(),
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OriginStatus { retry_after, .. } => *retry_after,
            Self::Shared(error) => error.retry_after(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RegistryError;

    #[test]
    fn a_hint_is_told_from_its_message() {
        let error = RegistryError::ModelNotFound {
            model: "smolm2:latest".to_owned(),
            suggestion: Some("smollm2".to_owned()),
            hint: "helios list shows what is there".to_owned(),
        };
        let (message, hint) = error.message_and_hint();
        assert_eq!(message, "no model `smolm2:latest`; did you mean `smollm2`?");
        assert_eq!(hint.as_deref(), Some("helios list shows what is there"));
    }
}
