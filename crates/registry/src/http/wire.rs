//! What goes over the wire, the same for server and client.

use std::path::PathBuf;

use helios_model::Manifest;
use helios_storage::tiers::TierReport;
use helios_types::{Classify, Digest, ErrorCode, ModelRef};
use serde::{Deserialize, Serialize};

use crate::{
    ArchiveReport, ModelSummary, ModelUse, Progress, RegistryError, TagEntry, WarmLevel, WarmRecord,
    WorkerLease,
};

/// Answer to `GET models`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Models {
    pub(crate) models: Vec<ModelSummary>,
}

/// Answer to `GET model`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) history: Vec<TagEntry>,
    /// The store's folders, fastest first, which a reader on the same host may map.
    pub(crate) stores: Vec<PathBuf>,
}

/// Answer to `GET tiers`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TierList {
    pub(crate) tiers: Vec<TierReport>,
}

/// Query of `model`, body of `push`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ModelQuery {
    pub(crate) model: ModelRef,
}

/// Body of `POST pull`: one of `model` and `source`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PullBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<ModelRef>,
}

/// A line of the answer to `POST pull`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PullLine {
    Progress(Progress),
    Done(Pointer),
    Error(ErrorDetail),
}

/// A line of the answer to `POST import`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportLine {
    Progress(Progress),
    Done(ArchiveReport),
    Error(ErrorDetail),
}

/// A name and the version that it points to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pointer {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
}

/// Body of `POST tag`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagBody {
    pub(crate) from: ModelRef,
    pub(crate) to: ModelRef,
}

/// Body of `POST rollback`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackBody {
    pub(crate) model: ModelRef,
    /// A digest, its beginning, or steps back.
    pub(crate) to: String,
}

/// A body without content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// Body of `PUT workers/ID`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RenewBody {
    pub(crate) ttl_ms: u64,
    #[serde(flatten)]
    pub(crate) worker: WorkerLease,
}

/// Query of `GET workers`.
#[derive(Debug, Deserialize)]
pub(crate) struct WorkersQuery {
    /// Wait until the version is another than this.
    pub(crate) after: Option<u64>,
    /// At most this long.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// Body of `POST uses`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsesBody {
    pub(crate) uses: Vec<ModelUse>,
}

/// Query of `GET warm`.
#[derive(Debug, Deserialize)]
pub(crate) struct WarmQuery {
    /// Only this one.
    pub(crate) model: Option<ModelRef>,
}

/// Body of `PUT warm`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WarmBody {
    pub(crate) model: ModelRef,
    pub(crate) level: WarmLevel,
}

/// Answer to `GET warm` and `PUT warm`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Warm {
    pub(crate) records: Vec<WarmRecord>,
}

/// Body of an error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong: OpenAI's envelope, which these routes share on one listener with OpenAI's own, and a hint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    /// An [`ErrorCode`] in its text form.
    pub(crate) code: String,
    pub(crate) message: String,
    /// OpenAI's coarse kind.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// Always null: messages name what is wrong.
    #[serde(default)]
    pub(crate) param: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl From<&RegistryError> for ErrorDetail {
    fn from(error: &RegistryError) -> Self {
        let (message, hint) = error.message_and_hint();
        let code = error.code();
        let kind = helios_api::openai::error_type(code).to_owned();
        Self { code: code.as_str().to_owned(), message, kind, param: None, hint }
    }
}

impl From<ErrorDetail> for RegistryError {
    fn from(detail: ErrorDetail) -> Self {
        let code = ErrorCode::parse(&detail.code).unwrap_or(ErrorCode::Internal);
        Self::Remote { code, message: detail.message, hint: detail.hint }
    }
}
