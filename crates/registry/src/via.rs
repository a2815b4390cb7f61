//! Through which registries a question came: each adds its name before it asks its parent, and refuses a question that
//! has its name already. So parents in a circle are an error and not an endless question.

use std::future::Future;

use http::{HeaderMap, HeaderValue};

use crate::RegistryError;

/// The names, nearest last, separated by commas.
pub(crate) const VIA_HEADER: &str = "helios-via";

/// Registries that one question may pass.
const HOPS_MAX: usize = 8;

tokio::task_local! {
    static VIA: Vec<String>;
}

/// The registries that the question in work came through.
pub(crate) fn current() -> Vec<String> {
    VIA.try_with(Clone::clone).unwrap_or_default()
}

/// Runs `work` on a question that came through `via`.
pub(crate) async fn scope<F: Future>(via: Vec<String>, work: F) -> F::Output {
    VIA.scope(via, work).await
}

/// What the registry `own` says to its parent.
pub(crate) fn header(own: &str) -> Result<HeaderValue, RegistryError> {
    let mut via = current();
    via.push(own.to_owned());
    HeaderValue::from_str(&via.join(",")).map_err(|_| RegistryError::Internal {
        problem: "a registry's name has characters that no HTTP header can carry".to_owned(),
    })
}

/// The way of a question that has come to the registry `own`.
///
/// # Errors
/// [`RegistryError::ParentCycle`] if it came through here before, or through too many.
pub(crate) fn of_request(headers: &HeaderMap, own: &str) -> Result<Vec<String>, RegistryError> {
    let Some(text) = headers.get(VIA_HEADER).and_then(|value| value.to_str().ok()) else {
        return Ok(Vec::new());
    };
    let via: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if via.len() > HOPS_MAX || via.iter().any(|name| name == own) {
        return Err(RegistryError::ParentCycle { hops: via.len() });
    }
    Ok(via)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::{VIA_HEADER, header, of_request, scope};

    #[tokio::test]
    async fn a_question_that_was_here_before_or_came_too_far_is_refused() {
        let sent = scope(vec!["a".to_owned()], async { header("b") }).await.expect("a header");
        let headers = HeaderMap::from_iter([(HeaderName::from_static(VIA_HEADER), sent)]);
        assert_eq!(of_request(&headers, "c").expect("new here"), ["a", "b"]);
        assert!(of_request(&headers, "a").is_err() && of_request(&headers, "b").is_err());
        let far = ["x"; 9].join(",").parse().expect("a header");
        assert!(
            of_request(&HeaderMap::from_iter([(HeaderName::from_static(VIA_HEADER), far)]), "c").is_err()
        );
        assert!(of_request(&HeaderMap::new(), "c").expect("direct").is_empty());
    }
}
