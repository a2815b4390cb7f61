//! Names as the hub's and the OCI protocol spell them.
//!
//! A model name of two parts is the repository of that name; one of a single part is `helios/NAME`.

use helios_registry::protocol::is_reserved;
use helios_types::ModelRef;

/// The organisation of models whose name has none.
const OWN_ORGANISATION: &str = "helios";

/// Whether a text can name a repository of the hub: one or two parts.
pub(crate) fn is_repository(text: &str) -> bool {
    is_artifact(text) && text.split('/').count() <= 2
}

/// Whether a text can name an artifact: a name without tag that would not be taken for a route.
pub(crate) fn is_artifact(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let is_own = first == OWN_ORGANISATION && text.split('/').count() == 2;
    !text.contains(':') && text.parse::<ModelRef>().is_ok() && (is_own || !is_reserved(text))
}

/// The repository that a model is on the hub; `None` for names of more than two parts, which the hub does not have.
pub(crate) fn repository_of(name: &str) -> Option<String> {
    match name.split('/').count() {
        1 => Some(format!("{OWN_ORGANISATION}/{name}")),
        2 => Some(name.to_owned()),
        _ => None,
    }
}

/// The name of the model behind a repository.
pub(crate) fn model_name(repository: &str) -> &str {
    match repository.split_once('/') {
        Some((OWN_ORGANISATION, name)) => name,
        _ => repository,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_repository, model_name, repository_of};

    #[test]
    fn names_and_repositories_are_two_spellings_of_one_thing() {
        for name in ["smollm2", "org/repo"] {
            assert_eq!(model_name(&repository_of(name).expect(name)), name);
        }
        assert_eq!(repository_of("smollm2").as_deref(), Some("helios/smollm2"));
        assert_eq!(repository_of("a/b/c"), None);
        for good in ["smollm2", "org/repo", "helios/smollm2", "helios/refs", "refs"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "a/b/c",
            "api/x",
            "helios",
            "v2/x",
            "../x",
            "a/..",
            "a:b/c",
            "a//b",
            "datasets/x",
            "org/refs",
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
