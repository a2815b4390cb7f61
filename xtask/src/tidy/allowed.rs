//! The allow-list of lengths: one line for each exception, `function PATH NAME LENGTH` or `file PATH LENGTH`.
//!
//! It is a ratchet: an entry that is longer than what it allows must be lowered, one that is not needed must go, and
//! none may be larger than in the last commit.

use super::Finding;
use crate::failure::{Failure, Result};
use std::collections::BTreeMap;

/// Where the list is.
pub(crate) const PATH: &str = "xtask/tidy.txt";

/// The list while files are checked against it.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    length_max: usize,
    used: bool,
}

impl Allowed {
    /// Reads the list; `#` starts a comment.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut allowed = Self::default();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let (key, length) = match words.as_slice() {
                [] => continue,
                ["function", path, name, length] => (format!("function {path} {name}"), length),
                ["file", path, length] => (format!("file {path}"), length),
                _ => return Err(unreadable(index, line)),
            };
            let length_max = length.parse().map_err(|_| unreadable(index, line))?;
            allowed.entries.insert(key, Entry { line: index + 1, length_max, used: false });
        }
        Ok(allowed)
    }

    /// What to say about something that is too long: nothing if the list allows exactly this length.
    pub(crate) fn verdict(&mut self, key: &str, length: usize) -> Option<String> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Some(format!("{length} lines"));
        };
        entry.used = true;
        match length.cmp(&entry.length_max) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => {
                Some(format!("{length} lines, {PATH} allows {}", entry.length_max))
            }
            std::cmp::Ordering::Less => Some(format!("down to {length} lines: lower its entry in {PATH}")),
        }
    }

    /// Entries that nothing needed.
    pub(crate) fn unused(&self) -> Vec<Finding> {
        let unused = self.entries.iter().filter(|(_, entry)| !entry.used);
        unused
            .map(|(key, entry)| Finding::new(PATH, entry.line, format!("`{key}` is not needed: remove it")))
            .collect()
    }

    /// Entries larger than in the committed list; an empty committed list allows the first one.
    pub(crate) fn grown_since(&self, committed: &str) -> Vec<Finding> {
        let Ok(before) = Self::parse(committed) else { return Vec::new() };
        let mut findings = Vec::new();
        for (key, entry) in &self.entries {
            if let Some(old) = before.entries.get(key)
                && entry.length_max > old.length_max
            {
                let message = format!("`{key}` grew from {} to {}", old.length_max, entry.length_max);
                findings.push(Finding::new(PATH, entry.line, message));
            }
        }
        findings
    }
}

fn unreadable(index: usize, line: &str) -> Failure {
    Failure::new(format!(
        "{PATH}:{}: expected `function PATH NAME LENGTH` or `file PATH LENGTH`, found {line:?}",
        index + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\nfunction a.rs long 80 # why\nfile b.rs 600\n";

    #[test]
    fn allows_the_exact_length_only() {
        let mut allowed = Allowed::parse(LIST).unwrap();
        assert_eq!(allowed.verdict("function a.rs long", 80), None);
        assert!(allowed.verdict("function a.rs long", 81).is_some_and(|text| text.contains("allows 80")));
        assert!(allowed.verdict("function a.rs long", 75).is_some_and(|text| text.contains("lower")));
        assert!(allowed.verdict("function a.rs other", 75).is_some());
        assert_eq!(allowed.unused().len(), 1);
    }

    #[test]
    fn an_entry_may_not_grow_and_a_line_must_parse() {
        let grown = Allowed::parse("file b.rs 601").unwrap();
        assert_eq!(grown.grown_since(LIST).len(), 1);
        assert!(Allowed::parse("file b.rs 600").unwrap().grown_since(LIST).is_empty());
        assert!(Allowed::parse("file b.rs many").is_err());
    }
}
