//! Names that no model may have: those that would be taken for a route.

use helios_types::ModelRef;

use crate::RegistryError;

/// First parts of names that would be taken for a route, or for the organisation of models whose name has none
/// (`helios`).
const RESERVED: [&str; 12] = [
    "admin", "api", "datasets", "health", "helios", "metrics", "models", "ready", "registry", "spaces", "v1",
    "v2",
];

/// Second parts of names of two parts: in the hub's protocol they begin what is asked of a model whose name is the first.
const RESERVED_BEHIND: [&str; 5] = ["refs", "resolve", "revision", "tree", "xet-write-token"];

/// Refuses names that no model may get.
///
/// # Errors
/// [`RegistryError::ReservedName`].
pub fn check_new(reference: &ModelRef) -> Result<(), RegistryError> {
    match reserved(reference.name()) {
        Some((part, place)) => Err(RegistryError::ReservedName { name: reference.to_string(), part, place }),
        None => Ok(()),
    }
}

/// Whether no model may have this name.
pub fn is_reserved(name: &str) -> bool {
    reserved(name).is_some()
}

/// The part that is reserved, and which it is.
fn reserved(name: &str) -> Option<(&'static str, &'static str)> {
    let parts: Vec<&str> = name.split('/').collect();
    let first = RESERVED.into_iter().find(|reserved| reserved.eq_ignore_ascii_case(parts[0]));
    let second = || match parts[..] {
        [_, second] => RESERVED_BEHIND.into_iter().find(|reserved| *reserved == second),
        _ => None,
    };
    first.map(|part| (part, "first")).or_else(|| second().map(|part| (part, "second")))
}

#[cfg(test)]
mod tests {
    use helios_types::ModelRef;

    use super::check_new;

    #[test]
    fn names_that_would_be_taken_for_a_route_are_refused() {
        let check = |text: &str| check_new(&text.parse::<ModelRef>().expect(text));
        for bad in
            ["api/models", "v1/x", "V2/x:t", "registry", "admin/x", "health", "helios/x", "metrics/a/b"]
        {
            assert!(
                check(bad).expect_err(bad).to_string().contains("hint: choose another first part"),
                "{bad}"
            );
        }
        for bad in ["org/refs", "org/resolve:v1", "m/tree"] {
            assert!(
                check(bad).expect_err(bad).to_string().contains("hint: choose another second part"),
                "{bad}"
            );
        }
        for good in ["apiary/x", "org/api", "smollm2:v1", "v3", "refs", "tree:v1", "a/refs/b", "org/tag"] {
            check(good).expect(good);
        }
    }
}
