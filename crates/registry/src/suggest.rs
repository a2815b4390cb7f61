//! "Did you mean": the known name that is nearest to one that is not known.

use helios_types::ModelRef;

/// Similarity, from 0 to 1, under which a suggestion would only confuse.
const SIMILARITY_MIN: f64 = 0.7;

/// The nearest of the known names, if it is near enough. O(names).
pub(crate) fn suggestion(model: &ModelRef, known: impl Iterator<Item = ModelRef>) -> Option<String> {
    let similarity = |candidate: &ModelRef| {
        let whole = strsim::jaro_winkler(&model.to_string(), &candidate.to_string());
        whole.max(strsim::jaro_winkler(model.name(), candidate.name()))
    };
    known
        .map(|candidate| (similarity(&candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.to_string())
}

#[cfg(test)]
mod tests {
    use helios_types::ModelRef;

    use super::suggestion;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let model = |text: &str| text.parse::<ModelRef>().expect(text);
        let known = || [model("smollm2:135m-instruct"), model("org/other:v1")].into_iter();
        assert_eq!(suggestion(&model("smolm2"), known()).as_deref(), Some("smollm2:135m-instruct"));
        assert_eq!(suggestion(&model("smollm2:135m"), known()).as_deref(), Some("smollm2:135m-instruct"));
        assert_eq!(suggestion(&model("zzz"), known()), None);
    }
}
