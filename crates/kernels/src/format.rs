//! How weights are stored, and a checked view of a stored matrix.

/// Storage format of a weight matrix, in the layouts of safetensors (F32, F16, BF16) and GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 32 elements in 34 bytes: f16 `d`, then signed bytes `q`; `d * q`.
    Q8_0,
    /// 32 elements in 18 bytes: f16 `d`, then nibbles `q`, elements 0 to 15 low and 16 to 31 high; `d * (q - 8)`.
    Q4_0,
    /// 32 elements in 20 bytes: f16 `d`, f16 `m`, then nibbles as in `Q4_0`; `d * q + m`.
    Q4_1,
}

impl Format {
    /// Every format, in declaration order.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Elements that are stored together: a row has a multiple of so many.
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        }
    }

    /// Bytes of a row of `cols` elements; `None` if the row would end inside a block or its size overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_elements()) {
            return None;
        }
        (cols / self.block_elements()).checked_mul(self.block_bytes())
    }
}

/// Why bytes are not a weight matrix of the given shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// A row would end inside a block.
    #[error("{cols} columns do not fill whole {format:?} blocks of {}", format.block_elements())]
    PartialBlock {
        /// The storage format.
        format: Format,
        /// The columns asked for.
        cols: usize,
    },
    /// The bytes are not those of the shape.
    #[error("{rows} x {cols} {format:?} does not take {bytes} bytes")]
    WrongSize {
        /// The storage format.
        format: Format,
        /// The rows asked for.
        rows: usize,
        /// The columns asked for.
        cols: usize,
        /// The bytes given.
        bytes: usize,
    },
}

/// A stored matrix, row-major, viewed in place; the bytes need no alignment.
#[derive(Clone, Copy)]
pub struct WeightMatrix<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> WeightMatrix<'a> {
    /// Views `data` as `[rows, cols]`.
    ///
    /// # Errors
    /// If rows would end inside a block, or `data` is not exactly the matrix.
    pub fn new(format: Format, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, MatrixError> {
        let row_bytes = format.row_bytes(cols).ok_or(MatrixError::PartialBlock { format, cols })?;
        if row_bytes.checked_mul(rows) != Some(data.len()) {
            return Err(MatrixError::WrongSize { format, rows, cols, bytes: data.len() });
        }
        Ok(Self { format, rows, cols, row_bytes, data })
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows: outputs of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.row_bytes..][..self.row_bytes]
    }

    /// Dequantises one row, as an embedding lookup does.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not [`Self::cols`] long.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        crate::dequantise_row(self.format, self.row(row), out);
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, MatrixError, WeightMatrix};

    #[test]
    fn a_matrix_is_exactly_its_bytes() {
        let data = [0; 80];
        assert!(WeightMatrix::new(Format::Q4_1, 2, 64, &data).is_ok());
        assert!(WeightMatrix::new(Format::F16, 8, 5, &data).is_ok());
        let partial = MatrixError::PartialBlock { format: Format::Q4_1, cols: 40 };
        assert_eq!(WeightMatrix::new(Format::Q4_1, 2, 40, &data).err(), Some(partial));
        for (rows, cols) in [(1, 64), (3, 64), (usize::MAX, 64), (2, usize::MAX / 32 * 32)] {
            assert!(WeightMatrix::new(Format::Q4_1, rows, cols, &data).is_err(), "{rows} x {cols}");
        }
    }
}
