//! The body of a commit: a line of JSON for each operation. A file's bytes are one long string in its line, base64; they
//! go straight into the store, and what is parsed as JSON is the line without them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use helios_registry::Registry;
use helios_registry::protocol::{BodyPieces, Incoming};

use super::error::HubError;

/// Bytes of a line without the bytes of its file.
const LINE_BYTES_MAX: usize = 1 << 20;

/// One line.
pub(super) struct Line {
    /// Its JSON, in which the file's bytes are an empty string.
    pub(super) json: Vec<u8>,
    /// The file's bytes.
    pub(super) content: Option<Incoming>,
}

/// A body, read line by line.
pub(super) struct Lines {
    body: BodyPieces,
    rest: Bytes,
    ended: bool,
    file_bytes_max: u64,
}

impl Lines {
    /// Of a body whose files have at most `file_bytes_max` bytes each.
    pub(super) fn of(body: BodyPieces, file_bytes_max: u64) -> Self {
        Self { body, rest: Bytes::new(), ended: false, file_bytes_max }
    }

    /// The next line that is not empty; `None` at the end.
    pub(super) async fn next(&mut self, registry: &Registry) -> Result<Option<Line>, HubError> {
        let mut scanner = Scanner::default();
        let mut content: Option<(Incoming, Base64)> = None;
        let mut encoded = Vec::new();
        while !self.ended || !self.rest.is_empty() {
            let is_whole = scanner.scan(&mut self.rest, &mut encoded)?;
            if scanner.has_content && content.is_none() {
                content = Some((Incoming::begin(registry, self.file_bytes_max).await?, Base64::default()));
            }
            if let Some((incoming, base64)) = &mut content {
                incoming.push(&base64.decode(&encoded)?).await?;
                encoded.clear();
            }
            if is_whole && !scanner.line.is_empty() {
                break;
            }
            if self.rest.is_empty() && !self.ended {
                match self.body.next().await? {
                    Some(piece) => self.rest = piece,
                    None => self.ended = true,
                }
            }
        }
        let content = content.map(|(incoming, base64)| base64.finish().map(|()| incoming)).transpose()?;
        let is_there = !scanner.line.is_empty();
        Ok(is_there.then_some(Line { json: scanner.line, content }))
    }
}

/// Where in the JSON of a line the scanner is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Between,
    /// In a string, which began there in the line.
    Text { start: usize, escaped: bool },
    /// In the string that is a file's bytes.
    Content,
}

/// Tells lines apart, and within a line the value of the key `content`.
#[derive(Default)]
struct Scanner {
    line: Vec<u8>,
    place: Place,
    /// Whether the string before was `content`.
    after_key: bool,
    /// Whether a colon followed it.
    expects_content: bool,
    has_content: bool,
}

impl Scanner {
    /// Takes from `input` up to the end of the line, if it is there; what is a file's bytes goes to `encoded`.
    fn scan(&mut self, input: &mut Bytes, encoded: &mut Vec<u8>) -> Result<bool, HubError> {
        while let Some(&byte) = input.first() {
            if self.place == Place::Content {
                let end = input.iter().position(|&byte| byte == b'"').unwrap_or(input.len());
                encoded.extend_from_slice(&input[..end]);
                input.advance(end);
                if !input.is_empty() {
                    self.place = Place::Between;
                    self.line.extend_from_slice(b"\"\"");
                    input.advance(1);
                }
                continue;
            }
            input.advance(1);
            if self.place == Place::Between && byte == b'\n' {
                return Ok(true);
            }
            self.take(byte)?;
            if self.line.len() > LINE_BYTES_MAX {
                return Err(HubError::bad_request(format!(
                    "a line of the commit has more than {LINE_BYTES_MAX} bytes beside its file"
                )));
            }
        }
        Ok(false)
    }

