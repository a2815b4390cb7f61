//! `GET /v1/models` and `GET /v1/models/{id}`: what is served right now.

use axum::body::Body;
use helios_api::ApiError;
use helios_api::openai::{self, ModelCard};
use helios_types::{ErrorCode, ModelRef};
use http::{Response, StatusCode};

use crate::proxy::Inner;
use crate::reply;
use crate::resolve::{not_found, resolve, served};

/// All models with a ready worker, in order of their names.
pub(crate) fn list(proxy: &Inner) -> Response<Body> {
    let cards: Vec<ModelCard> = served(proxy).into_iter().map(|model| card(proxy, &model)).collect();
    reply::json(StatusCode::OK, openai::model_list(&cards))
}

/// One of them, by any name that a request could use.
pub(crate) async fn one(proxy: &Inner, encoded_id: &str) -> Result<Response<Body>, ApiError> {
    let id = percent_decode(encoded_id).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the model id `{encoded_id}` is not percent-encoded UTF-8"),
        )
    })?;
    let resolved = resolve(proxy, &id).await?;
    let workers = proxy.fleet.workers();
    let serving = workers.iter().find(|worker| worker.member.manifest_digest == resolved.manifest_digest);
    let serving = serving.ok_or_else(|| not_found(&id, &served(proxy)))?;
    let card = ModelCard { id, ..card(proxy, &serving.member.reference) };
    Ok(reply::json(StatusCode::OK, openai::model_card(&card)))
}

fn card(proxy: &Inner, model: &ModelRef) -> ModelCard {
    let workers = proxy.fleet.workers();
    let serving = workers.iter().filter(|worker| worker.member.reference == *model);
    let (mut created_ms, mut context_tokens_max) = (u64::MAX, None);
    for worker in serving {
        created_ms = created_ms.min(worker.joined_unix_ms);
        let context = worker.view().map(|view| view.model.context_tokens_max);
        context_tokens_max = context_tokens_max.max(context);
    }
    ModelCard {
        id: model.to_string(),
        created: created_ms / 1000,
        owned_by: "helios".to_owned(),
        context_tokens_max,
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn ids_are_decoded_once() {
        let decoded = |text| percent_decode(text);
        assert_eq!(decoded("org/name:tag").as_deref(), Some("org/name:tag"));
        assert_eq!(decoded("org%2Fname%3atag").as_deref(), Some("org/name:tag"));
        assert_eq!(decoded("a%252F").as_deref(), Some("a%2F"));
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
