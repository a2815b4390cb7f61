//! The error that a client sees, and the one mapping of codes to HTTP.

use std::time::Duration;

use helios_types::{Classify, ErrorCode};

/// The HTTP status of `code`.
pub fn http_status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::InvalidRequest | ErrorCode::ContextLengthExceeded => 400,
        ErrorCode::Unauthenticated => 401,
        ErrorCode::PermissionDenied => 403,
        ErrorCode::NotFound | ErrorCode::ModelNotFound => 404,
        ErrorCode::MethodNotAllowed => 405,
        ErrorCode::Conflict => 409,
        ErrorCode::PayloadTooLarge => 413,
        ErrorCode::UnsupportedMediaType => 415,
        ErrorCode::Cancelled => 499,
        ErrorCode::Corrupt | ErrorCode::Internal => 500,
        ErrorCode::Upstream => 502,
        ErrorCode::Overloaded | ErrorCode::Unavailable => 503,
        ErrorCode::DeadlineExceeded => 504,
        ErrorCode::StorageFull => 507,
    }
}

/// What went wrong, in words for the client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error.
    pub code: ErrorCode,
    /// The whole sentence for a person.
    pub message: String,
    /// The request's field at fault.
    pub param: Option<String>,
    /// How long to wait before a retry.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error without a field at fault.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after: None }
    }

    /// A 400 about one field.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(ErrorCode::InvalidRequest, message) }
    }

    /// Any classified error, with its whole chain of causes in the message.
    pub fn of(error: &dyn Classify) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { retry_after: error.retry_after(), ..Self::new(error.code(), message) }
    }
}

impl Classify for ApiError {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

#[cfg(test)]
mod tests {
    use helios_types::{Blame, ErrorCode};

    use super::http_status;

    #[test]
    fn blame_and_status_tell_the_same_story() {
        for code in ErrorCode::ALL {
            let status = http_status(code);
            assert_eq!(code.blame() == Blame::Client, (400..500).contains(&status), "{code}");
        }
    }
}