    fn take(&mut self, byte: u8) -> Result<(), HubError> {
        match self.place {
            Place::Text { escaped: true, start } => self.place = Place::Text { start, escaped: false },
            Place::Text { start, .. } if byte == b'\\' => self.place = Place::Text { start, escaped: true },
            Place::Text { start, .. } if byte == b'"' => {
                self.after_key = &self.line[start..] == b"content";
                self.place = Place::Between;
            }
            Place::Text { .. } | Place::Content => {}
            Place::Between if byte == b'"' && self.expects_content => {
                if self.has_content {
                    return Err(HubError::bad_request("a line of the commit has two files in it"));
                }
                (self.place, self.has_content, self.expects_content) = (Place::Content, true, false);
                return Ok(());
            }
            Place::Between if byte == b'"' => {
                self.place = Place::Text { start: self.line.len() + 1, escaped: false };
            }
            Place::Between if byte.is_ascii_whitespace() => {}
            Place::Between => {
                self.expects_content = byte == b':' && self.after_key;
                self.after_key = false;
            }
        }
        self.line.push(byte);
        Ok(())
    }
}

/// Base64 that comes in pieces of any length.
#[derive(Default)]
struct Base64 {
    /// Fewer than four characters that wait for more.
    rest: Vec<u8>,
    /// Whether the padding was seen, behind which nothing may come.
    padded: bool,
}

impl Base64 {
    fn decode(&mut self, encoded: &[u8]) -> Result<Vec<u8>, HubError> {
        if encoded.is_empty() {
            return Ok(Vec::new());
        }
        self.rest.extend_from_slice(encoded);
        let behind = self.rest.split_off(self.rest.len() / 4 * 4);
        let quads = std::mem::replace(&mut self.rest, behind);
        if self.padded {
            return Err(not_base64());
        }
        self.padded = quads.ends_with(b"=");
        STANDARD.decode(quads).map_err(|_| not_base64())
    }

    fn finish(self) -> Result<(), HubError> {
        if self.rest.is_empty() { Ok(()) } else { Err(not_base64()) }
    }
}

fn not_base64() -> HubError {
    HubError::bad_request("a file of the commit is not base64")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Base64, LINE_BYTES_MAX, Scanner};

    /// Scans one line that comes in pieces of `step` bytes; the line and the bytes of its file.
    fn scan(text: &str, step: usize) -> Result<(String, Vec<u8>), String> {
        let (mut scanner, mut base64, mut file) = (Scanner::default(), Base64::default(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            let (mut piece, mut encoded) = (Bytes::copy_from_slice(piece), Vec::new());
            scanner.scan(&mut piece, &mut encoded).map_err(|error| format!("{error:?}"))?;
            file.extend(base64.decode(&encoded).map_err(|error| format!("{error:?}"))?);
        }
        base64.finish().map_err(|error| format!("{error:?}"))?;
        Ok((String::from_utf8(scanner.line).expect("UTF-8"), file))
    }

    proptest! {
        #[test]
        fn a_file_is_lifted_out_of_its_line_however_it_is_cut(
            file in prop::collection::vec(any::<u8>(), 0..200),
            path in "[a-z\"\\\\{}:, ]{0,20}",
            step in 1_usize..50,
        ) {
            use base64::Engine;
            let encoded = base64::engine::general_purpose::STANDARD.encode(&file);
            let value = serde_json::json!({ "content": encoded, "path": path, "encoding": "base64" });
            let line = serde_json::json!({ "key": "file", "value": value }).to_string();
            let (json, found) = scan(&line, step).expect("a line");
            prop_assert_eq!(found, file);
            let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(&parsed["value"]["path"], &serde_json::json!(path));
            prop_assert_eq!(&parsed["value"]["content"], "");
        }
    }

    #[test]
    fn what_is_no_file_stays_in_the_line() {
        for line in
            [r#"{"key":"header","value":{"summary":"content","description":"x"}}"#, r#"{"content":1}"#]
        {
            assert_eq!(scan(line, 7).expect("a line"), (line.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn long_lines_second_files_and_what_is_not_base64_are_refused() {
        let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        assert!(scan(&long, 4096).expect_err("long").contains("more than 1048576 bytes"));
        for (bad, problem) in [
            (r#"{"content":"AAAA","content":"AAAA"}"#, "two files"),
            (r#"{"content":"AAA"}"#, "not base64"),
            (r#"{"content":"AA==AAAA"}"#, "not base64"),
            (r#"{"content":"A\nAA"}"#, "not base64"),
            (r#"{"content":"../../"}"#, "not base64"),
        ] {
            for step in [1, 100] {
                assert!(scan(bad, step).expect_err(bad).contains(problem), "{bad}");
            }
        }
    }
}
