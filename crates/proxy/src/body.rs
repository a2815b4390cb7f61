//! Request bodies: read whole, but never beyond the bound in bytes and in time.

use bytes::{Bytes, BytesMut};
use helios_api::ApiError;
use helios_runtime::Clock;
use helios_types::ErrorCode;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::ProxyConfig;

/// Of a body that is too large, this much is read and thrown away, so that a client that sends first and reads later
/// still sees the answer instead of a reset connection.
const DISCARD_BYTES_MAX: usize = 256 << 20;

/// The whole body.
///
/// # Errors
/// `PayloadTooLarge`, `DeadlineExceeded`, or `InvalidRequest` if the client breaks off.
pub(crate) async fn read<B>(body: B, headers: &HeaderMap, config: &ProxyConfig) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let reading = read_bounded(body, headers, config.body_bytes_max);
    match Clock.timeout(config.body_time_max(), reading).await {
        Ok(read) => read,
        Err(elapsed) => {
            let message = format!("the request body did not arrive in time: {elapsed}");
            Err(ApiError::new(ErrorCode::DeadlineExceeded, message))
        }
    }
}

async fn read_bounded<B>(mut body: B, headers: &HeaderMap, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut read = BytesMut::new();
    let mut is_too_large = body.size_hint().lower() > bytes_max as u64;
    if is_too_large && headers.contains_key(EXPECT) {
        return Err(too_large(bytes_max));
    }
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(ErrorCode::InvalidRequest, format!("reading the request body failed: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        is_too_large |= read.len() + data.len() > bytes_max;
        if is_too_large {
            read = BytesMut::new();
            discarded += data.len();
        } else {
            read.extend_from_slice(&data);
        }
        if discarded > DISCARD_BYTES_MAX {
            break;
        }
    }
    if is_too_large { Err(too_large(bytes_max)) } else { Ok(read.freeze()) }
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(
        ErrorCode::PayloadTooLarge,
        format!("the request body is over the limit of {bytes_max} bytes"),
    )
}
