//! Names as the hub's and the OCI protocol spell them, and names that no model may have.
//!
//! A model name of two parts is the repository of that name; one of a single part is `helios/NAME`.

use helios_types::ModelRef;

use crate::RegistryError;

/// The organisation of models whose name has none.
const OWN_ORGANISATION: &str = "helios";

/// First parts of names that would be taken for a route, or for [`OWN_ORGANISATION`].
const RESERVED: [&str; 12] = [
    "admin",
    "api",
    "datasets",
    "health",
    OWN_ORGANISATION,
    "metrics",
    "models",
    "ready",
    "registry",
    "spaces",
    "v1",
    "v2",
];

/// Refuses names that no model may get.
pub(crate) fn check_new(reference: &ModelRef) -> Result<(), RegistryError> {
    let first = reference.name().split('/').next().unwrap_or_default();
    match RESERVED.iter().find(|reserved| reserved.eq_ignore_ascii_case(first)) {
        Some(prefix) => Err(RegistryError::ReservedName { name: reference.to_string(), prefix }),
        None => Ok(()),
    }
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
