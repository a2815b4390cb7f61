//! Words: what ties the repository to one machine or one mirror, and notes without an owner.

use super::Finding;

/// Folders of one machine. Pieced together, so that this file passes its own rule.
const LOCAL_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp", "/w/")];

/// Registry hosts: a package is named, the user's own configuration says where it comes from.
const REGISTRY_HOSTS: [&str; 4] = [
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js.org"),
    concat!("static.crates", ".io"),
];

/// How a comment starts, by the ending of a file's path.
const COMMENT_SIGNS: [(&str, &str); 7] = [
    (".rs", "//"),
    (".proto", "//"),
    (".mjs", "//"),
    (".cpp", "//"),
    (".py", "#"),
    (".toml", "#"),
    (".ci/run", "#"),
];

/// Everything of this file that the words rules forbid.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = check_form(path, text);
    let comment_sign = COMMENT_SIGNS.iter().find(|(ending, _)| path.ends_with(ending)).map(|(_, sign)| *sign);
    for (index, line) in text.lines().enumerate() {
        let mut add = |message: String| findings.push(Finding::new(path, index + 1, message));
        if let Some(found) = LOCAL_PATHS.iter().find(|word| contains_path(line, word)) {
            add(format!("{found:?}: a path of one machine"));
        }
        if let Some(found) = REGISTRY_HOSTS.iter().find(|word| line.contains(*word)) {
            add(format!("{found:?}: a registry host; name the package only"));
        }
        if is_lock_file(path)
            && ["\"resolved\"", "--index-url", "--find-links"].iter().any(|word| line.contains(word))
        {
            add("a lock file names versions and digests, not addresses".to_owned());
        }
        if comment_sign.is_some_and(|sign| is_note_without_owner(line, sign)) {
            add("a note needs an issue: TO\u{44}O(#12)".to_owned());
        }
    }
    findings
}

/// What the beginning of a script must look like.
fn check_form(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first =
        text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty()).unwrap_or_default();
    if path.ends_with(".py") && !first.starts_with("\"\"\"") {
        findings.push(Finding::new(path, 1, "a Python file starts with a docstring"));
    }
    let is_shell = text.lines().next().is_some_and(|line| line.starts_with("#!") && line.ends_with("bash"));
    if is_shell && !text.contains("set -euo pipefail") {
        findings.push(Finding::new(path, 1, "a bash script sets -euo pipefail"));
    }
    findings
}

fn is_lock_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "package-lock.json" || name.starts_with("requirements") && name.ends_with(".txt")
}

/// Whether the line has this absolute path, not the end of a longer one such as `target/x/`.
fn contains_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}$)*]".contains(c))
    })
}

/// Whether the comment on this line, if there is one, holds a note that names no issue.
fn is_note_without_owner(line: &str, comment_sign: &str) -> bool {
    let note = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let is_outside_strings = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    let start = line.match_indices(comment_sign).map(|(at, _)| at).find(is_outside_strings);
    let comment = start.map_or("", |at| &line[at..]);
    note.iter().any(|word| {
        comment.match_indices(word).any(|(at, _)| {
            let joins = |c: char| c.is_alphanumeric() || c == '_';
            let after = &comment[at + word.len()..];
            !comment[..at].ends_with(joins) && !after.starts_with(joins) && !after.starts_with("(#")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_machine_are_found_and_relative_ones_are_not() {
        for word in LOCAL_PATHS {
            assert_eq!(check("README.md", &format!("see {word}x")).len(), 1, "{word}");
            assert!(check("README.md", &format!("see target{word}x")).is_empty(), "{word}");
        }
    }

    #[test]
    fn registry_hosts_and_addresses_in_lock_files_are_found() {
        for host in REGISTRY_HOSTS {
            assert_eq!(check("docs/a.md", &format!("from https://{host}/simple")).len(), 1, "{host}");
        }
        assert_eq!(check("tests/package-lock.json", "\"resolved\": \"x\"").len(), 1);
        assert_eq!(check("python/requirements-a.txt", "--index-url x").len(), 1);
        assert!(check("docs/a.md", "--index-url x").is_empty());
    }

    #[test]
    fn a_note_needs_an_issue() {
        let note = concat!("TO", "DO");
        assert_eq!(check("a.rs", &format!("// {note}: later")).len(), 1);
        assert!(check("a.rs", &format!("// {note}(#12): later")).is_empty());
        assert!(check("a.rs", &format!("const A: &str = \"// {note}\";")).is_empty());
        assert_eq!(check("a.py", &format!("\"\"\"A.\"\"\"\n# {note} later")).len(), 1);
    }

    #[test]
    fn scripts_begin_as_they_should() {
        assert_eq!(check("python/a.py", "import os\n").len(), 1);
        assert!(check("python/a.py", "#!/usr/bin/env python3\n\"\"\"Does it.\"\"\"\n").is_empty());
        assert_eq!(check(".ci/run", "#!/usr/bin/env bash\necho\n").len(), 1);
        assert!(check(".ci/run", "#!/usr/bin/env bash\nset -euo pipefail\n").is_empty());
    }
}
