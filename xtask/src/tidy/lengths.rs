//! Lengths: where clear codebases differ from muddled ones is the tail, so the tail is what is fenced.

use super::Finding;
use super::allowed::Allowed;
use super::source::RustSource;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const FILE_LINES_JUSTIFIED_MAX: usize = 1000;

/// Functions and files that are too long.
pub(crate) fn check(source: &RustSource<'_>, allowed: &mut Allowed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in source.functions() {
        if function.length > FUNCTION_LINES_MAX {
            let key = format!("function {} {}", source.path, function.name);
            let verdict = allowed.verdict(&key, function.length);
            findings.extend(verdict.map(|text| {
                Finding::new(source.path, function.line, format!("function `{}`: {text}", function.name))
            }));
        }
    }
    let lines = source.live_lines();
    if lines > FILE_LINES_MAX {
        let verdict = allowed.verdict(&format!("file {}", source.path), lines);
        findings.extend(verdict.map(|text| Finding::new(source.path, 1, format!("file: {text}"))));
    }
    if lines > FILE_LINES_JUSTIFIED_MAX && !source.text.lines().any(|line| line.starts_with("//! Length:")) {
        findings.push(Finding::new(
            source.path,
            1,
            "a file over 1,000 lines says why in a `//! Length:` line",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Finding> {
        check(&RustSource::new("crates/x/src/a.rs", text), &mut Allowed::default())
    }

    #[test]
    fn a_function_of_71_lines_is_found_and_one_of_70_is_not() {
        let function = |lines: usize| format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
        assert!(findings(&function(70)).is_empty());
        assert!(findings(&function(71))[0].message.contains("`long`: 71 lines"));
    }

    #[test]
    fn a_long_file_is_found_and_a_very_long_one_must_say_why() {
        let file = |lines: usize| "const A: u8 = 1;\n".repeat(lines);
        assert!(findings(&file(500)).is_empty());
        assert_eq!(findings(&file(501)).len(), 1);
        assert_eq!(findings(&file(1001)).len(), 2);
        assert_eq!(findings(&format!("//! Length: a flat table\n{}", file(1001))).len(), 1);
    }
}
