//! Stop strings over a stream of text pieces.
//!
//! Text is held back exactly as long as it may be the beginning of a stop string. Among several stop strings the one
//! that is complete first wins, and of those that end at the same byte the longest, so the result does not depend on
//! how the text was cut into pieces.

/// Finds the first of several stop strings in text that arrives in pieces.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<StopString>,
    held: String,
    stopped: bool,
}

/// What [`StopMatcher::push`] says about a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Text that can be shown now. Nothing of a stop string, and nothing after it.
    pub text: String,
    /// Index, among the strings given to [`StopMatcher::new`], of the stop string that was found.
    pub stop: Option<usize>,
}

/// One stop string as a Knuth-Morris-Pratt automaton over bytes.
#[derive(Clone, Debug)]
struct StopString {
    index: usize,
    bytes: Vec<u8>,
    /// `borders[n]`: length of the longest proper prefix of `bytes[..=n]` that is also its suffix.
    borders: Vec<usize>,
    /// How many bytes of the stop string the text read so far ends with.
    matched: usize,
}

impl StopMatcher {
    /// A matcher for `stops`. Empty strings are ignored; with none left, text passes straight through.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let stops = stops.iter().enumerate().filter(|(_, stop)| !stop.as_ref().is_empty());
        let stops = stops.map(|(index, stop)| StopString::new(index, stop.as_ref())).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Reads a piece of text. After a stop was found, everything further is dropped.
    pub fn push(&mut self, piece: &str) -> Stopped {
        if self.stopped {
            return Stopped { text: String::new(), stop: None };
        }
        let read_before = self.held.len();
        self.held.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            if let Some((index, length)) = self.advance(byte) {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(read_before + offset + 1 - length);
                return Stopped { text, stop: Some(index) };
            }
        }
        let held_back = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - held_back);
        Stopped { text: std::mem::replace(&mut self.held, held), stop: None }
    }

    /// Ends the text: what was held back can be shown after all. Empty after a stop.
    pub fn finish(self) -> String {
        self.held
    }

    /// Advances every automaton by one byte; the longest stop string that ends here, as (index, length).
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for stop in &mut self.stops {
            if stop.advance(byte) && found.is_none_or(|(_, length)| stop.bytes.len() > length) {
                found = Some((stop.index, stop.bytes.len()));
            }
        }
        found
    }
}

impl StopString {
    fn new(index: usize, text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for end in 1..bytes.len() {
            while border > 0 && bytes[end] != bytes[border] {
                border = borders[border - 1];
            }
            border += usize::from(bytes[end] == bytes[border]);
            borders[end] = border;
        }
        Self { index, bytes, borders, matched: 0 }
    }

    /// Reads one byte; true when the stop string is complete.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{StopMatcher, Stopped};

    /// The whole text at once, by search: the stop string that ends first, the longest of those.
    fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
        let found = |(index, stop): (usize, &String)| {
            text.find(stop.as_str()).map(|start| (start + stop.len(), start, index))
        };
        let candidates = stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        match candidates.filter_map(found).min() {
            Some((_, start, index)) => (text[..start].to_owned(), Some(index)),
            None => (text.to_owned(), None),
        }
    }

    fn streamed(pieces: &[String], stops: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let mut text = String::new();
        let mut stop = None;
        for piece in pieces {
            let Stopped { text: shown, stop: found } = matcher.push(piece);
            text.push_str(&shown);
            stop = stop.or(found);
        }
        text.push_str(&matcher.finish());
        (text, stop)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn streaming_equals_a_search_of_the_whole(
            pieces in prop::collection::vec("[abä🙂]{0,4}", 0..12),
            stops in prop::collection::vec("[abä🙂]{0,4}", 0..4),
        ) {
            prop_assert_eq!(streamed(&pieces, &stops), naive(&pieces.concat(), &stops));
        }
    }

    #[test]
    fn a_possible_beginning_is_held_back_and_released() {
        let mut matcher = StopMatcher::new(&["\n\nUser:"]);
        assert_eq!(matcher.push("one\n").text, "one");
        assert_eq!(matcher.push("two\n\nUs").text, "\ntwo");
        assert_eq!(matcher.push("age").text, "\n\nUsage");
        assert_eq!(matcher.push("\n\nUser: x"), Stopped { text: String::new(), stop: Some(0) });
        assert_eq!(matcher.push("more"), Stopped { text: String::new(), stop: None });
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn without_stop_strings_nothing_is_held() {
        let mut matcher = StopMatcher::new::<&str>(&[]);
        assert_eq!(matcher.push("as is"), Stopped { text: "as is".to_owned(), stop: None });
    }
}
