//! Names that no model may have: those that would be taken for a route.

use helios_types::ModelRef;

use crate::RegistryError;

/// First parts of names that would be taken for a route, or for the organisation of models whose name has none
/// (`helios`).
const RESERVED: [&str; 12] = [
    "admin", "api", "datasets", "health", "helios", "metrics", "models", "ready", "registry", "spaces", "v1",
    "v2",
];

/// Refuses names that no model may get.
pub(crate) fn check_new(reference: &ModelRef) -> Result<(), RegistryError> {
    match reserved(reference.name()) {
        Some(prefix) => Err(RegistryError::ReservedName { name: reference.to_string(), prefix }),
        None => Ok(()),
    }
}

/// Whether no model may have this name, for what it begins with.
pub fn is_reserved(name: &str) -> bool {
    reserved(name).is_some()
}

fn reserved(name: &str) -> Option<&'static str> {
    let first = name.split('/').next().unwrap_or_default();
    RESERVED.into_iter().find(|reserved| reserved.eq_ignore_ascii_case(first))
}

#[cfg(test)]
mod tests {
    use helios_types::ModelRef;

    use super::check_new;

    #[test]
    fn names_that_begin_with_a_route_are_refused() {
        let check = |text: &str| check_new(&text.parse::<ModelRef>().expect(text));
        for bad in
            ["api/models", "v1/x", "V2/x:t", "registry", "admin/x", "health", "helios/x", "metrics/a/b"]
        {
            assert!(check(bad).expect_err(bad).to_string().contains("hint: "), "{bad}");
        }
        for good in ["apiary/x", "org/api", "smollm2:v1", "v3"] {
            check(good).expect(good);
        }
    }
}
