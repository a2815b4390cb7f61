//! From the protocol's request to the engine's: what only the wire can get wrong is refused here, by field; ranges of
//! sampling parameters and the context limit are the engine's own checks.

use helios_api::worker::{WorkerError, v1};
use helios_engine::{Request, Sampling};
use helios_types::{Digest, ErrorCode};

const TENANT_SALT_BYTES_MAX: usize = 1024;
const REQUEST_ID_BYTES_MAX: usize = 512;

/// The engine's form of `request`.
///
/// # Errors
/// `InvalidRequest` that names the field at fault; `ModelNotFound` if the tokens were made for another manifest.
pub(crate) fn engine_request(
    request: v1::GenerateRequest,
    manifest: &Digest,
) -> Result<Request, WorkerError> {
    check_manifest(&request.manifest_digest, manifest)?;
    check_length("request_id", request.request_id.len(), REQUEST_ID_BYTES_MAX)?;
    check_length("tenant_salt", request.tenant_salt.len(), TENANT_SALT_BYTES_MAX)?;
    let sampling = request.sampling.ok_or_else(|| invalid("sampling", "is missing"))?;
    Ok(Request {
        prompt: request.prompt,
        emitted: request.emitted,
        sampling: engine_sampling(sampling),
        max_tokens: request.max_tokens as usize,
        stop_tokens: request.stop_tokens,
        logprobs: request.logprobs,
        prompt_logprobs: request.prompt_logprobs,
        salt: request.tenant_salt.into(),
        ..Request::default()
    })
}

fn engine_sampling(sampling: v1::Sampling) -> Sampling {
    Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: sampling.logit_bias.into_iter().map(|bias| (bias.token, bias.bias)).collect(),
        seed: sampling.seed,
    }
}

fn check_manifest(asked: &str, served: &Digest) -> Result<(), WorkerError> {
    let asked: Digest =
        asked.parse().map_err(|error| invalid("manifest_digest", format_args!("is wrong: {error}")))?;
    if asked == *served {
        return Ok(());
    }
    let message = format!("this worker serves manifest {served}, not {asked}");
    Err(WorkerError::new(ErrorCode::ModelNotFound, message))
}

fn check_length(field: &str, bytes: usize, bytes_max: usize) -> Result<(), WorkerError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(invalid(field, format_args!("has {bytes} bytes, at most {bytes_max} are accepted")))
}

fn invalid(field: &str, problem: impl std::fmt::Display) -> WorkerError {
    WorkerError::new(ErrorCode::InvalidRequest, format!("`{field}` {problem}"))
}

#[cfg(test)]
mod tests {
    use helios_api::worker::v1;
    use helios_types::{Digest, ErrorCode};

    use super::engine_request;

    const MANIFEST: Digest = Digest::from_bytes([3; 32]);

    fn request() -> v1::GenerateRequest {
        v1::GenerateRequest {
            manifest_digest: MANIFEST.to_string(),
            prompt: vec![1, 2],
            emitted: vec![3],
            max_tokens: 9,
            stop_tokens: vec![4],
            logprobs: Some(2),
            tenant_salt: vec![5].into(),
            sampling: Some(v1::Sampling {
                temperature: 0.5,
                top_k: 6,
                top_p: 0.7,
                min_p: 0.1,
                repetition_penalty: 1.5,
                presence_penalty: 0.25,
                frequency_penalty: 0.75,
                seed: 8,
                logit_bias: vec![v1::LogitBias { token: 7, bias: -1.0 }],
            }),
            ..v1::GenerateRequest::default()
        }
    }

    #[test]
    fn every_field_arrives() {
        let given = engine_request(request(), &MANIFEST).expect("a good request");
        assert_eq!((given.prompt, given.emitted, given.stop_tokens), (vec![1, 2], vec![3], vec![4]));
        assert_eq!((given.max_tokens, given.logprobs, given.prompt_logprobs), (9, Some(2), None));
        assert_eq!(given.salt, [5]);
        let sampling = given.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (0.5, 0.7, 0.1));
        assert_eq!((sampling.top_k, sampling.seed, sampling.repetition_penalty), (6, 8, 1.5));
        assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (0.25, 0.75));
        assert_eq!(sampling.logit_bias, [(7, -1.0)]);
    }

    #[test]
    fn what_the_wire_got_wrong_is_named() {
        type Change = fn(&mut v1::GenerateRequest);
        let cases: [(&str, ErrorCode, Change); 5] = [
            ("manifest_digest", ErrorCode::InvalidRequest, |request| request.manifest_digest.clear()),
            ("serves manifest", ErrorCode::ModelNotFound, |request| {
                request.manifest_digest = Digest::from_bytes([4; 32]).to_string();
            }),
            ("sampling", ErrorCode::InvalidRequest, |request| request.sampling = None),
            ("tenant_salt", ErrorCode::InvalidRequest, |request| request.tenant_salt = vec![0; 1025].into()),
            ("request_id", ErrorCode::InvalidRequest, |request| request.request_id = "x".repeat(513)),
        ];
        for (word, code, change) in cases {
            let mut request = request();
            change(&mut request);
            let error = engine_request(request, &MANIFEST).expect_err(word);
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(word), "{error}");
        }
    }
}
