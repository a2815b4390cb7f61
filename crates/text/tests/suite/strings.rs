//! Hostile strings against the token ids of the PyPI `tokenizers` library (`python/reference/tokenizer_strings.py`).

use helios_text::{Detokenizer, SpecialText};

use crate::model::{read_named_by, tokenizer};

/// One string and the ids that the reference gives it.
struct Case {
    text: String,
    ids: Vec<u32>,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn length(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes")) as usize
    }

    fn case(&mut self) -> Case {
        let bytes = self.length();
        let text = String::from_utf8(self.take(bytes).to_vec()).expect("UTF-8");
        let tokens = self.length();
        let ids =
            self.take(tokens * 2).chunks_exact(2).map(|id| u32::from(u16::from_le_bytes([id[0], id[1]])));
        Case { text, ids: ids.collect() }
    }
}

fn read(file: &[u8]) -> Vec<Case> {
    let mut cursor = Cursor(file);
    assert_eq!(cursor.take(8), b"HTXTSTR1");
    let count = cursor.length();
    (0..count).map(|_| cursor.case()).collect()
}

fn assert_equal_to_reference(cases: &[Case]) {
    let tokenizer = tokenizer();
    let mut different = Vec::new();
    for case in cases {
        let ids = tokenizer.encode(&case.text, SpecialText::Parse).expect("hostile text is text");
        if ids != case.ids {
            different.push((&case.text, ids, &case.ids));
        }
    }
    let shown = &different[..different.len().min(8)];
    assert!(different.is_empty(), "{} of {} strings differ: {shown:?}", different.len(), cases.len());
}

#[test]
fn hostile_strings_get_the_ids_of_the_reference() {
    let cases = read(include_bytes!("../fixtures/smollm2.strings"));
    assert!(cases.len() >= 5_000, "only {} strings", cases.len());
    assert_equal_to_reference(&cases);
}

#[test]
fn a_hundred_thousand_strings_get_the_ids_of_the_reference() {
    let cases = read(&read_named_by("HELIOS_TEST_STRINGS"));
    assert!(cases.len() >= 100_000, "only {} strings", cases.len());
    assert_equal_to_reference(&cases);
}

/// The model's vocabulary has no token for these bytes; the reference, too, drops them.
const BYTES_WITHOUT_TOKEN: &[u8] = &[0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2];

#[test]
fn hostile_strings_come_back() {
    let tokenizer = tokenizer();
    for case in read(include_bytes!("../fixtures/smollm2.strings")) {
        if case.text.bytes().any(|byte| BYTES_WITHOUT_TOKEN.contains(&byte)) {
            continue;
        }
        assert_eq!(tokenizer.decode(&case.ids, true).expect("known ids"), case.text);
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), true);
        let mut text: String = case.ids.iter().map(|id| detokenizer.push(*id).expect("known id")).collect();
        text.push_str(&detokenizer.finish());
        assert_eq!(text, case.text);
    }
}
