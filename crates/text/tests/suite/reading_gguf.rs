//! As much of a GGUF reader as these tests need: the metadata of a file that is known to be good. `helios-storage` has
//! the real one, which this crate must not see.

use std::collections::HashMap;

use helios_text::GgufVocab;

/// A metadata value of a kind that the tokenizer's fields have.
pub(crate) enum Field {
    Number(u32),
    Text(String),
    Numbers(Vec<u32>),
    Texts(Vec<String>),
    Other,
}

/// The metadata of a GGUF file.
pub(crate) struct Metadata(HashMap<String, Field>);

struct Reader<'a>(&'a [u8]);

impl Metadata {
    pub(crate) fn read(file: &[u8]) -> Self {
        let mut reader = Reader(file);
        assert_eq!(reader.take(4), b"GGUF");
        assert_eq!(reader.u32(), 3, "version");
        let _tensors = reader.u64();
        let fields = reader.u64();
        Self((0..fields).map(|_| (reader.text(), reader.value())).collect())
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let Some(Field::Text(text)) = self.0.get(name) else { panic!("{name} is not a text") };
        text.clone()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let Some(Field::Texts(texts)) = self.0.get(name) else { panic!("{name} is not a list of texts") };
        texts.clone()
    }

    fn number(&self, name: &str) -> Option<u32> {
        let Some(Field::Number(number)) = self.0.get(name) else { return None };
        Some(*number)
    }

    pub(crate) fn vocab(&self) -> GgufVocab {
        let Some(Field::Numbers(types)) = self.0.get("tokenizer.ggml.token_type") else {
            panic!("no token types")
        };
        GgufVocab {
            model: self.text("tokenizer.ggml.model"),
            pre: Some(self.text("tokenizer.ggml.pre")),
            tokens: self.texts("tokenizer.ggml.tokens"),
            token_types: types.clone(),
            merges: self.texts("tokenizer.ggml.merges"),
            bos: self.number("tokenizer.ggml.bos_token_id"),
            eos: self.number("tokenizer.ggml.eos_token_id"),
            unknown: self.number("tokenizer.ggml.unknown_token_id"),
            pad: self.number("tokenizer.ggml.padding_token_id"),
            add_bos: self.number("tokenizer.ggml.add_bos_token") == Some(1),
            ..GgufVocab::default()
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        String::from_utf8(self.take(length).to_vec()).expect("UTF-8")
    }

    fn value(&mut self) -> Field {
        let kind = self.u32();
        self.value_of(kind)
    }

    fn value_of(&mut self, kind: u32) -> Field {
        match kind {
            4 | 5 => Field::Number(self.u32()),
            7 => Field::Number(u32::from(self.take(1)[0])),
            8 => Field::Text(self.text()),
            9 => self.list(),
            0 | 1 => self.skip(1),
            2 | 3 => self.skip(2),
            6 => self.skip(4),
            _ => self.skip(8),
        }
    }

    fn skip(&mut self, bytes: usize) -> Field {
        self.take(bytes);
        Field::Other
    }

    fn list(&mut self) -> Field {
        let (kind, count) = (self.u32(), self.u64());
        match kind {
            4 | 5 => Field::Numbers((0..count).map(|_| self.u32()).collect()),
            8 => Field::Texts((0..count).map(|_| self.text()).collect()),
            _ => {
                (0..count).for_each(|_| drop(self.value_of(kind)));
                Field::Other
            }
        }
    }
}
