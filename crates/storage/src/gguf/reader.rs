//! Reads little-endian fields off the front of a buffer; every read is checked against what is left.

use crate::format::FormatProblem;

/// A position in a file's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], FormatProblem> {
        self.require(length)?;
        let start = self.position;
        self.position += length as usize;
        Ok(&self.bytes[start..self.position])
    }

    /// Fails unless `length` bytes are left.
    pub(super) fn require(&self, length: u64) -> Result<(), FormatProblem> {
        let available = (self.bytes.len() - self.position) as u64;
        if length > available { Err(FormatProblem::Truncated { needed: length, available }) } else { Ok(()) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatProblem> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("invariant: take gives what it was asked for"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatProblem> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatProblem> {
        self.array().map(u64::from_le_bytes)
    }

    /// The number of items that follow: within `min..=max`, and such that items of at least `item_bytes` each fit into
    /// what is left.
    pub(super) fn count(&mut self, min: u64, max: u64, item_bytes: u64) -> Result<usize, FormatProblem> {
        let count = self.u64()?;
        if !(min..=max).contains(&count) {
            return Err(FormatProblem::OutOfRange { count, min, max });
        }
        self.require(count.saturating_mul(item_bytes))?;
        Ok(count as usize)
    }

    /// A length and as much text.
    pub(super) fn string(&mut self) -> Result<&'a str, FormatProblem> {
        let length = self.u64()?;
        str::from_utf8(self.take(length)?)
            .map_err(|error| FormatProblem::InvalidUtf8 { at: error.valid_up_to() })
    }
}
