//! From the name in a request to a model version that is served.

use std::time::Duration;

use helios_api::ApiError;
use helios_types::{Digest, ErrorCode, ModelRef};

use crate::ResolvedModel;
use crate::proxy::Inner;

/// What a client of a model that nobody serves right now is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Names less alike than this are not suggested; `smollm` and `smollm2:135m-instruct` have 0.83.
const LIKENESS_MIN: f64 = 0.75;

/// As [`resolve`], for a request that wants an answer of the model: the store learns what is asked for.
///
/// # Errors
/// As there.
pub(crate) async fn resolve_for_use(proxy: &Inner, name: &str) -> Result<ResolvedModel, ApiError> {
    let meaning = meaning(proxy, name).await?;
    proxy.models.asked_for(&meaning.reference);
    served_by_one(proxy, meaning)
}

/// The version that `name` means, which at least one ready worker serves.
///
/// # Errors
/// `ModelNotFound` with a suggestion; `Unavailable` for a model that exists but that no worker is ready for.
pub(crate) async fn resolve(proxy: &Inner, name: &str) -> Result<ResolvedModel, ApiError> {
    served_by_one(proxy, meaning(proxy, name).await?)
}

/// The version that `name` means, to ready workers if they agree, else to the store.
async fn meaning(proxy: &Inner, name: &str) -> Result<ResolvedModel, ApiError> {
    if let Some(resolved) = served_as(proxy, name) {
        return Ok(resolved);
    }
    match proxy.models.resolve(name).await {
        Err(error) if error.code == ErrorCode::ModelNotFound => Err(not_found(name, &served(proxy))),
        resolved => resolved,
    }
}

/// The version, if a ready worker serves it.
fn served_by_one(proxy: &Inner, resolved: ResolvedModel) -> Result<ResolvedModel, ApiError> {
    let workers = proxy.fleet.workers();
    let serves = |digest: Digest| {
        workers.iter().any(|worker| worker.member.manifest_digest == digest && worker.is_ready())
    };
    if serves(resolved.manifest_digest) {
        return Ok(resolved);
    }
    let message = format!("no worker is ready for model `{}`", resolved.reference);
    Err(ApiError { retry_after: Some(RETRY_AFTER), ..ApiError::new(ErrorCode::Unavailable, message) })
}

/// What ready workers serve under exactly this name, if they agree on the version: no need to ask the store.
fn served_as(proxy: &Inner, name: &str) -> Option<ResolvedModel> {
    let workers = proxy.fleet.workers();
    let named =
        workers.iter().filter(|worker| worker.member.reference.to_string() == name && worker.is_ready());
    let mut members = named.map(|worker| &worker.member);
    let first = members.next()?;
    let agree = members.all(|member| member.manifest_digest == first.manifest_digest);
    let (reference, manifest_digest) = (first.reference.clone(), first.manifest_digest);
    agree.then_some(ResolvedModel { reference, manifest_digest })
}

/// Names under which ready workers serve, each once, in order.
pub(crate) fn served(proxy: &Inner) -> Vec<ModelRef> {
    let workers = proxy.fleet.workers();
    let ready = workers.iter().filter(|worker| worker.is_ready());
    let mut names: Vec<ModelRef> = ready.map(|worker| worker.member.reference.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The error for a name that means nothing, with the served name that is most like it.
pub(crate) fn not_found(name: &str, served: &[ModelRef]) -> ApiError {
    let shown: String = name.chars().take(100).collect();
    let likeness = |model: &ModelRef| {
        let whole = strsim::jaro_winkler(&shown, &model.to_string());
        whole.max(strsim::jaro_winkler(&shown, model.name()))
    };
    let best = served.iter().map(|model| (likeness(model), model)).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match best {
        Some((likeness, model)) if likeness >= LIKENESS_MIN => format!("\n  hint: did you mean `{model}`?"),
        Some(_) => "\n  hint: GET /v1/models lists what is served".to_owned(),
        None => String::new(),
    };
    let message = format!("the model `{shown}` does not exist{hint}");
    ApiError { param: Some("model".to_owned()), ..ApiError::new(ErrorCode::ModelNotFound, message) }
}

#[cfg(test)]
mod tests {
    use super::not_found;

    #[test]
    fn the_likeliest_name_is_suggested_and_no_unlikely_one() {
        let served = ["smollm2:135m-instruct", "qwen3:4b"].map(|name| name.parse().expect("a name"));
        let told = |name: &str| not_found(name, &served).message;
        assert!(told("smollm2:135m-instuct").contains("did you mean `smollm2:135m-instruct`?"));
        assert!(told("smolm2").contains("did you mean `smollm2:135m-instruct`?"));
        assert!(told("qwen").contains("did you mean `qwen3:4b`?"));
        assert!(told("gpt-4o").contains("GET /v1/models"));
        assert!(!not_found("gpt-4o", &[]).message.contains("hint"));
        assert!(told(&"x".repeat(5000)).len() < 300);
    }
}
