//! Patterns that do not belong into the code: unfinished work, panics in disguise, dead text, vague names.

use super::Finding;
use super::source::{RustSource, line_of, word_positions};

/// The crates that may hold `unsafe`.
const UNSAFE_HOMES: [&str; 2] = ["crates/kernels/", "crates/storage/"];

const BANNED: [(&str, &str); 4] = [
    (".unwrap()", "unwrap() outside tests: return the error, or expect(\"invariant: …\") what is proven"),
    ("todo!(", "todo!: what is not there is absent, not stubbed"),
    ("unimplemented!(", "unimplemented!: what is not there is absent, not stubbed"),
    ("dbg!(", "dbg!: use tracing"),
];

const VAGUE_NAMES: [&str; 8] = ["util", "utils", "common", "misc", "helper", "helpers", "core", "shared"];

/// What a line of code starts and ends with when it is put behind `//`.
const CODE_STARTS: [&str; 10] =
    ["let ", "use ", "pub ", "fn ", "return ", "if ", "for ", "while ", "match ", "self."];
const CODE_ENDS: [&str; 3] = [";", "{", "}"];

/// Everything of this file that a pattern forbids.
pub(crate) fn check(source: &RustSource<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_head(source));
    findings.extend(check_name(source.path));
    findings.extend(check_unsafe(source));
    for (pattern, message) in BANNED {
        let places = source.live.match_indices(pattern).map(|(at, _)| line_of(&source.live, at));
        findings.extend(places.map(|line| Finding::new(source.path, line, message)));
    }
    for (index, line) in source.text.lines().enumerate() {
        if is_commented_out_code(line.trim()) {
            findings.push(Finding::new(source.path, index + 1, "commented-out code: git remembers it"));
        }
    }
    findings
}

fn check_head(source: &RustSource<'_>) -> Option<Finding> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let message = "a file starts with `//!`: what it is, what it is not, its invariants";
    (!first.starts_with("//!")).then(|| Finding::new(source.path, 1, message))
}

fn check_name(path: &str) -> Option<Finding> {
    let vague =
        path.split('/').map(|part| part.trim_end_matches(".rs")).find(|part| VAGUE_NAMES.contains(part))?;
    Some(Finding::new(path, 1, format!("{vague:?} names no concept: split by concept")))
}

fn check_unsafe(source: &RustSource<'_>) -> Vec<Finding> {
    if UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for at in word_positions(&source.code, "unsafe") {
        let next = source.code[at + "unsafe".len()..].trim_start();
        if ["{", "fn", "impl", "extern", "trait"].iter().any(|start| next.starts_with(start)) {
            let line = line_of(&source.code, at);
            findings.push(Finding::new(
                source.path,
                line,
                "unsafe outside helios-kernels and helios-storage",
            ));
        }
    }
    let is_crate_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    if is_crate_root && !source.code.contains("#![forbid(unsafe_code)]") {
        findings.push(Finding::new(source.path, 1, "the crate root lacks #![forbid(unsafe_code)]"));
    }
    findings
}

fn is_commented_out_code(line: &str) -> bool {
    let Some(comment) = line.strip_prefix("//") else { return false };
    if comment.starts_with(['/', '!']) {
        return false;
    }
    let comment = comment.trim();
    let starts = CODE_STARTS.iter().any(|start| comment.starts_with(start));
    comment == "}" || starts && CODE_ENDS.iter().any(|end| comment.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&RustSource::new(path, text)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn clean_code_has_no_findings() {
        let text = "//! A file.\n// for the reader; a sentence may end so:\nfn a() -> Option<u8> { None }\n";
        assert!(messages("crates/engine/src/a.rs", text).is_empty());
    }

    #[test]
    fn each_banned_pattern_is_found_in_code_and_not_in_strings_or_tests() {
        for (pattern, message) in BANNED {
            let call = pattern.trim_end_matches('(').trim_end_matches(')').trim_end_matches('(');
            let code = format!("//! A file.\nfn a() {{ x{call}(); }}\n");
            assert_eq!(messages("crates/engine/src/a.rs", &code), [message]);
            let text = format!(
                "//! A file.\nconst A: &str = \"x{call}()\";\n#[cfg(test)]\nmod tests {{ fn b() {{ x{call}(); }} }}\n"
            );
            assert!(messages("crates/engine/src/a.rs", &text).is_empty());
        }
    }

    #[test]
    fn a_missing_head_a_vague_name_and_dead_code_are_found() {
        assert!(messages("crates/engine/src/a.rs", "fn a() {}\n")[0].contains("starts with"));
        assert!(messages("crates/engine/src/utils.rs", "//! A.\n")[0].contains("utils"));
        assert!(messages("crates/engine/src/common/a.rs", "//! A.\n")[0].contains("common"));
        assert!(messages("crates/engine/src/a.rs", "//! A.\n// let x = y();\n")[0].contains("git remembers"));
    }

    #[test]
    fn unsafe_is_found_outside_its_homes_tests_included() {
        let text = "//! A.\n#[cfg(test)]\nmod tests { fn a() { unsafe { b() } } }\n";
        assert_eq!(messages("crates/engine/src/a.rs", text).len(), 1);
        assert!(messages("crates/kernels/src/a.rs", text).is_empty());
        assert!(messages("crates/engine/src/lib.rs", "//! A.\n")[0].contains("forbid"));
    }
}
