//! The bytes of one file of a model: one blob, or ranges of several behind each other, none of them copied.

use std::ops::Range;
use std::sync::Arc;

use crate::Blob;

/// A file in parts. Clones share them.
#[derive(Clone, Debug)]
pub struct FileBytes(Arc<[Part]>);

/// A range of a blob, and where it stands in the file.
#[derive(Debug)]
struct Part {
    start: usize,
    blob: Blob,
    range: Range<usize>,
}

impl Part {
    fn end(&self) -> usize {
        self.start + self.range.len()
    }
}

impl From<Blob> for FileBytes {
    fn from(blob: Blob) -> Self {
        let range = 0..blob.len();
        Self(Arc::new([Part { start: 0, blob, range }]))
    }
}

impl FileBytes {
    /// The file of these ranges in this order; each lies inside its blob.
    pub(crate) fn join(ranges: impl IntoIterator<Item = (Blob, Range<usize>)>) -> Self {
        let mut start = 0;
        let place = |(blob, range): (Blob, Range<usize>)| {
            let part = Part { start, blob, range };
            start = part.end();
            part
        };
        Self(ranges.into_iter().map(place).collect())
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, Part::end)
    }

    /// The blobs of its parts, each once.
    pub fn blobs(&self) -> Vec<&Blob> {
        let mut blobs: Vec<&Blob> = Vec::new();
        for part in &*self.0 {
            if !blobs.iter().any(|known| known.is_same(&part.blob)) {
                blobs.push(&part.blob);
            }
        }
        blobs
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first bytes; those of a model file contain its header.
    pub fn head(&self) -> &[u8] {
        self.0.first().map_or(&[], |part| &part.blob[part.range.clone()])
    }

    /// The blob with the file's bytes `range`, and where they are in it; `None` if they are outside the file or not all
    /// in one part. O(log parts).
    pub fn locate(&self, range: Range<usize>) -> Option<(&Blob, Range<usize>)> {
        let part = &self.0[self.first_part(range.start)?];
        let start = part.range.start + (range.start - part.start);
        (range.start <= range.end && range.end <= part.end())
            .then(|| (&part.blob, start..start + range.len()))
    }

    /// The file's bytes `range` as ranges of blobs, in order; what is outside the file is left out.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (&Blob, Range<usize>)> {
        let first = self.first_part(range.start).unwrap_or(self.0.len());
        self.0[first..].iter().take_while(move |part| part.start < range.end).map(move |part| {
            let (start, end) = (range.start.max(part.start), range.end.min(part.end()));
            (&part.blob, part.range.start + (start - part.start)..part.range.start + (end - part.start))
        })
    }

    /// The whole file as one blob: itself if it is one, else a copy in memory.
    pub fn to_blob(&self) -> Blob {
        if let [part] = &*self.0
            && part.range.len() == part.blob.len()
        {
            return part.blob.clone();
        }
        let mut bytes = Vec::with_capacity(self.len());
        for (blob, range) in self.pieces(0..self.len()) {
            bytes.extend_from_slice(&blob[range]);
        }
        Blob::from_vec(bytes)
    }

    /// The part that holds the byte at `at`, or begins there.
    fn first_part(&self, at: usize) -> Option<usize> {
        let behind = self.0.partition_point(|part| part.end() <= at);
        let empty_at_end = behind == self.0.len() && behind > 0 && at == self.len();
        if empty_at_end { Some(behind - 1) } else { (behind < self.0.len()).then_some(behind) }
    }
}

#[cfg(test)]
mod tests {
    use super::FileBytes;
    use crate::Blob;

    #[test]
    fn ranges_are_found_where_they_lie() {
        let (a, b) = (Blob::from_vec(b"abcdef".to_vec()), Blob::from_vec(b"0123".to_vec()));
        let file = FileBytes::join([(a.clone(), 0..2), (b.clone(), 1..4), (a.clone(), 4..6)]);
        assert_eq!((file.len(), file.head()), (7, &b"ab"[..]));
        assert_eq!(&*file.to_blob(), b"ab123ef");
        let found = |range| file.locate(range).map(|(blob, range)| blob[range].to_vec());
        assert_eq!(found(2..5), Some(b"123".to_vec()));
        assert_eq!(found(5..7), Some(b"ef".to_vec()));
        assert_eq!(found(7..7), Some(Vec::new()));
        assert_eq!((found(1..3), found(6..8), found(8..8)), (None, None, None));
        let joined =
            |range| file.pieces(range).flat_map(|(blob, range)| blob[range].to_vec()).collect::<Vec<u8>>();
        assert_eq!(joined(1..6), b"b123e");
        assert_eq!(joined(3..3), b"");
        assert_eq!(&*FileBytes::from(b).to_blob(), b"0123");
    }
}
