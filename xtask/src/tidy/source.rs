//! A Rust file as the rules see it: its text, its code with comments and strings blanked, and its code without tests.
//! A small lexer, no compiler: positions stay the same in all three.

/// One Rust file.
pub(crate) struct RustSource<'a> {
    /// Relative to the repository.
    pub(crate) path: &'a str,
    /// As written.
    pub(crate) text: &'a str,
    /// Comments, strings and character literals replaced by blanks.
    pub(crate) code: String,
    /// `code` with test items replaced by blanks too; empty for a file of tests.
    pub(crate) live: String,
}

/// A function of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its signature, from 1.
    pub(crate) line: usize,
    /// Lines from the signature to the closing brace.
    pub(crate) length: usize,
}

impl<'a> RustSource<'a> {
    /// Lexes a file.
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        let code = blank_text(text);
        let live = if is_test_path(path) { String::new() } else { blank_tests(&code) };
        Self { path, text, code, live }
    }

    /// Lines of code outside tests.
    pub(crate) fn live_lines(&self) -> usize {
        self.live.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Functions with a body, outside tests.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in word_positions(&self.live, "fn") {
            let name: String = self.live[at + 2..]
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if let (false, Some(end)) = (name.is_empty(), item_end(&self.live, at)) {
                let length = self.live[at..end].matches('\n').count() + 1;
                functions.push(Function { name, line: line_of(&self.live, at), length });
            }
        }
        functions
    }
}

/// The line, from 1, of a byte position.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands alone, not as a part of another identifier.
pub(crate) fn word_positions<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let joins = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = text.as_bytes();
        !joins(at.checked_sub(1).and_then(|before| bytes.get(before))) && !joins(bytes.get(at + word.len()))
    })
}

fn is_test_path(path: &str) -> bool {
    let folders = ["tests", "benches", "examples", "fuzz"];
    path.split('/').any(|part| folders.contains(&part))
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}

/// Blanks comments, strings and character literals; line breaks stay.
fn blank_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(text, at);
        for byte in &mut out[at..end.unwrap_or(at)] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.unwrap_or(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment, string or character literal that starts here, if one does.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => Some(rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n)),
        [b'/', b'*', ..] => Some(block_comment_end(bytes, at)),
        [b'"', ..] => Some(string_end(bytes, at)),
        [b'r', ..] | [b'b', b'r', ..] if !joined_to_word(bytes, at) => raw_string_end(text, at),
        [b'\'', ..] => character_end(bytes, at),
        _ => None,
    }
}

fn joined_to_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < bytes.len() && depth > 0 {
        let step = match &bytes[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
    }
    at.min(bytes.len())
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string_end(text: &str, start: usize) -> Option<usize> {
    let after_prefix = text[start..].trim_start_matches(['b', 'r']);
    let hashes = after_prefix.len() - after_prefix.trim_start_matches('#').len();
    let body = text.len() - after_prefix.len() + hashes;
    if !text[body..].starts_with('"') {
        return None;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let end = text[body + 1..].find(&closing).map_or(text.len(), |at| body + 1 + at + closing.len());
    Some(end)
}

/// A character literal ends within a few bytes; anything else after a `'` is a lifetime.
fn character_end(bytes: &[u8], start: usize) -> Option<usize> {
    match bytes.get(start + 1)? {
        b'\\' => bytes[start + 3..].iter().position(|byte| *byte == b'\'').map(|n| start + 3 + n + 1),
        _ => {
            let window = &bytes[start + 1..bytes.len().min(start + 6)];
            let length =
                std::str::from_utf8(window).ok().or_else(|| valid_prefix(window))?.chars().next()?.len_utf8();
            (bytes.get(start + 1 + length) == Some(&b'\'')).then_some(start + length + 2)
        }
    }
}

fn valid_prefix(bytes: &[u8]) -> Option<&str> {
    let valid = std::str::from_utf8(bytes).err()?.valid_up_to();
    std::str::from_utf8(&bytes[..valid]).ok()
}

/// Blanks `#[cfg(test)]` items and functions under a test attribute.
fn blank_tests(code: &str) -> String {
    let mut live = code.to_owned();
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test", "#[test]", "#[tokio::test"] {
        let mut from = 0;
        while let Some(at) = live[from..].find(marker).map(|n| from + n) {
            let after = at + marker.len();
            let end = item_end(&live, after).or_else(|| live[after..].find(';').map(|n| after + n + 1));
            let end = end.unwrap_or(live.len());
            let blanked: String = live[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            live.replace_range(at..end, &blanked);
            from = (at + blanked.len()).min(live.len());
        }
    }
    live
}

/// Just past the brace that closes the first block from here; `None` for an item without a body.
fn item_end(code: &str, from: usize) -> Option<usize> {
    let (mut brackets, mut depth) = (0_i32, 0_i32);
    for (offset, byte) in code.as_bytes()[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' if depth == 0 => brackets += 1,
            b')' | b']' if depth == 0 => brackets -= 1,
            b';' if depth == 0 && brackets == 0 => return None,
            b'{' if depth > 0 || brackets == 0 => depth += 1,
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(from + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blank_and_lifetimes_stay() {
        let text = "let a = \"fn {\"; // }\nlet b = r#\"{\"#; let c = '{'; let d = '\\''; fn e<'a>(x: &'a str) {}\n/* { /* } */ */";
        let code = blank_text(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches("'a").count(), 2);
        assert_eq!(code.matches('\n').count(), 2);
    }

    #[test]
    fn multibyte_characters_are_lexed() {
        let code = blank_text("let a = '→'; let b = 'é'; fn f() {}");
        assert!(code.contains("fn f() {}"));
        assert!(!code.contains('→'));
    }

    #[test]
    fn functions_are_measured_and_tests_left_out() {
        let text = "fn a(x: [u8; 2]) {\n\n}\ntrait T { fn body_less(&self); }\n#[cfg(test)]\nmod tests {\n fn c() {}\n}\n";
        let source = RustSource::new("crates/x/src/a.rs", text);
        assert_eq!(source.functions(), [Function { name: "a".to_owned(), line: 1, length: 3 }]);
        assert_eq!(source.live_lines(), 3);
    }
}
