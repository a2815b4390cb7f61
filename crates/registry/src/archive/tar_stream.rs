//! A tar as it comes: bytes go in, entries come out, nothing is kept but one block.

use super::format::{BLOCK_BYTES, END_BYTES, EXPORT_AGAIN, Entry, compressed, invalid, padding, read_header};
use crate::RegistryError;

/// Zeros that may follow an archive's end: tools fill up to records of 10 KiB, some to more.
const TRAILING_BYTES_MAX: u64 = 1 << 20;

/// Who wants the entries.
pub(super) trait Visitor {
    /// An entry begins; `header` is its block.
    fn begin(&mut self, entry: &Entry, header: &[u8]) -> Result<(), RegistryError>;

    /// Some of its bytes, in order.
    fn data(&mut self, bytes: &[u8]) -> Result<(), RegistryError>;

    /// All its bytes have come.
    fn end(&mut self) -> Result<(), RegistryError>;
}

/// Where in an archive the next byte belongs.
#[derive(Debug, Default)]
pub(super) struct TarStream {
    position: u64,
    state: State,
    /// Where the entry in work began, or the one before if none is.
    began_at: u64,
    entry: Option<Entry>,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Data { left: u64 },
    Padding { left: u64 },
    End { zeros: u64 },
}

impl Default for State {
    fn default() -> Self {
        Self::Header(Vec::new())
    }
}

impl TarStream {
    /// Bytes that came so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The byte before which everything is certain: where the entry in work, the header or the end mark began.
    pub(super) fn certain(&self) -> u64 {
        match &self.state {
            State::Header(block) if block.is_empty() => self.position,
            _ => self.began_at,
        }
    }

    /// Whether the bytes of an entry's contents come just now, so that who follows them can go on.
    pub(super) fn is_in_entry(&self) -> bool {
        matches!(self.state, State::Data { .. } | State::Padding { .. })
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8], visitor: &mut dyn Visitor) -> Result<(), RegistryError> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, visitor)?;
            self.position += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes some of the next bytes, and says how many.
    fn step(&mut self, bytes: &[u8], visitor: &mut dyn Visitor) -> Result<usize, RegistryError> {
        let at_most = |left: u64| left.min(bytes.len() as u64) as usize;
        match &mut self.state {
            State::Header(block) => {
                if block.is_empty() {
                    self.began_at = self.position;
                }
                let taken = at_most(BLOCK_BYTES - block.len() as u64);
                block.extend_from_slice(&bytes[..taken]);
                if block.len() as u64 == BLOCK_BYTES {
                    // Kept until it was found good, so that `certain` says where it began.
                    let block = block.clone();
                    self.header(&block, visitor)?;
                }
                Ok(taken)
            }
            State::Data { left } => {
                let taken = at_most(*left);
                visitor.data(&bytes[..taken])?;
                *left -= taken as u64;
                if *left == 0 {
                    visitor.end()?;
                    let size = self.entry.map_or(0, |entry| entry.size);
                    self.state = after_data(size);
                }
                Ok(taken)
            }
            State::Padding { left } => {
                let taken = at_most(*left);
                if bytes[..taken].iter().any(|byte| *byte != 0) {
                    let entry = self.entry.map(|entry| entry.name.to_string()).unwrap_or_default();
                    return Err(invalid(entry, "what fills up its last block is not zero", EXPORT_AGAIN));
                }
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::default();
                }
                Ok(taken)
            }
            State::End { zeros } => {
                *zeros += bytes.len() as u64;
                if bytes.iter().any(|byte| *byte != 0) || *zeros > END_BYTES + TRAILING_BYTES_MAX {
                    let place = format!("the end at byte {}", self.began_at);
                    return Err(invalid(place, "something follows behind it", EXPORT_AGAIN));
                }
                Ok(bytes.len())
            }
        }
    }

    fn header(&mut self, block: &[u8], visitor: &mut dyn Visitor) -> Result<(), RegistryError> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End { zeros: BLOCK_BYTES };
            return Ok(());
        }
        let entry = read_header(block, self.began_at)?;
        self.entry = Some(entry);
        visitor.begin(&entry, block)?;
        if entry.size == 0 {
            visitor.end()?;
            self.state = State::default();
        } else {
            self.state = State::Data { left: entry.size };
        }
        Ok(())
    }

    /// Refuses an archive that ended before its end mark.
    pub(super) fn finish(&self) -> Result<(), RegistryError> {
        let position = self.position;
        let (place, problem) = match &self.state {
            State::End { zeros } if *zeros >= END_BYTES => return Ok(()),
            State::Data { left } => {
                let entry = self.entry.map(|entry| entry.name.to_string()).unwrap_or_default();
                (entry, format!("the file ends at byte {position}, {left} bytes before this entry does"))
            }
            State::Header(block) if self.began_at == 0 => {
                if let Some(error) = compressed(block) {
                    return Err(error);
                }
                ("the beginning".to_owned(), format!("the file ends after {position} bytes"))
            }
            _ => ("the end mark".to_owned(), format!("the file ends at byte {position} without it")),
        };
        Err(invalid(place, problem, "the file is cut short: copy it once more"))
    }
}

fn after_data(size: u64) -> State {
    match padding(size) {
        0 => State::default(),
        left => State::Padding { left },
    }
}

#[cfg(test)]
mod tests {
    use helios_types::Digest;

    use super::super::format::{Entry, LAYOUT, Name, header, padding};
    use super::{TarStream, Visitor};
    use crate::RegistryError;

    #[derive(Default)]
    struct Kept(Vec<(Entry, Vec<u8>)>);

    impl Visitor for Kept {
        fn begin(&mut self, entry: &Entry, _: &[u8]) -> Result<(), RegistryError> {
            self.0.push((*entry, Vec::new()));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
            self.0.last_mut().expect("an entry").1.extend_from_slice(bytes);
            Ok(())
        }
        fn end(&mut self) -> Result<(), RegistryError> {
            Ok(())
        }
    }

    fn tar(entries: &[(Name, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, bytes) in entries {
            tar.extend(header(name, bytes.len() as u64).as_bytes());
            tar.extend(*bytes);
            tar.resize(tar.len() + padding(bytes.len() as u64) as usize, 0);
        }
        tar.resize(tar.len() + 1024, 0);
        tar
    }

    #[test]
    fn entries_come_out_whole_however_the_bytes_come() {
        let blob = Name::Blob(Digest::from_bytes([7; 32]));
        let entries: [(Name, &[u8]); 4] =
            [(Name::Layout, LAYOUT), (Name::Index, b""), (blob, &[1; 512]), (blob, &[2; 513])];
        let tar = tar(&entries);
        for piece in [1, 7, 511, 512, 513, tar.len()] {
            let (mut stream, mut kept) = (TarStream::default(), Kept::default());
            for bytes in tar.chunks(piece) {
                assert!(stream.finish().is_err(), "it is not whole yet");
                stream.push(bytes, &mut kept).expect("a tar");
            }
            stream.finish().expect("whole");
            assert_eq!(stream.position(), tar.len() as u64);
            let named: Vec<(Name, &[u8])> =
                kept.0.iter().map(|(entry, bytes)| (entry.name, bytes.as_slice())).collect();
            assert_eq!(named, entries, "in pieces of {piece}");
        }
    }

    #[test]
    fn files_over_8_gib_have_headers_too() {
        let block = header(&Name::Index, 900 << 30);
        let entry = super::read_header(block.as_bytes(), 512).expect("a header");
        assert_eq!(entry, Entry { name: Name::Index, size: 900 << 30 });
    }
}
