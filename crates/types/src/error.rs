//! The one enumeration of what can go wrong, as a client, a retry policy and an on-call engineer need to see it.
//!
//! Library crates keep their own error enums and implement [`Classify`]; the wire adapters map [`ErrorCode`] to HTTP
//! and gRPC once.

use std::time::Duration;

/// Who has to act for the error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request asks for something wrong or forbidden.
    Client,
    /// Something Helios depends on: an origin, another worker, the network.
    Upstream,
    /// Helios itself, or the machine under it.
    Own,
}

/// What went wrong, in the terms of the whole system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A parameter is malformed, out of range or unsupported.
    InvalidRequest,
    /// The prompt, or prompt plus wanted tokens, is longer than the model's context.
    ContextLengthExceeded,
    /// No credentials, or wrong ones.
    Unauthenticated,
    /// Known credentials without the right to do this, or a request a browser page must not make.
    PermissionDenied,
    /// No such route, tag, blob or other object.
    NotFound,
    /// No model of that name.
    ModelNotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The body is over the configured limit.
    PayloadTooLarge,
    /// The body is of a type that this route does not take.
    UnsupportedMediaType,
    /// The object exists already, or another process holds it.
    Conflict,
    /// A queue is at its bound; the same request may fit later.
    Overloaded,
    /// Nothing that could answer is ready.
    Unavailable,
    /// The answer would come too late.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// Bytes do not match their digest, or a file breaks its format.
    Corrupt,
    /// No space left where the bytes should go.
    StorageFull,
    /// An origin or peer failed or lied.
    Upstream,
    /// A fault of Helios.
    Internal,
}

impl ErrorCode {
    /// The code as it stands in wire formats, logs and metrics: `snake_case`, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::Unauthenticated => "invalid_api_key",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::ModelNotFound => "model_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::StorageFull => "storage_full",
            Self::Upstream => "upstream_error",
            Self::Internal => "internal_error",
        }
    }

    /// Every code, in declaration order.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::ContextLengthExceeded,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::ModelNotFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Conflict,
        Self::Overloaded,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Corrupt,
        Self::StorageFull,
        Self::Upstream,
        Self::Internal,
    ];

    /// The code whose [`as_str`](Self::as_str) is `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Who has to act.
    pub fn blame(self) -> Blame {
        match self {
            Self::InvalidRequest
            | Self::ContextLengthExceeded
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::NotFound
            | Self::ModelNotFound
            | Self::MethodNotAllowed
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::Conflict
            | Self::Cancelled => Blame::Client,
            Self::Upstream | Self::Unavailable => Blame::Upstream,
            Self::Overloaded
            | Self::DeadlineExceeded
            | Self::Corrupt
            | Self::StorageFull
            | Self::Internal => Blame::Own,
        }
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable | Self::Upstream | Self::DeadlineExceeded)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three questions every error answers.
pub trait Classify: std::error::Error {
    /// What went wrong.
    fn code(&self) -> ErrorCode;

    /// Whether the same request may succeed later or elsewhere.
    fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// How long to wait before a retry, when that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Who has to act.
    fn blame(&self) -> Blame {
        self.code().blame()
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_survives_its_wire_form() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("no_such_code"), None);
    }
}
