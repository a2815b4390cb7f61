//! The one mapping between [`WorkerError`] and gRPC status.
//!
//! The code travels twice: as the nearest gRPC code for generic tooling, and by name in the `helios-code` metadata, so
//! that it survives unchanged.

use helios_types::ErrorCode;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::WorkerError;

const CODE_KEY: &str = "helios-code";

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::ContextLengthExceeded
        | ErrorCode::PayloadTooLarge
        | ErrorCode::UnsupportedMediaType => Code::InvalidArgument,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::NotFound | ErrorCode::ModelNotFound => Code::NotFound,
        ErrorCode::MethodNotAllowed => Code::Unimplemented,
        ErrorCode::Conflict => Code::AlreadyExists,
        ErrorCode::Overloaded | ErrorCode::StorageFull => Code::ResourceExhausted,
        ErrorCode::Unavailable | ErrorCode::Upstream => Code::Unavailable,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Corrupt => Code::DataLoss,
        ErrorCode::Internal => Code::Internal,
    }
}

/// `error` as a gRPC status.
pub fn status_of_error(error: &WorkerError) -> Status {
    let mut status = Status::new(grpc_code(error.code), &error.message);
    status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(error.code.as_str()));
    status
}

/// The error behind a gRPC status, ours or another implementation's.
pub fn error_of_status(status: &Status) -> WorkerError {
    let named = status.metadata().get(CODE_KEY).and_then(|value| ErrorCode::parse(value.to_str().ok()?));
    let code = named.unwrap_or(match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorCode::InvalidRequest,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::NotFound => ErrorCode::NotFound,
        Code::Unimplemented => ErrorCode::MethodNotAllowed,
        Code::AlreadyExists => ErrorCode::Conflict,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::Cancelled => ErrorCode::Cancelled,
        Code::DataLoss => ErrorCode::Corrupt,
        Code::Internal => ErrorCode::Internal,
        // A broken connection arrives as `Unavailable` or, from the HTTP/2 layer, as `Unknown`.
        Code::Ok | Code::Unknown | Code::Unavailable | Code::Aborted => ErrorCode::Unavailable,
    });
    WorkerError::new(code, status.message())
}

#[cfg(test)]
mod tests {
    use helios_types::ErrorCode;

    use super::{WorkerError, error_of_status, status_of_error};

    #[test]
    fn every_error_survives_the_wire() {
        for code in ErrorCode::ALL {
            let error = WorkerError::new(code, format!("about {code}"));
            assert_eq!(error_of_status(&status_of_error(&error)), error);
        }
    }
}
